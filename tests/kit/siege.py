"""A mesh under attack: well-behaved callers beside bad peers, on one address, each with an identity of its own.

    victim's client → web's sidecar → mTLS → app's sidecar → application
    newcomer (a new mTLS connection for every request, as `batch`) ──┘
    attacker (a process of its own, as `mallory` or as nobody) ──────┘

The machine is divided: attackers have the last processor to themselves, everybody else shares the others, so that what
is measured is what the sidecar makes of the attack and not who got the processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from OpenSSL import SSL

from certs.bundle import BundleSet
from certs.enrolment import Enrolment
from certs.keys import key_to_pem
from certs.source import Source
from certs.store import write_private
from certs.svid import X509Svid
from sidecar.admin.client import NoSidecar
from sidecar.identity.rotator import IdentityConfig, Rotator
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import SystemClock
from tests.kit.attackers import context_of
from tests.kit.fleet import TRUST_DOMAIN, Fleet, Metrics, Sidecar
from tests.kit.free_ports import Ports
from tests.kit.nonce import NonceLoad, Tally
from tests.kit.programs import REPOSITORY

SECOND = 1.0  # that a well-behaved caller's request may take


def siege_yaml(ports: Ports, folder: Path, *, defaults: str) -> str:
    """web calls app; batch and mallory are allowed too, and have no sidecar."""
    return f"""\
trust_domain: {TRUST_DOMAIN}
ca: {{address: "127.0.0.1:{ports.ca}"}}
defaults: {defaults}
services:
  web:
    outbound: [{{to: app, listen: "127.0.0.1:{ports.door}"}}]
    access_log: {{mode: all, path: {folder}/web.access}}
    health: {{listen: "127.0.0.1:{ports.web_health}"}}
  batch: {{health: {{listen: off}}}}
  mallory: {{health: {{listen: off}}}}
  app:
    inbound: [{{name: main, port: {ports.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{ports.app}"}}]
    allow: [{{name: callers, from: [web, batch, mallory]}}]
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: "127.0.0.1:{ports.app_health}"}}
"""


def identity_of(fleet: Fleet, service: str) -> Path:
    """A PEM file with a key and the certificate that the fleet's CA issues to this service, as its sidecar asks."""
    path = fleet.folder / f"{service}.pem"
    state = fleet.folder / "state" / service
    state.mkdir(mode=0o700, exist_ok=True)
    svid = trio.run(_enrol, Enrolment.load(fleet.enrolment(service)), state, fleet.ca_address)
    write_private(path, key_to_pem(svid.key, None) + svid.chain_pem())
    return path


async def _enrol(proof: Enrolment, state: Path, address: str) -> X509Svid:
    svids: Source[X509Svid] = Source("SVID")
    bundles: Source[BundleSet] = Source("trust bundle")
    status: Source[IdentityStatus] = Source("identity status")
    rotator = Rotator(IdentityConfig(proof, state, address), svids, bundles, SystemClock(), lambda: 0.5, status)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotator.run)
            await svids.wait_past(0)
            nursery.cancel_scope.cancel()
    return svids.current


# ---- processors ------------------------------------------------------------------------------------------------------


def attackers_core() -> int | None:
    """The processor that attackers have; None where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1] if len(cores) > 1 else None


@contextmanager
def divided_machine() -> Iterator[int | None]:
    """This thread, and all that it starts, leave the attackers' processor alone; yields which one that is."""
    before, theirs = os.sched_getaffinity(0), attackers_core()
    if theirs is not None:
        os.sched_setaffinity(0, before - {theirs})
    try:
        yield theirs
    finally:
        os.sched_setaffinity(0, before)


# ---- the two sides ---------------------------------------------------------------------------------------------------


class Attacker:
    """A process that attacks a port from entering the `with` block to its own end."""

    def __init__(
        self, kind: str, port: int, *, seconds: float, count: int, core: int | None, identity: Path | None = None,
        most: int = 100_000, module: str = "tests.kit.attackers",
    ) -> None:  # fmt: skip
        options = ["--seconds", str(seconds), "--count", str(count), "--most", str(most)]
        options += ["--core", str(core)] if core is not None else []
        options += ["--identity", str(identity)] if identity is not None else []
        self._command = [sys.executable, "-P", "-m", module, kind, str(port), *options]
        self.saw: dict[str, Any] = {}
        self._patience = seconds + 20

    def __enter__(self) -> Attacker:
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd="/"
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        out, err = self._process.communicate(timeout=self._patience)
        if kind is None:
            assert self._process.returncode == 0, err
            self.saw = json.loads(out)


@dataclass
class Newcomer:
    """A well-behaved caller without a pool: each request is a new mTLS connection. `times` of those that went well."""

    port: int
    identity: Path
    rate: float = 4.0
    times: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> Newcomer:
        self._context = context_of(self.identity)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="newcomer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def share_in_time(self) -> float:
        """Of its requests, those that were answered within a second."""
        count = len(self.times) + len(self.failed)
        return sum(each < SECOND for each in self.times) / count if count else 0.0

    def summary(self) -> str:
        """One line for a report."""
        worst = max(self.times, default=0.0)
        return f"{len(self.times)} answered (slowest {worst * 1000:.0f} ms), {len(self.failed)} not: {self.failed[:3]}"

    def _run(self) -> None:
        while not self._over.wait(1 / self.rate):
            began = time.monotonic()
            try:
                self._one()
            except Exception as error:  # whatever it was, it was no answer
                self.failed.append(f"{time.monotonic() - began:.2f} s: {error!r}")
            else:
                self.times.append(time.monotonic() - began)

    def _one(self) -> None:
        import socket
        import struct

        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            sock.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 10, 0))
            tls = SSL.Connection(self._context, sock)
            tls.set_connect_state()
            tls.do_handshake()
            tls.sendall(b"GET /newcomer HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")
            answer = tls.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(repr(answer[:80]))


