"""A service with 5,000 EndpointSlices: listed, then changed one by one, by a process that has other things to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.traffic.endpoints import MOST
from tests.kit.fake_slices import FakeApi, a_slice
from tests.kit.memory_use import MIB

SLICES, PODS = 5000, 8  # 40,000 endpoints
PORTS = {"mesh": 17443}


def addresses(number: int) -> list[str]:
    """Those of one slice; they come after what is added later, as text."""
    return [f"10.{100 + number // 250}.{number % 250}.{pod + 100}" for pod in range(PODS)]


@pytest.mark.integration
@pytest.mark.alone  # it measures how long others have to wait
def test_5000_slices_are_listed_and_followed_while_other_things_go_on(tmp_path: Path) -> None:
    with FakeApi() as api:
        api.slices = {
            f"orders-{number:04}": a_slice(f"orders-{number:04}", addresses(number), PORTS) for number in range(SLICES)
        }
        token, ca = api.files(tmp_path)
        words = [api.url, str(token), str(ca), str(MOST), "10.0.0.1"]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.kit.slice_follower", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as follower:  # fmt: skip
            assert follower.stderr is not None
            assert follower.stderr.readline() == "listed\n"
            for number in range(SLICES):  # each of them changes: a roll-out of everything
                api.put(f"orders-{number:04}", addresses(number)[1:], PORTS)
            api.put("orders-last", ["10.0.0.1"], PORTS)
            out, err = follower.communicate(timeout=120)
    assert not err
    facts = json.loads(out)
    print(facts)
    assert api.asked[0] == "list"
    assert api.asked.count("page") == SLICES // 20 - 1
    assert api.asked.count("list") == 1
    assert api.largest_page < 100_000
    assert facts["left_out"] == SLICES * (PODS - 1) + 1 - MOST
    assert facts["listed"] < 20.0
    assert facts["told"] < 60  # of 5,001 changes
    assert facts["gap"] < 0.25  # seconds in which no request could have been served; 0.03 on a quiet machine
    assert facts["peak"] < 48 * MIB
