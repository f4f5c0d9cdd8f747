"""Many connections, five requests on each, as fast as they go: `python -m tests.kit.soak_load PORT --connections N`.

A closed loop in one thread, lean enough that a soak measures the sidecars and not this. Every request carries a nonce
in its path, a header and (each second one is a POST) its body, and the answer must hold this nonce and no other. With
`--identity` it speaks mTLS, one handshake a connection. Prints one line of JSON at its end.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

from tests.kit.attackers import context_of

PER_CONNECTION = 5
WANT = (SSL.WantReadError, SSL.WantWriteError, BlockingIOError)
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER on, 0 s


@dataclass
class Sums:
    """What became of everything."""

    connections: int = 0
    requests: int = 0
    ok: int = 0
    crossed: int = 0
    torn: int = 0
    failed: dict[str, int] = field(default_factory=Counter)
    seconds: float = 0.0


class Lane:
    """One connection after the other."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.open()

    def open(self) -> None:
        """Connect; loopback answers at once."""
        load = self._load
        self._sock = socket.create_connection(("127.0.0.1", load.port), timeout=10)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self._sock.fileno()
        self._stream: SSL.Connection | socket.socket = self._sock
        if load.context is not None:
            self._stream = SSL.Connection(load.context, self._sock)
            self._stream.set_connect_state()
        self._left, self._buffer, self._nonce = PER_CONNECTION, b"", b""
        load.lanes[self.fd] = self
        load.epoll.register(self.fd, select.EPOLLIN)
        load.sums.connections += 1
        if load.context is None:
            self._ask()
        else:
            self.stirred()

    def stirred(self) -> None:
        """Something may be read."""
        try:
            if isinstance(self._stream, SSL.Connection) and not self._nonce:
                self._stream.do_handshake()
                self._ask()
            data = self._stream.recv(65536)
        except WANT:
            pass
        except SSL.ZeroReturnError:
            self._end("ended early")
        except (SSL.Error, OSError) as error:
            self._end(f"{type(error).__name__} {error.args}"[:80])
        else:
            self._buffer += data
            if data:
                self._take()
            else:
                self._end("ended early")

    def _ask(self) -> None:
        sums = self._load.sums
        sums.requests += 1
        nonce = self._nonce = b"%s-%08x" % (self._load.run, sums.requests)
        body = (b"<%s>" % nonce) * 8 if sums.requests % 2 else b""
        method, length = (b"POST", b"content-length: %d\r\n" % len(body)) if body else (b"GET", b"")
        self._expected = body or f"<{nonce.decode():<30}>".encode()
        request = b"%s /echo/%s HTTP/1.1\r\nhost: app\r\nx-nonce: %s\r\n%s\r\n%s" % (method, nonce, nonce, length, body)
        self._stream.send(request)  # far smaller than any socket's buffer

    def _take(self) -> None:
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        sums = self._load.sums
        if not head.startswith(b"HTTP/1.1 200"):
            self._end(head[:12].decode("latin-1"))
            return
        if body == self._expected and b"x-nonce: " + self._nonce in head:
            sums.ok += 1
        elif self._load.run in body and self._nonce not in body:
            sums.crossed += 1
        else:
            sums.torn += 1
        self._buffer = b""
        self._left -= 1
        if self._left and b"\r\nconnection: close" not in head.lower():
            self._ask()
        else:
            self._end("")

    def _end(self, problem: str) -> None:
        load = self._load
        if problem:
            load.sums.failed[problem] += 1
        load.epoll.unregister(self.fd)
        del load.lanes[self.fd]
        with suppress(OSError):
            if isinstance(self._stream, SSL.Connection):
                with suppress(SSL.Error):
                    self._stream.shutdown()
        # No port of ours stays in TIME_WAIT: there are 28,000 of them, and a million connections.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._sock.close()
        if load.sums.connections < load.most:
            self.open()


class Load:
    """All lanes."""

    def __init__(self, port: int, most: int, identity: Path | None) -> None:
        self.port, self.most = port, most
        self.context = context_of(identity) if identity is not None else None
        self.run = b"%04x" % (time.time_ns() // 1_000_000 & 0xFFFF)
        self.epoll = select.epoll()
        self.lanes: dict[int, Lane] = {}
        self.sums = Sums()

    def go(self, lanes: int) -> Sums:
        """All connections, so many at a time."""
        began = time.monotonic()
        for _ in range(min(lanes, self.most)):
            Lane(self)
        while self.lanes:
            events = self.epoll.poll(20)
            if not events:
                self.sums.failed["silence"] += len(self.lanes)
                break
            for fd, _ in events:
                if (lane := self.lanes.get(fd)) is not None:
                    lane.stirred()
        self.sums.seconds = round(time.monotonic() - began, 2)
        return self.sums


def main() -> int:
    """One load, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--lanes", type=int, default=16, help="connections at a time")
    parser.add_argument("--identity", type=Path)
    chosen = parser.parse_args()
    print(json.dumps(vars(Load(chosen.port, chosen.connections, chosen.identity).go(chosen.lanes))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
