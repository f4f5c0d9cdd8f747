"""Bad peers, each kind in a process of its own: `python -m tests.kit.attackers KIND PORT --seconds 5 --count 200 …`.

Slow, silent, half-way and too many. An attacker keeps `count` connections in whatever state its kind is about, comes
again whenever it is shown the door, and at the end prints what it saw as one line of JSON. Those that need an identity
show a real one, whose PEM a test hands them; nobody's certificate is checked. All of them work from 127.0.0.1, the
address that well-behaved callers have too, and only ever against loopback. It is bounded in connections and in time.

    silent      connects and never sends a byte
    half_open   sends half a ClientHello, then a byte a second
    stalled     sends a whole ClientHello, lets the answer be paid for, and falls silent
    hellos      sends a whole ClientHello and leaves as soon as the answer has been paid for: a flood
    strangers   whole handshakes without a certificate, one after the other: a flood
    handshakes  whole handshakes with an identity, one after the other: a flood
    hoard       handshakes with an identity, then keeps the connection and asks for nothing
    slow_head   a header byte a second
    slow_body   promises a body and sends a byte of it a second
    slow_read   asks for a long answer and takes 1 KiB of it a second

It shares no code with the sidecar: sockets, select and pyOpenSSL.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from OpenSSL import SSL

HOST = "127.0.0.1"
TICK = 0.05
CONNECTS_PER_TICK = 40
AT_ONCE = {"hellos": 32, "strangers": 32, "handshakes": 32}  # floods: how many at the same time, whatever the count
NEEDS_IDENTITY = frozenset(("handshakes", "hoard", "slow_head", "slow_body", "slow_read"))
ASKS = {
    "slow_head": b"GET /slow-head HTTP/1.1\r\nhost: app\r\nx-slow: ",
    "slow_body": b"POST /slow-body HTTP/1.1\r\nhost: app\r\ncontent-length: 1000000\r\n\r\n",
    "slow_read": b"GET /bytes/67108864 HTTP/1.1\r\nhost: app\r\n\r\n",
}
KINDS = ("silent", "half_open", "stalled", "hellos", "strangers", *sorted(NEEDS_IDENTITY))


@dataclass
class Saw:
    """What an attacker saw."""

    kind: str
    opened: int = 0
    established: int = 0  # handshakes that its own side held to be complete
    refused: int = 0  # connects that failed
    most_open: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # how the other side ended connections
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For the test that started it."""
        return {**vars(self), "ends": dict(self.ends), "statuses": dict(self.statuses)}


class Foe:
    """One connection of an attacker."""

    def __init__(self, crew: Crew, sock: socket.socket) -> None:
        self._crew = crew
        self._sock = sock
        self._kind = crew.kind
        self.fd = sock.fileno()
        self._since = time.monotonic()
        self._next = 0.0
        self._tls: SSL.Connection | None = None
        self._established = False
        self._asked = False
        self._hello = b""
        if self._kind != "silent":
            in_memory = self._kind in ("half_open", "stalled", "hellos")
            self._tls = SSL.Connection(crew.context, None if in_memory else sock)
            self._tls.set_connect_state()
            if in_memory:
                with suppress(SSL.WantReadError):
                    self._tls.do_handshake()
                self._hello = self._tls.bio_read(65536)

    def act(self, now: float) -> str:
        """Do what is due. Returns how the connection ended, or nothing while it stands."""
        try:
            return self._act(now)
        except (SSL.WantReadError, SSL.WantWriteError, BlockingIOError):
            return ""
        except SSL.ZeroReturnError:
            return "close_notify"
        except SSL.SysCallError as error:
            return "reset" if error.args[0] in (104, 32) else "eof"
        except SSL.Error as error:
            reasons = [str(entry[-1]) for entry in error.args[0]] if error.args and error.args[0] else []
            return next((reason for reason in reasons if "alert" in reason), "eof" if not reasons else reasons[-1])
        except OSError as error:
            return "reset" if error.errno in (104, 32) else f"errno {error.errno}"

    def _act(self, now: float) -> str:
        if self._kind in ("silent", "half_open", "stalled", "hellos"):
            return self._act_plain(now)
        assert self._tls is not None
        if not self._established:
            self._tls.do_handshake()
            self._established = True
            self._crew.saw.established += 1
            if self._kind == "handshakes":
                return "left"
        return self._act_tls(now)

    def _act_plain(self, now: float) -> str:
        if self._kind == "silent":
            return "" if self._sock.recv(4096) else "eof"
        if self._kind == "half_open":
            if now >= self._next:
                count = len(self._hello) // 2 if not self._next else 1
                self._sock.send(self._hello[:count])
                self._hello, self._next = self._hello[count:], now + 1
            return "" if self._sock.recv(4096) else "eof"
        if self._hello:
            self._sock.sendall(self._hello)
            self._hello = b""
        if not self._sock.recv(65536):
            return "eof"
        return "paid" if self._kind == "hellos" else ""

    def _drain(self) -> str:
        assert self._tls is not None
        return "" if self._tls.recv(4096) else "eof"

    def _act_tls(self, now: float) -> str:
        assert self._tls is not None
        if self._kind in ("hoard", "strangers"):  # the answer to an empty certificate is an alert
            return self._drain()
        if not self._asked:
            self._tls.send(ASKS[self._kind])
            self._asked, self._next = True, now + 1
        if self._kind == "slow_read":
            if now >= self._next:
                self._next = now + 1
                return "" if self._tls.recv(1024) else "eof"
            return ""
        if now >= self._next:
            self._tls.send(b"x")
            self._next = now + 1
        answer = self._tls.recv(4096)
        if answer.startswith(b"HTTP/1.1 "):
            self._crew.saw.statuses[answer[9:12].decode()] += 1
        return ""

    def close(self) -> None:
        """Leave: with a reset where it is a flood, so that no port of ours stays behind in TIME_WAIT."""
        if self._kind in AT_ONCE:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._sock.close()

    @property
    def eager(self) -> bool:
        """Whether it wants to hear of every byte; one that reads slowly does not."""
        return self._kind != "slow_read" or not self._established


