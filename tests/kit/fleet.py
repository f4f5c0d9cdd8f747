"""A real mesh for a test: a CA and sidecars out of one `mesh.yaml`, each the process that an operator would start.

    with Fleet(tmp_path, text) as mesh:
        mesh.start_all()
        mesh["web"].status()

Nothing is simulated and nothing is waited for blindly: a sidecar is ready when its own admin socket says so. Leaving
the `with` block ends and reaps everybody. Certificate lifetimes are those of the entries (`ttl`, at least 20 s), so
that a rotation needs seconds, not a day.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ca.bootstrap import enrolment_file, prepare
from ca.entries import DEFAULT_TTL, NewEntry
from certs.spiffe import SpiffeId
from sidecar.admin import client
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig
from tests.kit.processes import PATIENCE, Process, eventually, listens

MESH = (sys.executable, "-P", "-m", "sidecar.cli")
TRUST_DOMAIN = "demo.mesh"


def spiffe(service: str) -> str:
    """The SPIFFE ID of a service of the default namespace."""
    return f"spiffe://{TRUST_DOMAIN}/ns/default/sa/{service}"


class Sidecar:
    """`mesh run` for one service: its process, admin socket, metrics and records. It may be started again."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self.name = name
        self.config = fleet.config.services[name]
        self.state = fleet.folder / "state" / name
        self.socket = fleet.run_dir / f"{name}.sock"
        self._process: Process | None = None

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def process(self) -> Process:
        """The process; the latest, where it was started more than once."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    def command(self, *app: str) -> list[str]:
        """`mesh run` with all that it needs, and a command of the caller's."""
        return [
            *MESH, "run", "--file", str(self._fleet.file), "--service", self.name,
            "--enrolment", str(self._fleet.enrolment(self.name)), "--state", str(self.state),
            "--run-dir", str(self._fleet.run_dir), *(("--", *app) if app else ()),
        ]  # fmt: skip

    def start(self, *app: str, env: Mapping[str, str] | None = None, ready: bool = True) -> Sidecar:
        """Start it, around a command where one is given, and wait until it is ready unless told not to."""
        log = self._fleet.folder / "logs" / f"{self.name}.log"
        self._process = Process(self.name, self.command(*app), log, env=env)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        """Wait until it says of itself that it is ready."""
        self.process.until("ready", lambda: self.state_word() == "ready", seconds)

    def state_word(self) -> str:
        """starting, ready, draining; or `silent` where nobody answers on the socket."""
        try:
            return str(self.status()["state"])
        except client.NoSidecar:
            return "silent"

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self.process.stop()

    # ---- what it says ----------------------------------------------------------------------------------------------

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """One call of its admin API."""
        return client.call(self.socket, method, path, body, timeout=20.0)

    def status(self) -> dict[str, Any]:
        """GET /status."""
        return self.admin("GET", "/status")[1]

    def identity(self) -> dict[str, Any]:
        """The part of the status that tells of the certificate, the CA and the clock."""
        return dict(self.status()["identity"])

    def decision(self, decision_id: str) -> dict[str, Any]:
        """What it remembers of a decision."""
        code, document = self.admin("GET", f"/decisions/{decision_id}")
        assert code == 200, document
        return document

    def rotate(self) -> str:
        """Have it fetch a new certificate now; returns the new serial."""
        code, document = self.admin("POST", "/certs/rotate")
        assert code == 200, document
        return str(document["serial"])

    def metrics(self) -> Metrics:
        """A scrape of its health port."""
        import urllib.request

        address = self.config.health.listen
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return Metrics(answer.read().decode())

    def probe(self, path: str) -> int:
        """The status of /livez or /readyz; 0 where nobody answers."""
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://{self.config.health.listen}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)
        except OSError:
            return 0

    def access_log(self) -> list[dict[str, Any]]:
        """Its access log, if the config sends it to a file."""
        return list(_json_lines(Path(self.config.access_log.path)))

    def audit(self) -> list[dict[str, Any]]:
        """Its audit record. The counts of permits are complete only once it has ended."""
        return list(_json_lines(self.state / "audit.jsonl"))

    def assert_well(self) -> None:
        """It runs, answers, and nothing inside it broke."""
        assert self.process.code is None, self.process.tail()
        assert self.metrics().total("mesh_telemetry_faults_total") == 0, self.process.tail()
        assert "failed inside the sidecar" not in self.process.text(), self.process.tail(80)
        assert "Traceback" not in self.process.text(), self.process.tail(80)


