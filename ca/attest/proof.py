"""The proofs that an enrolment may carry, as values, and what they come to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ca.entries import Entry
from ca.errors import BadRequest
from certs.enrolment import KEY_BYTES, InvalidEnrolment, check_entry_name, decode_base64
from certs.jwt import MAX_TOKEN_BYTES

SIGNATURE_BYTES = 64  # RFC 8032 section 5.1.6
MAX_CHAIN_TEXT = 32 * 1024


@dataclass(frozen=True, slots=True)
class TokenProof:
    """A join token, and the public half of the key that it is exchanged for."""

    token: str = field(repr=False)
    public_bytes: bytes


@dataclass(frozen=True, slots=True)
class KeyProof:
    """A challenge, answered by an enrolment key of this entry."""

    entry: str
    nonce: str
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KubernetesProof:
    """A projected service-account token. `entry` and `cluster` narrow what is meant; both may be empty."""

    token: str = field(repr=False)
    entry: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class SocketProof:
    """Being the process that it is, on the CA's Unix socket. `shown` is by the kernel's word, never the caller's."""

    shown: tuple[str, ...]
    entry: str = ""


@dataclass(frozen=True, slots=True)
class ExpiredProof:
    """A certificate that has ended, and a challenge answered by its key."""

    entry: str
    nonce: str
    chain_pem: bytes
    signature: bytes = field(repr=False)


Proof = TokenProof | KeyProof | KubernetesProof | SocketProof | ExpiredProof
KINDS = ("join_token", "enrolment_key", "kubernetes", "unix", "expired_svid")


@dataclass(frozen=True, slots=True)
class Attested:
    """A proof that held. `settle` spends it where it can be spent; the last thing before a certificate is signed."""

    entry: Entry
    proof: str
    detail: str
    settle: Callable[[], Awaitable[None]]


async def nothing_to_settle() -> None:
    """For proofs that are not spent, or are spent already."""


def parse_proof(document: object, shown: tuple[str, ...] = ()) -> Proof:
    """Read the `proof` member of an enrolment request. Raises BadRequest, naming the field.

    `shown` are the selectors of a caller on the CA's Unix socket.
    """
    if not isinstance(document, dict):
        raise BadRequest("`proof` must be an object with a `type`")
    kind = document.get("type")
    try:
        if kind == "join_token":
            public = decode_base64(_text(document, "enrolment_public_key"), KEY_BYTES)
            return TokenProof(_text(document, "token"), public)
        if kind == "enrolment_key":
            entry = check_entry_name(_text(document, "entry"))
            signature = decode_base64(_text(document, "signature"), SIGNATURE_BYTES)
            return KeyProof(entry, _text(document, "nonce"), signature)
        if kind == "kubernetes":
            token = _text(document, "token", MAX_TOKEN_BYTES)
            return KubernetesProof(token, _optional(document, "entry"), _optional(document, "cluster"))
        if kind == "unix":
            return SocketProof(shown, _optional(document, "entry"))
        if kind == "expired_svid":
            entry = check_entry_name(_text(document, "entry"))
            chain = _text(document, "chain", MAX_CHAIN_TEXT).encode("ascii", "replace")
            signature = decode_base64(_text(document, "signature"))
            return ExpiredProof(entry, _text(document, "nonce"), chain, signature)
    except InvalidEnrolment as error:
        raise BadRequest(f"proof of type {kind}: {error}") from None
    raise BadRequest(f"`proof.type` must be one of {', '.join(KINDS)}")


def _optional(document: dict[str, Any], key: str) -> str:
    return _text(document, key) if key in document else ""


def _text(document: dict[str, Any], key: str, longest: int = 1024) -> str:
    value = document.get(key)
    if not isinstance(value, str) or len(value) > longest:
        raise BadRequest(f"`proof.{key}` must be text")
    return value
