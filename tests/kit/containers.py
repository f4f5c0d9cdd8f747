"""Real container engines, each a test's own: Debian's dockerd with docker-compose, podman with runc, buildah.

    def test_something(docker):                         # fixtures: tests/integration/containers/conftest.py
        image = docker.mesh_image()
        docker("run", "-d", "--name", "one", image, "run", "--service", "web")
        docker.within(socket.create_connection, ("127.0.0.1", 8080))       # published ports are inside
        docker.compose(folder, "up", "-d")

Theory of operation. Each engine runs in a cell (tests.kit.cells) with folders of its own, so neither its bridge and
rules nor its containers touch the machine or another engine, and all of it ends with the cell. The cell has no way out:
images come from tests.kit.images, built once and then loaded from a tar. Nothing reaches a port of a container from
outside but through `within`; files and unix sockets are the machine's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sidecar.deploy import names
from tests.kit import images
from tests.kit.cells import Cell, ControlGroups, remove_empty
from tests.kit.processes import Process, eventually
from tests.kit.tools import need

Result = TypeVar("Result")
BASE = "mesh-test-base:bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as public images say it
LONG = 300.0  # seconds that one command may take: a build on a busy machine
# Debian puts its docker here; another that comes earlier in PATH may be too new for its daemon.
PAUSES = ("usr/libexec/podman/catatonit", "usr/bin/catatonit", "usr/lib/podman/catatonit")  # the first process of a pod
DEBIAN_DOCKER = Path("/usr/bin/docker")


class Engine:
    """What docker and podman have in common: a cell, a folder, commands in it, images by tar."""

    program: list[str]
    format: tuple[str, ...] = ()  # of what it builds

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.groups = ControlGroups()
        self.cell = Cell()

    def __call__(self, *arguments: str, check: bool = True, text: str | None = None, seconds: float = LONG) -> str:
        """Run a command of the engine's; returns what it prints. Raises AssertionError where it fails."""
        done = self.run(*arguments, text=text, seconds=seconds)
        if check:
            assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def run(
        self, *arguments: str, text: str | None = None, seconds: float = LONG
    ) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        return self._run([*self.program, *arguments], text=text, seconds=seconds)

    def _run(
        self,
        command: Sequence[str],
        *,
        text: str | None = None,
        seconds: float = LONG,
        folder: Path = Path("/"),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
        return subprocess.run(
            self.cell.command(command, folder), capture_output=True, text=True, timeout=seconds,
            env=None if env is None else {**os.environ, **env}, **feed,
        )  # fmt: skip

    def within(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function where the published ports are."""
        return self.cell.within(function, *arguments)

    def inspect(self, name: str) -> dict[str, Any]:
        """All that the engine knows of a container or an image."""
        found: list[dict[str, Any]] = json.loads(self("inspect", name))
        return found[0]

    def state(self, name: str) -> dict[str, Any]:
        """A container's state: Status, ExitCode, Health."""
        state: dict[str, Any] = self.inspect(name)["State"]
        return state

    def logs(self, name: str) -> str:
        """What a container has written, both streams."""
        done = self.run("logs", name)
        return done.stdout + done.stderr

    def until_healthy(self, name: str, seconds: float = 60.0) -> None:
        """Wait until its health check passes."""
        try:
            eventually(f"{name} is healthy", lambda: self.state(name)["Health"]["Status"] == "healthy", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state(name)}\n{self.logs(name)[-3000:]}") from None

    def base_image(self, *extra: str) -> str:
        """The name of a Debian with Python, loaded; with more packages where you name some (programs for a test)."""
        name = BASE if not extra else f"{BASE}-{'-'.join(sorted(extra)).replace('+', 'p')}"
        if not self.has(name):
            self("import", "--change", f"ENV PATH={PATH}", str(images.base_tar(extra)), name)
        return name

    def has(self, image: str) -> bool:
        """Whether it is loaded here."""
        return self.run("image", "inspect", image).returncode == 0

    def mesh_image(self) -> str:
        """The name of our image (names.IMAGE), built from these sources or loaded as they were built before."""
        name = f"mesh:{images.sources_hash()}"
        if not self.has(name):
            tar = images.kept(f"mesh-{images.sources_hash()}.tar", self._build_tar)
            loaded = self("load", "-q", "-i", str(tar)).split()[-1]  # podman says localhost/mesh, whoever built it
            for tag in (name, names.IMAGE):
                self("tag", loaded, tag)
        return name

    def _build_tar(self, path: Path) -> None:
        name = f"mesh:{images.sources_hash()}"
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            self.build(images.context(Path(folder)), name)
        self("save", "-o", str(path), name)

    def build(self, context: Path, tag: str, *options: str) -> str:
        """Build a folder's Dockerfile upon our base; returns what was printed."""
        base = ("--build-arg", f"BASE={self.base_image()}")
        return self("build", "--network", "none", *self.format, *base, "-t", tag, *options, str(context))

    def close(self) -> None:
        """The end of every container, and of all that was made but the images in the cache."""
        self.cell.close()
        self.groups.remove()
        eventually(f"{self.folder} is free", lambda: not _busy(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)


def _busy(folder: Path) -> bool:
    """Whether anything is mounted below a folder still: mounts of the cell end with it, a moment later."""
    return any(str(folder) in line for line in Path("/proc/self/mounts").read_text().splitlines())


class Docker(Engine):
    """Debian's dockerd (docker.io 20.10), the classic builder, and docker-compose 1.29."""

    def __init__(self, folder: Path) -> None:
        daemon, client = need("dockerd"), need("docker")
        for program in ("containerd", "runc", "iptables", "debootstrap"):
            need(program)
        super().__init__(folder)
        self.socket = folder / "docker.sock"
        client = str(DEBIAN_DOCKER) if DEBIAN_DOCKER.exists() else client
        self.program = [client, "--host", f"unix://{self.socket}"]
        command = [
            daemon, "--host", f"unix://{self.socket}", "--data-root", str(folder / "data"),
            "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "docker.pid"),
            "--cgroup-parent", f"/{self.groups.name}", "--storage-driver", "overlay2",
            "--exec-opt", "native.cgroupdriver=cgroupfs",
        ]  # fmt: skip
        env = {"DOCKER_RAMDISK": "true"}  # containers by chroot, not pivot_root, where the root is the first one
        self.daemon = Process("dockerd", self.cell.command(command), folder / "dockerd.log", env=env)
        self.daemon.until("answering", lambda: self.run("version").returncode == 0, 60)

    def compose(self, folder: Path, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run docker-compose in a folder; returns what it printed, both streams."""
        variables = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0", "COMPOSE_HTTP_TIMEOUT": "200"}
        done = self._run([need("docker-compose"), *arguments], folder=folder, env={**variables, **(env or {})})
        told = done.stdout + done.stderr
        if check:
            assert done.returncode == 0, f"docker-compose {' '.join(arguments)}:\n{told[-6000:]}"
        return told

    def close(self) -> None:
        """Stop the daemon first, as a machine does; then all else."""
        self.daemon.stop(20)
        super().close()


class Podman(Engine):
    """Podman with runc, and buildah, on one storage."""

    format = ("--format", "docker")  # images in OCI's own format have no health check

    def __init__(self, folder: Path) -> None:
        podman, runtime = need("podman"), need("runc")
        for program in ("conmon", "debootstrap"):
            need(program)
        if not any(Path("/").glob(place) for place in PAUSES):
            need("catatonit")
        super().__init__(folder)
        storage = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self.program = [
            podman, *storage, "--cgroup-manager", "cgroupfs", "--runtime", runtime, "--tmpdir", str(folder / "tmp"),
            "--events-backend", "file", "--network-config-dir", str(folder / "networks"),
        ]  # fmt: skip
        self._buildah = [need("buildah"), *storage]

    def close(self) -> None:
        """And podman's own control group, whose name it chooses itself."""
        super().close()
        remove_empty("libpod_parent")

    def buildah(self, *arguments: str) -> str:
        """Run a command of buildah's; returns what it prints. Raises AssertionError where it fails."""
        done = self._run([*self._buildah, *arguments])
        assert done.returncode == 0, f"buildah {' '.join(arguments)}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()
