"""gRPC by hand, on h2: a caller that says what no library would, and a server that breaks off as no library does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

Fields = list[tuple[str, str]]
HEAD: Fields = [(":status", "200"), ("content-type", "application/grpc")]
WELL: Fields = [("grpc-status", "0")]


def message(body: bytes) -> bytes:
    """A message, uncompressed."""
    return b"\0" + len(body).to_bytes(4, "big") + body


@dataclass
class Told:
    """All that came of one call."""

    head: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None

    @property
    def status(self) -> str:
        """What grpc-status says, wherever it stands."""
        return self.trailers.get("grpc-status") or self.head.get("grpc-status", "")


def call(port: int, method: str, body: bytes = b"", *, end: bool = True, fields: Fields | None = None) -> Told:
    """Make one call, and wait for what becomes of it; it is never cancelled from here."""
    told = Told()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        books = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        books.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", f"127.0.0.1:{port}")]
        head += [(":path", f"/kit.Echo/{method}"), ("te", "trailers"), ("content-type", "application/grpc")]
        books.send_headers(1, head + (fields or []))
        books.send_data(1, body, end_stream=end)
        sock.sendall(books.data_to_send())
        while True:
            data = sock.recv(65536)
            assert data, "the connection ended before the call did"
            for event in books.receive_data(data):
                if isinstance(event, ResponseReceived):
                    told.head = dict(event.headers)
                elif isinstance(event, DataReceived):
                    told.body += event.data
                    books.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, TrailersReceived):
                    told.trailers = dict(event.headers)
                elif isinstance(event, StreamReset):
                    told.reset = int(event.error_code)
                    return told
                elif isinstance(event, StreamEnded):
                    return told
                else:
                    assert not isinstance(event, ConnectionTerminated), event
            sock.sendall(books.data_to_send())


Answer = Callable[[Any, int], None]  # (the h2 connection, the stream): what a method does


@contextmanager
def broken_server(port: int, methods: dict[str, Answer]) -> Iterator[list[int]]:
    """A server whose methods answer as soon as they are asked, each in a way of its own. Yields the codes of the resets
    that have come.
    """
    resets: list[int] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve(sock: socket.socket) -> None:
            books = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
            books.initiate_connection()
            with sock:
                sock.sendall(books.data_to_send())
                while data := sock.recv(65536):
                    for event in books.receive_data(data):
                        if isinstance(event, RequestReceived):
                            path = dict(event.headers)[":path"]
                            methods[path.rpartition("/")[2]](books, event.stream_id)
                        elif isinstance(event, StreamReset):
                            resets.append(int(event.error_code))
                    sock.sendall(books.data_to_send())

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield resets
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
