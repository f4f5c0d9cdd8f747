"""Programs that nobody here wrote: where they are, or a loud skip; in CI a missing one is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/*/bin")  # where Debian keeps servers, out of PATH


def find(program: str) -> str | None:
    """The path of a program, None where it is not installed. Of several PostgreSQL versions the newest."""
    if path := shutil.which(program):
        return path
    for place in PLACES:
        for folder in sorted(Path("/").glob(place.lstrip("/")), key=lambda path: path.parts[-2].zfill(3), reverse=True):
            if os.access(folder / program, os.X_OK):
                return str(folder / program)
    return None


def need(program: str) -> str:
    """The path of a program that this test talks to; without it a skip, or under MESH_REQUIRE_TOOLS=1 a failure."""
    path = find(program)
    if path is None:
        if os.environ.get("MESH_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{program} is not installed, and MESH_REQUIRE_TOOLS=1 forbids to go on without it")
        pytest.skip(f"{program} is not installed")
    return path
