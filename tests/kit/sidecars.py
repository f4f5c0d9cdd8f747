"""Sidecars in threads of the test's own process, with identities that the test mints, bad ones included.

    world = World(tmp_path)                       # a root, an issuer, and ports
    with world.sidecar("app"), world.sidecar("web"):
        ...

Each is the very Worker that `mesh run` runs: listeners, admin socket, logs, audit. Only the part that talks to a CA is
replaced: identities come from the test, at the start and whenever it calls `publish`. What needs a real CA or a real
process belongs in tests/kit/fleet.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import trio

from certs.bundle import BundleSet
from certs.enrolment import Enrolment, EnrolmentKey
from certs.svid import X509Svid
from sidecar.admin import client
from sidecar.cli.root import run_command
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import Clock
from sidecar.runtime.orders import Orders
from sidecar.runtime.worker import Worker
from sidecar.telemetry.log import Log
from tests.kit.free_ports import Ports
from tests.kit.identities import Authority, a_bundle_set, a_root, an_issuer, an_svid
from tests.kit.processes import eventually

START_SECONDS = 10.0
CONFIG = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ports.ca}"}}
defaults: {{timeouts: {{handshake: 1s, drain: 1s{timeouts}}}{tls}{limits}}}
services:
  web:
    outbound:
      - {{to: app, listen: "127.0.0.1:{ports.door}"{upstream}}}
    access_log: {{mode: all, path: {folder}/web.access}}
    health: {{listen: off}}
  app:
    inbound:
      - {{name: main, port: {ports.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{ports.app}", protocol: {protocol}}}
    allow: {allow}
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: off}}
"""


class Given:
    """In the rotator's place: publishes what the test hands it."""

    def __init__(self, worker: Worker, svid: X509Svid | None, bundles: BundleSet) -> None:
        self._worker = worker
        self._first = (svid, bundles)
        worker.identity_status.publish(IdentityStatus(worker.service.identity.text, denylist_heard_at=1.0))

    async def run(self) -> None:
        """Publish, and stay."""
        self.publish(*self._first)
        await trio.sleep_forever()

    def publish(self, svid: X509Svid | None, bundles: BundleSet | None = None) -> None:
        """The next generation."""
        if bundles is not None:
            self._worker.bundles.publish(bundles)
        if svid is not None:
            self._worker.svids.publish(svid)


