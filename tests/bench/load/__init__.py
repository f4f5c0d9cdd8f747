"""The load generator: C, compiled when the bench runs, and the requests that it sends."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.rows import Work

HERE = Path(__file__).parent
ID_HEAD = "7f3a0b1c-9c1f-4e0d-8f2a-"
MARK = "~" * 12  # the load writes a number of its own here, into each request
# About 520 bytes of head and a request id of its own for each request, as services send.
HEAD = (
    "{method} {path}" + MARK + " HTTP/1.1\r\n"
    "Host: orders\r\n"
    "X-Request-Id: " + ID_HEAD + MARK + "\r\n"
    "User-Agent: checkout/4.12.0 (linux; amd64) http-client/2.31.1\r\n"
    "Accept: application/json\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Accept-Language: en-GB,en;q=0.8\r\n"
    "X-Tenant: acme-europe-west\r\n"
    "X-Session: s-7f2c1f0a9d5e4b3c8a6f1e2d3c4b5a69788796a5b4c3d2e1f0a1b2c3d4e5f607\r\n"
    "Baggage: region=eu-west-1,plan=enterprise,experiment=checkout-7,tier=gold,channel=web\r\n"
    "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
)


class NoLoad(Exception):
    """The load cannot be made or did not get what it asked for: there is no figure."""


def build(folder: Path) -> Path:
    """The load generator, compiled anew where its source has changed. Raises NoLoad."""
    sources = sorted(HERE.glob("*.c"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, HERE / "load.h"))).hexdigest()[:16]
    program = folder / f"load-{digest}"
    if program.exists():
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoLoad("the bench compiles its load generator: apt-get install gcc libc6-dev libssl-dev")
    folder.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), *map(str, sources)]
    done = subprocess.run([*command, "-lssl", "-lcrypto"], capture_output=True, text=True)
    if done.returncode:
        raise NoLoad(f"the load generator does not compile (apt-get install libssl-dev):\n{done.stderr}")
    return program


def request(work: Work) -> bytes:
    """The request as a template."""
    head = HEAD.format(method="POST" if work.body else "GET", path=work.path)
    if work.body:
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {work.body}\r\n"
    return head.encode() + b"\r\n" + b"b" * work.body


Files = Mapping[str, Path]  # what the load reads its requests from, by option


class Load:
    """One run of the load generator against a port."""

    def __init__(
        self, program: Path, work: Work, files: Files, port: int, tls: Sequence[str], seconds: float
    ) -> None:
        self._command = [
            str(program), "--port", str(port), "--mode", work.mode, "--connections", str(work.connections),
            "--seconds", str(seconds), "--warm", "1", "--length", str(work.length),
            "--check", work.check, "--rate", str(work.rate or 1), "--streams", str(work.streams), *tls,
            *(f"--{name}={path}" for name, path in files.items()),
        ]  # fmt: skip

    @contextmanager
    def __call__(self) -> Iterator[Running]:
        """Start it; inside, it runs. Raises NoLoad where an answer was wrong."""
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.communicate()


class Running:
    """A load that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def wait_for(self, word: str) -> str:
        """Wait for a line that begins with this word."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(word):
            assert self._process.stderr is not None
            raise NoLoad(f"the load said {line!r} instead of {word}: {self._process.stderr.read()}")
        return line

    def result(self) -> dict[str, Any]:
        """Wait for its end, and what it counted. Raises NoLoad where an answer was wrong, or there was none."""
        figures: dict[str, Any] = json.loads(self.wait_for("{"))
        if figures["errors"] or not (figures["requests"] or figures["bytes"]):
            assert self._process.stderr is not None
            raise NoLoad(f"{figures['errors']} errors, {figures['requests']} answers: {self._process.stderr.read()}")
        return figures
