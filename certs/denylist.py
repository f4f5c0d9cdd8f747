"""The denylist: what holds no more although its time has not come (decision D10), as a value and as a signed message.

It is a topic of the one watch (decision D16), full state in each message:

    {"topic": "denylist", "sequence": 7, "denylist": {"payload": …, "signature": …, "signer": […]}}

The payload is a JSON object: `trust_domain`, `sequence`, `at` (seconds since the epoch), and three sorted lists without
repetition: `serials` of leaves and `issuers`, serials of issuing CAs, in lower-case hex; `spiffe_ids`. It is signed as
a statement of kind `denylist` (`certs.signed`), so that it can be kept on disk, or passed on, and still be believed.

What a receiver holds to: the signature is by a CA of its own trust domain that is not itself denied; the sequence never
falls; of two with one sequence the later is the better (it is signed anew while nothing changes, so that its age tells
how long the CA has been away). A serial leaves the list once its certificate has ended anyway.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography import x509

from certs.bundle import BundleSet
from certs.errors import InvalidSpiffeId
from certs.keys import PrivateKey
from certs.signed import InvalidStatement, Statement, parse_payload
from certs.spiffe import SpiffeId, TrustDomain

KIND = "denylist"
MAX_PAYLOAD_BYTES = 1 << 20  # some 25,000 serials; a larger mesh revokes by SPIFFE ID or rotates its issuing CA
STALE_SECONDS = 3600.0  # decision D10: a denylist older than an hour alarms

_SERIAL = re.compile(r"[1-9a-f][0-9a-f]{0,39}\Z", re.ASCII)  # RFC 5280 4.1.2.2: at most 20 octets

Why = Literal["serial", "spiffe_id", "issuer"]


@dataclass(frozen=True, slots=True)
class Denylist:
    """What one trust domain's CA denies. `at` is when it was signed, in seconds since the epoch."""

    trust_domain: TrustDomain
    sequence: int
    at: float
    serials: frozenset[str] = frozenset()
    spiffe_ids: frozenset[SpiffeId] = frozenset()
    issuers: frozenset[str] = frozenset()

    def sign(self, key: PrivateKey, signer: Sequence[x509.Certificate]) -> Statement:
        """The list, signed; `signer` are the key's certificate and those above it, without the root."""
        return Statement.sign(KIND, self.payload(), key, signer)

    def payload(self) -> bytes:
        """What is signed: the same bytes for the same list. Raises ValueError where it has grown too long."""
        document = {
            "trust_domain": self.trust_domain.name,
            "sequence": self.sequence,
            "at": self.at,
            "serials": sorted(self.serials),
            "spiffe_ids": sorted(one.text for one in self.spiffe_ids),
            "issuers": sorted(self.issuers),
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        if len(data) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"the denylist has grown to {len(data)} bytes; at most {MAX_PAYLOAD_BYTES} are sent")
        return data

    @classmethod
    def open(
        cls, document: object, trust_domain: TrustDomain, bundles: BundleSet, now: float | None, last: Denylist | None
    ) -> Denylist:
        """Read and believe the `denylist` member of a message, given the list that is in force (None: there is none).

        `now` is when the signer has to be valid, in seconds since the epoch; None, for a list of our own disk, means
        when it was signed. Raises InvalidStatement: `malformed`, `bad_signature`, `wrong_trust_domain`,
        `signer_denied`, `lower_sequence`, `older`, and the reasons for which a signer is not trusted.
        """
        statement = Statement.parse(document)
        if len(statement.payload) > MAX_PAYLOAD_BYTES:
            raise InvalidStatement("malformed", f"a denylist is longer than {MAX_PAYLOAD_BYTES} bytes")
        claimed = _parse(statement.payload)  # so that `at` is known; believed only after the signature
        statement.open(KIND, trust_domain, bundles, claimed.at if now is None else now)
        if claimed.trust_domain != trust_domain:
            raise InvalidStatement("wrong_trust_domain", f"a denylist of {claimed.trust_domain}, not of {trust_domain}")
        signers = {f"{one.serial_number:x}" for one in statement.signer}
        if signers & (claimed.issuers | (last.issuers if last is not None else frozenset())):
            raise InvalidStatement("signer_denied", "a denylist is signed by an issuing CA that was revoked")
        if last is not None:
            claimed.check_follows(last)
        return claimed

    def check_follows(self, last: Denylist) -> None:
        """Raise InvalidStatement (`lower_sequence`, `older`) where this list must not replace `last`."""
        if self.sequence < last.sequence:
            said = f"denylist {self.sequence} came after {last.sequence}"
            raise InvalidStatement("lower_sequence", f"{said}: an old one is replayed, or the CA has lost its memory")
        if self.sequence == last.sequence and self.at < last.at:
            raise InvalidStatement("older", f"denylist {self.sequence} was signed before the one we have")

    def denies(self, spiffe_id: SpiffeId, serial: str, issuers: Iterable[str] = ()) -> Why | None:
        """Why a certificate with this serial (lower-case hex), of this identity, holds no more; None where it does.

        `issuers` are the serials of the CAs that it was shown with.
        """
        if spiffe_id.trust_domain != self.trust_domain:
            return None
        if spiffe_id in self.spiffe_ids:
            return "spiffe_id"
        if serial in self.serials:
            return "serial"
        return "issuer" if not self.issuers.isdisjoint(issuers) else None

    def denies_chain(self, spiffe_id: SpiffeId, chain: Sequence[x509.Certificate]) -> Why | None:
        """The same, for a verified chain, leaf first."""
        serials = [f"{one.serial_number:x}" for one in chain]
        return self.denies(spiffe_id, serials[0], serials[1:])

    def is_stale(self, now: float) -> bool:
        """Whether it is so old that something keeps us from the CA."""
        return now - self.at > STALE_SECONDS

    def __len__(self) -> int:
        return len(self.serials) + len(self.spiffe_ids) + len(self.issuers)

    def __bool__(self) -> bool:
        return True  # an empty list is a list


def _parse(payload: bytes) -> Denylist:
    document = parse_payload(payload)
    sequence, at = document.get("sequence"), document.get("at")
    if type(sequence) is not int or sequence < 0:
        raise InvalidStatement("malformed", "the sequence of a denylist is not a whole number")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e12:
        raise InvalidStatement("malformed", "the time of a denylist is not a number of seconds")
    try:
        trust_domain = TrustDomain.parse(_texts(document, "trust_domain", single=True)[0])
        ids = frozenset(SpiffeId.parse(text) for text in _texts(document, "spiffe_ids"))
    except InvalidSpiffeId as error:
        raise InvalidStatement("malformed", f"a denylist names no SPIFFE ID: {error}") from None
    if any(one.trust_domain != trust_domain or not one.path for one in ids):
        raise InvalidStatement("malformed", "a denylist names identities that are not its own")
    serials, issuers = (frozenset(map(_serial, _texts(document, name))) for name in ("serials", "issuers"))
    return Denylist(trust_domain, sequence, float(at), serials, ids, issuers)


def _texts(document: dict[str, Any], name: str, *, single: bool = False) -> list[str]:
    found = document.get(name)
    values = [found] if single else found
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidStatement("malformed", f"`{name}` of a denylist is missing or of another type")
    if len(set(values)) != len(values):
        raise InvalidStatement("malformed", f"`{name}` of a denylist names something twice")
    return values


def _serial(text: str) -> str:
    if not _SERIAL.match(text):
        raise InvalidStatement("malformed", f"{text[:48]!r} is not a serial number in lower-case hex")
    return text
