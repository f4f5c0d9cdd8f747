"""Where the CA stands besides its chain: rotation, other trust domains, keys of tokens, denylist, log. For health,
metrics and `mesh ca status`. Read from the store in one go (blocks on disk); counts and times, no SPIFFE IDs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ca.durations import DAY, format_duration
from ca.live import live_leaves
from ca.rotation import Phase, waited_for
from ca.store.base import JwtSlot, Store
from certs.spiffe import TrustDomain

JWT_KEY_WARNING = 2 * DAY  # long after the successor of a key of 30 days should have taken over


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key of JWT-SVIDs that is in the bundle. `ends_at` is in seconds since the epoch."""

    kid: str
    state: str
    ends_at: float


@dataclass(frozen=True, slots=True)
class PartnerStanding:
    """Another trust domain: its bundle's sequence (None before the first), and when it was last found good.

    `problem` is why the last try of its endpoint failed, empty where it did not, or is not known here.
    """

    trust_domain: str
    sequence: int | None
    accepted_at: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """All of it at one moment. Times are in seconds since the epoch."""

    phase: Phase | None
    """Of a root's rotation that is under way; None while there is none."""

    phase_since: float
    laggards: int
    """How many live certificates the phase waits for."""

    watches: int
    """How many sidecars are connected."""

    entries: int
    denied: int
    denylist_sequence: int
    federation_sequence: int
    log_lines: int
    log_signed: int
    """The last line of the log under a signed head."""

    jwt_keys: tuple[TokenKey, ...] = ()
    partners: tuple[PartnerStanding, ...] = ()


def standing(store: Store, now: float, problems: Mapping[TrustDomain, str] | None = None) -> Standing:
    """Where the CA stands. `problems` are those of `Federator`. Raises StoreUnavailable."""
    rotation, last, known = store.rotation(), store.last_checkpoint(), problems or {}
    under_way = rotation is not None and rotation.under_way
    laggards = (
        sum(not one.skipped for one in waited_for(rotation, live_leaves(store, now), store.bundle_sequence()))
        if rotation is not None and under_way
        else 0
    )
    return Standing(
        phase=rotation.phase if rotation is not None and under_way else None,
        phase_since=rotation.since if rotation is not None and under_way else 0.0,
        laggards=laggards,
        watches=sum(ack.topic == "watch" and ack.sequence == 1 for ack in store.acks()),
        entries=len(store.entries()),
        denied=len(store.revocations(now)),
        denylist_sequence=store.denylist_sequence(),
        federation_sequence=store.federation_sequence(),
        log_lines=store.head().number,
        log_signed=0 if last is None else last.number,
        jwt_keys=token_keys(store.jwt_keys()),
        partners=tuple(
            PartnerStanding(
                one.trust_domain.name,
                None if one.bundle is None else one.bundle.sequence,
                one.accepted_at,
                known.get(one.trust_domain, ""),
            )
            for one in store.partners()
        ),
    )


def token_keys(slots: Iterable[JwtSlot]) -> tuple[TokenKey, ...]:
    """The keys of JWT-SVIDs that verifiers may need, oldest first."""
    live = ("prepared", "active", "retiring")
    return tuple(TokenKey(slot.kid, slot.state, slot.ends_at) for slot in slots if slot.state in live)


def token_key_warnings(keys: Iterable[TokenKey], now: float) -> Iterator[str]:
    """What an operator should hear of the keys of JWT-SVIDs."""
    active = next((key for key in keys if key.state == "active"), None)
    if active is None or active.ends_at <= now:
        yield "NO KEY OF JWT-SVIDs can sign: `mesh ca serve` makes one within the minute; its log says what keeps it"
    elif active.ends_at - now < JWT_KEY_WARNING:
        left = format_duration(active.ends_at - now)
        yield f"the key of JWT-SVIDs ends in {left} and none has taken over: `mesh ca renew-jwt-key`"


def token_key_lines(keys: Iterable[TokenKey], now: float) -> Iterator[str]:
    """The keys of JWT-SVIDs for people, one line for all of them."""
    words = [f"{key.kid[:12]} {key.state}, {_left(key.ends_at - now)}" for key in keys]
    yield "keys of JWT-SVIDs: " + ("; ".join(words) or "none yet; `mesh ca serve` makes the first")


def _left(seconds: float) -> str:
    return f"{format_duration(seconds)} left" if seconds > 0 else "ENDED"
