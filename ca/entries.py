"""Registration entries: who may exist in this trust domain. They fix SPIFFE ID, DNS names and lifetime (D14, D19).

A CSR never adds to what its entry says. Ids of entries are never used twice, so a certificate, token or key that
belonged to a removed entry is worth nothing to a later one with the same SPIFFE ID.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ca.durations import DAY, HOUR, format_duration
from ca.errors import InvalidEntry, UnknownEntry
from ca.selectors import check_selectors
from certs.errors import InvalidSpiffeId
from certs.spiffe import SpiffeId, TrustDomain, workload_id

DEFAULT_TTL = 24 * HOUR  # semantics S5: Istio, ztunnel, Linkerd and step-ca agree on 24 h
MAX_TTL = 7 * DAY  # decision D17: seven days can be set per entry, for opaque TCP that must not be cut daily
MIN_TTL = 20.0  # two renewals, which are never within 10 s of each other (D17); tests scale time down to this
JOIN_TOKEN_TTL = HOUR
MAX_JOIN_TOKEN_TTL = 7 * DAY
MAX_EXPIRED = 7 * DAY
MAX_DNS_NAMES = 64
DEFAULT_NAMESPACE = "default"

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)  # RFC 1123 section 2.1
_SLUG = re.compile(r"[^a-z0-9-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What an operator says of a workload. `ttl` is the lifetime of its certificates in seconds."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...] = ()
    ttl: float = DEFAULT_TTL
    selectors: tuple[str, ...] = ()
    expired_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A live registration entry. `created_at` is seconds since the epoch."""

    id: str
    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    ttl: float
    created_at: float
    selectors: tuple[str, ...] = ()
    """What a proof that yields selectors has to yield, all of it (`ca.selectors`); empty where none will do."""

    expired_for: float = 0.0
    """How long after its end, in seconds, a certificate still proves who asks for the next one."""


@dataclass(frozen=True, slots=True)
class EnrolmentKeyRecord:
    """The public half of an enrolment key. `key_id` is the SHA-256 of its 32 bytes, hex; revoked keys prove nothing."""

    key_id: str
    entry: str
    public_bytes: bytes
    created_at: float
    revoked_at: float | None = None
    origin: str = "operator"
    """`operator`, or `join_token` where a sidecar exchanged its token for this key."""


@dataclass(frozen=True, slots=True)
class JoinTokenRecord:
    """A join token at rest: only its SHA-256. `used_at` is None until its one use."""

    token_sha256: str
    entry: str
    created_at: float
    expires_at: float
    used_at: float | None = None


def check_entry(new: NewEntry, trust_domain: TrustDomain) -> NewEntry:
    """The entry as it is, or InvalidEntry saying which rule it breaks."""
    identity = new.spiffe_id
    if identity.trust_domain != trust_domain:
        raise InvalidEntry(f"{identity} is not in this CA's trust domain {trust_domain}")
    if not identity.path:
        raise InvalidEntry(f"{identity} names the trust domain itself; a workload needs a path")
    if identity.segments[0] == "mesh":
        raise InvalidEntry(f"{identity}: /mesh/… is reserved for the mesh itself (the CA serves as /mesh/ca)")
    if not (math.isfinite(new.ttl) and MIN_TTL <= new.ttl <= MAX_TTL):
        lifetime = format_duration(new.ttl) if math.isfinite(new.ttl) else str(new.ttl)
        raise InvalidEntry(f"lifetime {lifetime}: {format_duration(MIN_TTL)} to {format_duration(MAX_TTL)} are allowed")
    if len(new.dns_names) > MAX_DNS_NAMES:
        raise InvalidEntry(f"{len(new.dns_names)} DNS names; at most {MAX_DNS_NAMES} are allowed")
    if len(set(new.dns_names)) != len(new.dns_names):
        raise InvalidEntry("a DNS name is given twice")
    for name in new.dns_names:
        check_dns_name(name)
    if not (math.isfinite(new.expired_for) and 0 <= new.expired_for <= MAX_EXPIRED):
        raise InvalidEntry("an expired certificate may be accepted for at most 7d after its end")
    check_selectors(new.selectors)
    return new


def check_dns_name(name: str) -> str:
    """A lower-case DNS name as it is, or InvalidEntry. No wildcards, no addresses, no trailing dot."""
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise InvalidEntry(f"DNS name {name[:80]!r}: lower-case labels of letters, digits and hyphens, joined by dots")
    if labels[-1].isdigit():
        raise InvalidEntry(f"DNS name {name!r} reads as an IP address")
    return name


def parse_identity(text: str, trust_domain: TrustDomain) -> SpiffeId:
    """Read `orders`, `shop/orders` or a whole SPIFFE ID (decision D2). Raises InvalidEntry."""
    try:
        if text.startswith("spiffe://"):
            return SpiffeId.parse(text)
        namespace, slash, service = text.rpartition("/")
        return workload_id(trust_domain, namespace if slash else DEFAULT_NAMESPACE, service)
    except InvalidSpiffeId as error:
        raise InvalidEntry(str(error)) from None


def entry_id(spiffe_id: SpiffeId, salt: bytes) -> str:
    """An id for people to read and never to see twice: the service and eight random hex digits."""
    slug = _SLUG.sub("-", spiffe_id.short.lower()).strip("-")[:40] or "entry"
    return f"{slug}-{salt[:4].hex()}"


def find_entry(name: str, entries: Iterable[Entry], trust_domain: TrustDomain) -> Entry:
    """The live entry with this id, SPIFFE ID, or service name. Raises UnknownEntry or InvalidEntry."""
    known = list(entries)
    for entry in known:
        if entry.id == name:
            return entry
    wanted = parse_identity(name, trust_domain)
    for entry in known:
        if entry.spiffe_id == wanted:
            return entry
    near = difflib.get_close_matches(name, [entry.spiffe_id.short for entry in known], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UnknownEntry(f"no entry {name!r}; {meant}add one with `mesh ca entry add {name}` or see `mesh ca entry list`")
