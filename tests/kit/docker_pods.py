"""Pods made by hand, in docker: a holder that owns the address, an application and its sidecar, each a container that
may end alone; a CA beside them; and the load, from inside the caller's pod.

    with Pods(docker, folder) as pods:
        with pods.load() as load:
            pods.orders[0].leave()          # as Kubernetes does: the application first, its sidecar when that has ended
            pods.orders[0].come()
        load.stop().assert_flawless()
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.admin import client
from sidecar.deploy import names
from tests.kit import echo_app
from tests.kit.containers import Docker
from tests.kit.files_identity import OWNED
from tests.kit.fleet import MESH
from tests.kit.netns import Host
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually

NETWORK, SUBNET = "life", "10.78.0.0/24"
CA, COPY, CALLER = "10.78.0.2", "10.78.0.1{}", "10.78.0.21"
DOOR, APP = 9001, 8080
LEAST = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
ETC = Path(names.CONFIG_PATH).parent
MESH_YAML = f"""\
trust_domain: life.mesh
ca: {{address: "{CA}:17012"}}
services:
  orders:
    inbound: [{{name: http, port: 17443, bind: 0.0.0.0, app: "127.0.0.1:{APP}"}}]
    allow: [{{name: web-may, from: web}}]
    timeouts: {{drain: 3s, pool_idle_app: 1s}}
    health: {{listen: off}}
  web:
    outbound:
      - to: orders
        listen: "127.0.0.1:{DOOR}"
        endpoints: %s
    health: {{listen: off}}
"""


class Pod:
    """A holder, a sidecar, and an application where there is one."""

    def __init__(self, pods: Pods, name: str, service: str, address: str, *, app: bool) -> None:
        self._docker, self._pods, self.name, self._service = pods.docker, pods, name, service
        self.address, self._with_app = address, app

    def start(self) -> None:
        """All of it for the first time."""
        holder = ("--network", NETWORK, "--ip", self.address, *LEAST)
        self._docker("run", "-d", "--name", self.name, *holder, self._pods.base, "sleep", "infinity")
        inside = ("--network", f"container:{self.name}", *LEAST)
        run = ("run", "--service", self._service, "--enrolment", f"{ETC}/{self._service}.json")
        self._docker("run", "-d", "--name", self.sidecar, *inside, *self._pods.mounts, self._pods.image, *run)
        if self._with_app:
            kit = Path(str(echo_app.__file__)).parent
            files = [f"--volume={kit / file}:/app/{file}:ro" for file in ("echo_app.py", "leaving_app.py")]
            run = ("python3", "-B", "/app/leaving_app.py", str(APP))
            self._docker("run", "-d", "--name", self.app, "--init", *inside, *files, self._pods.base, *run)

    @property
    def sidecar(self) -> str:
        """The sidecar's container."""
        return f"{self.name}-sidecar"

    @property
    def app(self) -> str:
        """The application's container."""
        return f"{self.name}-app"

    def until_ready(self) -> None:
        """Wait until the sidecar says so."""
        eventually(f"{self.sidecar} is ready", lambda: (self.told("/status") or {}).get("state") == "ready", 30)

    def told(self, path: str) -> dict[str, Any] | None:
        """What the sidecar's admin socket says, if it runs: asked from here, for a container's exec takes a second."""
        inside = self._docker.cell.proc / str(self._docker.state(self.sidecar)["Pid"]) / "root"
        try:
            return client.call(inside / names.RUN_PATH.lstrip("/") / f"{self._service}.sock", "GET", path)[1]
        except client.NoSidecar:
            return None

    def leave(self) -> None:
        """SIGTERM to the application; once that has ended, to the sidecar (the order of native sidecars)."""
        self._docker("stop", "-t", "20", self.app)
        self._docker("stop", "-t", "20", self.sidecar)

    def come(self) -> None:
        """Start what has ended: the sidecar, and when it is ready the application."""
        self._docker("start", self.sidecar)
        self.until_ready()
        if self._with_app:
            self._docker("start", self.app)

    def die(self) -> None:
        """All of it at once, as when its host loses power."""
        self._docker("kill", self.app, self.sidecar)


