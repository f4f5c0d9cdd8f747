"""A thousand callers come to the CA in the same moment, as after a power cut: how long until the last one is served.

`make bench-ca` runs it last. The CA is `mesh ca serve`, a process of its own. The callers cost little, so that it is
the CA that is measured: one process, a connection with a TLS handshake each, but certificates, requests and contexts
made beforehand. They have the patience of a sidecar (decision D8) and its back-off after a failure (`certs.rotation`),
and obey a 429. What is judged: everybody has a new certificate within the minute. What to look at with more callers
(`--callers 4000`): the rate should stay that of the CA's own limit, 1,000 at once and then 100 a second (decision D19),
because its turnstile lets handshakes end that were begun; without one it fell to three quarters of that.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio
from OpenSSL import SSL

from ca.bootstrap import enrolment_file, prepare
from ca.entries import NewEntry, parse_identity
from certs.csr import make_csr
from certs.enrolment import Enrolment
from certs.keys import new_key
from certs.rotation import backoff
from sidecar.identity.ca_client import ALPN, ANSWER_SECONDS, CONNECT_SECONDS, HANDSHAKE_SECONDS, Trust, connect
from sidecar.identity.enrol import enrol
from sidecar.identity.state import StateFolder
from sidecar.net.clock import SystemClock
from sidecar.net.contexts import make_context
from sidecar.net.http_client import BadHttp, request
from sidecar.net.http_message import JSON
from sidecar.net.tls_stream import TlsStream
from tests.ca.office import DEMO
from tests.ca.same_minute import ENTRIES, PASS, cpu_of, running_ca
from tests.kit.free_ports import Ports

MINUTE = 60.0
BURST_OVER = 429
FAILURES = (OSError, BadHttp, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass
class Crowd:
    """What has become of the callers."""

    callers: int
    served_at: list[float] = field(default_factory=list)  # seconds after all have begun
    busy: int = 0  # answers that said: later
    failures: dict[str, int] = field(default_factory=dict)
    ca_cpu: float = 0.0
    own_cpu: float = 0.0

    @property
    def held(self) -> bool:
        """Whether everybody was served within the minute."""
        return len(self.served_at) == self.callers and max(self.served_at) <= MINUTE

    def failed(self, what: str) -> None:
        """A try came to nothing."""
        self.failures[what] = self.failures.get(what, 0) + 1


def main() -> int:
    """Run it and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--dir", help="where the CA's store is: a real disk, for fsync to mean something")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        found = play(Path(name), options.callers)
    at = sorted(found.served_at) or [0.0]
    print(f"{len(found.served_at)} of {found.callers} callers of one moment served: half of them after"
          f" {at[len(at) // 2]:.1f} s, the last after {at[-1]:.1f} s; {len(at) / max(at[-1], 0.01):.0f} a second;"
          f" {sum(found.failures.values())} tries failed, {found.busy} were told to come later; the CA took"
          f" {found.ca_cpu:.1f} s of CPU time, the callers {found.own_cpu:.1f}:"
          f" {'held' if found.held else 'NOT HELD'}")  # fmt: skip
    for why, times in found.failures.items():
        print(f"  {times} times {why}")
    return 0 if found.held else 1


def play(folder: Path, callers: int) -> Crowd:
    """Start a CA, let all of them come at once, and wait until each is served or a minute has passed."""
    address = f"127.0.0.1:{Ports().ca}"
    entries = [NewEntry(parse_identity(f"service-{n}", DEMO), (), 3600.0) for n in range(min(ENTRIES, callers))]
    prepare(folder / "ca", DEMO, PASS, entries, address)
    files = [Enrolment.load(enrolment_file(folder / "ca", entry.spiffe_id)) for entry in entries]
    crowd = Crowd(callers)
    with running_ca(folder, address) as process:
        trio.run(_all_at_once, folder, files, crowd, process.pid)
    return crowd


async def _all_at_once(folder: Path, files: list[Enrolment], crowd: Crowd, ca_pid: int) -> None:
    contexts = [await _context(folder / "state", file) for file in files]
    bodies = [_body() for _ in range(crowd.callers)]
    ca_cpu, own_cpu, began = cpu_of(ca_pid), time.process_time(), trio.current_time()
    with trio.move_on_after(MINUTE + 5):
        async with trio.open_nursery() as nursery:
            for number, body in enumerate(bodies):
                nursery.start_soon(_call, files[0].ca_address, contexts[number % len(contexts)], body, crowd, began)
    crowd.ca_cpu, crowd.own_cpu = cpu_of(ca_pid) - ca_cpu, time.process_time() - own_cpu


async def _context(state: Path, file: Enrolment) -> SSL.Context:
    """An identity, got as a sidecar gets it, ready to be shown."""
    clock = SystemClock()
    trust = Trust(file.trust_domain, None, file.root_sha256)
    async with await connect(file.ca_address, trust, None, clock) as session:
        issued = await enrol(session, file, StateFolder(state, file))
    return make_context(issued.svid, issued.bundle.roots, server=False, verify="require", alpn=ALPN)


def _body() -> bytes:
    return json.dumps({"csr": base64.b64encode(make_csr(new_key())).decode()}).encode()


async def _call(address: str, context: SSL.Context, body: bytes, crowd: Crowd, began: float) -> None:
    """Try until served."""
    failures = 0
    while True:
        try:
            wait = await _try(address, context, body)
        except FAILURES as error:
            crowd.failed(str(error) or type(error).__name__)
            wait = backoff(failures, random.random())
            failures += 1
        else:
            if wait is None:
                crowd.served_at.append(trio.current_time() - began)
                return
            crowd.busy += 1
        await trio.sleep(wait)


async def _try(address: str, context: SSL.Context, body: bytes) -> float | None:
    """One connection and one renewal; seconds to wait where the CA says that it is too early."""
    host, _, port = address.rpartition(":")
    with trio.fail_after(CONNECT_SECONDS):
        transport = await trio.open_tcp_stream(host, int(port))
    stream = TlsStream(transport, context, server=False)
    try:
        with trio.fail_after(HANDSHAKE_SECONDS):
            await stream.do_handshake()
        with trio.fail_after(ANSWER_SECONDS):
            answer = await request(stream, "POST", "/v1/renew", body, (JSON,))
    finally:
        await trio.aclose_forcefully(stream)
    if answer.status == BURST_OVER:
        return float(dict(answer.headers)[b"retry-after"]) * (1 + 0.1 * random.random())
    if answer.status != 200:
        raise BadHttp(f"the CA answered {answer.status}")
    return None


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(main())
