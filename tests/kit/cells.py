"""A machine of a test's own as far as containers can tell: network, mounts and process ids apart from everybody's.

    with Cell() as cell:
        cell.run("mount", "-t", "tmpfs", "none", "/run/containerd")     # nobody outside sees it
        process = Process("dockerd", cell.command(["dockerd", …]), log)
        cell.within(socket.create_connection, ("127.0.0.1", 8080))     # a port that is published inside

Theory of operation. A container engine leaves much behind where it is killed: shims, containers, mounts, bridges and
rules. All of that lives in namespaces, and a namespace of process ids ends with its first process: the kernel kills
whatever is in it, and the last process takes mounts and network along. Our first process is ended by `unshare` when
that dies, which dies with the test's process however that ends. So nothing is left, whatever a test does, but files
below the folders that it chose and empty control groups (`ControlGroups`).

Files are the machine's own, so a folder of the test can be bound into a container; so are unix sockets. For TCP a
thread goes inside (`within`, from tests.kit.netns).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar.cli.lifeline import guarded
from tests.kit.netns import Host
from tests.kit.processes import eventually
from tests.kit.tools import need

# The first process of the namespace: /run becomes the cell's own, so nobody meets the machine's containerd or podman
# there; who is left to it is reaped, which the kernel does for who ignores SIGCHLD; and somebody listens to syslog,
# without which podman's clean-up after a container ends before it has begun.
FIRST = """
import signal, socket, subprocess, sys
subprocess.run([sys.argv[1], "-t", "tmpfs", "none", "/run"], check=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/run/syslog")
while True:
    log.recv(65536)
"""
CGROUPS = Path("/sys/fs/cgroup")


def need_cells() -> None:
    """Skip, loudly, who may not make such namespaces; under MESH_REQUIRE_TOOLS=1 fail, but for want of rights."""
    for program in ("unshare", "nsenter", "ip", "mount"):
        need(program)
    probe = subprocess.run(
        [need("unshare"), "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True
    )
    if probe.returncode == 0 and any(CGROUPS.glob("*")):
        return
    why = f"no containers here (root, and control groups below {CGROUPS}): {probe.stderr.strip()}"
    if os.environ.get("MESH_REQUIRE_TOOLS") == "1" and os.getuid() == 0:
        pytest.fail(why)
    pytest.skip(why)


class Cell(Host):
    """Namespaces of network, mounts and process ids, with a loopback and nothing else."""

    def __init__(self) -> None:
        need_cells()
        self.address = "127.0.0.1"
        self._own = Path("/proc/self/ns/net").readlink()
        command = [
            need("unshare"), "--net", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child=KILL",
            "--mount-proc", "--", "/usr/bin/env", "-i", sys.executable, "-I", "-S", "-c", FIRST,
            need("mount"),
        ]  # fmt: skip
        self._holder = subprocess.Popen(guarded(command), stdin=subprocess.DEVNULL, start_new_session=True)
        self._path = Path(f"/proc/{self._holder.pid}/ns/net")
        eventually("namespaces", self._made)
        self.run(need("ip"), "link", "set", "lo", "up")

    def _made(self) -> bool:
        """Whether the first process is there and has done its work; before, nobody can enter."""
        holder = self._holder.pid
        first = Path(f"/proc/{holder}/task/{holder}/children").read_text().strip()
        if not first or self._path.readlink() == self._own:
            return False
        inside = Path(f"/proc/{first}")
        ours = (inside / "ns/mnt").readlink() == Path(f"/proc/{holder}/ns/mnt").readlink()
        return ours and (inside / "root/run/syslog").exists()

    def command(self, command: Sequence[str], folder: Path = Path("/")) -> list[str]:
        """This command, to be run inside, in this folder."""
        place = f"/proc/{self._holder.pid}/ns"
        return [
            need("nsenter"), f"--net={place}/net", f"--mount={place}/mnt", f"--pid={place}/pid_for_children",
            f"--wdns={folder}", "--", *command,
        ]  # fmt: skip

    @property
    def proc(self) -> Path:
        """The /proc of the processes inside, by the numbers that they have there."""
        return Path(f"/proc/{self._holder.pid}/root/proc")

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ControlGroups:
    """The control groups of one engine: below a name that no other has, and gone when it is."""

    def __init__(self) -> None:
        self.name = f"mesh-tests-{os.getpid()}-{threading.get_native_id()}-{id(self):x}"

    def remove(self) -> None:
        """Remove what is left of them, once the processes in them have ended."""
        for top in (*CGROUPS.glob(f"*/{self.name}"), *CGROUPS.glob(self.name)):
            eventually(f"{top} is empty", lambda top=top: _removed(top))


def remove_empty(name: str) -> None:
    """Remove the control groups of this name below which nothing runs; those of others are left alone."""
    for top in (*CGROUPS.glob(f"*/{name}"), *CGROUPS.glob(name)):
        _removed(top)


def _removed(top: Path) -> bool:
    for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        _try_to_remove(folder)
    return _try_to_remove(top)


def _try_to_remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
