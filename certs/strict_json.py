"""What RFC 8259 leaves open and Python lets pass, refused: hooks for `json.loads`, where documents prove something."""

from __future__ import annotations

from typing import Any


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members are each named once. Raises ValueError: of two, somebody else may read the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same member twice")
    return found


def no_constant(text: str) -> None:
    """Raises ValueError: NaN and Infinity are not JSON."""
    raise ValueError(f"{text} is not JSON")
