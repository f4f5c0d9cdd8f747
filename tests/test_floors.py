"""Imports lead down. This reads every import and draws the picture in ARCHITECTURE.md."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("certs",),
    ("sidecar.hop", "sidecar.errors", "sidecar.patterns", "sidecar.http", "sidecar.config",
     "sidecar.contract"),
    ("sidecar.policy", "sidecar.traffic"),
    ("sidecar.net", "sidecar.identity", "sidecar.telemetry", "sidecar.answer", "sidecar.discovery"),
    ("sidecar.proxy",),
    ("sidecar.runtime", "sidecar.admin", "sidecar.deploy", "sidecar.demo", "sidecar.conformance"),
    ("sidecar.cli",),
)
PURE = (
    "sidecar.hop", "sidecar.errors", "sidecar.patterns", "sidecar.http", "sidecar.config", "sidecar.policy",
    "sidecar.traffic", "sidecar.contract",
)  # fmt: skip
IMPURE = {"trio", "time", "random", "asyncio", "socket", "ssl", "threading", "secrets", "sqlite3"}


def floor(module: str) -> int | None:
    for level, names in enumerate(FLOORS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return level
    return None


def imports() -> list[tuple[str, str]]:
    found = []
    for package in ("certs", "ca", "sidecar"):
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Import):
                    found += [(module, alias.name) for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found += [(module, node.module)]
                    found += [(module, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_no_import_climbs():
    climbs = {
        f"{here} imports {there}"
        for here, there in imports()
        if (low := floor(here)) is not None and (high := floor(there)) is not None and high > low
    }
    assert not climbs, sorted(climbs)


def test_the_sidecar_does_not_know_the_ca():
    assert not [
        f"{here} imports {there}"
        for here, there in imports()
        if here.startswith("sidecar") and not here.startswith("sidecar.cli") and there.split(".")[0] == "ca"
    ]


def test_pure_floors_have_no_clock_no_dice_and_no_sockets():
    assert not [
        f"{here} imports {there}"
        for here, there in imports()
        if here.startswith(PURE) and there.split(".")[0] in IMPURE
    ]


def test_the_picture_sees_every_room():
    rooms = {here for here, _ in imports() if here.startswith("sidecar.")}
    assert len(rooms) > 50
    assert not {room for room in rooms if floor(room) is None}
