"""2 GiB each way through two sidecars; each grows by less than 32 MiB."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.bodies import download, pids, upload
from tests.kit.memory_use import MIB, MemoryWatch
from tests.kit.meshes import Pair
from tests.kit.programs import echo_app

BODY = 2048 * MIB
BAR = 32 * MIB


@pytest.mark.parametrize("move", [upload, download], ids=["upload", "download"])
def test_two_gibibytes(tmp_path: Path, move: object) -> None:
    assert callable(move)
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        with MemoryWatch(pids(pair)) as memory:
            seconds = move(pair.ports.door, BODY)
        pair.assert_well()
    print(f"{BODY // MIB} MiB in {seconds:.1f} s\n{memory.report()}")
    for name in ("web", "app"):
        assert memory[name].grown < BAR, memory.report()
