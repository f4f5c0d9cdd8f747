"""Truth, numbers, durations and sizes: from text, and back for the reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sidecar.config.document import Scalar
from sidecar.config.plain import INTEGER, BadValue, Scope, quoted


def read_boolean(scalar: Scalar, _: Scope) -> bool:
    if scalar.plain and scalar.text in ("true", "false"):
        return scalar.text == "true"
    lower = scalar.text.lower()
    meant = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}.get(lower, lower)
    hint = f"did you mean {meant}?" if meant in ("true", "false") else "write true or false"
    if not scalar.plain:
        hint = f"write {meant} without quotes" if meant in ("true", "false") else hint
    raise BadValue(f"{quoted(scalar.text)} is neither true nor false", hint)


def _whole(scalar: Scalar) -> int:
    """A plain decimal integer. Raises BadValue."""
    text = scalar.text
    if scalar.plain and INTEGER.match(text):
        return int(text)
    if not scalar.plain and INTEGER.match(text):
        raise BadValue(f"{quoted(text)} is text", f"write {text} without quotes")
    if scalar.plain and not text:
        raise BadValue("has no value", "remove the key, or give it one")
    if len(text) <= 18 and text.isascii() and text.lstrip("+").replace("_", "").isdigit():
        raise BadValue(f"{text} is read differently by different YAML readers", f"write {_plain(text)}")
    raise BadValue(f"{quoted(text)} is not a whole number")


def _plain(text: str) -> str:
    """These digits as everybody would write them."""
    return text.lstrip("+").replace("_", "").lstrip("0") or "0"


def between(low: int, high: int, what: str) -> Callable[[Scalar, Scope], int]:
    def read(scalar: Scalar, _: Scope) -> int:
        number = _whole(scalar)
        if not low <= number <= high:
            raise BadValue(f"{number} is not {what}", f"it goes from {low} to {high}")
        return number

    return read


def read_share(scalar: Scalar, _: Scope) -> float:
    if not scalar.plain or not re.match(r"[0-9]+(?:\.[0-9]+)?\Z", scalar.text) or len(scalar.text) > 20:
        percent = re.match(r"([0-9]{1,2})\s*%\Z", scalar.text)
        raise BadValue(
            f"{quoted(scalar.text)} is not a share",
            f"did you mean {int(percent[1]) / 100}?" if percent else "write a number from 0 to 1",
        )
    number = float(scalar.text)
    if number > 1:
        raise BadValue(f"{scalar.text} is more than the whole", "write a number from 0 to 1")
    return number


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+\Z")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
DURATION_SCHEMA: Final = {"type": "string", "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d))+$"}


def duration(least: str) -> Callable[[Scalar, Scope], float]:
    def read(scalar: Scalar, _: Scope) -> float:
        if not _DURATION.match(scalar.text):
            raise BadValue(f"{quoted(scalar.text)} is not a duration", _duration_hint(scalar.text))
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(scalar.text))
        if seconds <= 0 and least:
            raise BadValue(f"{scalar.text} is no time at all", least)
        return seconds

    return read


def _duration_hint(text: str) -> str:
    clock = re.match(r"([0-9]{1,6}):([0-5]?[0-9])\Z", text)
    if clock:
        return f"did you mean {int(clock[1])}m{int(clock[2])}s?"
    number = re.match(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)\Z", text)
    unit = number[2].lower() if number else "?"
    names = {
        "": "s",
        "sec": "s",
        "second": "s",
        "min": "m",
        "minute": "m",
        "hour": "h",
        "hr": "h",
        "day": "d",
        "msec": "ms",
    }
    unit = names.get(unit.removesuffix("s") if len(unit) > 2 else unit, unit)
    if number and unit in _UNITS:
        return f"did you mean {number[1]}{unit}?"
    return "write 500ms, 2s, 5m, 1h or 1d"


_SIZES: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"([1-9][0-9]{0,11})(B|KiB|MiB|GiB)?\Z")


def read_size(scalar: Scalar, _: Scope) -> int:
    match = _SIZE.match(scalar.text)
    if match and (match[2] or scalar.plain):
        return int(match[1]) * _SIZES[match[2] or ""]
    if scalar.plain and scalar.text and set(scalar.text) <= {"0"}:
        raise BadValue("0 would let nothing through", "remove the key for the default")
    loose = re.match(r"([1-9][0-9]{0,11})\s*([kmg])i?b?\Z", scalar.text, re.IGNORECASE)
    hint = f"did you mean {loose[1]}{loose[2].upper()}iB?" if loose else "write 65536, 64KiB, 1MiB or 1GiB"
    raise BadValue(f"{quoted(scalar.text)} is not a size", hint)


def show_seconds(value: float) -> str:
    for unit in ("d", "h", "m", "s"):
        if value and value % _UNITS[unit] == 0:
            return f"{int(value / _UNITS[unit])}{unit}"
    return "0s" if not value else f"{round(value * 1000)}ms"


def show_size(value: int) -> str:
    unit = next((name for name in ("GiB", "MiB", "KiB") if value % _SIZES[name] == 0), "")
    return f"{value // _SIZES[unit]}{unit}"
