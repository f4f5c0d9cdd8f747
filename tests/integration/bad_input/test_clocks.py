"""A clock that is wrong by two minutes or two days, either way, at the start and later: what is refused and by whom,
what is said about the clock, and that setting it right is all it takes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bad_input.conftest import assert_explained
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import steady
from tests.kit.wrong_clock import DAYS, MINUTES, WrongClock

AT_ONCE = {"FAKETIME_NO_CACHE": "1"}


@dataclass
class Mesh:
    """A CA with the right time, and two sidecars with clocks of their own."""

    pair: Pair
    folder: Path
    clocks: dict[str, WrongClock] = field(default_factory=dict)

    def start(self, name: str, offset: float = 0.0, *, ready: bool = True) -> None:
        folder = self.folder / f"clock-{name}"
        folder.mkdir(exist_ok=True)
        self.clocks[name] = clock = WrongClock(folder, offset)
        self.pair[name].start(env=clock.env | AT_ONCE, ready=ready)

    def ask(self) -> tuple[int, str]:
        """Status and decision id, if any, of a request to app."""
        text = curl("-i", self.pair.url + "/orders/7").text
        found = re.search(r"^mesh-decision-id: (\S+)\r$", text, re.MULTILINE)
        return int(text.split(" ")[1]), found[1] if found else ""

    def explain(self, decision_id: str) -> str:
        return steady(self.pair.explain(decision_id), self.folder, self.pair.ports)

    def refused_handshakes(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.pair[name].audit() if line["kind"] == "handshake" and not line["ok"]]


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("clocks")
    pair = Pair(folder, defaults="{timeouts: {pool_idle_peer: 1ms}}")  # a handshake for every request
    with echo_app(folder, pair.ports.app), pair:
        mesh = Mesh(pair, folder)
        pair.start_ca()
        mesh.start("app")
        yield mesh


AT_START = [
    # how far web's clock is off, whether it gets an identity, what `mesh status` says
    (-2 * MINUTES, False, "this machine's clock is 2 min behind the CA's; set it"),
    (2 * MINUTES, True, "this machine's clock is 2 min ahead of the CA's; set it"),
    (-2 * DAYS, False, "this machine's clock is 2 d behind the CA's; set it"),
    (2 * DAYS, False, "this machine's clock is 2 d ahead of the CA's; set it"),
]


@pytest.mark.parametrize(("offset", "starts", "says"), AT_START, ids=["-2min", "+2min", "-2d", "+2d"])
def test_at_the_start(meshes: Mesh, offset: float, starts: bool, says: str) -> None:
    web = meshes.pair["web"]
    shutil.rmtree(web.state, ignore_errors=True)  # a first contact
    meshes.start("web", offset, ready=starts)
    try:
        if not starts:
            eventually("it says why", lambda: web.state_word() == "starting" and says in web.identity()["last_error"])
            assert "no identity yet" in web.status()["not_ready"][0]
            assert curl(meshes.pair.url).code == 7  # no door stands before there is an identity
        eventually("the skew is known", lambda: web.identity()["clock_warning"] == says)
        assert meshes.pair.mesh("status", "--service", "web").stdout.count(says) == 1
        eventually("the skew is a metric", lambda: abs(web.metrics().total("mesh_clock_skew_seconds") - offset) < 5)
        if starts:
            assert meshes.ask()[0] == 200
        meshes.clocks["web"].set(0)
        web.wait_ready()
        assert meshes.ask()[0] == 200
        web.assert_well()
    finally:
        web.stop()


@dataclass(frozen=True)
class Row:
    """A clock that is set wrong while everything runs."""

    name: str
    whose: str
    offset: float
    status: int
    flag: str = ""
    at_web: str = ""  # the reason, in web's access log
    at_app: str = ""  # the reason of app's refused handshake


ROWS = [
    Row("web_2_minutes_ahead", "web", 2 * MINUTES, 200),
    Row("app_2_minutes_ahead", "app", 2 * MINUTES, 200),
    Row("web_2_minutes_behind", "web", -2 * MINUTES, 503, "ID", "peer_identity"),  # app's certificate is fresh
    Row("app_2_minutes_behind", "app", -2 * MINUTES, 503, "ID", "peer_identity", "not_yet_valid"),
    Row("web_2_days_ahead", "web", 2 * DAYS, 503, "ID", "no_identity"),
    Row("app_2_days_ahead", "app", 2 * DAYS, 503, "UF", "handshake_failed", "no_identity"),
    Row("web_2_days_behind", "web", -2 * DAYS, 503, "ID", "peer_identity"),
    Row("app_2_days_behind", "app", -2 * DAYS, 503, "ID", "peer_identity", "not_yet_valid"),
]


def logged(pair: Pair) -> set[str]:
    """The decisions in web's access log."""
    return {line["decision_id"] for line in pair["web"].access_log()}


def test_later(meshes: Mesh) -> None:
    pair = meshes.pair
    pair["app"].stop()  # certificates are back-dated by a minute; those of this test must be fresh
    meshes.start("app")
    meshes.start("web")
    for row in ROWS:  # each failure may open the breaker for a moment
        eventually("all is well again", lambda: meshes.ask()[0] == 200)
        seen = meshes.refused_handshakes("app")
        meshes.clocks[row.whose].set(row.offset)
        status, decision_id = meshes.ask()
        assert status == row.status, row
        if status != 200:
            known = pair["web"].decision(decision_id)
            assert (known["flag"], known["error"]) == (row.flag, row.at_web), row
            eventually("the access log has it", lambda: decision_id in logged(pair))  # noqa: B023
            assert_explained(f"clock_{row.name}", meshes.explain(decision_id))
        if row.at_app:
            eventually("app's audit has it", lambda: len(meshes.refused_handshakes("app")) > len(seen))  # noqa: B023
            refused = meshes.refused_handshakes("app")[-1]
            assert refused["reason"] == row.at_app
            assert_explained(f"clock_{row.name}_at_app", meshes.explain(refused["decision_id"]))
        if row.status == 503 and "no_identity" in (row.at_web, row.at_app):
            assert pair[row.whose].probe("/readyz") == 503
        meshes.clocks[row.whose].set(0)
    eventually("all is well in the end", lambda: meshes.ask()[0] == 200)
    assert pair["web"].probe("/readyz") == 200
    pair.assert_well()
