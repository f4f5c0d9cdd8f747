"""Published messages through the real hop, with six servers behind it that say what they understood.

A message goes through mTLS into app's sidecar with the recorder behind it. If anything of it was forwarded, it goes
through again with each of the other servers behind it, and what they understood is compared: method, target, host,
fields, body, and how many requests there were. A server that is stricter than we are may refuse; none may read it
otherwise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar.conformance.case import Case, Wanted
from sidecar.conformance.corpus import CASES, H2_CASES
from sidecar.conformance.h2case import H2Case
from sidecar.conformance.judge import Observation
from sidecar.conformance.runner import Target, ask
from tests.kit import llhttp, vectors
from tests.kit.backends import BackEnd, Understood, back_ends, back_ends_h2
from tests.kit.doors import Doors
from tests.wire.decisions import DECISIONS, key

# Methods that llhttp's vectors use and that no rule passes unless it lists them (decision D3).
METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "M-SEARCH", "PROPFIND", "SEARCH",
    "SOURCE", "QUERY", "LINK", "UNLINK", "MKCALENDAR",
)  # fmt: skip
ALLOW = f"[{{name: web-may, from: web, method: [{', '.join(METHODS)}]}}]"
_PLAIN = re.compile(r"[a-z0-9-]+")  # other names are left out by some (nginx, gunicorn), which is their good right
PATIENCE = 0.25  # seconds; on loopback an answer takes a few milliseconds
LONG_PATIENCE = 3.0  # before we call it a difference: the machine may have been busy
_REQUEST_LINE = re.compile(rb"^([^\r\n ]+ [^\r\n ]+ HTTP/1\.1\r\n)", re.MULTILINE)


@dataclass(frozen=True)
class Vector:
    """One published message, and what its publisher's parser makes of it: taken, refused, or (flags) lenient."""

    name: str
    raw: bytes
    expected: str
    frames: H2Case | None = None  # in the place of `raw`, over HTTP/2


@dataclass
class Result:
    """What became of a vector."""

    verdict: str  # taken, refused (or reset), or waits (the message is not whole)
    status: int
    requests: list[Understood]
    differences: list[tuple[str, str]] = field(default_factory=list)  # server, what it understood otherwise
    stricter: list[tuple[str, int]] = field(default_factory=list)  # server, its status


def every_vector() -> Iterator[Vector]:
    """All request vectors; those without a Host a second time with one, because we rightly refuse the first."""
    for vector in (*_gunicorn(), *_llhttp()):
        yield vector
        if b"host:" not in vector.raw.lower():
            with_host = _REQUEST_LINE.sub(_with_host, vector.raw, 1 if b"ength" in vector.raw else 0)
            if with_host != vector.raw:
                yield replace(vector, name=f"{vector.name} + Host", raw=with_host)


def every_control() -> Iterator[Vector]:
    """Every good message of HTTP/1 and HTTP/2."""
    for case in CASES:
        if case.must_pass:
            yield Vector(case.name, case.bytes_for(b"app"), "taken")
    yield from (vector for vector in every_h2_case() if vector.expected == "taken")


def every_h2_case() -> Iterator[Vector]:
    """Every case of HTTP/2 that we may pass on; those that nobody may are refused long before a back end."""
    for case in H2_CASES:
        if case.accept:
            yield Vector(case.name, b"", "taken" if case.must_pass else "refused", case)


def _with_host(line: re.Match[bytes]) -> bytes:
    """A request line, and a Host line that agrees with it."""
    host = re.match(rb"[A-Z-]+ https?://(?:[^/?#@ ]*@)?([^/?#: ]+(?::[0-9]+)?)", line[1])
    return line[1] + b"Host: " + (host[1] if host is not None else b"example.com") + b"\r\n"


def _gunicorn() -> Iterator[Vector]:
    for kind, expected in (("valid", "taken"), ("invalid", "refused")):
        folder = vectors.folder("http1", "gunicorn", kind)
        for path in sorted(folder.glob("*.http")):
            yield Vector(f"gunicorn/{kind}/{path.stem}", vectors.request(path), expected)


def _llhttp() -> Iterator[Vector]:
    for path in sorted(vectors.folder("http1", "llhttp", "request").glob("*.md")):
        for message in llhttp.messages(path):
            expected = "refused" if message.error else "lenient" if message.lenient else "taken"
            yield Vector(f"llhttp/{message.name}", message.raw, expected)