class Crew:
    """All connections of one attacker."""

    def __init__(self, kind: str, port: int, count: int, most: int, identity: Path | None) -> None:
        self.kind = kind
        self.saw = Saw(kind)
        self.context = context_of(identity)
        self._port = port
        self._count = min(count, AT_ONCE.get(kind, count))
        self._most = most
        self._foes: dict[int, Foe] = {}
        self._selector = selectors.DefaultSelector()

    def run(self, seconds: float) -> Saw:
        """Attack for so long."""
        began = now = time.monotonic()
        until, next_tick = began + seconds, began
        while now < until:
            self._reinforce()
            for key, _ in self._selector.select(max(0.0, min(next_tick, until) - now)):
                self._let_act(key.data, now)
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + TICK
                for foe in list(self._foes.values()):
                    self._let_act(foe, now)
        self.saw.seconds = round(now - began, 2)
        for foe in list(self._foes.values()):
            self._leave(foe)
        return self.saw

    def _reinforce(self) -> None:
        for _ in range(min(CONNECTS_PER_TICK, self._count - len(self._foes))):
            if self.saw.opened >= self._most:
                return
            sock = socket.socket()
            if self.kind == "slow_read":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(2)
            try:
                sock.connect((HOST, self._port))
            except OSError:
                self.saw.refused += 1
                sock.close()
                return
            sock.setblocking(False)
            foe = Foe(self, sock)
            self.saw.opened += 1
            self._foes[foe.fd] = foe
            self._selector.register(foe.fd, selectors.EVENT_READ, foe)
            self.saw.most_open = max(self.saw.most_open, len(self._foes))
            self._let_act(foe, time.monotonic())

    def _let_act(self, foe: Foe, now: float) -> None:
        if self._foes.get(foe.fd) is not foe:
            return
        eager = foe.eager
        end = foe.act(now)
        if end:
            self.saw.ends[end] += 1
            self._leave(foe)
        elif eager and not foe.eager:
            self._selector.unregister(foe.fd)  # from here on only the clock makes it read

    def _leave(self, foe: Foe) -> None:
        del self._foes[foe.fd]
        with suppress(KeyError):
            self._selector.unregister(foe.fd)
        foe.close()


def context_of(identity: Path | None) -> SSL.Context:
    """A context that shows what is in this PEM file (a key, and a chain), if there is one."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if identity is not None:
        context.use_privatekey_file(str(identity))
        context.use_certificate_chain_file(str(identity))
    return context


def main() -> int:
    """One attack, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=100, help="connections that it keeps up")
    parser.add_argument("--most", type=int, default=100_000, help="connections in all")
    parser.add_argument("--identity", type=Path)
    parser.add_argument("--core", type=int, help="stay on this processor")
    chosen = parser.parse_args()
    if chosen.kind in NEEDS_IDENTITY and chosen.identity is None:
        parser.error(f"{chosen.kind} needs --identity")
    if chosen.core is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {chosen.core})
    saw = Crew(chosen.kind, chosen.port, chosen.count, chosen.most, chosen.identity).run(chosen.seconds)
    print(json.dumps(saw.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
