"""A hundredth of the soak in tests/deep: 10,000 connections, 50,000 requests, a reload and a rotation every 10 s.

The slope of memory cannot be told from so few requests, since a heap that grows by a page too many looks like a leak of
twenty bytes a request. So the bar here is a plain one, on what is left at the end; it finds leaks of a hundred bytes a
request and more. The slope's own bar is that of the whole soak.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.memory_use import MIB
from tests.kit.programs import echo_app
from tests.kit.soak import Soak

WARM_UP, CONNECTIONS = 2_000, 8_000
BAR = 6 * MIB  # that a sidecar may have grown in 40,000 requests


def test_everything_returns_to_its_start(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    mesh = Soak(tmp_path)
    with echo_app(tmp_path, mesh.ports.app), mesh:
        mesh.start_all("web", "app")
        report = mesh.go(warm_up=WARM_UP, connections=CONNECTIONS)
        mesh.assert_well()
    print(report.summary())
    record_property("soak", report.summary())
    report.assert_clean()
    for name in report.start:
        assert report.end[name]["memory_bytes"] - report.start[name]["memory_bytes"] < BAR, report.summary()
