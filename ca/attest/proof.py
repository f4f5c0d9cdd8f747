"""The proofs that an enrolment may carry, as values, and what they come to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ca.entries import Entry
from ca.errors import BadRequest
from certs.enrolment import KEY_BYTES, InvalidEnrolment, check_entry_name, decode_base64

SIGNATURE_BYTES = 64  # RFC 8032 section 5.1.6


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


Proof = TokenProof | KeyProof


@dataclass(frozen=True, slots=True)
class Attested:
    """A proof that held. `settle` spends it where it can be spent; the last thing before a certificate is signed."""

    entry: Entry
    proof: str
    detail: str
    settle: Callable[[], Awaitable[None]]


async def nothing_to_settle() -> None:
    """For proofs that are not spent, or are spent already."""


def parse_proof(document: object) -> Proof:
    """Read the `proof` member of an enrolment request. Raises BadRequest, naming the field."""
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
    except InvalidEnrolment as error:
        raise BadRequest(f"proof of type {kind}: {error}") from None
    raise BadRequest("`proof.type` must be `join_token` or `enrolment_key`")


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or len(value) > 1024:
        raise BadRequest(f"`proof.{key}` must be text")
    return value