@dataclass
class Outcome:
    """What an attack has done."""

    saw: dict[str, Any]
    victim: Tally
    newcomer: Newcomer
    before: Metrics
    after: Metrics

    @property
    def share_in_time(self) -> float:
        """Of the victim's requests, those that were answered, whole and right, within a second."""
        late = sum(each >= SECOND for each in self.victim.latencies)
        return (self.victim.ok - late) / self.victim.sent

    def counted(self, metric: str, **labels: str) -> float:
        """How much a counter of app's sidecar has grown."""
        return self.after.total(metric, **labels) - self.before.total(metric, **labels)

    def reasons(self, metric: str, label: str) -> dict[str, float]:
        """How much a counter has grown, by one of its labels."""
        values = {labels[label] for labels, _ in self.after.series(metric)}
        return {value: grown for value in sorted(values) if (grown := self.counted(metric, **{label: value}))}

    def summary(self) -> str:
        """The attack, and what became of everybody, for a report."""
        saw = {key: value for key, value in self.saw.items() if key not in ("kind", "seconds")}
        return (
            f"{self.saw['kind']}: {saw}\n"
            f"  victim: {100 * self.share_in_time:.2f} % in time; {self.victim.summary()}\n"
            f"  newcomer: {self.newcomer.summary()}\n"
            f"  refused: {self.reasons('mesh_connections_refused_total', 'reason')}"
            f"  handshakes failed: {self.reasons('mesh_tls_handshake_failures_total', 'reason')}"
            f"  flags: {self.reasons('mesh_requests_total', 'flag')}"
        )


def _rotate(sidecar: Sidecar) -> None:
    with suppress(NoSidecar):  # it may wait for up to 10 s, and the mesh may have ended by then
        sidecar.admin("POST", "/certs/rotate")


def besiege(
    fleet: Fleet, attacker: Attacker, ports: Ports, newcomer: Path, *, seconds: float, rate: float = 50.0
) -> Outcome:
    """Attack app's sidecar while two well-behaved callers work; in the middle web's sidecar needs new connections."""
    app, web = fleet["app"], fleet["web"]
    before = app.metrics()
    with attacker:
        time.sleep(0.5)  # the attack stands before anybody is measured
        with Newcomer(ports.app_in, newcomer) as fresh, NonceLoad(ports.door, rate=rate, seed=5) as load:
            time.sleep(seconds / 2)
            threading.Thread(target=_rotate, args=(web,), daemon=True).start()
            time.sleep(seconds / 2)
            tally = load.stop()
    after = app.metrics()  # the attacker has ended: whatever was answered to it has been counted
    return Outcome(attacker.saw, tally, fresh, before, after)
