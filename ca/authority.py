"""The one way to a certificate: attest → entry → template → validate → sign → record, in that order, for everyone.

The last look (`validate`) comes after the signature, since only the finished bytes can be judged. A certificate leaves
this file only after its line in the issuance log is on disk; if the line cannot be written, the certificate is dropped.
Proofs that can be spent are spent just before the signature, when nothing else is left that could refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.attest import enrolment_key, expired, join_token, socket_peer, svid
from ca.attest.kubernetes import Kubernetes
from ca.attest.proof import Attested, ExpiredProof, KeyProof, KubernetesProof, Proof, SocketProof, TokenProof
from ca.bucket import Bucket
from ca.entries import DEFAULT_TTL
from ca.errors import IssuerUnusable, Revoked, TooManyIssuances
from ca.jwt_keys import JwtKeys
from ca.revocation import SignedDenylist
from ca.signers import Issuer
from ca.store.base import Issuance, JwtIssuance
from ca.store.threads import StoreThreads
from ca.template import SERIAL_BYTES, Template, draw_up, sign
from ca.validate import check_signed
from certs.bundle import BundleSet, root_hash
from certs.csr import parse_csr
from certs.jwt_svid import LIFETIME, check_audience, make_jwt_svid
from certs.keys import PrivateKey, PublicKey
from certs.source import Source
from certs.spiffe import SpiffeId, TrustDomain, ca_id
from certs.svid import X509Svid
from sidecar.net.clock import Clock

OWN_ENTRY = ""  # the CA's own certificates belong to no entry, so nothing can renew them from outside


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was recorded and may leave. `chain_pem` is leaf, issuing CA, and so on without the root."""

    chain_pem: bytes
    leaf: x509.Certificate
    spiffe_id: SpiffeId
    entry: str


