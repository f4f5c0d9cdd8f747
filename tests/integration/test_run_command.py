"""`mesh run -- CMD`: ready before the command starts, its signals, its exit code, and the drain after it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import REPOSITORY, curl, echo_app

ECHO = (sys.executable, "-I", str(REPOSITORY / "tests" / "kit" / "echo_app.py"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """CA, the app and its sidecar run; web's sidecar is each test's own."""
    folder = tmp_path_factory.mktemp("run")
    pair = Pair(folder, defaults="{timeouts: {drain: 5s}}")
    with echo_app(folder, pair.ports.app), pair:
        pair.start_all("app")
        yield pair


@pytest.fixture
def pair(served: Pair) -> Iterator[Pair]:
    """After each test the same sidecar can be started again and serves."""
    yield served
    served["web"].start()
    assert curl("-w", "%{http_code}", "-o", "/dev/null", served.url).text == "200"
    served["web"].stop()
    assert not served["web"].socket.exists()
    served["app"].assert_well()


def web(pair: Pair, *command: str, ready: bool = False) -> None:
    pair["web"].start(*command, ready=ready)


def test_the_command_starts_once_the_mesh_is_ready_and_its_code_is_ours(pair: Pair) -> None:
    """The very first thing the command does is a call through the mesh."""
    web(pair, "sh", "-c", f"curl -fsS {pair.url}/first; exit 7")
    assert pair["web"].process.wait() == 7
    assert '"/first"' in pair["web"].process.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_a_signal_ended(pair: Pair, number: signal.Signals) -> None:
    web(pair, "sh", "-c", f"kill -{number.value} $$")
    assert pair["web"].process.wait() == 128 + number


def test_a_command_that_is_not_there(pair: Pair) -> None:
    web(pair, "/no/such/program")
    assert pair["web"].process.wait() == 127
    assert "/no/such/program" in pair["web"].process.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_passed_on_and_the_command_decides(pair: Pair, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'curl -fsS {pair.url}/farewell-{name}; exit 9' {name}; echo set; while :; do sleep 0.05; done"
    before = pair["web"].process.text().count("set\n") if pair["web"]._process else 0
    web(pair, "sh", "-c", script)
    pair["web"].process.until("trapped", lambda: pair["web"].process.text().count("set\n") > before)
    pair["web"].process.signal(number)
    assert pair["web"].process.wait() == 9
    assert f"/farewell-{name}" in pair["web"].process.text()  # the mesh was still there for its last words


def test_the_sidecar_drains_when_the_command_has_ended(pair: Pair) -> None:
    """A peer's request is answered by an application that finishes its work on SIGTERM; then both are gone."""
    web(pair, "sh", "-c", "sleep 0.3; echo ended", ready=True)
    assert pair["web"].process.wait() == 0
    assert "drained" in pair["web"].process.text()


def test_a_service_around_which_its_sidecar_runs(served: Pair, tmp_path: Path) -> None:
    """The application as the command of its own sidecar: SIGTERM ends the application first, then the sidecar."""
    other = Pair(tmp_path)
    with other:
        other.start_ca()
        other["app"].start(*ECHO, str(other.ports.app))
        other["web"].start()
        eventually("it serves", lambda: curl("-w", "%{http_code}", "-o", "/dev/null", other.url).text == "200")
        other["app"].process.signal(signal.SIGTERM)
        assert other["app"].process.wait() == 0
        assert " 503 " in curl("-i", other.url).text


def test_a_sidecar_that_cannot_start_never_starts_the_command(pair: Pair, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    pair["web"].start()
    second = pair.mesh(*pair["web"].command("touch", str(marker))[4:])  # the same service again: its socket is taken
    assert second.returncode != 0
    assert not marker.exists()
    assert pair["web"].state_word() == "ready"
    pair["web"].stop()
