"""`make bench-quick`: what a request costs in Python's own steps, counted, not timed: the same on every machine.

A sidecar (its Proxy, with real sockets, real TLS, policy, metrics and audit) is driven turn by turn. Its callers, its
peer and its application live on a second reactor, in the same process but not counted. Counted are the bytecodes that
are executed, and calls of functions, Python's and C's, in the steady state. The figures depend on the minor version of
Python, so `limits.json` has them by version; one that is over its limit by more than 2 % fails. After a change that is
meant to cost: `make bench-quick ARGS=--update`, and say in the commit what the price buys.

Theory of operation. No trio, no threads, no clock: reactors are turned by hand, in turns, until nothing moves. Events
of loopback are there when the call that made them returns, so every run takes the same steps. Hashes are not random
(PYTHONHASHSEED=0), since the order of a set is a path through the code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from certs.source import Source
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig
from sidecar.http.h2 import H2Client, H2Limits, H2Server
from sidecar.net.contexts import make_context
from sidecar.net.mtls import MtlsGate
from sidecar.net.port import Wire
from sidecar.net.reactor import Reactor
from sidecar.net.tls import TlsWire
from sidecar.net.wires import SocketWire
from sidecar.runtime.build import Proxy
from sidecar.telemetry.log import Log
from sidecar.telemetry.record import Recorder
from sidecar.telemetry.setup import make_recorder
from tests.bench import count_h2
from tests.bench.load import MARK, request
from tests.bench.mesh import GRPC, RULES
from tests.bench.rows import Work
from tests.kit.drivers import ISSUER, ROOT
from tests.kit.free_ports import Ports
from tests.kit.identities import a_bundle_set, an_svid

LIMITS = Path(__file__).with_name("limits.json")
TOLERANCE = 0.02
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
CONNECTIONS, WARM, COUNTED = 8, 30, 20  # requests on each connection: first without, then with counting
H2_CONNECTIONS, H2_ROUNDS = 2, 5  # of `count_h2.STREAMS` requests, and as many before counting
QUIET_TURNS = 20  # turns of both reactors in which nothing happens: nothing will
TEXT = """\
trust_domain: demo.mesh
services:
  web:
    outbound: [{{to: orders, listen: "127.0.0.1:{ports.out}"}}]
    health: {{listen: off}}
  orders:
    inbound: [{{name: main, port: {ports.inbound}, bind: 127.0.0.1, app: "127.0.0.1:{ports.app}"}}]
    allow:
{rules}
    health: {{listen: off}}
    limits: {{handshakes_per_second: 100000}}
{extra}
"""
CHUNKED = b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = (
    b"HTTP/1.1 200 OK\r\nServer: app/1.2\r\nDate: Sun, 22 Nov 2026 08:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n"
)
ANSWERS = {
    "/items/": PLAIN + b"x" * 1024,
    "/chunked/": CHUNKED + b"4000\r\n" + b"y" * 16384 + b"\r\n0\r\n\r\n",
}


class StillClock:
    """Time stands still, so that nothing happens because of it."""

    def __init__(self) -> None:
        self._wall = time.time()

    def monotonic(self) -> float:
        """Always the same."""
        return 1000.0

    def wall(self) -> float:
        """The moment this was made."""
        return self._wall


class Counts:
    """Bytecodes and calls under a function."""

    def __init__(self) -> None:
        self.bytecodes = self.calls = 0
        self.by_code: Counter[CodeType] = Counter()

    def run(self, function: Callable[[], object], what: str) -> None:
        """Run it and count."""
        if what == "bytecodes":
            sys.settrace(self._enter)
        else:
            sys.setprofile(self._call)
        try:
            function()
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _call(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call"):
            self.calls += 1

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            self.bytecodes += 1
            self.by_code[frame.f_code] += 1
        return self._step


class Bench:
    """One sidecar that is counted, and a world around it that is not."""

    def __init__(self, folder: Path, *, outbound: bool, extra: str = "", h2: bool = False) -> None:
        self.clock = StillClock()
        self.ports = Ports()
        rules = RULES["http"] + "\n" + GRPC
        text = TEXT.format(ports=self.ports, rules=rules, extra=extra.format(folder=folder))
        self.config = load_text(text, str(folder / "mesh.yaml"))
        self.reactor, self.world = Reactor(self.clock), Reactor(self.clock)
        self.counting: tuple[Counts, str] | None = None
        self.recorders: list[Recorder] = []
        self.listener: socket.socket | None = None
        inbound = self._proxy(self.config, "orders", self.world if outbound else self.reactor, folder)
        inbound.listen()
        if outbound:
            self._proxy(self.config, "web", self.reactor, folder).listen()
        self.entry = self.ports.out if outbound else self.ports.inbound
        self.client = None if outbound else make_context(
            an_svid(ISSUER, "web"), [ROOT.certificate], server=False, verify="require",
            alpn=(b"h2" if h2 else b"http/1.1",),
        )  # fmt: skip

    def _proxy(self, config: MeshConfig, name: str, reactor: Reactor, folder: Path) -> Proxy:
        svids: Source[Any] = Source("SVID")
        bundles: Source[Any] = Source("bundle")
        svids.publish(an_svid(ISSUER, name))
        bundles.publish(a_bundle_set(ROOT))
        service = config.services[name]
        instance = "1" * 8 if name == "web" else "2" * 8
        recorder = make_recorder(service, instance=instance, state_dir=folder, log=Log(), clock=self.clock)
        self.recorders.append(recorder)
        return Proxy(service, reactor=reactor, gate=MtlsGate(svids, bundles), recorder=recorder, instance=instance)

    # ---- the world --------------------------------------------------------------------------------------------------

    def serve(self, answer: bytes, body: int) -> None:
        """Let the application answer so to every request with a body of this length."""

        async def each(wire: Wire) -> None:
            have = b""
            while data := await wire.read():
                have += data
                end = have.find(b"\r\n\r\n")
                if end >= 0 and len(have) >= end + 4 + body:
                    have = b""
                    await wire.write(answer)

        self._listen(lambda wire: self.world.start(each(wire)))

    def serve_h2(self) -> None:
        """Let the application speak HTTP/2."""
        self._listen(lambda wire: count_h2.Connection(self.world, wire, H2Server(None, self.clock.monotonic())))

    def _listen(self, on_wire: Callable[[Wire], object]) -> None:
        self.listener = listener = socket.create_server(("127.0.0.1", self.ports.app), backlog=64)
        listener.setblocking(False)

        def accept() -> None:
            try:
                connected, _ = listener.accept()
            except BlockingIOError:
                return
            connected.setblocking(False)
            on_wire(SocketWire(self.world, connected))

        self.accept = accept

    async def call_h2(
        self, times: int, *, call: bool, connection: count_h2.Connection | None = None
    ) -> count_h2.Connection:
        """The same in HTTP/2, `count_h2.STREAMS` requests each time."""
        if connection is None:
            wire = await self._connect()
            connection = count_h2.Connection(self.world, wire, H2Client(H2Limits(), self.clock.monotonic()))
        return await connection.ask(times, call=call)

    async def call(self, template: bytes, length: int, times: int, wire: Wire | None = None) -> Wire:
        """Connect unless there is a connection, and send so many requests, each after the answer to the one before."""
        if wire is None:
            wire = await self._connect()
        for _ in range(times):
            self.number += 1
            await wire.write(template.replace(MARK.encode(), b"%012x" % self.number))
            have, wanted = b"", -1
            while wanted < 0 or len(have) < wanted:
                data = await wire.read()
                assert data, "the sidecar hung up"
                have += data
                end = have.find(b"\r\n\r\n")
                if end >= 0 and wanted < 0:
                    assert have.startswith(b"HTTP/1.1 200"), have[:200]
                    wanted = end + 4 + length
        return wire

    number = 0

    async def _connect(self) -> Wire:
        plain = socket.create_connection(("127.0.0.1", self.entry))
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = SocketWire(self.world, plain)
        if self.client is None:
            return wire
        secure = TlsWire(wire, self.client, server=False)
        await secure.handshake()
        return secure

    def close(self) -> None:
        """Close everything."""
        for reactor in (self.world, self.reactor):
            reactor.cancel_all()
            for watched in list(reactor._watched.values()):
                watched.close()
        for recorder in self.recorders:
            recorder.close()
        if self.listener is not None:
            self.listener.close()

    # ---- turns ------------------------------------------------------------------------------------------------------

    def play(self, scripts: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Turn both reactors until these have ended; returns their results."""
        results: list[Any] = []
        crashes: list[BaseException] = []
        self.world.on_crash = self.reactor.on_crash = crashes.append

        async def kept(script: Coroutine[Any, Any, Any]) -> None:
            results.append(await script)

        for script in scripts:
            self.world.start(kept(script))
        quiet = 0
        while len(results) < len(scripts):
            before = (self.reactor.batch, self.world.batch, len(results))
            self.world.run_ready()
            self.world._turn()
            self.accept()
            if self.counting is None:
                self.reactor._turn()
            else:
                counts, what = self.counting
                counts.run(self.reactor._turn, what)
            if crashes:
                raise crashes[0]
            quiet = quiet + 1 if before == (self.reactor.batch, self.world.batch, len(results)) else 0
            assert quiet < QUIET_TURNS, "nothing moves any more"
        return results


