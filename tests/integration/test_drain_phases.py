"""The end of a sidecar in its phases: each timed and told, each to be cut short, and the application's door last."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fleet import Sidecar
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

LAME_DUCK, DRAIN = 1.5, 2.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path, defaults=f"{{timeouts: {{lame_duck: {LAME_DUCK * 1000:.0f}ms, drain: {DRAIN:.0f}s}}}}")
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        yield pair


def phase(sidecar: Sidecar) -> str:
    return str((sidecar.status()["drain"] or {}).get("phase", ""))


def ask(pair: Pair) -> str:
    return curl("-o", "/dev/null", "-w", "%{http_code}", pair.url + "/x").text


def told(sidecar: Sidecar, message: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in sidecar.process.text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == message]


def test_a_lame_duck_serves_new_connections_and_is_not_ready(pair: Pair) -> None:
    app = pair["app"]
    began = time.monotonic()
    app.process.signal(signal.SIGTERM)
    eventually("draining", lambda: phase(app) == "lame_duck")
    assert app.probe("/readyz") == 503
    with socket.create_connection(("127.0.0.1", pair.ports.app_in)):  # somebody new
        assert ask(pair) == "200"
    status = app.status()
    assert (status["state"], status["drain"]["why"], status["drain"]["limit"]) == ("draining", "SIGTERM", LAME_DUCK)
    assert "draining (SIGTERM): phase lame_duck for" in pair.mesh("status").stdout
    assert app.metrics().total("mesh_drain_phase_seconds", phase="lame_duck") > 0
    assert time.monotonic() - began < LAME_DUCK, "too slow a machine to tell"
    assert app.process.wait() == 0
    assert time.monotonic() - began >= LAME_DUCK
    assert [line["phase"] for line in told(app, "drain phase")] == ["lame_duck", "inbound", "outbound"]
    over = {line["phase"]: line["seconds"] for line in told(app, "drain phase over")}
    assert over["lame_duck"] == pytest.approx(LAME_DUCK, abs=0.3)
    assert told(app, "drained")[0]["seconds"] >= LAME_DUCK


def test_a_second_signal_ends_a_lame_duck_at_once(pair: Pair) -> None:
    app = pair["app"]
    app.process.signal(signal.SIGTERM)
    eventually("draining", lambda: phase(app) == "lame_duck")
    app.process.signal(signal.SIGINT)
    assert app.process.wait(LAME_DUCK * 0.9) == 128 + signal.SIGTERM


def test_hup_does_not_disturb_a_drain(pair: Pair) -> None:
    app = pair["app"]
    app.process.signal(signal.SIGTERM)
    eventually("draining", lambda: phase(app) == "lame_duck")
    app.process.signal(signal.SIGHUP)
    assert app.process.wait() == 0
    assert not told(app, "the configuration has not changed")


def test_the_door_stays_open_while_the_application_is_connected(pair: Pair) -> None:
    """Nobody can tell when an application that we did not start has gone; its connections can."""
    web = pair["web"]
    with socket.create_connection(("127.0.0.1", pair.ports.door)) as line:
        line.settimeout(5)
        web.process.signal(signal.SIGTERM)
        eventually("the last phase", lambda: phase(web) == "outbound")
        for _ in range(2):
            line.sendall(b"GET /late HTTP/1.1\r\nhost: app\r\n\r\n")
            answer = line.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in answer.lower()
        assert ask(pair) == "200"
        assert web.process.code is None
        closed = time.monotonic()
    assert web.process.wait() == 0
    assert time.monotonic() - closed < 2


def test_an_application_that_stays_is_left_after_the_limit(pair: Pair) -> None:
    web = pair["web"]
    with socket.create_connection(("127.0.0.1", pair.ports.door)) as waiting:
        waiting.sendall(b"GET /slow/20 HTTP/1.1\r\nhost: app\r\n\r\n")
        began = time.monotonic()
        web.process.signal(signal.SIGTERM)
        assert web.process.wait(20) == 0
        assert time.monotonic() - began == pytest.approx(LAME_DUCK + DRAIN, abs=1.0)
    (line,) = told(web, "the drain's time is over")
    assert (line["phase"], line["outbound_connections"]) == ("outbound", 1)


def test_an_application_that_goes_on_asking_is_told_to_go_before_the_limit(pair: Pair) -> None:
    """Its last answer says `Connection: close`, so it never writes a request that nobody will read."""
    web = pair["web"]
    with socket.create_connection(("127.0.0.1", pair.ports.door)) as kept:
        web.process.signal(signal.SIGTERM)
        answer = b""
        while b"connection: close" not in answer:
            kept.sendall(b"GET /x HTTP/1.1\r\nhost: app\r\n\r\n")
            answer = kept.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            time.sleep(0.02)
        assert kept.recv(1) == b""
    assert web.process.wait(20) == 0
    assert not told(web, "the drain's time is over")


def test_a_drain_on_order_leaves_the_command_its_upstreams_for_as_long_as_it_runs(pair: Pair, tmp_path: Path) -> None:
    web = pair["web"]
    assert web.stop() == 0
    web.start(sys.executable, "-c", "import time; time.sleep(60)")
    assert web.admin("POST", "/drain")[0] == 202
    eventually("the last phase", lambda: phase(web) == "outbound")
    drain = web.status()["drain"]
    assert (drain["why"], drain["limit"]) == ("POST /drain on the admin socket", None)
    time.sleep(1.0)
    assert ask(pair) == "200"
    web.process.signal(signal.SIGTERM)  # is the command's, which ends by it
    assert web.process.wait(5) == 128 + signal.SIGTERM
    assert told(web, "drained")


def test_a_command_that_ends_takes_the_sidecar_along_without_delay(pair: Pair) -> None:
    web = pair["web"]
    assert web.stop() == 0
    web.start(sys.executable, "-c", "import sys; sys.exit(7)", ready=False)
    assert web.process.wait(20) == 7
    ended = datetime.now(UTC)
    draining = told(web, "draining")[-1]
    assert draining["why"] == "its command has ended"
    assert (ended - datetime.fromisoformat(draining["time"])).total_seconds() < LAME_DUCK + DRAIN
