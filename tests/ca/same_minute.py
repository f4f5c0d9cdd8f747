"""A thousand sidecars renew in the same minute, and none of them fails.

`make bench-ca` runs it after the rates. The CA is `mesh ca serve`, a process of its own, with the limit that it has
(100 certificates a second); the sidecars are the rotators that a sidecar runs, each with its own watch, key, state
folder and dice, over real TCP and mTLS. They start within a tenth of their certificates' life, so their renewals fall
within less than a minute. A failure is whatever a rotator counts as one after its first certificate, and any moment
without a valid certificate. All of them live in one process, which works harder than the CA: on a machine where
others take its core, that is what falls behind, so the load and both sides' CPU time are printed. `tests.ca.burst` asks
the CA alone.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ca.bootstrap import enrolment_file, prepare
from ca.entries import NewEntry, parse_identity
from certs.bundle import BundleSet
from certs.enrolment import Enrolment
from certs.source import Source
from certs.svid import X509Svid
from sidecar.identity.rotator import IdentityConfig, Rotator
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import SystemClock
from tests.ca.office import DEMO
from tests.kit.free_ports import Ports

ENTRIES = 50  # identities; the rest are replicas
PASS = b"a random one would not be stretched either"
READY = b"ca ready on "


@dataclass
class Life:
    """One sidecar: when it got which certificate, and what went wrong after the first."""

    svids: Source[X509Svid] = field(default_factory=lambda: Source("SVID"))
    obtained: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    gaps: int = 0
    _ends: float = 0.0

    def got(self, svid: X509Svid) -> None:
        """Another certificate."""
        now = time.time()
        self.gaps += bool(self._ends) and now >= self._ends
        self._ends = svid.not_after
        self.obtained.append(now)

    def heard(self, status: IdentityStatus) -> None:
        """It said something of itself."""
        if self.obtained and status.consecutive_failures:
            self.failures.append(status.last_error)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all of them."""

    sidecars: int
    renewed: int
    window: float
    failures: list[str]
    gaps: int
    cpu: float
    own_cpu: float

    @property
    def held(self) -> bool:
        """Whether everybody renewed within a minute, and nobody failed."""
        return self.renewed == self.sidecars and not self.failures and not self.gaps and self.window <= 60


def main() -> int:
    """Run it and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sidecars", type=int, default=1000)
    parser.add_argument("--ttl", type=float, default=210.0, help="seconds that certificates live")
    parser.add_argument("--dir", help="where the CA's store is: a real disk, for fsync to mean something")
    options = parser.parse_args()
    print(f"{options.sidecars} sidecars renew in one minute; load of the machine before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        found = play(Path(name), options.sidecars, options.ttl)
    words = f"{found.renewed} of {found.sidecars} sidecars renewed within {found.window:.1f} s"
    print(f"{words}, {len(found.failures)} failures, {found.gaps} without a valid certificate; CPU time"
          f" from the first enrolment on: the CA {found.cpu:.1f} s, the sidecars {found.own_cpu:.1f} s:"
          f" {'held' if found.held else 'NOT HELD'}")  # fmt: skip
    for why in sorted(set(found.failures))[:5]:
        print(f"  {why}")
    return 0 if found.held else 1


def play(folder: Path, count: int, ttl: float) -> Outcome:
    """Start a CA and so many sidecars, and wait until each has renewed once."""
    address = f"127.0.0.1:{Ports().ca}"
    entries = [NewEntry(parse_identity(f"service-{n}", DEMO), (), ttl) for n in range(min(ENTRIES, count))]
    prepare(folder / "ca", DEMO, PASS, entries, address)
    files = [Enrolment.load(enrolment_file(folder / "ca", entry.spiffe_id)) for entry in entries]
    lives = [Life() for _ in range(count)]
    with running_ca(folder, address) as process:
        own_cpu = time.process_time()
        trio.run(_renew_all, folder, files, lives, ttl)
        cpu, own_cpu = cpu_of(process.pid), time.process_time() - own_cpu
    second = [life.obtained[1] for life in lives if len(life.obtained) > 1]
    window = max(second) - min(second) if second else 0.0
    failures = [why for life in lives for why in life.failures]
    return Outcome(count, len(second), window, failures, sum(life.gaps for life in lives), cpu, own_cpu)


async def _renew_all(folder: Path, files: list[Enrolment], lives: list[Life], ttl: float) -> None:
    with trio.move_on_after(ttl * 1.5):
        async with trio.open_nursery() as nursery:
            for number, life in enumerate(lives):
                state = folder / "state" / str(number)
                nursery.start_soon(_live, IdentityConfig(files[number % len(files)], state), life)
                await trio.sleep(ttl * 0.1 / len(lives))
            while any(len(life.obtained) < 2 for life in lives):
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def _live(config: IdentityConfig, life: Life) -> None:
    bundles: Source[BundleSet] = Source("bundle")
    status: Source[IdentityStatus] = Source("status")
    life.svids.subscribe(life.got)
    status.subscribe(life.heard)
    dice = random.Random().random
    await Rotator(config, life.svids, bundles, SystemClock(), dice, status).run()


@contextmanager
def running_ca(folder: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """`mesh ca serve`, a process of its own, once it is ready."""
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_bytes(PASS)
    words = [sys.executable, "-P", "-m", "sidecar.cli", "ca", "serve", "--dir", str(folder / "ca")]
    with (folder / "ca.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--listen", address, "--passphrase-file", str(secret)], stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(READY), (folder / "ca.log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def cpu_of(pid: int) -> float:
    """Seconds of CPU time that this process has taken (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(main())
