"""What every store promises. All methods are synchronous; the server calls them in worker threads.

The promises that matter: a token is redeemed by exactly one of any number of callers; `record` returns only when its
lines would survive a power cut; lines of the log never change or vanish, each carries the hash of the one before it,
and every change of who may have what is logged in the very transaction that makes it; keys, tokens and renewals of a
removed entry find nothing. A store raises StoreUnavailable when it cannot keep a promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ca.chain import Head, Line
from ca.entries import EnrolmentKeyRecord, Entry, JoinTokenRecord
from ca.federation import Partner
from ca.rotation import Rotation
from ca.slots import SlotKind, SlotState
from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain

RevocationKind = Literal["serial", "spiffe_id"]


@dataclass(frozen=True, slots=True)
class Issuance:
    """A certificate as the log has it. Times are seconds since the epoch; `number` is that of its line, from 1 up.

    `proof` is `join_token`, `enrolment_key`, `kubernetes`, `unix`, `renewal`, `expired_svid` or `self`; `proof_detail`
    names the token's hash, the key's id, the selectors that were shown, or the serial of the certificate that was
    renewed, so that every use of a proof can be found (decision D14).
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
    """A signing key's certificate and where it is in its life (`ca.slots`). `sha256` is of the certificate's DER.

    `chain_pem` are the CAs between an issuing CA and its root, nearest first; `root` is the root's `sha256`; `has_key`
    says whether the key is on this machine at all (the root of somebody's own PKI is not).
    """

    sha256: str
    kind: SlotKind
    state: SlotState
    certificate_der: bytes
    created_at: float
    changed_at: float = 0.0
    chain_pem: bytes = b""
    root: str = ""
    has_key: bool = True


@dataclass(frozen=True, slots=True)
class JwtSlot:
    """A key of JWT-SVIDs and where it is in its life (`ca.slots`). `kid` is the SHA-256 of `public_der`, hex."""

    kid: str
    state: SlotState
    public_der: bytes
    created_at: float
    changed_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class JwtIssuance:
    """A token that is about to leave. `serial` is of the certificate that it was asked for with."""

    spiffe_id: str
    entry: str
    audience: tuple[str, ...]
    kid: str
    issued_at: float
    ends_at: float
    serial: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes cluster whose tokens count as proofs; `document` is JSON (`ca.attest.clusters`)."""

    name: str
    document: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Ack:
    """The last message of one topic that the holder of one certificate said it had put to use."""

    spiffe_id: str
    serial: str
    topic: str
    sequence: int
    at: float


@dataclass(frozen=True, slots=True)
class Revocation:
    """What holds no more: one certificate, or a SPIFFE ID with all it has and might get (decision D10).

    `target` is a serial in lower-case hex or a SPIFFE ID; `until`, for a serial, is when its certificate ends anyway.
    """

    kind: RevocationKind
    target: str
    reason: str
    revoked_at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed head of the log (`ca.checkpoints`): `document` is the signed text."""

    number: int
    at: float
    document: str


