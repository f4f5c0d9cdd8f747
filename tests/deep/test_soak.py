"""The whole soak: a million connections, five million requests. `MESH_SOAK_CONNECTIONS` chooses another number.

A quarter of an hour on two quiet processors. `make deep ARGS="tests/deep/test_soak.py -s"` shows how far it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.kit.memory_use import MIB
from tests.kit.programs import echo_app
from tests.kit.soak import Report, Soak

CONNECTIONS = int(os.environ.get("MESH_SOAK_CONNECTIONS", "1000000"))
WARM_UP = CONNECTIONS // 20
SLOPE = 1 * MIB  # bytes a million requests


def test_a_million_connections_leave_nothing_behind(tmp_path: Path) -> None:
    mesh = Soak(tmp_path, names=None)  # no two reloads give the rule the same name
    with echo_app(tmp_path, mesh.ports.app, "soak_app.py"), mesh:
        mesh.start_all("web", "app")
        report = mesh.go(warm_up=WARM_UP, connections=CONNECTIONS - WARM_UP, between=tell)
        mesh.assert_well()
    print(report.summary())
    report.assert_clean()
    for name in report.start:
        assert report.slope(name) * 1e6 < SLOPE, report.summary()


def tell(report: Report) -> None:
    print(report.so_far(), flush=True)
