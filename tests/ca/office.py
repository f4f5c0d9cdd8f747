"""A whole CA in memory for tests: `open_office()`; its clock stands still until it is moved."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.attest.proof import KeyProof, TokenProof
from ca.authority import Authority, Issued
from ca.enrolling import grant_key, grant_token, register
from ca.entries import DEFAULT_TTL, Entry, NewEntry, parse_identity
from ca.errors import StoreUnavailable
from ca.roots import load_bundle, slot_of
from ca.signers import Issuer, make_issuer, make_root
from ca.store.base import Issuance
from ca.store.sqlite import SqliteStore
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet
from certs.csr import make_csr
from certs.enrolment import EnrolmentKey, JoinToken
from certs.keys import new_key
from certs.source import Source
from certs.spiffe import TrustDomain

DEMO = TrustDomain.parse("demo.mesh")
NOW = 1_800_000_000.0
DAY = 86400.0
ADDRESS = "127.0.0.1:17012"


@dataclass
class HandClock:
    """A clock that only tests move."""

    now: float = NOW

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def an_issuer(now: float = NOW, root_ttl: float = 3650 * DAY, issuer_ttl: float = 30 * DAY) -> Issuer:
    """A fresh root and issuing CA."""
    root_key, key = new_key(), new_key()
    root = make_root(DEMO, root_key, now, root_ttl)
    return Issuer(make_issuer(DEMO, key, root, root_key, now, issuer_ttl), key, root)


class FlakyStore(SqliteStore):
    """A store whose log can be made to fail, and which remembers how many lines each commit held."""

    broken = False

    def __init__(self) -> None:
        super().__init__(None)
        self.commits: list[int] = []

    def record(self, issuances: Sequence[Issuance]) -> frozenset[str]:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        refused = super().record(issuances)
        self.commits.append(len(issuances))
        return refused


@dataclass
class Office:
    """A CA, its parts at hand."""

    clock: HandClock
    issuer: Issuer
    store: FlakyStore
    threads: StoreThreads
    bundles: Source[BundleSet]
    authority: Authority
    csr: bytes = field(default_factory=lambda: make_csr(new_key()))

    def entry(self, name: str = "orders", *dns: str, ttl: float = DEFAULT_TTL) -> Entry:
        """A registered entry."""
        return register(self.store, DEMO, NewEntry(parse_identity(name, DEMO), dns, ttl), self.clock.now)

    def token(self, entry: Entry, ttl: float = 3600.0) -> TokenProof:
        """A join token for it, with the key that it is exchanged for."""
        proof = grant_token(self.store, entry, ADDRESS, self.clock.now, ttl).proof
        assert isinstance(proof, JoinToken)
        return TokenProof(proof.token, EnrolmentKey.generate().public_bytes)

    def key(self, entry: Entry) -> EnrolmentKey:
        """A registered enrolment key for it."""
        proof = grant_key(self.store, entry, ADDRESS, self.clock.now).proof
        assert isinstance(proof, EnrolmentKey)
        return proof

    def answer(self, entry: str, key: EnrolmentKey, csr: bytes | None = None) -> KeyProof:
        """A fresh challenge, answered."""
        nonce = self.authority.challenge(entry).nonce
        return KeyProof(entry, nonce, key.sign(DEMO, entry, nonce, csr or self.csr))

    async def issue(self, entry: Entry) -> Issued:
        """A certificate for this entry."""
        return await self.authority.enrol(self.csr, self.answer(entry.id, self.key(entry)))

    def chain(self, issued: Issued) -> tuple[x509.Certificate, ...]:
        """What the holder shows in a handshake."""
        return tuple(x509.load_pem_x509_certificates(issued.chain_pem))


def open_office(issuer: Issuer | None = None, **options: Any) -> Office:
    """A fresh CA in memory."""
    clock, store = HandClock(), FlakyStore()
    issuer = issuer or an_issuer()
    store.add_slot(slot_of(issuer.root, "root", clock.now))
    store.add_slot(slot_of(issuer.certificate, "issuer", clock.now, root=sha256(issuer.root)))
    threads, bundles = StoreThreads(store), Source[BundleSet]("bundle")
    bundles.publish(BundleSet((load_bundle(store, DEMO),)))
    authority = Authority(DEMO, issuer, threads, bundles, clock, **options)
    return Office(clock, issuer, store, threads, bundles, authority)


def sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER, hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
