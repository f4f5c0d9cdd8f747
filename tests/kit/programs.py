"""Programs that nobody here wrote, as services and as clients; each on a port of its own and gone at the end."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.processes import Process, listens
from tests.kit.tools import find, need

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Done:
    """What a client program printed, and how it ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Its standard output."""
        return self.out.decode(errors="replace")


def run(*command: str, stdin: bytes = b"", timeout: float = 60.0, env: dict[str, str] | None = None) -> Done:
    """Run a client program to its end. It gets no proxy from our environment."""
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ended = subprocess.run(
        command, input=stdin, capture_output=True, timeout=timeout, env={**clean, "LC_ALL": "C.UTF-8", **(env or {})}
    )
    return Done(ended.returncode, ended.stdout, ended.stderr.decode(errors="replace"))


def curl(*arguments: str, stdin: bytes = b"", timeout: float = 60.0) -> Done:
    """curl, silent but for errors, without a configuration file."""
    return run(need("curl"), "-q", "-sS", "--max-time", str(int(timeout)), *arguments, stdin=stdin, timeout=timeout + 5)


# ---- services --------------------------------------------------------------------------------------------------------


@contextmanager
def echo_app(folder: Path, port: int, script: str = "echo_app.py") -> Iterator[Process]:
    """The tests' own plain HTTP application, see tests/kit/echo_app.py; or another one of the kit's."""
    command = [sys.executable, "-I", str(REPOSITORY / "tests" / "kit" / script), str(port)]
    with _service(Process("echo app", command, folder / "echo.log"), port) as process:
        yield process


def node_folder(sources: Path) -> Path:
    """A folder with these scripts and the packages of their package-lock.json, made once; later runs find it again.

    Without npm, or where it cannot get them, the test is skipped, and says why.
    """
    npm = find("npm")
    if npm is None:
        pytest.skip("npm is not installed, so there are no packages for node")
    folder = REPOSITORY / ".cache" / "node" / sources.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{sources.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same run
        wanted, made = (sources / "package-lock.json").read_bytes(), folder / "made-from.json"
        shutil.copytree(sources, folder, dirs_exist_ok=True)
        if not made.exists() or made.read_bytes() != wanted:
            command = (npm, "ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund")
            trusted = os.environ.get("NODE_EXTRA_CA_CERTS") or str(SYSTEM_ROOTS)  # node has a list of roots of its own
            done = run(*command, timeout=300, env={"NODE_EXTRA_CA_CERTS": trusted} if SYSTEM_ROOTS.exists() else None)
            if done.code:
                pytest.skip(f"npm cannot get the packages of {sources.name}: {done.err.strip()[-300:]}")
            made.write_bytes(wanted)
    return folder


@contextmanager
def node_app(folder: Path, port: int, script: Path) -> Iterator[Process]:
    """A server on node, that takes its port as its only argument."""
    with _service(Process("node", [need("node"), str(script), str(port)], folder / "node.log"), port) as process:
        yield process


@contextmanager
def nginx(folder: Path, port: int, locations: str, *, beside: str = "") -> Iterator[Path]:
    """nginx with these `location` blocks; yields the folder that it serves. `beside` is another `listen`."""
    program = need("nginx")
    root = folder / "www"
    root.mkdir(exist_ok=True)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
{"user root;" if os.getuid() == 0 else ""}
events {{ worker_connections 256; }}
http {{
    {temporary}
    types {{ text/plain txt; text/html html; application/json json; }}
    access_log {folder}/nginx-access.log;
    client_max_body_size 0; keepalive_timeout 60s;
    server {{ listen 127.0.0.1:{port}; {beside} root {root};
{locations}
    }}
}}
"""
    )
    command = [program, "-e", "stderr", "-c", str(config), "-p", str(folder)]
    with _service(Process("nginx", command, folder / "nginx.log"), port):
        yield root


@contextmanager
def redis(folder: Path, port: int) -> Iterator[Process]:
    """Redis without persistence."""
    command = [
        need("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", str(folder),
    ]  # fmt: skip
    with _service(Process("redis", command, folder / "redis.log"), port) as process:
        yield process


@contextmanager
def postgres(port: int) -> Iterator[Path]:
    """PostgreSQL with a cluster of its own; yields the cluster's folder. User `mesh` needs no password."""
    initdb, server = need("initdb"), need("postgres")
    folder = Path(tempfile.mkdtemp(prefix="mesh-pg-"))
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    init = [initdb, "-D", str(data), "-U", "mesh", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
    log = folder.with_suffix(".log")
    try:
        made = Process("initdb", init, log, user=user)
        assert made.wait(60) == 0, made.tail()
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with _service(Process("postgres", [server, "-D", str(data), *options], log, user=user), port):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)


@contextmanager
def _service(process: Process, port: int) -> Iterator[Process]:
    try:
        process.until("listening", lambda: listens(port))
        yield process
    finally:
        process.stop()
