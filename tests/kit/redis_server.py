"""A real Redis for a test: started, killed and started again on one port; and a way to it that may stall."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kit.free_ports import free_port
from tests.kit.processes import Process, eventually
from tests.kit.tools import need


class RedisServer:
    """One redis-server on loopback. What it knows is gone when it is killed."""

    def __init__(self, folder: Path, *options: str, tls: tuple[Path, Path] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._tls = tls
        self.process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ["--port", str(self.port)]
        if self._tls is not None:
            cert, key = map(str, self._tls)
            where = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", cert, "--tls-key-file", key,
                     "--tls-auth-clients", "no"]  # fmt: skip
        command = [need("redis-server"), *where, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--dir", str(self.folder), *self._options]  # fmt: skip
        self.process = Process("redis", command, self.folder / "redis.log")
        eventually("redis listens", self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.stop(0.0)

    def do(self, *words: str) -> object:
        """One command; an error is its text."""
        with socket.create_connection(("127.0.0.1", self.port), 5.0) as sock, sock.makefile("rb") as lines:
            sock.sendall(encoded(words))
            return _reply(lines)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.stop()


def encoded(words: Sequence[str]) -> bytes:
    """A command as Redis reads it."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)


def _reply(lines) -> object:  # type: ignore[no-untyped-def]
    line = lines.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    if kind in (b"+", b"-"):
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else lines.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
    assert kind == b"*", line
    return [_reply(lines) for _ in range(int(rest))]


@contextmanager
def stalling(port: int) -> Iterator[tuple[int, threading.Event]]:
    """A port that leads to another one, and that lets no byte through while the event is set."""
    listener = socket.create_server(("127.0.0.1", 0))
    stalled, over = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with source, target:
            source.settimeout(0.05)
            while not over.is_set():
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                while stalled.is_set() and not over.wait(0.01):
                    pass
                if not data or over.is_set():
                    return
                try:
                    target.sendall(data)
                except OSError:
                    return

    def accept() -> None:
        listener.settimeout(0.05)
        while not over.is_set():
            try:
                near, _ = listener.accept()
            except TimeoutError:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", port), 1.0)
            except OSError:
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threads.append(threading.Thread(target=pump, args=pair, daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1], stalled
    finally:
        over.set()
        for thread in (accepting, *threads):
            thread.join(2.0)
        listener.close()
