"""Test vectors that others published: where they are, or a loud skip."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

_ESCAPE = re.compile(rb"\\(r|n|t|0|x[0-9a-fA-F]{2})")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}


def folder(*parts: str) -> Path:
    """A folder of vectors: under $MESH_VECTORS, or beside the project."""
    root = os.environ.get("MESH_VECTORS")
    base = Path(root) if root else Path(__file__).parents[3] / "shared" / "vectors"
    found = base.joinpath(*parts)
    if not found.is_dir():
        pytest.skip(f"NO TEST VECTORS: {'/'.join(parts)} stands neither in $MESH_VECTORS nor beside the project")
    return found


def names(*parts: str) -> list[str]:
    """The files of a folder, for parametrize; one empty name where the folder is absent, so that a test can skip."""
    root = os.environ.get("MESH_VECTORS")
    base = Path(root) if root else Path(__file__).parents[3] / "shared" / "vectors"
    return sorted(path.name for path in base.joinpath(*parts).glob("*.http")) or [""]


def request(path: Path) -> bytes:
    """The bytes that a file of gunicorn's means: its line breaks are decoration, escapes are written out."""
    raw = path.read_bytes().replace(b"\r", b"").replace(b"\n", b"")
    return _ESCAPE.sub(lambda match: _PLAIN.get(match[1]) or bytes([int(match[1][1:], 16)]), raw)
