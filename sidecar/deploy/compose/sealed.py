"""The original inside the file that was made of it, so that `--undo` gives it back byte for byte.

It stands at the end, in comments, packed, beside the options it was made with and the SHA-256 of all that is above.
Whoever changes the file above is told so before their changes would be lost.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import textwrap
import zlib
from dataclasses import dataclass
from typing import Any

from certs.errors import MeshError

TITLE = "# ---- made by `mesh compose inject`; below is the original, packed: `mesh compose inject --undo` ----"
_FACTS, _PACKED = "# mesh-facts: ", "# mesh-original: "
MAX_ORIGINAL = 8 << 20  # bytes, unpacked


class DamagedSeal(MeshError):
    """The packed original cannot be read any more."""

    name = "damaged_seal"
    advice = "Somebody has edited the lines at the end. Take the original from your version control."


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a made file holds: the original, the options it was made with, and whether it was edited since."""

    original: bytes
    options: dict[str, Any]
    edited: bool


def seal(body: str, original: bytes, options: dict[str, Any]) -> bytes:
    """The body with the original below it."""
    body = body if body.endswith("\n") else body + "\n"
    end = "\r\n" if "\r\n" in body else "\n"
    facts = json.dumps({"sha256": _digest(body.encode()), "options": options}, sort_keys=True)
    packed = base64.b64encode(zlib.compress(original, 9)).decode()
    lines = [TITLE, _FACTS + facts, *(_PACKED + part for part in textwrap.wrap(packed, 96))]
    return (body + end.join(lines) + end).encode()


def unseal(data: bytes) -> Sealed | None:
    """What stands at the end of a made file; None for any other. Raises DamagedSeal."""
    body, found, below = data.partition(TITLE.encode())
    if not found:
        return None
    try:
        lines = below.decode().splitlines()
        facts = json.loads(next(line for line in lines if line.startswith(_FACTS))[len(_FACTS) :])
        packed = "".join(line[len(_PACKED) :] for line in lines if line.startswith(_PACKED))
        unpacker = zlib.decompressobj()
        original = unpacker.decompress(base64.b64decode(packed, validate=True), MAX_ORIGINAL)
        if not unpacker.eof:
            raise DamagedSeal("the packed original is cut off")
        return Sealed(original, dict(facts["options"]), _digest(body) != facts["sha256"])
    except (ValueError, KeyError, TypeError, StopIteration, binascii.Error, zlib.error):
        raise DamagedSeal("the packed original at the end of the file is damaged") from None


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
