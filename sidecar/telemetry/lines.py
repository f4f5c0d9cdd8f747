"""Values as one line of JSON: compact, ASCII, nothing that a terminal or a parser could trip over."""

from __future__ import annotations

import json
from typing import Any

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def encode(values: dict[str, Any]) -> str:
    """Without the end of the line. Raises ValueError or TypeError for what JSON cannot hold."""
    return _ENCODER.encode(values)


def json_line(values: dict[str, Any]) -> bytes:
    """One line. Raises ValueError or TypeError for what JSON cannot hold."""
    return encode(values).encode("ascii") + b"\n"