class Store(Protocol):
    """The CA's memory."""

    # ---- entries and proofs

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

    # ---- the log

    def record(self, issuances: Sequence[Issuance]) -> frozenset[str]:
        """Append certificates to the log, durably: when this returns, the lines are on disk.

        Left out, and returned by serial, are those whose SPIFFE ID is revoked, or which renew a revoked certificate:
        nothing is issued after a revocation, however close the two came.
        """

    def issuance(self, serial: str) -> Issuance | None:
        """The log's line for this certificate serial (lower hex)."""

    def issuances(
        self, limit: int = 100, entry_id: str | None = None, *, spiffe_id: str | None = None, ends_after: float = 0.0
    ) -> tuple[Issuance, ...]:
        """The newest certificates in the log, newest first: of one entry or SPIFFE ID, if given, and not ended yet."""

    def issued_count(self) -> int:
        """How many certificates the log has."""

    def issued_by(self, issuer_serial: str, ends_after: float) -> tuple[int, float, float]:
        """How many certificates of this issuing CA end after this moment, and the first and last of these ends."""

    def live(self, issuer_serial: str, now: float) -> tuple[Issuance, ...]:
        """The certificates of this issuing CA that end after now, oldest first."""

    def lines(self, after: int = 0, limit: int = 1000) -> tuple[Line, ...]:
        """Lines of the log that follow number `after`, oldest first."""

    def head(self) -> Head:
        """Where the log ends."""

    def note(self, at: float, kind: str, **facts: Any) -> None:
        """Append a line of another kind to the log, durably."""

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a signed head. Raises StoreUnavailable where the log has no such line."""

    def checkpoints(self, after: int = 0, limit: int = 1000) -> tuple[Checkpoint, ...]:
        """Signed heads whose number is above `after`, oldest first."""

    def last_checkpoint(self) -> Checkpoint | None:
        """The newest signed head."""

    # ---- signing keys and the bundle

    def add_slot(self, slot: Slot) -> None:
        """Remember a signing key's certificate. A new root is a new bundle sequence.

        Raises SlotTaken where one of its kind is prepared (or active) already.
        """

    def set_slot_state(self, sha256: str, state: SlotState, now: float) -> None:
        """Move a slot on. A root that leaves the bundle is a new bundle sequence, an issuing CA that is revoked a new
        denylist sequence. Raises DamagedCa for a move that is not in `ca.slots.MOVES`.
        """

    def activate_slot(self, sha256: str, now: float) -> None:
        """Let a prepared (or retiring) slot take over; the active one of its kind retires in the same moment."""

    def slots(self) -> tuple[Slot, ...]:
        """Every slot, oldest first."""

    def bundle_sequence(self) -> int:
        """Grows at every change of the set of roots."""

    def rotation(self) -> Rotation | None:
        """The rotation of a root that is under way, or the last one; None before the first."""

    def advance_rotation(
        self, before: Rotation | None, after: Rotation, steps: Sequence[Slot | tuple[str, SlotState]] = ()
    ) -> Rotation:
        """Take a rotation from one phase to the next, adding and moving slots in this order: all of it or nothing.

        Logged. Raises RotationMoved where the rotation is not at `before` any more, SlotTaken, DamagedCa.
        """

    # ---- other trust domains

    def add_partner(self, partner: Partner) -> None:
        """Federate with another trust domain, whose bundle is not known yet. Logged. Raises FederationRefused."""

    def remove_partner(self, trust_domain: TrustDomain, now: float) -> bool:
        """Trust it no longer; a new federation sequence. Logged. False where it was not federated with."""

    def partners(self) -> tuple[Partner, ...]:
        """Every trust domain that we federate with, by name."""

    def accept_bundle(self, before: Partner, bundle: TrustBundle, now: float) -> bool:
        """Take a bundle in the place of the one of `before`. One that differs is logged, and a new sequence.

        False where the partner is not as `before` any more.
        """

    def federation_sequence(self) -> int:
        """Grows at every change of what is federated."""

    # ---- revocation

    def revoke(self, revocation: Revocation) -> bool:
        """Revoke, durably; a new denylist sequence. False where it was revoked already."""

    def unrevoke(self, kind: RevocationKind, target: str, now: float) -> bool:
        """Lift a revocation; a new denylist sequence. False where there was none."""

    def revocation(self, kind: RevocationKind, target: str) -> Revocation | None:
        """The revocation of this serial or SPIFFE ID."""

    def revocations(self, now: float) -> tuple[Revocation, ...]:
        """Every revocation that still matters: of SPIFFE IDs, and of certificates that have not ended by now."""

    def denylist_sequence(self) -> int:
        """Grows at every revocation, and at every one that is lifted."""

    def next_crl_number(self, now: float) -> int:
        """A number that no CRL of ours has had, higher than all that had one (RFC 5280 section 5.2.3)."""

    # ---- tokens, and whose tokens we believe

    def add_jwt_key(self, key: JwtSlot) -> None:
        """Remember a key of JWT-SVIDs; a new bundle sequence. Raises SlotTaken where one is in its state already."""

    def set_jwt_key_state(self, kid: str, state: SlotState, now: float) -> None:
        """Move a key on; one that leaves the bundle is a new bundle sequence. Raises DamagedCa, as set_slot_state."""

    def activate_jwt_key(self, kid: str, now: float) -> None:
        """Let a prepared key take over; the active one retires in the same moment."""

    def jwt_keys(self) -> tuple[JwtSlot, ...]:
        """Every key of JWT-SVIDs, oldest first."""

    def record_jwt(self, token: JwtIssuance) -> bool:
        """Append a token to the log, durably. False where its identity or certificate is revoked: nothing is kept."""

    def add_cluster(self, cluster: Cluster) -> None:
        """Believe a cluster's tokens from now on. Raises InvalidEntry where its name is taken."""

    def remove_cluster(self, name: str, now: float) -> bool:
        """Believe them no more. False where it was unknown."""

    def clusters(self) -> tuple[Cluster, ...]:
        """The clusters, by name."""

    # ---- acknowledgements, health, copies

    def acknowledge(self, acks: Iterable[Ack]) -> None:
        """Remember acknowledgements. These may be lost in a power cut: the next watch repeats them."""

    def acks(self) -> tuple[Ack, ...]:
        """The latest acknowledgement for each certificate and topic."""

    def check_writable(self, now: float, room: int = 0) -> None:
        """Write something, and so many bytes besides, and forget it. Raises StoreUnavailable."""

    def copy_to(self, path: Path) -> None:
        """A copy of everything as of one moment, in one new file (0600), while others read and write."""

    def begin_again(self, now: float) -> int:
        """After a restore: sequences jump past all that was told since the copy, and no join token is worth anything
        (one may have been spent since). Returns how many tokens that were. Logged.
        """

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
