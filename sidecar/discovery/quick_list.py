"""Files of endpoints that programs write, read quickly: some fifty times as fast as by the strict reader.

A list of 4,096 takes that one seconds. What is read here is the plain subset about which there is no doubt:
JSON without escapes, or one bare `- host:port` a line. Whatever else it is, or whatever is wrong with it, is for the
strict reader, which knows the words and the places; a test holds that both read the same.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from sidecar.config.addresses import read_address
from sidecar.config.plain import BadValue
from sidecar.config.terms import Address
from sidecar.traffic.endpoints import Declared

_LINES = re.compile(r"(?:- [A-Za-z0-9][A-Za-z0-9.-]*:[1-9][0-9]{0,4}\n)+\Z")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]\Z")  # a part of what a label may be
_TEXT = re.compile(r"[A-Za-z0-9.:\[\]_-]+\Z")
_KEYS: Final = frozenset(("address", "weight", "zone"))
_HEAVIEST: Final = 100  # sidecar.config.kinds: "weight"
_LONGEST_ZONE: Final = 64


def read_quickly(data: bytes) -> list[Declared] | None:
    """The list, or None where it takes a closer look."""
    try:
        text = data.decode("ascii")
        if _LINES.match(text):
            return _without_doubt([_of_text(line[2:]) for line in text.splitlines()])
        if text[:1] != "[" or "\\" in text or "\x7f" in text:
            return None
        document = json.loads(text, object_pairs_hook=_pairs)
        return _without_doubt([_declared(each) for each in document])
    except (ValueError, RecursionError, BadValue):
        return None


def _without_doubt(entries: list[Declared]) -> list[Declared] | None:
    return entries if len({each.address for each in entries}) == len(entries) else None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _of_text(text: Any) -> Declared:
    return Declared(_address(text))


def _address(text: Any) -> Address:
    if not isinstance(text, str) or not _TEXT.match(text) or text.startswith("unix:"):
        raise ValueError("no plain address")
    return read_address(text)


def _declared(entry: Any) -> Declared:
    if isinstance(entry, str):
        return _of_text(entry)
    if not isinstance(entry, dict) or not entry.keys() <= _KEYS:
        raise ValueError("no plain entry")
    weight, zone = entry.get("weight", 1), entry.get("zone", "x0")
    if type(weight) is not int or not 1 <= weight <= _HEAVIEST:
        raise ValueError("no plain weight")
    if not isinstance(zone, str) or not _ZONE.match(zone) or len(zone) > _LONGEST_ZONE:
        raise ValueError("no plain zone")
    return Declared(_address(entry.get("address")), weight, zone if "zone" in entry else "")