class Authority:
    """Decides who gets an identity, and signs it."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        issuer: Issuer,
        store: StoreThreads,
        bundles: Source[BundleSet],
        clock: Clock,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
        bucket: Bucket | None = None,
        denylists: Source[SignedDenylist] | None = None,
        jwt_keys: JwtKeys | None = None,
        jwt_ttl: float = LIFETIME,
    ) -> None:
        self.trust_domain = trust_domain
        self.issuer = issuer
        self._store = store
        self._bundles = bundles
        self._clock = clock
        self._entropy = entropy
        self._bucket = bucket or Bucket()
        self._denylists = denylists
        self._jwt_keys = jwt_keys
        self._jwt_ttl = jwt_ttl
        self._jwt_bucket = Bucket()  # of its own: tokens never keep anybody from a certificate
        self._challenges = enrolment_key.Challenges(entropy(32))
        self._kubernetes = Kubernetes(clock)

    def challenge(self, entry: str) -> enrolment_key.Challenge:
        """A nonce for an enrolment key to sign, for any name of an entry."""
        return self._challenges.issue(entry, self._clock.wall(), self._entropy(enrolment_key.SALT_BYTES))

    async def enrol(self, csr_der: bytes, proof: Proof) -> Issued:
        """A first certificate.

        Raises InvalidCsr, ProofRefused, TokenUsed, Revoked, TooManyIssuances, IssuerUnusable, StoreUnavailable,
        OutsideUnavailable.
        """
        csr = parse_csr(csr_der)
        return await self._issue(csr.public_key, await self._attest(proof, csr_der))

    async def _attest(self, proof: Proof, csr_der: bytes) -> Attested:
        now, store = self._clock.wall(), self._store
        match proof:
            case TokenProof():
                return await join_token.attest(store, proof, now)
            case KeyProof():
                return await enrolment_key.attest(store, self._challenges, self.trust_domain, proof, csr_der, now)
            case KubernetesProof():
                return await self._kubernetes.attest(store, proof, now)
            case SocketProof():
                return await socket_peer.attest(store, proof)
            case ExpiredProof():
                attested, (serial, *issuers) = await expired.attest(
                    store, self._challenges, self.trust_domain, self._bundles.current, proof, csr_der, now
                )
                if (revoked := self.why_revoked(attested.entry.spiffe_id, serial, issuers)) is not None:
                    raise revoked
                return attested

    async def renew(self, csr_der: bytes, chain: svid.Chain) -> Issued:
        """The next certificate for whoever shows the current one. Raises RenewalRefused, and otherwise as `enrol`."""
        csr, now = parse_csr(csr_der), self._clock.wall()
        attested = await svid.attest(self._store, self._bundles.current, chain, now)
        serial, *issuers = (f"{one.serial_number:x}" for one in chain)
        if (revoked := self.why_revoked(attested.entry.spiffe_id, serial, issuers)) is not None:
            raise revoked
        return await self._issue(csr.public_key, attested)

    def why_revoked(self, spiffe_id: SpiffeId, serial: str = "", issuers: Iterable[str] = ()) -> Revoked | None:
        """The refusal for whoever is on the denylist.

        The list in force is a second old at most; that nothing is issued after a revocation is the store's promise.
        """
        if self._denylists is None or not self._denylists.number:
            return None
        match self._denylists.current.denylist.denies(spiffe_id, serial, issuers):
            case None:
                return None
            case "spiffe_id":
                return Revoked(f"{spiffe_id} is revoked: nothing is issued to it before `mesh certs unrevoke`")
            case "serial":
                return Revoked(f"certificate {serial} of {spiffe_id} is revoked. Make a new key and enrol again")
            case "issuer":
                return Revoked(f"the issuing CA of certificate {serial} is revoked. Make a new key and enrol again")

    async def issue_jwt(self, audience: object, chain: svid.Chain) -> str:
        """A JWT-SVID for whoever shows this certificate, for these audiences.

        Raises InvalidJwt (the audience), RenewalRefused, Revoked, TooManyIssuances, IssuerUnusable, StoreUnavailable.
        """
        wanted, now = check_audience(audience), self._clock.wall()
        attested = await svid.attest(self._store, self._bundles.current, chain, now)
        serial, *issuers = (f"{one.serial_number:x}" for one in chain)
        identity = attested.entry.spiffe_id
        if (revoked := self.why_revoked(identity, serial, issuers)) is not None:
            raise revoked
        if (wait := self._jwt_bucket.take(self._clock.monotonic())) > 0:
            raise TooManyIssuances(wait)
        if self._jwt_keys is None:
            raise IssuerUnusable("this CA signs no JWT-SVIDs")
        signer = await self._store.call(self._jwt_keys.signer, now)
        lifetime = min(self._jwt_ttl, signer.ends_at - now)
        token = make_jwt_svid(identity, wanted, signer.kid, signer.key, now, lifetime)
        ends = float(int(now + lifetime))
        issuance = JwtIssuance(identity.text, attested.entry.id, wanted, signer.kid, now, ends, serial)
        if not await self._store.call(self._store.store.record_jwt, issuance):
            raise Revoked(f"{identity} was revoked while its token was being made")
        return token

    async def issue_own(self, key: PrivateKey, ttl: float = DEFAULT_TTL) -> X509Svid:
        """The certificate under which the CA itself serves, recorded like any other. Raises as `enrol`."""
        issuer = self.issuer
        template = self._draw_up(issuer, ca_id(self.trust_domain), (), ttl, key.public_key())
        issued = await self._sign_and_record(issuer, template, OWN_ENTRY, "self", "")
        return X509Svid.parse(issued.chain_pem, key)

    async def _issue(self, public_key: PublicKey, attested: Attested) -> Issued:
        wait = self._bucket.take(self._clock.monotonic())
        if wait > 0:
            raise TooManyIssuances(wait)
        entry, issuer = attested.entry, self.issuer  # another issuing CA may take over while we wait below
        if (revoked := self.why_revoked(entry.spiffe_id)) is not None:
            raise revoked
        template = self._draw_up(issuer, entry.spiffe_id, entry.dns_names, entry.ttl, public_key)
        await attested.settle()
        return await self._sign_and_record(issuer, template, entry.id, attested.proof, attested.detail)

    async def _sign_and_record(
        self, issuer: Issuer, template: Template, entry: str, proof: str, detail: str
    ) -> Issued:
        leaf = sign(template, issuer.certificate, issuer.key)
        check_signed(leaf, template, issuer.certificate)
        await self._store.record(
            Issuance(
                serial=f"{template.serial:x}",
                entry=entry,
                spiffe_id=template.spiffe_id.text,
                dns_names=template.dns_names,
                not_before=template.not_before,
                not_after=template.not_after,
                issued_at=self._clock.wall(),
                proof=proof,
                proof_detail=detail,
                issuer_serial=issuer.serial,
                certificate_sha256=root_hash(leaf),
            )
        )
        chain = b"".join(item.public_bytes(Encoding.PEM) for item in (leaf, *issuer.signers[:-1]))
        return Issued(chain, leaf, template.spiffe_id, entry)

    def _draw_up(
        self, issuer: Issuer, identity: SpiffeId, dns_names: tuple[str, ...], ttl: float, public_key: PublicKey
    ) -> Template:
        serial = self._entropy(SERIAL_BYTES)
        return draw_up(identity, dns_names, ttl, public_key, issuer.signers, self._clock.wall(), serial)
