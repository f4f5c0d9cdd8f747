"""nc through two sidecars: half-close in both directions, a server that speaks first, a port where nobody listens."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import Done, run
from tests.kit.tools import need


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("tcp"), protocol="tcp")
    with pair:
        pair.start_all()
        yield pair


@pytest.fixture
def pair(served: Pair) -> Iterator[Pair]:
    yield served
    with service(served, lambda connection: connection.sendall(read_all(connection) + b" indeed")):
        assert nc(served, b"still there?").out == b"still there? indeed"
    served.assert_well()


@contextmanager
def service(pair: Pair, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A service for one connection, in a thread; `serve` failing fails the test."""
    failures: list[BaseException] = []

    def run_it(listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(30)
                serve(connection)
        except BaseException as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", pair.ports.app)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=run_it, args=(listener,))
        thread.start()
        yield
        thread.join(40)
    assert not failures, failures[0]


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the other side's half-close."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def nc(pair: Pair, content: bytes) -> Done:
    """nc sends this, half-closes (-N), and prints what comes back."""
    return run(need("nc"), "-N", "127.0.0.1", str(pair.ports.door), stdin=content)


def test_the_answer_to_a_finished_question(pair: Pair) -> None:
    """nc half-closes; only then the service can know the digest, and its answer still comes."""
    question = hashlib.shake_256(b"nc").digest(3_000_000)

    def serve(connection: socket.socket) -> None:
        connection.sendall(hashlib.sha256(read_all(connection)).hexdigest().encode())

    with service(pair, serve):
        assert nc(pair, question).out.decode() == hashlib.sha256(question).hexdigest()


def test_the_service_finishes_first_and_still_hears(pair: Pair) -> None:
    """The service says all it has and half-closes; what the client says afterwards still arrives."""
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    with service(pair, serve), socket.create_connection(("127.0.0.1", pair.ports.door), timeout=20) as client:
        assert read_all(client) == b"greeting"
        client.sendall(b"said after your end")
        client.shutdown(socket.SHUT_WR)
    assert heard == [b"said after your end"]


def test_a_service_that_speaks_first(pair: Pair) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"220 ready\r\n")
        assert read_all(connection) == b"HELO me\r\n"
        connection.sendall(b"250 hello\r\n")

    with service(pair, serve):
        assert nc(pair, b"HELO me\r\n").out == b"220 ready\r\n250 hello\r\n"


def test_64_mib_each_way_at_once(pair: Pair) -> None:
    content = hashlib.shake_256(b"large").digest(1 << 20) * 64

    def serve(connection: socket.socket) -> None:
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)

    with service(pair, serve):
        done = nc(pair, content)
    assert len(done.out) == len(content)
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(content).digest()


def test_a_reset_by_the_service_is_a_reset_for_the_client(pair: Pair) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with service(pair, serve), socket.create_connection(("127.0.0.1", pair.ports.door), timeout=20) as client:
        client.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_nobody_behind_the_sidecar(pair: Pair) -> None:
    """The connection ends at once, and both sidecars know why."""
    done = run(need("nc"), "-w", "10", "127.0.0.1", str(pair.ports.door), timeout=20)
    assert done.out == b""
    eventually("it is in the log", lambda: "UF" in {line["flags"] for line in pair["app"].access_log()})
    (line,) = (line for line in pair["app"].access_log() if line["flags"] == "UF")
    assert line["error"] == "connect_failed"
    assert f"127.0.0.1:{pair.ports.app}" in pair.explain(line["decision_id"])
