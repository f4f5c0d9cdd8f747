"""A tenth of the soak: 100,000 connections, 500,000 requests, a reload and a rotation every 10 s.

The whole one is tests/deep/test_soak.py. This takes both processors of a small machine for some minutes, so it runs
alone. `MESH_SOAK_CONNECTIONS` chooses another number for either; under 50,000 the slope says nothing yet.

The bar of the slope is that of the whole soak only there. Over the last 200,000 requests a heap that still settles by
0.3 MiB looks like 1.5 MiB a million, and on a machine with other work, where a reload and a rotation come every few
thousand requests, like 4. So the bar here is lower than what the smallest leak makes: 48 bytes, the smallest object of
any use, for each connection are 9 MiB a million requests.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.memory_use import MIB
from tests.kit.programs import echo_app
from tests.kit.soak import Report, Soak

CONNECTIONS = int(os.environ.get("MESH_SOAK_CONNECTIONS", "100000"))
WARM_UP = CONNECTIONS // 5
SLOPE = 8 * MIB  # bytes a million requests


@pytest.mark.alone
def test_everything_returns_to_its_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = Soak(tmp_path)
    with echo_app(tmp_path, mesh.ports.app, "soak_app.py"), mesh:
        mesh.start_all("web", "app")
        report = mesh.go(warm_up=WARM_UP, connections=CONNECTIONS - WARM_UP)
        mesh.assert_well()
    with capsys.disabled():
        print(f"\nsoak: {report.summary()}")  # also where it passes: figures to compare with the next run's
    report.assert_clean()
    for name in report.start:
        assert report.slope(name) * 1e6 < SLOPE, report.summary()


def test_the_slope_tells_a_leak_from_what_fills_up() -> None:
    requests = range(0, 400_000, 1_500)
    settling = [(float(at), 50 * MIB + int(MIB * (1 - 0.5 ** (at / 40_000)))) for at in requests]
    leaking = [(at, memory + int(at / 5 * 48)) for at, memory in settling]  # 48 bytes a connection
    report = Report(samples={"settling": settling, "leaking": leaking})
    assert report.slope("settling") * 1e6 < SLOPE < report.slope("leaking") * 1e6
