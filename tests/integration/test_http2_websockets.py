"""WebSocket over HTTP/2 (RFC 8441): node's http2 client, through one sidecar or two, to a server of RFC 6455."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from tests.kit.doors import Doors
from tests.kit.free_ports import free_port
from tests.kit.processes import eventually
from tests.kit.socket_app import answer
from tests.kit.tools import need

SCRIPT = Path(__file__).parents[1] / "kit" / "h2_socket.js"
MIB = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ALLOW = "[{name: sockets, from: web, method: GET, path: [/chat, /greet]}]"


class Node:
    """A WebSocket of node's."""

    def __init__(self, url: str, path: str = "/chat", *keys: str) -> None:
        command = [need("node"), str(SCRIPT), url, path, *keys]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def next(self) -> dict[str, Any]:
        """What it says next."""
        return self._said.get(timeout=20)

    def opened(self) -> None:
        """It was offered extended CONNECT, and the server has agreed to a socket."""
        assert self.next() == {"connect": True}
        assert self.next() == {"status": 200, "upgrade": None}

    def order(self, **order: Any) -> None:
        """Tell it what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def send(self, payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> None:
        """Send one frame of RFC 6455."""
        self.order(opcode=opcode, payload=base64.b64encode(payload).decode(), fin=fin)

    def takes(self, payload: bytes, opcode: int = BINARY) -> None:
        """The next frame is this."""
        expected = {"opcode": opcode, "fin": 1, "size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        assert self.next() == expected


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    need("node")
    folder = tmp_path_factory.mktemp("sockets")
    port = free_port()
    with serve(answer, "127.0.0.1", port, max_size=4 * MIB, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Doors(folder, port, allow=ALLOW) as both:
            yield both
            both.assert_well()
        server.shutdown()
        thread.join()


@pytest.fixture(params=["one sidecar", "two sidecars", "forward proxy"])
def way(request: pytest.FixtureRequest, doors: Doors) -> tuple[str, ...]:
    """mTLS by ALPN straight into app's sidecar, or prior knowledge into web's and on from there; there by its listener
    for app or by its forward proxy, which knows app by `:authority`.
    """
    return way_of(doors, request.param)


def way_of(doors: Doors, name: str, path: str = "/chat") -> tuple[str, ...]:
    if name == "one sidecar":
        return (f"https://127.0.0.1:{doors.ports.app_in}", path, str(doors.certificate), str(doors.key))
    port = doors.ports.proxy if name == "forward proxy" else doors.ports.door
    return (f"http://127.0.0.1:{port}", path)


def test_messages_small_empty_and_large(way: tuple[str, ...]) -> None:
    with Node(*way) as node:
        node.opened()
        for size in (5, 0, 125, 126, 65_535, 65_536, 3 * MIB):
            message = hashlib.shake_256(b"ws").digest(size)
            node.send(message)
            node.takes(message)
        node.send("grüße".encode(), TEXT)
        node.takes("grüße".encode(), TEXT)


def test_fragments_and_pings_between_them(way: tuple[str, ...]) -> None:
    with Node(*way) as node:
        node.opened()
        node.send(b"one ", TEXT, fin=False)
        node.send(b"are you there", PING)
        node.takes(b"are you there", PONG)
        node.send(b"two ", 0, fin=False)
        node.send(b"three", 0)
        node.takes(b"one two three", TEXT)


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, "going away"), (4321, "our own reasons")])
def test_close_codes_of_the_server_come_through(way: tuple[str, ...], code: int, reason: str) -> None:
    with Node(*way) as node:
        node.opened()
        node.send(f"close {code} {reason}".encode(), TEXT)
        said = node.next()
        assert (said["opcode"], said["code"], said["reason"]) == (CLOSE, code, reason)
        node.send(code.to_bytes(2), CLOSE)
        assert node.next() == {"stream": "ended"}
        node.order(end=True)
        assert node.next() == {"stream": "closed", "code": 0}


def test_the_close_code_of_the_client_is_answered(way: tuple[str, ...]) -> None:
    with Node(*way) as node:
        node.opened()
        node.send((4999).to_bytes(2) + b"bye", CLOSE)
        said = node.next()
        assert (said["opcode"], said["code"]) == (CLOSE, 4999)
        assert node.next() == {"stream": "ended"}


@pytest.mark.parametrize("name", ["one sidecar", "two sidecars"])
def test_the_server_may_speak_first(doors: Doors, name: str) -> None:
    with Node(*way_of(doors, name, "/greet")) as node:
        node.opened()
        node.takes(b"the server speaks first", TEXT)


def test_half_a_close_ends_the_servers_side_too(doors: Doors, way: tuple[str, ...]) -> None:
    """END_STREAM is the FIN of RFC 8441 section 5; the server sees a socket that ends without a close frame."""
    with Node(*way) as node:
        node.opened()
        node.send(b"before the end", TEXT)
        node.takes(b"before the end", TEXT)
        node.order(end=True)
        while "stream" not in (said := node.next()):
            assert said["opcode"] == CLOSE
        assert said == {"stream": "ended"}
    eventually("the streams have ended", lambda: streams(doors) == (0, 0))


def test_a_reset_takes_the_servers_end_with_it(doors: Doors, way: tuple[str, ...]) -> None:
    with Node(*way) as node:
        node.opened()
        node.send(b"hello", TEXT)
        node.takes(b"hello", TEXT)
        node.order(reset=True)
        eventually("its hop has ended", lambda: streams(doors) == (0, 0))


def test_a_path_that_no_rule_allows_is_no_socket(doors: Doors) -> None:
    for name in ("one sidecar", "two sidecars"):
        with Node(*way_of(doors, name, "/admin")) as node:
            assert node.next() == {"connect": True}
            assert node.next()["status"] == 403


def test_a_draining_sidecar_lets_the_socket_come_to_its_end(tmp_path: Path) -> None:
    port = free_port()
    need("node")
    with serve(answer, "127.0.0.1", port, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Doors(tmp_path, port, allow=ALLOW) as doors, Node(*way_of(doors, "one sidecar")) as node:
            node.opened()
            node.send(b"hello", TEXT)
            node.takes(b"hello", TEXT)
            doors.app.call(doors.app._orders.begin_drain, "a test")
            assert [node.next(), node.next()] == [{"goaway": 0}] * 2  # the warning, and the last word (RFC 9113 6.8)
            node.send(b"still here", TEXT)
            node.takes(b"still here", TEXT)
            node.send(b"close 1000 done", TEXT)
            assert node.next()["code"] == 1000
            node.send((1000).to_bytes(2), CLOSE)
            assert node.next() == {"stream": "ended"}
        server.shutdown()
        thread.join()


# ---- between the sidecars --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """web's upstream says `upgrade: h2`; beside app's server of RFC 6455 there is one that speaks HTTP/2 only."""
    folder, port, by_h2 = tmp_path_factory.mktemp("shared"), free_port(), free_port()
    node = subprocess.Popen(
        [need("node"), str(SCRIPT.with_name("h2_echo_socket.js")), str(by_h2)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert node.stdout is not None
        assert node.stdout.readline() == "ready\n"
        with serve(answer, "127.0.0.1", port, max_size=4 * MIB, compression=None) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            more, http2 = {"by_h2": by_h2}, {"by_h2"}
            with Doors(folder, port, allow=ALLOW, upgrade="h2", more=more, http2=http2) as both:
                yield both
                both.assert_well()
            server.shutdown()
            thread.join()
    finally:
        node.kill()
        node.communicate()


def taken(doors: Doors) -> float:
    """How many connections of peers app's sidecar has taken so far."""
    return doors.app.total("mesh_connections_opened_total", listener="main")


