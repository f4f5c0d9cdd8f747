"""The websockets library at both ends, two sidecars between: RFC 6455 over an upgrade that HTTP rules let through."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from socket import SHUT_RDWR
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import serve

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.socket_app import answer

MIB = 1 << 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    allow = "[{name: sockets, from: web, method: GET, path: [/chat, /greet]}]"
    pair = Pair(tmp_path_factory.mktemp("websockets"), allow=allow)
    with serve(answer, "127.0.0.1", pair.ports.app, max_size=4 * MIB) as server, pair:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        pair.start_all()
        yield pair
        server.shutdown()
        thread.join()


def open_socket(pair: Pair, path: str = "/chat") -> AbstractContextManager[ClientConnection]:
    uri = f"ws://127.0.0.1:{pair.ports.door}{path}"
    return connect(uri, proxy=None, max_size=4 * MIB, open_timeout=10, close_timeout=10)


@pytest.fixture
def pair(served: Pair) -> Iterator[Pair]:
    yield served
    with open_socket(served) as socket:
        socket.send("still there?")
        assert socket.recv(10) == "still there?"
    served.assert_well()


def test_text_and_binary(pair: Pair) -> None:
    with open_socket(pair) as socket:
        for message in ("grüße", b"\x00\xff" * 100, "", b""):
            socket.send(message)
            assert socket.recv(10) == message


def test_the_server_may_speak_first(pair: Pair) -> None:
    with open_socket(pair, "/greet") as socket:
        assert socket.recv(10) == "the server speaks first"


@pytest.mark.parametrize("size", [65_535, 65_536, MIB])
def test_large_messages(pair: Pair, size: int) -> None:
    message = hashlib.shake_256(b"ws").digest(size)
    with open_socket(pair) as socket:
        for _ in range(4):
            socket.send(message)
        for _ in range(4):
            assert socket.recv(20) == message


def test_a_fragmented_message(pair: Pair) -> None:
    with open_socket(pair) as socket:
        socket.send(piece for piece in ("one ", "two ", "three"))
        assert socket.recv(10) == "one two three"


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, "going away"), (4321, "our own reasons")])
def test_close_codes_come_through(pair: Pair, code: int, reason: str) -> None:
    with open_socket(pair) as socket:
        socket.send(f"close {code} {reason}")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)


def test_ping_reaches_the_other_end(pair: Pair) -> None:
    with open_socket(pair) as socket:
        assert socket.ping().wait(10)
        assert socket.latency > 0


def test_many_sockets_at_once_do_not_mix(pair: Pair) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(pair)) for _ in range(20)]
        for turn in range(5):
            for number, socket in enumerate(sockets):
                socket.send(f"{number}.{turn}")
            for number, socket in enumerate(sockets):
                assert socket.recv(10) == f"{number}.{turn}"
        assert pair["app"].status()["connections"] >= 20
        assert (pair["app"].status()["streams"], pair["app"].status()["in_flight"]) == (20, 0)
    eventually("the connections have ended", lambda: pair["app"].status()["streams"] == 0)


def test_a_path_that_no_rule_allows_is_no_websocket(pair: Pair) -> None:
    with pytest.raises(InvalidStatus) as refused:
        open_socket(pair, "/admin")
    assert refused.value.response.status_code == 403
    decision = refused.value.response.headers["mesh-decision-id"]
    assert "sockets" in pair.explain(decision)


def test_a_socket_is_told_with_its_bytes_when_it_ends(pair: Pair) -> None:
    before = len(greetings(pair))
    with open_socket(pair, "/greet") as socket:
        socket.recv(10)
        socket.send(hashlib.shake_256(b"ws").digest(1000))  # which permessage-deflate cannot shorten
        socket.recv(10)
    eventually("the hop is in the log", lambda: len(greetings(pair)) > before)
    line = greetings(pair)[-1]
    assert (line["status"], line["flags"], line["rule"]) == (101, "-", "sockets")
    assert line["request_bytes"] > 1000
    assert line["response_bytes"] > 1000


def greetings(pair: Pair) -> list[dict[str, Any]]:
    """The access log's lines of sockets on /greet that have ended."""
    return [line for line in pair["app"].access_log() if line["uri"] == "/greet"]


def test_a_client_that_vanishes_takes_the_servers_end_with_it(pair: Pair) -> None:
    with open_socket(pair) as socket:
        socket.send("hello")
        socket.recv(10)
        busy = pair["app"].status()["streams"]
        assert busy >= 1
        socket.socket.shutdown(SHUT_RDWR)
        eventually("its hop has ended", lambda: pair["app"].status()["streams"] < busy)
