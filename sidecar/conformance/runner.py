"""Sends each case over a connection of its own, then asks for a canary over another one, in the case's own version.

A case ends when the proxy closes, when as many answers as the case can have are here, or when nothing happens for
`patience` seconds. The canary is a plain GET with a nonce in its path: if the proxy's connection to the origin was
poisoned, the canary gets somebody else's answer, or the origin sees it glued to something else.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sidecar.conformance.answers import Answer, read_answers
from sidecar.conformance.case import Case
from sidecar.conformance.h2answers import Conversation
from sidecar.conformance.h2case import GREETING, H2Case, Head, fields
from sidecar.conformance.judge import Observation, Verdict, judge
from sidecar.conformance.origin import Origin, Seen
from sidecar.http.h2.codes import ConnectionFault
from sidecar.http.h2.compression import NotHpack, TooMuch

SETTLE = 0.02  # seconds for a second answer, or a second request at the origin, to show
CONNECT_SECONDS = 5.0
CANARY_SECONDS = 5.0


class Unreachable(Exception):
    """The proxy cannot be talked to at all, so that nothing can be said about it."""


@dataclass(frozen=True)
class Target:
    """How to reach the proxy under test."""

    url: str
    host: str = ""  # for the Host line; of the URL where empty
    origin_host: str = ""  # what the origin should see for it; the same where empty
    tls: ssl.SSLContext | None = None  # for https URLs; this says what is checked of the peer
    through: tuple[str, int] | None = None  # a forward proxy, asked with CONNECT
    patience: float = 1.0
    http2: bool = False  # by ALPN for https URLs, which `tls` must offer; by prior knowledge for others

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to. Raises ValueError for a URL that is neither http nor https."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no http:// or https:// URL")
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def host_line(self) -> bytes:
        """What a good request says in Host."""
        return (self.host or urlsplit(self.url).netloc).encode("ascii")

    @property
    def expected_host(self) -> bytes:
        """What the origin should see there."""
        return self.origin_host.encode("ascii") or self.host_line

    def connect(self) -> socket.socket:
        """A connection over which requests can be sent. Raises OSError."""
        sock = socket.create_connection(self.through or self.address, timeout=CONNECT_SECONDS)
        try:
            if self.through is not None:
                self._tunnel(sock)
            if urlsplit(self.url).scheme == "https":
                context = self.tls or ssl.create_default_context()
                sock = secure = context.wrap_socket(sock, server_hostname=self.address[0])
                if self.http2 and secure.selected_alpn_protocol() != "h2":
                    raise ConnectionError("the proxy does not agree on h2 (ALPN)")
        except BaseException:
            sock.close()
            raise
        return sock

    def _tunnel(self, sock: socket.socket) -> None:
        host, port = self.address
        sock.sendall(b"CONNECT %b:%d HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % ((host.encode(), port) * 2))
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := sock.recv(1)):  # not a byte too many: what follows belongs to the tunnel
                raise ConnectionError(f"the forward proxy closed after {head[:60]!r}")
            head += data
        if b" 200" not in head.partition(b"\r\n")[0]:
            raise ConnectionError(f"the forward proxy answered {head.partition(bytes((13,)))[0].decode('latin-1')}")


def run(
    target: Target,
    cases: Iterable[Case],
    origin: Origin | None,
    *,
    progress: Callable[[Verdict], None] = lambda _: None,
) -> list[Verdict]:
    """Run these cases, one after another. Raises Unreachable where not even a canary gets through."""
    canaries = _Canaries(target, origin)
    if fault := canaries.ask():
        raise Unreachable(fault)
    verdicts = []
    for case in cases:
        touched = origin.touched if origin is not None else -1
        if origin is not None:
            origin.take()
        observed = ask(target, case)
        answers = observed.answers
        refused = observed.closed or observed.reset or (answers and answers[0].status >= 400)
        # Who sent the origin nothing can have poisoned nothing.
        fault = "" if refused and origin is not None and origin.touched == touched else canaries.ask()
        seen = None if origin is None else [one for one in origin.take() if not canaries.is_canary(one)]
        verdict = judge(case, replace(observed, seen=seen, canary=fault), target.host_line, target.expected_host)
        progress(verdict)
        verdicts.append(verdict)
    return verdicts


def ask(target: Target, case: Case) -> Observation:
    """Send one case in its own version of HTTP; what came back, without what the origin saw."""
    if not isinstance(case, H2Case):
        answers, closed = exchange(target, case)
        return Observation(answers, closed, None)
    heard, closed = converse(target, case, target.patience)
    return Observation(heard.answers, closed, None, reset=heard.reset, goaway=heard.goaway)


def converse(target: Target, case: H2Case, patience: float, settle: float = SETTLE) -> tuple[Conversation, bool]:
    """Send one case of HTTP/2; what was heard, and whether the proxy closed. Raises Unreachable."""
    try:
        sock = target.connect()
    except OSError as error:
        raise Unreachable(f"connecting failed before {case.name}: {error}") from None
    heard = Conversation(case.streams)
    with sock:
        sock.settimeout(patience)
        try:
            sock.sendall(GREETING + case.bytes_for(target.host_line))
        except OSError:
            pass  # it did not want to hear all of it; its answer may be here
        deadline = time.monotonic() + patience
        while (remaining := settle if heard.done or heard.failed else deadline - time.monotonic()) > 0:
            sock.settimeout(remaining)
            try:
                more = sock.recv(65536)
                if not more:
                    return heard, True
                if reply := heard.feed(more):
                    sock.sendall(reply)
            except (TimeoutError, ssl.SSLWantReadError):
                break
            except (OSError, ConnectionFault, NotHpack, TooMuch):
                return heard, True
    return heard, heard.failed


def exchange(target: Target, case: Case) -> tuple[list[Answer], bool]:
    """Send one case; the answers, and whether the proxy closed."""
    raw = case.bytes_for(target.host_line)
    try:
        sock = target.connect()
    except OSError as error:
        raise Unreachable(f"connecting failed before {case.name}: {error}") from None
    with sock:
        try:
            sock.sendall(raw)
        except OSError:
            pass  # it did not want to hear all of it; its answer may be here
        methods = [wanted.method for wanted in max(case.accept, key=len, default=())] or [raw.partition(b" ")[0]]
        return _receive(sock, methods, case.answers, target.patience)


def _receive(
    sock: socket.socket, methods: list[bytes], wanted: int, patience: float, settle: float = SETTLE
) -> tuple[list[Answer], bool]:
    data = b""
    deadline = time.monotonic() + patience
    while True:
        answers = read_answers(data, methods)
        done = len(answers) >= wanted and answers[-1].whole and answers[-1].status
        remaining = settle if done else deadline - time.monotonic()
        if remaining <= 0:
            return answers, False
        sock.settimeout(remaining)
        try:
            more = sock.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            return answers, False
        except OSError:
            return answers, True
        if not more:
            return answers, True
        data += more


class _Canaries:
    """Good requests that tell whether the next caller still gets its own answer."""

    def __init__(self, target: Target, origin: Origin | None) -> None:
        self._target = target
        self._origin = origin
        self._count = 0
        self._status = 0  # of the first one: without an origin of ours, what all others must have

    def is_canary(self, seen: Seen) -> bool:
        """Whether this is a canary that arrived as it was sent."""
        return seen.method == b"GET" and seen.target.startswith(b"/canary/") and not seen.body

    def ask(self) -> str:
        """Ask once; what is wrong, empty where nothing is."""
        self._count += 1
        target = b"/canary/%d" % self._count
        try:
            answers = self._answers(target)
        except (OSError, Unreachable) as error:
            return f"a plain GET afterwards failed: {error}"
        if not answers:
            return "a plain GET afterwards had no answer"
        answer = answers[0]
        if self._origin is None:
            self._status = self._status or answer.status
            return "" if answer.status == self._status else f"a plain GET afterwards was answered {answer.status}"
        if answer.status != 200 or answer.body != target:
            return f"a plain GET afterwards was answered {answer.status} {answer.body[:60]!r}"
        return ""

    def _answers(self, path: bytes) -> list[Answer]:
        if self._target.http2:
            good = H2Case("a canary", "", "", b"", pieces=(Head(fields(path=path)),))
            return converse(self._target, good, CANARY_SECONDS, settle=0.0)[0].answers
        with self._target.connect() as sock:
            sock.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, self._target.host_line))
            return _receive(sock, [b"GET"], 1, CANARY_SECONDS, settle=0.0)[0]
