"""What RFC 8259 leaves open and Python lets pass, refused: where documents prove something, or come from strangers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

MAX_DIGITS: Final = 16  # of an exact whole number; 2**53 has as many (RFC 8259 section 6)
MAX_NUMBER: Final = 2.0**53
UINT64_DIGITS: Final = 20  # numbers of a bundle are of this kind (SPIFFE_Trust_Domain_and_Bundle.md section 4.1.1)
MAX_LENGTH: Final = 400  # of any number as text: none that a double has needs more digits in front of its point


def read(data: bytes, *, most_marks: int | None = None, exact: bool = False) -> Any:
    """The value of a document. Whole numbers of more than 20 digits are floats; `exact` refuses those beyond 2**53.

    Raises ValueError: no UTF-8, no JSON, nested too deep, a member named twice, NaN; or more than `most_marks` commas
    and brackets. Those are counted first: reading holds up every thread for as long as a document has values.
    """
    if most_marks is not None and data.count(b",") + data.count(b"[") + data.count(b"{") > most_marks:
        raise ValueError("a document of too many values")
    try:
        return (_EXACT if exact else _LOADS)(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members are each named once. Raises ValueError: of two, somebody else may read the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same member twice")
    return found


def no_constant(text: str) -> None:
    """Raises ValueError: NaN and Infinity are not JSON."""
    raise ValueError(f"{text} is not JSON")


def _whole(text: str) -> int | float:
    if len(text) > MAX_LENGTH:
        raise ValueError("a number of too many digits")
    return int(text) if len(text) <= UINT64_DIGITS else float(text)


def _exact_whole(text: str) -> int:
    if len(text) > MAX_DIGITS + 1 or abs(number := int(text)) > MAX_NUMBER:
        raise ValueError("a number beyond 2**53")
    return number


def _exact_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or abs(number) > MAX_NUMBER:
        raise ValueError("a number beyond 2**53")
    return number


_LOADS: Final[Callable[[str], Any]] = json.JSONDecoder(
    object_pairs_hook=unique, parse_constant=no_constant, parse_int=_whole
).decode
_EXACT: Final[Callable[[str], Any]] = json.JSONDecoder(
    object_pairs_hook=unique, parse_constant=no_constant, parse_int=_exact_whole, parse_float=_exact_float
).decode
