"""One sidecar's clock is wrong by two minutes or two days, from the start or all of a sudden (libfaketime).

Certificates are back-dated by a minute, so two minutes ahead is harmless and two minutes behind is not; two days are
more than any certificate lives. Whatever is refused is refused by name, and the word *clock* is in the explanation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.wrong_clock import DAYS, MINUTES, WrongClock

BOTH = pytest.mark.parametrize("name", ["web", "app"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """The CA and the application run. At the end the clock is right again, and so must everything be."""
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_ca()
        yield pair
        for sidecar in pair.sidecars.values():
            sidecar.wait_ready()
        eventually("requests pass again", lambda: status_of(pair) == "200")
        pair.assert_well()


def status_of(pair: Pair) -> str:
    return curl("-o", "/dev/null", "-w", "%{http_code}", pair.url).text


def refused(pair: Pair) -> str:
    """A request that must be refused; what `mesh explain` says of it."""
    done = curl("-i", pair.url)
    assert " 200 " not in done.text.partition("\n")[0], done
    return pair.explain(done.text.split('"decision": "')[1].split('"')[0])


def failed_handshakes(pair: Pair) -> list[dict[str, Any]]:
    """What the audit of the called one has of them by now."""
    return [line for line in pair["app"].audit() if line["kind"] == "handshake" and not line["ok"]]


def start_with(pair: Pair, name: str, clock: WrongClock, *, ready: bool) -> None:
    """This one with that clock, the other with ours."""
    pair["app" if name == "web" else "web"].start()
    pair[name].start(env=clock.env, ready=ready)


@BOTH
def test_two_minutes_ahead_works_and_is_warned_of(pair: Pair, name: str, tmp_path: Path) -> None:
    start_with(pair, name, WrongClock(tmp_path, 2 * MINUTES), ready=True)
    assert status_of(pair) == "200"
    identity = pair[name].identity()
    assert identity["clock_skew_seconds"] == pytest.approx(120, abs=2)
    assert identity["clock_warning"] == "this machine's clock is 2 min ahead of the CA's; set it"
    assert identity["clock_warning"] in " ".join(pair.mesh("status").stdout.split())
    assert pair[name].metrics().total("mesh_clock_skew_seconds") == pytest.approx(120, abs=2)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (-2 * MINUTES, "this machine's clock is 2 min behind the CA's; set it"),
        (-2 * DAYS, "this machine's clock is 2 d behind the CA's; set it"),
        (2 * DAYS, "this machine's clock is 2 d ahead of the CA's; set it"),
    ],
    ids=["2 min behind", "2 d behind", "2 d ahead"],
)
def test_a_clock_that_makes_the_ca_look_wrong_is_named(pair: Pair, offset: float, words: str, tmp_path: Path) -> None:
    """No identity is taken on trust: the sidecar says what is wrong, and starts once the clock is set right."""
    clock = WrongClock(tmp_path, offset)
    start_with(pair, "app", clock, ready=False)
    app = pair["app"]
    eventually("it has tried", lambda: app.state_word() == "starting" and app.identity()["clock_warning"])
    status = app.status()
    assert words in status["not_ready"][0]
    assert words in status["identity"]["last_error"]
    assert status["identity"]["clock_skew_seconds"] == pytest.approx(offset, abs=2)
    assert words in " ".join(pair.mesh("status").stdout.split())
    assert pair.mesh("status", "--ready", "--service", "app").returncode == 1
    assert words in app.process.text()
    assert "UF" in refused(pair)
    clock.set(0)


@BOTH
def test_a_jump_of_two_minutes_is_not_noticed_by_requests(pair: Pair, name: str, tmp_path: Path) -> None:
    clock = WrongClock(tmp_path)
    start_with(pair, name, clock, ready=True)
    for offset in (0, 2 * MINUTES, -2 * MINUTES, 0):
        clock.set(offset)
        assert [status_of(pair) for _ in range(3)] == ["200"] * 3


def test_the_callers_clock_jumps_two_days_ahead(pair: Pair, tmp_path: Path) -> None:
    """Its own certificate has ended for all it knows, so it calls nobody, and is ready no more."""
    clock = WrongClock(tmp_path)
    start_with(pair, "web", clock, ready=True)
    assert status_of(pair) == "200"
    clock.set(2 * DAYS)
    explained = refused(pair)
    assert "no_identity" in explained
    assert "clock" in explained
    assert pair["web"].probe("/readyz") == 503
    ready = pair.mesh("status", "--ready", "--service", "web")
    assert ready.returncode == 1
    assert "certificate has expired" in ready.stdout
    clock.set(0)
    assert status_of(pair) == "200"
    assert pair.mesh("status", "--ready").returncode == 0


def test_the_called_ones_clock_jumps_two_days_ahead(pair: Pair, tmp_path: Path) -> None:
    """On the connection that stands it refuses the caller's certificate; on a new one it has none of its own."""
    clock = WrongClock(tmp_path)
    start_with(pair, "app", clock, ready=True)
    assert status_of(pair) == "200"
    clock.set(2 * DAYS)
    explained = refused(pair)
    assert "identity_refused (expired)" in explained
    assert "clock" in explained
    assert "handshake_failed" in refused(pair)
    eventually("its log says why", lambda: "our own certificate ended" in pair["app"].process.text())
    assert pair["app"].probe("/readyz") == 503
    clock.set(0)


def test_the_callers_clock_jumps_two_days_back(pair: Pair, tmp_path: Path) -> None:
    """What stands goes on, since nothing has ended; a new handshake finds certificates that are not valid yet."""
    clock = WrongClock(tmp_path)
    start_with(pair, "web", clock, ready=True)
    clock.set(-2 * DAYS)
    explained = refused(pair)
    assert "not_yet_valid" in explained
    assert "clock" in explained
    clock.set(0)


def test_the_called_ones_clock_jumps_two_days_back(pair: Pair, tmp_path: Path) -> None:
    clock = WrongClock(tmp_path)
    start_with(pair, "app", clock, ready=True)
    clock.set(-2 * DAYS)
    explained = refused(pair)  # by the caller: all that it has is an alert
    assert "peer_identity" in explained
    assert "clock" in explained
    eventually("its audit says so", lambda: failed_handshakes(pair))
    failure = failed_handshakes(pair)[-1]
    assert failure["reason"] == "not_yet_valid"
    assert "clock" in pair.explain(failure["decision_id"])
    clock.set(0)
