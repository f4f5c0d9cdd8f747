"""Statements that a CA of the mesh signs beside certificates: what it says, and that it was the mesh's CA who said it.

The denylist and the heads of the CA's log are such statements. The signer is a CA certificate whose path leads to a
root of the trust domain's bundle and which may sign revocation lists (cRLSign): both are statements of that nature. The
signature covers the kind of the statement and the very bytes that are then read; a signature over one kind is worth
nothing for another, nor for a certificate, which always begins with byte 0x30.

    {"payload": base64, "signature": base64, "signer": [base64 DER, nearest first, without the root]}
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BundleSet
from certs.errors import IdentityError, InvalidSvid, UntrustedSvid
from certs.keys import PrivateKey
from certs.spiffe import TrustDomain
from certs.strict_json import no_constant, unique
from certs.svid import MAX_CHAIN, parse_certificate
from certs.verify import verify_signer

_CONTEXT = b"mesh-statement-v1"


class InvalidStatement(IdentityError):
    """A signed statement cannot be believed. `reason` is short and stable."""

    name = "invalid_statement"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Statement:
    """A payload, its signature, and the signer's chain: itself first, without the root."""

    payload: bytes
    signature: bytes
    signer: tuple[x509.Certificate, ...]

    @classmethod
    def sign(cls, kind: str, payload: bytes, key: PrivateKey, signer: Sequence[x509.Certificate]) -> Statement:
        """The statement of this kind, signed by the key of the first certificate."""
        return cls(payload, sign_bytes(kind, payload, key), tuple(signer))

    def to_json(self) -> dict[str, Any]:
        """The statement as a JSON object."""
        return {
            "payload": _text(self.payload),
            "signature": _text(self.signature),
            "signer": [_text(one.public_bytes(Encoding.DER)) for one in self.signer],
        }

    @classmethod
    def parse(cls, document: object) -> Statement:
        """Read the JSON object without believing it. Raises InvalidStatement: `malformed`."""
        try:
            if not isinstance(document, dict):
                raise ValueError("it is not an object")
            signer = document["signer"]
            if not isinstance(signer, list) or not 1 <= len(signer) < MAX_CHAIN:
                raise ValueError("`signer` is not a list of certificates")
            chain = tuple(parse_certificate(_bytes(one)) for one in signer)
            return cls(_bytes(document["payload"]), _bytes(document["signature"]), chain)
        except (KeyError, TypeError, ValueError, InvalidSvid) as error:
            raise InvalidStatement("malformed", f"a signed statement cannot be read: {error}") from None

    def open(self, kind: str, trust_domain: TrustDomain, bundles: BundleSet, now: float) -> bytes:
        """The payload, if a CA of this trust domain signed it as a statement of this kind. Raises InvalidStatement.

        `now`, in seconds since the epoch, is the moment at which the signer has to be valid.
        """
        try:
            verify_signer(self.signer, trust_domain, bundles, now)
        except InvalidSvid as error:
            raise InvalidStatement(error.rule, f"the signer of a statement will not do: {error.detail}") from error
        except UntrustedSvid as error:
            raise InvalidStatement(error.reason, f"the signer of a statement is not trusted: {error}") from error
        if not is_signed(kind, self.payload, self.signature, self.signer[0].public_key()):
            raise InvalidStatement("bad_signature", "a statement was changed, or is of another kind")
        return self.payload


def sign_bytes(kind: str, payload: bytes, key: PrivateKey) -> bytes:
    """The signature of this key over a statement."""
    data = _signed_bytes(kind, payload)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def is_signed(kind: str, payload: bytes, signature: bytes, key: object) -> bool:
    """Whether this public key made this signature over this statement."""
    data = _signed_bytes(kind, payload)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def parse_payload(payload: bytes) -> dict[str, Any]:
    """A payload that is a JSON object without repeated members. Raises InvalidStatement: `malformed`."""
    try:
        document = json.loads(payload.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidStatement("malformed", f"a statement is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidStatement("malformed", "a statement is not a JSON object")
    return document


def _signed_bytes(kind: str, payload: bytes) -> bytes:
    return b"\0".join((_CONTEXT, kind.encode("ascii"), payload))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("base64 text is missing")
    return base64.b64decode(text.encode("ascii"), validate=True)
