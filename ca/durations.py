"""Lengths of time as people write them: `90s`, `15m`, `24h`, `30d`, `10y`. A year is 365 days."""

from __future__ import annotations

import re

SECOND, MINUTE, HOUR, DAY, YEAR = 1.0, 60.0, 3600.0, 86400.0, 365 * 86400.0

_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "y": YEAR}
_PART = re.compile(r"([0-9]{1,9})([smhdy])", re.ASCII)
_WHOLE = re.compile(r"(?:[0-9]{1,9}[smhdy])+\Z", re.ASCII)


def parse_duration(text: str) -> float:
    """Read `24h` or `1h30m` as seconds. Raises ValueError, for a bare number too: its unit would be a guess."""
    if not _WHOLE.match(text):
        raise ValueError(f"{text!r} is not a duration: write a number with s, m, h, d or y, such as 24h or 30d")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def format_duration(seconds: float) -> str:
    """The two largest units that matter: `23h 59m`, `29d 3h`, `45s`; `0s` below a second; a past has a `-` in front."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    left, words = int(seconds), []
    for unit in ("y", "d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        if count:
            words.append(f"{count}{unit}")
        elif words:
            break
    return " ".join(words[:2]) or "0s"