class Fleet:
    """See the module. `text` is the mesh.yaml; `ttl` the lifetime of certificates in seconds, for all or by service."""

    def __init__(
        self, folder: Path, text: str, *, ttl: float | Mapping[str, float] = DEFAULT_TTL
    ) -> None:
        self.folder = folder
        beside = {str(path): path.read_text() for path in folder.glob("*.yaml")}  # contracts that it names
        self.config: MeshConfig = load_text(text, str(folder / "mesh.yaml"), beside, now=time.time())
        self.file = folder / "mesh.yaml"
        self.file.write_text(text)
        for name in ("logs", "state"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        self._ttl = ttl
        self.run_dir = Path(tempfile.mkdtemp(prefix="mesh-it-"))  # short: a socket's path has 107 bytes
        self.ca: Process | None = None
        self.sidecars = {name: Sidecar(self, name) for name in self.config.services}
        self._make_ca()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for sidecar in self.sidecars.values():
            if sidecar._process is not None:
                sidecar.stop()
        if self.ca is not None:
            self.ca.stop()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def __getitem__(self, service: str) -> Sidecar:
        return self.sidecars[service]

    # ---- the CA ----------------------------------------------------------------------------------------------------

    def _make_ca(self) -> None:
        secret = self.folder / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("a passphrase of the tests")
        entries = [
            NewEntry(service.identity, (service.name,), self._ttl_of(service.name))
            for service in self.config.services.values()
        ]
        prepare(self.folder / "ca", self.config.trust_domain, secret.read_bytes(), entries, self.ca_address)

    def _ttl_of(self, service: str) -> float:
        return self._ttl.get(service, DEFAULT_TTL) if isinstance(self._ttl, Mapping) else self._ttl

    @property
    def ca_address(self) -> str:
        """Where the CA listens, or will."""
        assert self.config.ca.address is not None, "a test's mesh.yaml names its CA's port"
        return str(self.config.ca.address)

    def enrolment(self, service: str) -> Path:
        """The enrolment file of a service."""
        identity: SpiffeId = self.config.services[service].identity
        return enrolment_file(self.folder / "ca", identity)

    def start_ca(self, env: Mapping[str, str] | None = None) -> Process:
        """Start the CA, again perhaps, and wait until it listens."""
        serve = ["--dir", str(self.folder / "ca"), "--passphrase-file", str(self.folder / "passphrase")]
        command = [*MESH, "ca", "serve", *serve, "--listen", self.ca_address]
        self.ca = Process("the CA", command, self.folder / "logs" / "ca.log", env=env)
        host, _, port = self.ca_address.rpartition(":")
        self.ca.until("listening", lambda: listens(int(port), host))
        return self.ca

    # ---- everybody -------------------------------------------------------------------------------------------------

    def start_all(self, *services: str) -> Fleet:
        """Start the CA and these services (all, where none is named), side by side, and wait until they are ready."""
        started = [self.sidecars[name].start(ready=False) for name in services or self.sidecars]
        self.start_ca()
        for sidecar in started:
            sidecar.wait_ready()
        return self

    def assert_well(self) -> None:
        """Every sidecar that was started runs, and nothing inside any of them broke."""
        for sidecar in self.sidecars.values():
            if sidecar._process is not None:
                sidecar.assert_well()

    def mesh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The mesh command, with this fleet's run folder."""
        env = {**os.environ, "MESH_RUN_DIR": str(self.run_dir)}
        return subprocess.run([*MESH, *arguments], env=env, capture_output=True, text=True, timeout=60, cwd=self.folder)

    def explain(self, decision_id: str) -> str:
        """What `mesh explain ID` prints."""
        done = self.mesh("explain", decision_id)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of this name whose labels are these; 0 where there is none."""
        return sum(
            value
            for sample, found, value in self._samples
            if sample == name and all(found.get(label) == wanted for label, wanted in labels.items())
        )

    def series(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Every series of this name."""
        return [(labels, value) for sample, labels, value in self._samples if sample == name]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open() as lines:
            for line in lines:
                if line.endswith("\n"):  # the writer may be in the middle of one
                    yield json.loads(line)


def _at_rest(status: dict[str, Any]) -> bool:
    return not status["in_flight"] and not status["streams"]


def settled(sidecars: Sequence[Sidecar]) -> None:
    """Wait until no request is in flight, and no stream is open any more: counts are those of ended hops."""
    for sidecar in sidecars:
        eventually(f"nothing in flight in {sidecar.name}", lambda: _at_rest(sidecar.status()))  # noqa: B023
