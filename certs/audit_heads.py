"""Heads of a sidecar's audit: signed by the sidecar, witnessed by the CA, and the file that carries both elsewhere.

A sidecar signs (service, chain, number, hash, time) of the end of its audit by the key of its certificate. The CA looks
at the signature, and writes the statement into its own log with its own time; so from then on neither the sidecar nor
whoever takes its machine can make the audit say something else up to that line. Signatures outlive certificates: a head
is judged at the moment at which it was signed, by the chain that goes with it, and the CA's log says that this moment
was not made up later.

`witness_file` is what `mesh ca log audits` writes: heads with their signers, signed as a whole by an issuing CA.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.errors import IdentityError
from certs.signed import InvalidStatement, Statement, is_signed, parse_payload
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import X509Svid, parse_certificate
from certs.verify import verify_chain

KIND: Final = "audit-head"
FILE_KIND: Final = "audit-heads"
MAX_PAYLOAD: Final = 4096  # bytes; a SPIFFE ID has at most 2048
_CHAIN = re.compile(r"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of an audit: whose, which chain, the number and SHA-256 (hex) of its last line, and when it was signed,
    in seconds since the epoch by the sidecar's clock.
    """

    service: SpiffeId
    chain: str
    number: int
    hash: str
    at: float

    def sign(self, svid: X509Svid) -> Statement:
        """This head, signed by the key of this identity."""
        said = {"service": self.service.text, "chain": self.chain, "n": self.number, "hash": self.hash, "at": self.at}
        return Statement.sign(KIND, json.dumps(said, separators=(",", ":")).encode(), svid.key, svid.chain)


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A head in the CA's log: its statement, the number of its line there, and the CA's time."""

    statement: Statement
    line: int
    at: float


def open_head(statement: Statement, bundles: BundleSet) -> AuditHead:
    """The head of a statement, if the service that it names has signed it with a certificate that was valid then.

    Raises InvalidStatement.
    """
    if len(statement.payload) > MAX_PAYLOAD:
        raise InvalidStatement("malformed", f"a head is longer than {MAX_PAYLOAD} bytes")
    said = parse_payload(statement.payload)
    try:
        service = SpiffeId.parse(str(said["service"]))
        head = AuditHead(service, str(said["chain"]), int(said["n"]), str(said["hash"]), float(said["at"]))
        signer = verify_chain(statement.signer, bundles, head.at)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise InvalidStatement("malformed", "the statement is not a head of an audit") from None
    except InvalidStatement:
        raise
    except IdentityError as error:
        raise InvalidStatement(error.name, f"the signer of a head will not do: {error}") from error
    if head.number < 1 or _CHAIN.fullmatch(head.chain) is None or _HASH.fullmatch(head.hash) is None:
        raise InvalidStatement("malformed", "the statement is not a head of an audit")
    if signer != head.service:
        raise InvalidStatement("wrong_identity", f"a head of {head.service} is signed by {signer}")
    if not is_signed(KIND, statement.payload, statement.signature, statement.signer[0].public_key()):
        raise InvalidStatement("bad_signature", "a head was changed after it was signed")
    return head


def witness_file(
    trust_domain: TrustDomain, roots: Iterable[x509.Certificate], heads: Iterable[Witnessed], now: float
) -> bytes:
    """The payload of a file of witnessed heads, to be signed as a statement of `FILE_KIND`."""
    signers: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = []
    for each in heads:
        by = root_hash(each.statement.signer[0])
        signers.setdefault(by, [_text(one.public_bytes(Encoding.DER)) for one in each.statement.signer])
        rows.append({
            "line": each.line, "at": each.at, "payload": each.statement.payload.decode(),
            "signature": _text(each.statement.signature), "by": by,
        })  # fmt: skip
    said = {
        "trust_domain": trust_domain.name, "at": now, "signers": signers, "heads": rows,
        "roots": [_text(root.public_bytes(Encoding.DER)) for root in roots],
    }  # fmt: skip
    return json.dumps(said, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class WitnessFile:
    """What a file of witnessed heads says, all of it verified down to roots that the file itself names."""

    trust_domain: TrustDomain
    at: float
    heads: tuple[tuple[AuditHead, Witnessed], ...]
    roots: tuple[str, ...]
    """SHA-256 of those roots: whoever reads the file has to know that they are his."""

    @classmethod
    def read(cls, document: object) -> WitnessFile:
        """Read and verify. Raises InvalidStatement, also where a single head in it does not hold."""
        whole = Statement.parse(document)
        said = parse_payload(whole.payload)
        try:
            domain, at = TrustDomain(said["trust_domain"]), float(said["at"])
            roots = tuple(parse_certificate(base64.b64decode(one)) for one in said["roots"])
            signers = {
                by: tuple(parse_certificate(base64.b64decode(one)) for one in chain)
                for by, chain in said["signers"].items()
            }
            found = tuple(_witnessed(row, signers) for row in said["heads"])
        except (KeyError, TypeError, ValueError, AttributeError, IdentityError):
            raise InvalidStatement("malformed", "this is not a file of witnessed heads") from None
        bundles = BundleSet((TrustBundle(domain, roots),))
        whole.open(FILE_KIND, domain, bundles, at)
        heads = tuple((open_head(each.statement, bundles), each) for each in found)
        return cls(domain, at, heads, tuple(root_hash(root) for root in roots))


def _witnessed(row: Mapping[str, Any], signers: Mapping[str, tuple[x509.Certificate, ...]]) -> Witnessed:
    statement = Statement(row["payload"].encode(), base64.b64decode(row["signature"]), signers[row["by"]])
    return Witnessed(statement, int(row["line"]), float(row["at"]))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