def test_http_1_clients_share_a_connection_of_http_2_between_sidecars(shared: Doors) -> None:
    before = taken(shared)
    message = hashlib.shake_256(b"ws").digest(3 * MIB)
    with ExitStack() as stack:
        url = f"ws://127.0.0.1:{shared.ports.door}/chat"
        sockets = [stack.enter_context(connect(url, proxy=None, max_size=4 * MIB)) for _ in range(20)]
        assert taken(shared) == before + 1
        for number, socket in enumerate(sockets):
            socket.send(f"number {number}")
        assert [socket.recv(20) for socket in sockets] == [f"number {number}" for number in range(20)]
        sockets[7].send(message)
        assert sockets[7].recv(20) == message
        assert streams(shared) == (20, 20)
        sockets[3].send("close 4321 our own reasons")
        with pytest.raises(ConnectionClosedError):
            sockets[3].recv(20)
        assert (sockets[3].close_code, sockets[3].close_reason) == (4321, "our own reasons")
        sockets[4].send("the others go on")
        assert sockets[4].recv(20) == "the others go on"
    eventually("the streams have ended", lambda: streams(shared) == (0, 0))
    with pytest.raises(InvalidStatus) as refused, connect(url.replace("/chat", "/admin"), proxy=None):
        pass
    assert refused.value.response.status_code == 403


def test_http_1_and_http_2_callers_share_it_too(shared: Doors) -> None:
    before = taken(shared)
    with Node(*way_of(shared, "two sidecars")) as node, Node(*way_of(shared, "forward proxy")) as other:
        for each in (node, other):
            each.opened()
            each.send(b"hello", TEXT)
            each.takes(b"hello", TEXT)
        with connect(f"ws://127.0.0.1:{shared.ports.door}/greet", proxy=None) as socket:
            assert socket.recv(20) == "the server speaks first"
        assert taken(shared) <= before + 1
    eventually("the streams have ended", lambda: streams(shared) == (0, 0))


def test_an_application_that_takes_them_by_http_2_is_asked_so(shared: Doors) -> None:
    """It speaks nothing else. The key of RFC 6455 section 1.3, and its answer, are between caller and sidecar."""
    target = shared.into("by_h2")
    assert target.tls is not None
    ask = b"GET /chat HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    ask += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    address = ("127.0.0.1", shared.ports.by_h2)
    with create_connection(address, timeout=20) as plain, target.tls.wrap_socket(plain) as sock:
        sock.sendall(ask + b"at once")
        heard = b""
        while not heard.endswith(b"at once"):
            piece = sock.recv(4096)
            assert piece, heard
            heard += piece
    assert heard.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in heard
    assert b"sec-websocket-protocol: chat" in heard.lower()


def streams(doors: Doors) -> tuple[int, int]:
    """Tunnels that are open in either sidecar."""
    web, app = (int(one.admin("GET", "/status")[1]["streams"]) for one in (doors.web, doors.app))
    return web, app
