"""Test vectors that others published: where they are, or a loud skip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
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


def json_schema_suite() -> Path:
    """The JSON-Schema-Test-Suite for draft 2020-12, out of the source distribution of the `jsonschema` that is
    installed (its wheel has none). Fetched once; where that fails, a loud skip, and a failure in CI.
    """
    name = f"jsonschema-{version('jsonschema')}"
    kept = Path(__file__).parents[2] / ".cache" / "vectors" / name
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            try:
                _fetch(name, Path(work))
            except (OSError, subprocess.SubprocessError) as error:
                if os.environ.get("MESH_REQUIRE_TOOLS"):
                    raise
                pytest.skip(f"NO TEST VECTORS: the source of {name} is not to be had: {error}")
            made = Path(work) / name / "json" / "tests" / "draft2020-12"
            try:
                made.rename(kept)
            except OSError:  # somebody else was quicker
                shutil.rmtree(made)
    return kept


def _fetch(name: str, into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=jsonschema", "-d", str(into)]
    subprocess.run([*command, name.replace("-", "==")], check=True, capture_output=True, timeout=300)
    (archive,) = into.glob("*.tar.gz")
    prefix = f"{name}/json/tests/"
    with tarfile.open(archive) as tar:
        tar.extractall(into, [each for each in tar if each.isfile() and each.name.startswith(prefix)])


def names(*parts: str) -> list[str]:
    """The files of a folder, for parametrize; one empty name where the folder is absent, so that a test can skip."""
    root = os.environ.get("MESH_VECTORS")
    base = Path(root) if root else Path(__file__).parents[3] / "shared" / "vectors"
    return sorted(path.name for path in base.joinpath(*parts).glob("*.http")) or [""]


def request(path: Path) -> bytes:
    """The bytes that a file of gunicorn's means: its line breaks are decoration, escapes are written out."""
    raw = path.read_bytes().replace(b"\r", b"").replace(b"\n", b"")
    return _ESCAPE.sub(lambda match: _PLAIN.get(match[1]) or bytes([int(match[1][1:], 16)]), raw)
