"""What every store promises. All methods are synchronous; the server calls them in worker threads.

The promises that matter: a token is redeemed by exactly one of any number of callers; `record` returns only when its
rows would survive a power cut; rows of the log never change or vanish; keys, tokens and renewals of a removed entry
find nothing. A store raises StoreUnavailable when it cannot keep a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ca.entries import EnrolmentKeyRecord, Entry, JoinTokenRecord

SlotKind = Literal["root", "issuer"]
SlotState = Literal["prepared", "active", "retiring", "gone"]
IN_BUNDLE: frozenset[SlotState] = frozenset({"prepared", "active", "retiring"})
MOVES: dict[SlotState, frozenset[SlotState]] = {
    "prepared": frozenset({"active", "gone"}),
    "active": frozenset({"retiring"}),
    "retiring": frozenset({"gone", "active"}),  # back to active: a rotation that is rolled back
    "gone": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Issuance:
    """One line of the issuance log. Times are seconds since the epoch; `number` is given by the store, from 1 up.

    `proof` is `join_token`, `enrolment_key`, `renewal` or `self`; `proof_detail` names the token's hash, the key's id
    or the serial of the certificate that was renewed, so that every use of a proof can be found (decision D14).
    """

    serial: str
    entry: str
    spiffe_id: str
    dns_names: tuple[str, ...]
    not_before: float
    not_after: float
    issued_at: float
    proof: str
    proof_detail: str
    issuer_serial: str
    certificate_sha256: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """A signing key's place in its life: prepared → active → retiring → gone. `sha256` is of the DER."""

    sha256: str
    kind: SlotKind
    state: SlotState
    certificate_der: bytes
    created_at: float


@dataclass(frozen=True, slots=True)
class Ack:
    """The last message of one topic that the holder of one certificate said it had put to use."""

    spiffe_id: str
    serial: str
    topic: str
    sequence: int
    at: float


class Store(Protocol):
    """The CA's memory."""

    def add_entry(self, entry: Entry) -> None:
        """Remember a new entry. Raises InvalidEntry where its SPIFFE ID is registered, or its id was ever used."""

    def entry(self, entry_id: str) -> Entry | None:
        """The live entry with this id."""

    def entries(self) -> tuple[Entry, ...]:
        """All live entries, oldest first."""

    def remove_entry(self, entry_id: str, now: float) -> bool:
        """End an entry; its keys and tokens are worth nothing from here on. False if it was not live."""

    def add_key(self, key: EnrolmentKeyRecord) -> None:
        """Register an enrolment key for a live entry. Raises UnknownEntry, or InvalidEntry if the key is known."""

    def keys(self, entry_id: str) -> tuple[EnrolmentKeyRecord, ...]:
        """The keys of a live entry, revoked ones too."""

    def revoke_key(self, entry_id: str, key_id: str, now: float) -> bool:
        """Make a key worth nothing. False if the entry has no such live key."""

    def add_token(self, token: JoinTokenRecord) -> None:
        """Register a join token for a live entry. Raises UnknownEntry."""

    def token(self, token_sha256: str) -> JoinTokenRecord | None:
        """The token with this hash, used or expired ones too, if its entry is live."""

    def redeem_token(self, token_sha256: str, key: EnrolmentKeyRecord, now: float) -> None:
        """Spend a token and register `key` for its entry, both or neither. Raises TokenUsed or ProofRefused."""

    def record(self, issuances: Sequence[Issuance]) -> None:
        """Append to the log, durably: when this returns, the rows are on disk."""

    def issuance(self, serial: str) -> Issuance | None:
        """The log's line for this certificate serial (lower hex)."""

    def issuances(self, limit: int = 100, entry_id: str | None = None) -> tuple[Issuance, ...]:
        """The newest lines of the log, newest first."""

    def add_slot(self, slot: Slot) -> None:
        """Remember a signing key's certificate. A new root is a new bundle sequence."""

    def set_slot_state(self, sha256: str, state: SlotState) -> None:
        """Move a slot on. A root that leaves the bundle is a new sequence. Raises DamagedCa for a move not in MOVES."""

    def activate_slot(self, sha256: str) -> None:
        """Let a prepared (or retiring) slot take over; the active one of its kind retires in the same moment."""

    def slots(self) -> tuple[Slot, ...]:
        """Every slot, oldest first."""

    def bundle_sequence(self) -> int:
        """Grows at every change of the set of roots."""

    def acknowledge(self, acks: Sequence[Ack]) -> None:
        """Remember acknowledgements. These may be lost in a power cut: the next watch repeats them."""

    def acks(self) -> tuple[Ack, ...]:
        """The latest acknowledgement for each certificate and topic."""

    def check_writable(self, now: float, room: int = 0) -> None:
        """Write something, and so many bytes besides, and forget it. Raises StoreUnavailable."""

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