class Hop:
    """The sidecar and the servers behind it; `http2`: those but the recorder are asked by HTTP/2."""

    def __init__(self, folder: Path, *, http2: bool = False) -> None:
        self._folder = folder
        self._http2 = http2
        self._stack = ExitStack()

    def __enter__(self) -> Hop:
        servers = back_ends_h2(self._folder) if self._http2 else back_ends(self._folder)
        self.servers: list[BackEnd] = self._stack.enter_context(servers)
        more = {server.name: server.port for server in self.servers}
        spoken = [server.name for server in self.servers[1:]] if self._http2 else ()
        doors = Doors(self._folder, self.servers[0].port, more=more, allow=ALLOW, http2=spoken)
        self.doors = self._stack.enter_context(doors)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, vector: Vector) -> Result:
        """Send one vector, to all servers where anything of it is forwarded."""
        recorder = self.servers[0]
        heard = self._through(recorder, vector, 1, PATIENCE)
        requests = recorder.take()
        silent = not (heard.answers or heard.closed or heard.reset or requests)
        if silent and vector.expected == "taken" and key(vector.name) not in DECISIONS:
            heard = self._through(recorder, vector, 1, LONG_PATIENCE)
            requests = recorder.take()
        answers = heard.answers
        assert not recorder.malformed, f"{vector.name}: we forwarded what a strict server refuses: {recorder.malformed}"
        status = max((answer.status for answer in answers), default=0)
        refused = status >= 400 or bool(heard.reset) or (heard.closed and not answers)
        verdict = "refused" if refused else "taken" if requests else "waits"
        result = Result(verdict, status, requests)
        for server in self.servers[1:] if requests else ():
            self._compare(server, vector, result, len(answers))
        return result

    def _through(self, server: BackEnd, vector: Vector, wanted: int, patience: float) -> Observation:
        if vector.frames is not None:
            return ask(replace(self.doors.over_http2(server.name), patience=patience), vector.frames)
        target: Target = replace(self.doors.into(server.name), patience=patience)
        return ask(target, Case(vector.name, "", "", vector.raw, ((Wanted(vector.raw.partition(b" ")[0]),) * wanted,)))

    def _compare(self, server: BackEnd, vector: Vector, result: Result, wanted: int) -> None:
        faults, status = self._faults(server, vector, result, wanted, PATIENCE)
        if faults:
            time.sleep(0.5)  # what comes late belongs to the first try
            server.take()
            faults, status = self._faults(server, vector, result, wanted, LONG_PATIENCE)
        result.differences += [(server.name, fault) for fault in faults]
        if status:
            result.stricter.append((server.name, status))

    def _faults(
        self, server: BackEnd, vector: Vector, result: Result, wanted: int, patience: float
    ) -> tuple[list[str], int]:
        """What this server read otherwise; and the status with which it refused, 0 where it did not."""
        answers = self._through(server, vector, wanted, patience).answers
        found = server.take()
        faults = []
        expected = [_common(one, self.servers[0]) for one in result.requests]
        for number, (want, got) in enumerate(zip(expected, found, strict=False), 1):
            if fault := _difference(want, _common(got, server)):
                faults.append(f"request {number}: {fault}")
        if server.malformed:
            faults.append(f"passed on {server.malformed}")
        if len(found) > len(expected):
            faults.append(f"{len(found)} requests instead of {len(expected)}")
        if len(found) < len(expected):
            status = answers[len(found)].status if len(answers) > len(found) else 0
            if status >= 400:
                return faults, status
            faults.append(f"only {len(found)} of {len(expected)} requests, {status}")
        return faults, 0


def _common(one: Understood, server: BackEnd) -> Understood:
    """Without what depends on the port that a server happens to have."""
    return replace(one, host=one.host.replace(f"127.0.0.1:{server.port}", "AUTHORITY"))


def _difference(want: Understood, got: Understood) -> str:
    """What a server read otherwise; empty where nothing. Fields with odd names may be left out, never changed."""
    for name in ("method", "target", "host", "body"):
        if getattr(want, name) != getattr(got, name):
            return f"{name} {getattr(got, name)!r}, not {getattr(want, name)!r}"
    left_out = dict(want.fields).keys() - dict(got.fields).keys()
    if odd := [name for name in left_out if _PLAIN.fullmatch(name)]:
        return f"without {odd}"
    if other := set(got.fields) - set(want.fields):
        return f"with {sorted(other)}"
    return ""