class LocalSidecar:
    """One sidecar in a thread. Use it as a context manager; it is ready inside."""

    def __init__(
        self,
        folder: Path,
        run_dir: Path,
        config: MeshConfig,
        service: str,
        svid: X509Svid,
        bundles: BundleSet,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.service = service
        self.config = config.services[service]
        self.state = folder / f"{service}.state"
        self.log_file = folder / f"{service}.log"
        self._run_dir = run_dir
        self._make = lambda log: Worker(
            config, service, enrolment=self._enrolment(folder, svid), state_dir=self.state, log=log, clock=clock
        )
        self._identity = (svid, bundles)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"sidecar of {service}", daemon=True)

    @staticmethod
    def _enrolment(folder: Path, svid: X509Svid) -> Path:
        """A file that the Worker wants to see; nobody is ever asked with it."""
        path = folder / f"{svid.spiffe_id.short.replace('/', '-')}.enrolment"
        trust_domain = svid.spiffe_id.trust_domain
        proof = EnrolmentKey.generate()
        Enrolment(trust_domain, "127.0.0.1:1", ("0" * 64,), "an-entry", svid.spiffe_id, proof).save(path)
        return path

    # ---- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> LocalSidecar:
        self._thread.start()
        started = self._ready.wait(START_SECONDS)
        if self._failure is not None:
            raise self._failure
        assert started, f"the sidecar of {self.service} is not ready: {self.log_text()}"
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._orders.begin_drain, "the end of a test")
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive(), f"the sidecar of {self.service} does not end"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self.log_file.open("ab") as log:
                trio.run(self._main, Log(fd=log.fileno(), human=False))
        except BaseException as failure:  # the test's thread raises it
            self._failure = failure
        finally:
            self._ready.set()

    async def _main(self, log: Log) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._orders = Orders()
        self.worker = self._make(log)
        self._given = Given(self.worker, *self._identity)
        self.worker._rotator = self._given  # type: ignore[assignment]
        await self.worker.run(self._run_dir, self._ready.set, self._orders)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in the sidecar's own thread."""
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    def publish(self, svid: X509Svid | None = None, bundles: BundleSet | None = None) -> None:
        """Hand the sidecar a new identity, new bundles, or both."""
        self.call(self._given.publish, svid, bundles)

    # ---- what it says ----------------------------------------------------------------------------------------------

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """One call of its admin API."""
        return client.call(self._run_dir / f"{self.service}.sock", method, path, body, timeout=10.0)

    def total(self, metric: str, **labels: str) -> float:
        """The sum of all series of a metric that have these labels."""
        from tests.kit.fleet import Metrics

        return Metrics(self.call(self.worker.recorder.metrics.render).decode()).total(metric, **labels)

    def log_text(self) -> str:
        """Its operational log."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def warnings(self) -> list[dict[str, Any]]:
        """What it warned of, in its operational log."""
        return [line for line in _lines(self.log_file) if line["level"] in ("warning", "error")]

    def warning(self) -> dict[str, Any]:
        """The one thing that it warned of, once it is written."""
        eventually("a warning in the log", self.warnings)
        (found,) = self.warnings()
        return found

    def audit(self, kind: str) -> list[dict[str, Any]]:
        """The lines of its audit of one kind, so far."""
        return [line for line in _lines(self.state / "audit.jsonl") if line["kind"] == kind]

    def access_log(self) -> list[dict[str, Any]]:
        """Its access log, so far."""
        return _lines(Path(self.config.access_log.path))

    def handshake_failure(self) -> dict[str, Any]:
        """The one failed handshake of the audit, once it is written."""
        eventually("a failed handshake in the audit", self._failed)
        (line,) = self._failed()
        return line

    def _failed(self) -> list[dict[str, Any]]:
        return [line for line in self.audit("handshake") if not line["ok"]]

    def assert_well(self) -> None:
        """Nothing inside it broke."""
        assert self.total("mesh_telemetry_faults_total") == 0, self.log_text()
        assert "Traceback" not in self.log_text(), self.log_text()


class World:
    """One mesh of `web`, which calls, and `app`, which is called: who signs, where they listen, what they may."""

    def __init__(
        self,
        folder: Path,
        *,
        allow: str = "[{name: web-may, from: web}]",
        protocol: str = "http",
        upstream: str = "",
        tls: str = "",
        timeouts: str = "",
        limits: str = "",
        app_port: int | None = None,
    ) -> None:
        self.folder = folder
        self.ports = Ports()
        if app_port is not None:
            self.ports._known["app"] = app_port
        self.root: Authority = a_root()
        self.issuer: Authority = an_issuer(self.root)
        self.bundles = a_bundle_set(self.root)
        self.run_dir = Path(tempfile.mkdtemp(prefix="mesh-sc-"))
        self.text = CONFIG.format(
            ports=self.ports, folder=folder, allow=allow, protocol=protocol, upstream=upstream, tls=tls,
            timeouts=timeouts, limits=limits,
        )  # fmt: skip
        self.config = load_text(self.text, str(folder / "mesh.yaml"))

    def close(self) -> None:
        """Remove what the file system holds outside of the test's folder."""
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def sidecar(
        self,
        service: str,
        svid: X509Svid | None = None,
        bundles: BundleSet | None = None,
        *,
        clock: Clock | None = None,
    ) -> LocalSidecar:
        """The sidecar of a service, with a good identity unless another is given."""
        own = svid or an_svid(self.issuer, service)
        return LocalSidecar(
            self.folder, self.run_dir, self.config, service, own, bundles or self.bundles, clock=clock
        )

    @property
    def url(self) -> str:
        """Where web's application reaches app."""
        return f"http://127.0.0.1:{self.ports.door}"

    def mesh(self, *arguments: str) -> tuple[int, str, str]:
        """The mesh command, in this process: exit code, standard output, standard error."""
        with self._environment(), redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = run_command(list(arguments))
        return code, out.getvalue(), err.getvalue()

    def explain(self, decision_id: str) -> str:
        """What `mesh explain ID` prints, with what differs from run to run replaced by words."""
        code, out, err = self.mesh("explain", decision_id)
        assert code in (0, 1), (code, out, err)
        return steady(out, self.folder, self.ports)

    @contextmanager
    def _environment(self) -> Any:
        before = os.environ.get("MESH_RUN_DIR")
        os.environ["MESH_RUN_DIR"] = str(self.run_dir)
        try:
            yield
        finally:
            if before is None:
                del os.environ["MESH_RUN_DIR"]
            else:
                os.environ["MESH_RUN_DIR"] = before


def steady(text: str, folder: Path, ports: Ports) -> str:
    """A text without this run's ids, times, ports and folders."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-z]{1,13}\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME", text)
    text = re.sub(r"\b\d+ ms\)", "N ms)", text)
    for name, port in ports._known.items():
        text = re.sub(rf"\b{port}\b", f"PORT({name})", text)
    return text


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON log."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