def measure(
    work: Work, *, outbound: bool = False, extra: str = "", fresh: bool = False
) -> tuple[dict[str, float], Counts]:
    """Bytecodes and calls for one request."""
    counts = Counts()
    with (
        tempfile.TemporaryDirectory(prefix="mesh-count-") as name,
        contextlib.closing(Bench(Path(name), outbound=outbound, extra=extra)) as bench,
    ):
        answer = ANSWERS[work.path]
        length = len(answer) - answer.index(b"\r\n\r\n") - 4
        bench.serve(answer, work.body)
        template = request(work)
        wires = bench.play([bench.call(template, length, WARM) for _ in range(CONNECTIONS)])
        for what in ("bytecodes", "calls"):
            bench.counting = (counts, what)
            if fresh:
                for _ in range(COUNTED):
                    for wire in bench.play([bench.call(template, length, 1) for _ in range(CONNECTIONS)]):
                        wire.close()
            else:
                bench.play([bench.call(template, length, COUNTED, wire) for wire in wires])
    done = COUNTED * CONNECTIONS
    return {"bytecodes": counts.bytecodes / done, "calls": counts.calls / done}, counts


def measure_h2(*, call: bool, outbound: bool = False) -> tuple[dict[str, float], Counts]:
    """The same for one request over HTTP/2, or for one call of gRPC, whose application speaks HTTP/2 too."""
    counts = Counts()
    with (
        tempfile.TemporaryDirectory(prefix="mesh-count-") as name,
        contextlib.closing(Bench(Path(name), outbound=outbound, h2=True)) as bench,
    ):
        if call:
            bench.serve_h2()
        else:
            bench.serve(PLAIN + count_h2.PAGE, 0)
        connections = bench.play([bench.call_h2(H2_ROUNDS, call=call) for _ in range(H2_CONNECTIONS)])
        for what in ("bytecodes", "calls"):
            bench.counting = (counts, what)
            bench.play([bench.call_h2(H2_ROUNDS, call=call, connection=connection) for connection in connections])
    done = H2_ROUNDS * H2_CONNECTIONS * count_h2.STREAMS
    return {"bytecodes": counts.bytecodes / done, "calls": counts.calls / done}, counts


