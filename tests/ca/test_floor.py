"""The CA stands beside the sidecar: what it may import, and who may import it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = ("certs", "ca", "sidecar.net", "sidecar.http")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_the_ca_uses_certs_and_the_lower_floors_of_the_sidecar_only() -> None:
    ours = [(path, name) for path in (ROOT / "ca").rglob("*.py") for name in imports(path)]
    assert ours
    assert [(path, name) for path, name in ours if within(name, "sidecar") and not within(name, *ALLOWED)] == []


def test_nothing_in_the_sidecar_but_its_roof_knows_the_ca() -> None:
    theirs = [
        (path, name)
        for path in (ROOT / "sidecar").rglob("*.py")
        for name in imports(path)
        if within(name, "ca") and path.relative_to(ROOT).parts[1] != "cli"
    ]
    assert theirs == []
