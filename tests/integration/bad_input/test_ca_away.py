"""The CA is down: who holds a certificate goes on, who needs one says why it waits, and `mesh explain` leads there.

How sidecars come up by themselves when it returns is in tests/integration/test_ca_outages.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.bad_input.conftest import assert_explained
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import steady


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """All of it runs, and at the end a good request must pass."""
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        yield pair
        assert curl("-w", "%{http_code}", "-o", "/dev/null", pair.url).text == "200"
        pair.assert_well()


def test_later_and_at_the_start_of_another(pair: Pair, tmp_path: Path) -> None:
    assert pair.ca is not None
    pair.ca.stop()
    assert curl("-w", "%{http_code}", "-o", "/dev/null", pair.url).text == "200"  # they hold what they need

    pair["app"].stop()
    pair["app"].start(ready=False)  # a restart without the CA: its key was in memory only
    eventually("it has tried", lambda: tried(pair))
    text = curl("-i", pair.url).text
    assert "UF connect_failed" in text
    decision_id = re.findall(r"^mesh-decision-id: (\S+)\r$", text, re.MULTILINE)[0]
    assert_explained("ca_down", steady(pair.explain(decision_id), tmp_path, pair.ports))

    status = pair.mesh("status", "--service", "app").stdout
    assert f"cannot reach the CA at 127.0.0.1:{pair.ports.ca}: " in status
    assert "starting" in status
    assert pair.mesh("status", "--service", "app", "--ready").returncode == 1
    assert pair["web"].metrics().total("mesh_ready") == 1
    assert [line for line in pair["app"].audit() if line["kind"] == "handshake" and not line["ok"]] == []

    pair.start_ca()
    pair["app"].wait_ready()


def tried(pair: Pair) -> bool:
    return pair["app"].state_word() == "starting" and bool(pair["app"].identity()["last_error"])