class LoadFromInside(NonceLoad):
    """The load, from inside a pod."""

    def __init__(self, inside: Path, rate: float, seed: int) -> None:
        super().__init__(DOOR, rate=rate, host="orders", seed=seed)
        self._inside = inside

    def _in_thread(self) -> None:
        Host.enter_at(self._inside)
        super()._in_thread()


class Pods:
    """A CA, copies of `orders` (nine at most), and `web` which calls them."""

    def __init__(self, docker: Docker, folder: Path, copies: int = 3) -> None:
        self.docker = docker
        self.image, self.base = docker.mesh_image(), docker.base_image()
        self._folder = folder / "etc"
        self._ca = folder / "ca"
        self.orders = [
            Pod(self, f"orders-{number}", "orders", COPY.format(number + 1), app=True) for number in range(copies)
        ]
        self._make_ca()
        tmpfs = [f"--tmpfs={place}:rw,{OWNED}" for place in (names.STATE_PATH, names.RUN_PATH)]
        self.mounts = [*tmpfs, f"--volume={self._folder}:{ETC}:ro"]
        self.web = Pod(self, "web", "web", CALLER, app=False)

    def _make_ca(self) -> None:
        self._folder.mkdir()
        (self._folder / "mesh.yaml").write_text(MESH_YAML % [self.endpoint(copy) for copy in self.orders])
        (self._folder / "pass").write_text("a passphrase of tests\n")
        secret = ("--dir", str(self._ca))
        self._mesh(
            "ca", "init", *secret, "--trust-domain", "life.mesh", "--passphrase-file", str(self._folder / "pass"),
            "--address", f"{CA}:17012",
        )  # fmt: skip
        for service in ("orders", "web"):
            self._mesh("ca", "entry", "add", service, *secret)
            self._mesh("ca", "key", service, *secret, "--out", str(self._folder / f"{service}.json"))
        for top in (self._folder, self._ca):
            for path in (top, *top.rglob("*")):
                os.chown(path, names.PROXY_UID, names.PROXY_GID)

    @staticmethod
    def _mesh(*arguments: str) -> None:
        done = subprocess.run([*MESH, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def __enter__(self) -> Pods:
        self.docker("network", "create", "--subnet", SUBNET, NETWORK)
        self.docker(
            "run", "-d", "--name", "ca", "--network", NETWORK, "--ip", CA, *LEAST, *self.mounts,
            f"--volume={self._ca}:/ca", self.image, "ca", "serve", "--dir", "/ca", "--passphrase-file", f"{ETC}/pass",
            "--listen", "0.0.0.0:17012",
        )  # fmt: skip
        pods = (*self.orders, self.web)
        for pod in pods:
            pod.start()
        for pod in pods:
            pod.until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        names_of_all = [each for pod in (*self.orders, self.web) for each in (pod.app, pod.sidecar, pod.name)]
        self.docker("rm", "-f", "-v", *names_of_all, "ca", check=False)
        self.docker("network", "rm", NETWORK, check=False)

    @staticmethod
    def endpoint(copy: Pod) -> str:
        """What web's sidecar calls a copy by."""
        return f"{copy.address}:17443"

    def all_available(self) -> None:
        """Wait until web's sidecar takes every copy for well."""
        for copy in self.orders:
            self.until_available(copy)

    def until_available(self, copy: Pod) -> None:
        """Wait until web's sidecar takes this copy for well, as a rolling update waits before it goes on: who came
        back is asked again after a back-off. Somebody has to ask meanwhile.
        """

        def well() -> bool:
            rows = (self.web.told("/endpoints") or {"endpoints": []})["endpoints"]
            return [row["state"] for row in rows if row["endpoint"] == self.endpoint(copy)] == ["available"]

        eventually(f"{copy.name} is asked again", well, 60)

    @contextmanager
    def load(self, rate: float = 60.0, seed: int = 1) -> Iterator[LoadFromInside]:
        """Open-loop requests of web's application, from when all copies are available."""
        pid = self.docker.state(self.web.name)["Pid"]
        inside = self.docker.cell.proc / str(pid) / "ns" / "net"
        with LoadFromInside(inside, 20.0, seed):
            self.all_available()
        with LoadFromInside(inside, rate, seed) as load:
            yield load
            threading.Event().wait(0.3)