RATES = """\
    rates:
      - {{name: all, limit: 900000000/s}}
      - {{name: each, limit: 900000000/s, per: caller}}
      - {{name: reads, limit: 900000000/s, per: endpoint, method: GET, path: "/items/{{id}}"}}"""
QUOTAS = """\
    quotas:
      - {{name: daily, limit: 900000000000/d}}"""
DETECTORS = """\
    detectors: {{stuffing: {{}}, enumeration: {{ids: 100000}}, spikes: {{least: 100000000}}}}"""
SCENES: dict[str, dict[str, Any]] = {
    "inbound": {"work": Work()},
    "outbound": {"work": Work(), "outbound": True},
    "access-log": {"work": Work(), "extra": "    access_log: {{mode: all, path: {folder}/access.log}}"},
    "rate-limits": {"work": Work(), "extra": RATES},
    "detectors": {"work": Work(), "extra": DETECTORS},
    "quotas": {"work": Work(), "extra": QUOTAS},
    "post-chunked": {"work": Work("/chunked/", 16384, body=4096)},
    "handshake": {"work": Work(), "fresh": True},
    "h2": {"call": False},
    "grpc": {"call": True},
    "grpc-outbound": {"call": True, "outbound": True},
}


def main() -> int:
    """Count, compare with the limits, or record them."""
    parser = argparse.ArgumentParser(prog="make bench-quick ARGS=…", description=__doc__)
    parser.add_argument("--update", action="store_true", help="record what is counted now as the limits")
    parser.add_argument("--top", type=int, default=0, help="show the functions that execute most bytecodes")
    parser.add_argument("--scene", action="append", choices=SCENES)
    options = parser.parse_args()
    limits: dict[str, Any] = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    known = limits.setdefault(VERSION, {})
    over = []
    print(f"per request, Python {VERSION}        bytecodes (limit)          calls (limit)")
    for name in options.scene or SCENES:
        scene = SCENES[name]
        figures, counts = measure_h2(**scene) if "call" in scene else measure(**scene)
        limit = known.get(name, {})
        most = {what: value * (1 + TOLERANCE) for what, value in limit.items()}
        over += [f"{name}: {what}" for what, value in figures.items() if value > most.get(what, value)]
        cells = (f"{figures[what]:14.1f} ({limit.get(what, 'none')})" for what in ("bytecodes", "calls"))
        print(f"  {name:20}" + "".join(f"{cell:26}" for cell in cells))
        for code, number in counts.by_code.most_common(options.top):
            each = number * figures["bytecodes"] / counts.bytecodes
            print(f"      {each:8.1f}  {code.co_qualname} ({Path(code.co_filename).name})")
        if options.update:
            known[name] = {what: round(value, 1) for what, value in figures.items()}
    if options.update:
        LIMITS.write_text(json.dumps(limits, indent=1, sort_keys=True) + "\n")
        print(f"recorded in {LIMITS.name}")
    elif over:
        print(f"over the limit by more than {TOLERANCE:.0%}: {', '.join(over)}", file=sys.stderr)
        print("If that is the price: make bench-quick ARGS=--update; say in the commit what it buys", file=sys.stderr)
        return 1
    elif not known:
        print(f"no limits are recorded for Python {VERSION}: nothing was judged")
    return 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        again = [sys.executable, "-m", "tests.bench.count", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
