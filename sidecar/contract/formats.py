"""`format` of JSON Schema and OpenAPI: those that are checked, each by a function that takes text or a number.

Times are RFC 3339's, UUIDs RFC 9562's, e-mail addresses the mailbox of RFC 5321 in its common form. A format that is
not here only describes (draft 2020-12, section 7.2.1), as everywhere.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from datetime import date
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_TIME: Final = re.compile(
    r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.\d{1,9})?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))\Z", re.ASCII
)
_DAY: Final = 24 * 60  # minutes
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z", re.ASCII)
_EMAIL: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}){0,16}"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})){0,16}\Z",
    re.ASCII,
)
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:(?:%[0-9A-Fa-f]{2}|[!#-;=?-\[\]_a-z~])*\Z", re.ASCII)
_MOST: Final = 4096  # characters; none of these is longer


def _date(text: str) -> bool:
    if not _DATE.match(text):
        return False
    try:
        date(int(text[:4]), int(text[5:7]), int(text[8:]))
    except ValueError:
        return False
    return True


def _date_time(text: str) -> bool:
    return len(text) <= 40 and text[10:11] in ("T", "t") and _date(text[:10]) and _time(text, 11)


def _time(text: str, begin: int = 0) -> bool:
    """A time of RFC 3339; its 60th second is the last of a day by UTC (section 5.7)."""
    found = _TIME.match(text, begin)
    if found is None or found[3] != "60":
        return found is not None
    ahead = (int(found[5]) * 60 + int(found[6])) * (-1 if found[4] == "-" else 1) if found[4] else 0
    return (int(found[1]) * 60 + int(found[2]) - ahead) % _DAY == _DAY - 1


def _ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return "%" not in text


def _byte(text: str) -> bool:
    try:
        b64decode(text, validate=True)
    except (NotBase64, ValueError):
        return False
    return True


TEXTS: Final[Mapping[str, Callable[[str], bool]]] = {
    "date": lambda text: len(text) <= _MOST and _date(text),
    "date-time": _date_time,
    "time": lambda text: len(text) <= 40 and _time(text),
    "uuid": lambda text: len(text) == 36 and _UUID.match(text) is not None,
    "email": lambda text: len(text) <= 254 and _EMAIL.match(text) is not None,
    "ipv4": lambda text: len(text) <= 15 and _ipv4(text),
    "ipv6": lambda text: len(text) <= 45 and _ipv6(text),
    "uri": lambda text: len(text) <= _MOST and _URI.match(text) is not None,
    "byte": _byte,
}
NUMBERS: Final[Mapping[str, tuple[int, int]]] = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def whole(value: Any) -> bool:
    """Whether a JSON value is an integer: 1.0 is one (draft 2020-12, section 4.2.3), true is none."""
    kind = type(value)
    return kind is int or (kind is float and value.is_integer())
