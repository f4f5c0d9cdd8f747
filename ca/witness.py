"""The CA as a witness of audits: heads that sidecars have signed, as lines of its own log (`certs.audit_heads`).

A line `audit_head` has the head as its sidecar signed it, and the CA's time; the chain and the checkpoints of the log
vouch for both. The signer's certificates stand in the first of its lines since the CA began to serve; later ones name
it by SHA-256.

Bounded: a service has sixty heads at once (an hour that it had to wait for the CA), and then two a minute.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.bucket import Bucket
from ca.errors import BadRequest, RenewalRefused, TooManyIssuances
from ca.roots import certificate_of, chain_of
from ca.signers import Issuer
from ca.store.base import Store
from ca.store.threads import StoreThreads
from certs.audit_heads import FILE_KIND, Witnessed, open_head, witness_file
from certs.bundle import BundleSet, root_hash
from certs.signed import InvalidStatement, Statement
from certs.source import Source
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import parse_certificate
from sidecar.net.clock import Clock

LINE = "audit_head"
PER_SECOND, BURST = 1 / 30, 60.0
MAX_AT_ONCE = 20  # heads in one request; they are 40 KiB
MAX_AHEAD = 300.0  # seconds that a sidecar's clock may be before ours
_MAX_SERVICES = 100_000  # buckets and signers that are remembered
_PAGE = 2000


class Witness:
    """Takes heads into the log."""

    def __init__(self, store: StoreThreads, bundles: Source[BundleSet], clock: Clock) -> None:
        self._store = store
        self._bundles = bundles
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._written: OrderedDict[str, None] = OrderedDict()  # signers whose certificates the log has from this life

    async def take(self, document: dict[str, Any], caller: SpiffeId) -> int:
        """Write the heads of this request, all by `caller` itself; how many. Raises BadRequest, RenewalRefused,
        TooManyIssuances, StoreUnavailable.
        """
        heads = document.get("heads")
        if not isinstance(heads, list) or not 1 <= len(heads) <= MAX_AT_ONCE:
            raise BadRequest(f"`heads` must be a list of 1 to {MAX_AT_ONCE} signed heads")
        bucket = self._bucket(caller)
        taken = 0
        for each in heads:
            wait = bucket.take(self._clock.monotonic())
            if wait and not taken:
                raise TooManyIssuances(wait, "a service has two heads of its audit witnessed a minute")
            if wait:
                break
            await self._take_one(each, caller)
            taken += 1
        return taken

    async def _take_one(self, document: object, caller: SpiffeId) -> None:
        now = self._clock.wall()
        try:
            statement = Statement.parse(document)
            head = open_head(statement, self._bundles.current)
        except InvalidStatement as error:
            raise BadRequest(f"a head cannot be believed: {error}") from None
        if head.service != caller:
            raise RenewalRefused(f"{caller} sends a head of {head.service}")
        if head.at > now + MAX_AHEAD:
            raise BadRequest(f"a head is signed {head.at - now:.0f} s in the future; check the clock")
        by = root_hash(statement.signer[0])
        facts: dict[str, Any] = {"of": caller.text, "payload": statement.payload.decode(), "by": by}
        facts["signature"] = base64.b64encode(statement.signature).decode("ascii")
        if by not in self._written:
            facts["signer"] = [
                base64.b64encode(one.public_bytes(Encoding.DER)).decode("ascii") for one in statement.signer
            ]
        await self._store.call(self._store.store.note, now, LINE, **facts)
        _remember(self._written, by, None)

    def _bucket(self, caller: SpiffeId) -> Bucket:
        bucket = self._buckets.get(caller.text)
        if bucket is None:
            bucket = Bucket(PER_SECOND, BURST)
        _remember(self._buckets, caller.text, bucket)
        return bucket


def _remember(kept: OrderedDict[str, Any], name: str, value: object) -> None:
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > _MAX_SERVICES:
        kept.popitem(last=False)


def witnessed(store: Store, of: str | None = None) -> Iterator[Witnessed]:
    """The heads in the log, oldest first: of this SPIFFE ID, or of all. Blocks on disk; reads the whole log."""
    signers: dict[str, tuple[x509.Certificate, ...]] = {}
    after = 0
    while page := store.lines(after, _PAGE):
        for line in page:
            if f'"kind":"{LINE}"' not in line.text:
                continue
            facts = line.facts
            if facts["kind"] != LINE:
                continue
            if "signer" in facts:
                signers[facts["by"]] = tuple(parse_certificate(base64.b64decode(one)) for one in facts["signer"])
            if of is None or facts["of"] == of:
                signature = base64.b64decode(facts["signature"])
                statement = Statement(facts["payload"].encode(), signature, signers[facts["by"]])
                yield Witnessed(statement, line.number, facts["at"])
        after = page[-1].number


def export(
    store: Store, trust_domain: TrustDomain, issuer: Issuer, of: str | None, now: float
) -> Statement:
    """The witnessed heads as a file that is signed by the issuing CA."""
    slots = store.slots()
    roots = [certificate_of(slot) for slot in slots if slot.kind == "root"]
    by = root_hash(issuer.certificate)
    chain = next((chain_of(slot) for slot in slots if slot.sha256 == by), ())
    payload = witness_file(trust_domain, roots, witnessed(store, of), now)
    return Statement.sign(FILE_KIND, payload, issuer.key, (issuer.certificate, *chain))
