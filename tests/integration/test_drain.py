"""SIGTERM: what is in flight ends well, what is new is refused, and the process says 0."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually, listens
from tests.kit.programs import Done, curl, echo_app


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path, defaults="{timeouts: {drain: 4s}}")
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        yield pair


class Background:
    """A curl in a thread."""

    def __init__(self, *arguments: str) -> None:
        self._done: list[Done] = []
        self._thread = threading.Thread(target=lambda: self._done.append(curl(*arguments)))
        self._thread.start()

    def result(self) -> Done:
        self._thread.join()
        return self._done[0]


@pytest.mark.parametrize("path", ["/slow/1", "/drip/12"], ids=["before its answer", "in the middle of its answer"])
def test_a_request_in_flight_ends_and_a_new_connection_is_refused(pair: Pair, path: str) -> None:
    running = Background("-i", pair.url + path)
    eventually("it is in flight", lambda: pair["app"].status()["in_flight"] == 1)
    pair["app"].process.signal(signal.SIGTERM)
    eventually("draining", lambda: pair["app"].state_word() == "draining")
    assert pair["app"].probe("/readyz") == 503
    assert pair["app"].probe("/livez") == 200
    eventually("nobody listens for peers", lambda: not listens(pair.ports.app_in))
    assert pair["app"].process.code is None
    done = running.result()
    assert done.code == 0, done
    assert " 200 " in done.text
    assert pair["app"].process.wait() == 0
    refused = curl("-i", pair.url + "/late")
    assert " 503 " in refused.text
    assert not pair["app"].socket.exists()
    assert "drained" in pair["app"].process.text()
    pair["app"].start()
    assert " 200 " in curl("-i", pair.url + "/after").text
    pair.assert_well()


def test_the_time_to_drain_is_bounded(pair: Pair) -> None:
    running = Background("-i", pair.url + "/slow/9")
    eventually("it is in flight", lambda: pair["app"].status()["in_flight"] == 1)
    began = time.monotonic()
    pair["app"].process.signal(signal.SIGTERM)
    assert pair["app"].process.wait(20) == 0
    assert 3.5 < time.monotonic() - began < 7
    assert "the drain's time is over" in pair["app"].process.text()
    assert " 503 " in running.result().text


def test_a_second_signal_ends_it_at_once(pair: Pair) -> None:
    running = Background("-i", pair.url + "/slow/10")
    eventually("it is in flight", lambda: pair["app"].status()["in_flight"] == 1)
    pair["app"].process.signal(signal.SIGTERM)
    eventually("draining", lambda: pair["app"].state_word() == "draining")
    pair["app"].process.signal(signal.SIGTERM)
    assert pair["app"].process.wait(3) == 128 + signal.SIGTERM
    assert " 503 " in running.result().text


def test_the_callers_own_sidecar_keeps_its_door_open_while_it_drains(pair: Pair) -> None:
    """The application may need its upstreams to finish its work (semantics S27)."""
    assert pair["web"].admin("POST", "/drain")[0] == 202
    assert pair["web"].process.wait() == 0  # nothing of peers was in flight, so this one is over at once


def test_restarts_under_load_cost_at_most_what_was_not_answered_yet(pair: Pair) -> None:
    """One instance only, so while it is away requests are refused; but none is torn, crossed or left unanswered."""
    with NonceLoad(pair.ports.door, rate=100) as load:
        for _ in range(3):
            time.sleep(0.7)
            assert pair["app"].stop() == 0
            pair["app"].start()
        time.sleep(0.7)
    tally = load.stop()
    print(tally.summary())
    assert not tally.crossed
    assert not tally.torn
    assert tally.ok > tally.sent / 10  # after each failure in a row nobody asks for a second, then two, then four
    assert all("status 503" in failure for failure in tally.failed), tally.failed[:5]
    flags = {line["flags"] for line in pair["web"].access_log() if line["status"] == 503}
    assert flags <= {"UF", "UC", "UR", "UH", "-"}
    eventually("it is asked again", lambda: " 200 " in curl("-i", pair.url + "/after").text)
    pair.assert_well()


def test_an_idle_connection_holds_nothing_up(pair: Pair) -> None:
    with socket.create_connection(("127.0.0.1", pair.ports.door)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert pair["app"].stop() == 0
        assert time.monotonic() - began < 3
