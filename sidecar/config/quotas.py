"""How much in which window of whose calendar, and how many bytes a second: from text, and back for the reference."""

from __future__ import annotations

import re
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from sidecar.config.document import Scalar
from sidecar.config.mistakes import nearest
from sidecar.config.plain import BadValue, Scope, quoted
from sidecar.config.quantities import read_size, show_size
from sidecar.config.terms import Amount

AMOUNT_SCHEMA: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,11}/(h|d|month)$"}
TIME_ZONE_SCHEMA: Final = {"type": "string", "pattern": "^[A-Za-z0-9_+/-]{1,64}$"}
BANDWIDTH_SCHEMA: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,11}(B|KiB|MiB|GiB)/s$"}
LEAST_BANDWIDTH: Final = 1024  # bytes a second; below that nothing gets to its end
_AMOUNT = re.compile(r"([1-9][0-9]{0,11})/(h|d|month)\Z")
_LOOSE = re.compile(r"([1-9][0-9]{0,11})\s*(?:/|per|an?)\s*([a-z]+)\Z", re.IGNORECASE)
_WINDOWS: Final = {"h": "hr hour hours", "d": "day days daily", "month": "mon mo mth months m"}
_RATES: Final = ("s", "sec", "second", "m", "min", "minute")
_EXAMPLES: Final = "write 500/h, 10000/d or 200000/month"
_BANDWIDTH = re.compile(r"(\S+?)\s*(?:/\s*s|ps|/sec|/second)\Z")
_BITS = re.compile(r"([0-9]+)\s*([kmg])(?:bit|b)(?:/s|ps)\Z", re.IGNORECASE)


def read_amount(scalar: Scalar, _: Scope) -> Amount:
    """`10000/d`. Raises BadValue."""
    match = _AMOUNT.match(scalar.text)
    if match is None:
        raise BadValue(f"{quoted(scalar.text)} does not say how many in which window", _how_many(scalar.text))
    return Amount(int(match[1]), match[2])  # type: ignore[arg-type]


def _how_many(text: str) -> str:
    """What was probably meant."""
    if re.match(r"0+(?:/|\Z)", text):
        return "a quota that lets nobody in is a rule: use deny:"
    if text.isdigit() and text.isascii() and len(text) <= 12:
        return f"in which window? write {text}/h, {text}/d or {text}/month"
    loose = _LOOSE.match(text)
    if loose is None:
        return _EXAMPLES
    unit = loose[2].lower()
    if unit in _RATES and unit != "m":
        return "a quota is by the hour, day or month; put what is faster under rates:"
    window = next((window for window, names in _WINDOWS.items() if unit in (window, *names.split())), None)
    if unit == "m":
        return f"did you mean {loose[1]}/month? What is by the minute belongs under rates:"
    return f"did you mean {loose[1]}/{window}?" if window else _EXAMPLES


@cache
def _zones() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))


def read_time_zone(scalar: Scalar, _: Scope) -> str:
    """`Europe/Berlin`. Raises BadValue for what the IANA database does not know."""
    name = scalar.text
    try:
        if not re.match(r"[A-Za-z0-9_+/-]{1,64}\Z", name) or name not in _zones():
            raise KeyError(name)
        ZoneInfo(name)  # it is there, and can be read
    except (KeyError, ValueError, OSError):
        raise BadValue(f"{quoted(name)} is no time zone that this machine knows", _which_zone(name)) from None
    return name


def _which_zone(name: str) -> str:
    """The zone that was probably meant: the nearest spelling, or the one of that city."""
    zones = _zones()
    folded = name.replace(" ", "_").casefold()
    city = next((zone for zone in zones if folded in (zone.casefold(), zone.rpartition("/")[2].casefold())), None)
    near = city or nearest(name, [zone for zone in zones if abs(len(zone) - len(name)) <= 3])
    return f"did you mean {near}?" if near else "write a name of the IANA database: UTC, Europe/Berlin"


def read_bandwidth(scalar: Scalar, scope: Scope) -> int:
    """`10MiB/s`, as bytes a second. Raises BadValue."""
    text = scalar.text
    if bits := _BITS.match(text):
        raise BadValue(f"{quoted(text)} counts bits, or may", _in_bytes(bits[1], bits[2]))
    if not text.endswith("/s"):
        spelt = _BANDWIDTH.match(text)
        hint = f"did you mean {spelt[1]}/s?" if spelt else "write 512KiB/s, 10MiB/s or 1GiB/s"
        raise BadValue(f"{quoted(text)} does not say how many bytes a second", hint)
    size = text[:-2].rstrip()
    try:
        found = read_size(Scalar(scalar.where, size, False), scope) if size else 0
    except BadValue as error:
        hint = error.hint.replace("?", "/s?") if error.hint and error.hint.startswith("did you") else ""
        raise BadValue(
            f"{quoted(text)} does not say how many bytes a second", hint or "write 512KiB/s, 10MiB/s or 1GiB/s"
        ) from None
    if found < LEAST_BANDWIDTH:
        raise BadValue(f"{quoted(text)} is next to nothing", "at least 1KiB/s; to let nobody in, use deny:")
    return found


def _in_bytes(number: str, unit: str) -> str:
    """What people write who think in 1000s, or in bits."""
    return f"did you mean {number}{unit.upper()}iB/s? Eight bits are a byte"


def show_bandwidth(value: int) -> str:
    """`10MiB/s`."""
    size = show_size(value)
    return f"{size}/s" if size.endswith("B") else f"{size}B/s"
