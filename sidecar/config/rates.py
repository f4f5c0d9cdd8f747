"""How often, and for whom together: `100/s` and `header x-api-key`, from text and back for the reference."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted
from sidecar.config.terms import Frequency, Per

FREQUENCY_SCHEMA: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,8}/(s|m|h|d)$"}
PER_SCHEMA: Final = {
    "type": "string",
    "pattern": "^(listener|caller|endpoint|header [!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}|claim [!-~]{1,128})$",
}  # fmt: skip
_FREQUENCY = re.compile(r"([1-9][0-9]{0,8})/([smhd])\Z")
_LOOSE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(?:/|per|p|r/|rp|req/)?\s*([a-z]*)\Z", re.IGNORECASE)
_UNITS: Final = {"s": "sec second seconds", "m": "min minute minutes", "h": "hr hour hours", "d": "day days"}
_NEXT: Final = {"s": ("m", 60), "m": ("h", 60), "h": ("d", 24)}
_HEADER = re.compile(r"header\s+([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})\Z")
_CLAIM = re.compile(r"claim\s+([!-~]{1,128})\Z")
_WORDS: Final = ("listener", "caller", "endpoint")
_EXAMPLES: Final = "write 100/s, 6000/m, 500/h or 1000/d"
_CLAIMS: Final = ("sub", "iss", "aud", "azp", "client_id", "tenant", "scope")  # that people write alone
_MEANT: Final = {
    "service": "listener", "global": "listener", "all": "listener", "total": "listener", "client": "caller",
    "identity": "caller", "peer": "caller", "user": "caller", "callers": "caller", "from": "caller",
    "route": "endpoint", "path": "endpoint", "method": "endpoint", "endpoints": "endpoint",
}  # fmt: skip


def read_frequency(scalar: Scalar, _: Scope) -> Frequency:
    """`100/s`. Raises BadValue."""
    text = scalar.text
    match = _FREQUENCY.match(text)
    if match is None:
        raise BadValue(f"{quoted(text)} does not say how often", _how_often(text))
    return Frequency(int(match[1]), match[2])  # type: ignore[arg-type]


def _how_often(text: str) -> str:
    """What was probably meant."""
    if re.match(r"0+(?:/|\Z)", text):
        return "a limit that lets nobody in is a rule: use deny:"
    if text.isdigit():
        return f"in which time? write {text}/s or {text}/m"
    loose = _LOOSE.match(text)
    unit = next((u for u, names in _UNITS.items() if loose and loose[2].lower() in (u, *names.split())), None)
    if loose is None or unit is None:
        return _EXAMPLES
    number = float(loose[1])
    while number != int(number) and unit in _NEXT:
        unit, factor = _NEXT[unit]
        number *= factor
    return f"did you mean {int(number)}/{unit}?" if number == int(number) and 1 <= number < 1e9 else _EXAMPLES


def read_per(scalar: Scalar, _: Scope) -> Per:
    """`caller`, or `header x-api-key`. Raises BadValue."""
    text = scalar.text
    if text in _WORDS:
        return Per(text)  # type: ignore[arg-type]
    match = _HEADER.match(text)
    if match is not None and match[1].lower() == "host":
        raise BadValue("the host is no header of its own here", "limit a listener, a caller or an endpoint")
    if match is not None:
        return Per("header", match[1].lower())
    match = _CLAIM.match(text)
    if match is not None:
        return Per("claim", claim=match[1])
    hint = f"one of {', '.join(_WORDS)}, or header and its name: header x-api-key, or claim and its name: claim sub"
    if re.match(r"x-[a-z0-9-]{1,60}\Z", text, re.IGNORECASE):
        hint = f"did you mean header {text}?"
    elif text.lower() in _CLAIMS:
        hint = f"did you mean claim {text.lower()}?"
    elif text.lower() in _MEANT:
        hint = f"did you mean {_MEANT[text.lower()]}?"
    raise BadValue(f"{quoted(text)} is nothing that a limit can be per", hint)
