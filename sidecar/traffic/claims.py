"""Which claim of its bearer token a request is counted by, where a limit says `per: claim sub`.

**Nobody has verified the token here.** A claim is what the caller wrote, as a header is: whoever invents one has the
allowance of a new key. It tells apart callers who are honest, so it stands beside a limit whose keys nobody can invent.

The token is read strictly and once: one `Authorization` field, the scheme `Bearer`, a compact JWS (RFC 7515 section
7.1) of three parts, base64url without padding, at most 8 KiB, whose payload is a JSON object that names no member
twice. Whatever is not so, has no such claim, or has one that is no text, number or truth value, shares *one* key with
all others of that sort: a broken token is no way to an allowance of one's own. Nothing here raises, and nothing of a
token is kept but the key.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Final

from certs.strict_json import read
from sidecar.traffic.gcra import key_of

if TYPE_CHECKING:
    from sidecar.hop import Headers

UNREAD: Final = ""  # the key of all whose claim cannot be read; every other begins with the kind of its value
LONGEST_TOKEN: Final = 8192  # bytes
_SCHEME: Final = b"bearer "
_ALPHABET: Final = frozenset((ascii_letters + digits + "-_").encode("ascii"))


def claim_key(headers: Headers, claim: str) -> str:
    """The key that stands for the value of a claim. Never raises."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:  # of two, somebody else may read the other
        return UNREAD
    payload = _payload(values[0])
    if payload is None:
        return UNREAD
    try:
        claims = read(payload)
    except ValueError:
        return UNREAD
    return _key(claims.get(claim)) if isinstance(claims, dict) else UNREAD


def _payload(value: bytes) -> bytes | None:
    """The middle part of a bearer token, decoded; None where it is none."""
    if value[: len(_SCHEME)].lower() != _SCHEME or len(value) > len(_SCHEME) + LONGEST_TOKEN:
        return None
    parts = value[len(_SCHEME) :].strip(b" ").split(b".")
    if len(parts) != 3 or not all(parts) or not _ALPHABET.issuperset(b"".join(parts)):
        return None
    middle = parts[1]
    if len(middle) % 4 == 1:
        return None
    try:
        return urlsafe_b64decode(middle + b"=" * (-len(middle) % 4))
    except ValueError:
        return None


def _key(value: object) -> str:
    """One key for each value; text and a number that looks alike are two."""
    try:
        if isinstance(value, str):
            return "=" + key_of(value.encode("utf-8"))
        if isinstance(value, bool | int | float):
            return "#" + key_of(json.dumps(value, allow_nan=False).encode("ascii"))
    except ValueError:  # half a surrogate pair, an exponent beyond all floats, or thousands of digits
        return UNREAD
    return UNREAD
