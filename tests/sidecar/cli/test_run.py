"""`mesh run`: what it refuses before anything starts, and a real sidecar around a real command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ca.bootstrap import enrolment_file, prepare
from ca.entries import NewEntry
from certs.enrolment import Enrolment, EnrolmentKey
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from sidecar.cli.preflight import why_not
from sidecar.cli.root import run_command
from sidecar.cli.run import default_state_dir

HERE = Path(__file__).resolve().parents[3]
MESH = [sys.executable, "-P", "-m", "sidecar.cli"]
DOMAIN = TrustDomain.parse("demo.mesh")
TWO = "trust_domain: demo.mesh\nservices:\n  web: {health: {listen: off}}\n  orders: {health: {listen: off}}\n"
ONE = """\
trust_domain: demo.mesh
services:
  web: {health: {listen: off}, env: {GREETING: hello}, run: [sh, -c, exit 6]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two.yaml").write_text(TWO)
    (tmp_path / "none.yaml").write_text("trust_domain: demo.mesh\nservices: {}\n")
    (tmp_path / "one.yaml").write_text(ONE)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "missing.yaml"], "missing.yaml"),
        (["-f", "two.yaml"], "two.yaml has 2 services; which one?"),
        (
            ["-f", "two.yaml", "--service", "wbe"],
            "two.yaml has no service 'wbe'.\n      Did you mean web? It has: web, orders.",
        ),
        (["-f", "none.yaml"], "none.yaml has no services."),
        (["-f", "one.yaml"], "no enrolment file"),
        (["-f", "one.yaml", "--enrolment", "none.json"], "there is no enrolment file none.json"),
        (["-f", "one.yaml", "--with-app", "--", "true"], "exclude each other"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    folder: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run_command(["run", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_enrolment_file_of_somebody_else_or_of_nobody_starts_nothing(folder: Path) -> None:
    web = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web")
    Enrolment(web.trust_domain, "127.0.0.1:17012", ("0" * 64,), "web-1", web, EnrolmentKey.generate()).save(
        folder / "web.json"
    )
    (folder / "broken.json").write_text("trust_domain: demo.mesh")
    (folder / "broken.json").chmod(0o600)
    for name, words in (
        ("web.json", "web.json is for spiffe://demo.mesh/ns/default/sa/web, but orders is spiffe://"),
        ("broken.json", "broken.json: this is not a JSON document."),
    ):
        arguments = ["-f", "two.yaml", "--service", "orders", "--enrolment", name, "--state", "s", "--run-dir", "r"]
        env = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [*MESH, "run", *arguments], capture_output=True, text=True, cwd=folder, env=env, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert ("`mesh ca key orders --out FILE` makes one" in done.stderr) is (name == "web.json")


def test_state_is_kept_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MESH_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / ".local" / "state" / "mesh"
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert default_state_dir() == Path("/x/mesh")
    monkeypatch.setenv("MESH_STATE_DIR", "/y")
    assert default_state_dir() == Path("/y")


class Machine:
    """A CA with one entry, `web`, and a way to run its sidecar."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = next(port for port in range(18612, 32000, 1000) if why_not("127.0.0.1", port) is None)
        self.env = {**os.environ, "MESH_RUN_DIR": str(folder / "run"), "PYTHONPATH": str(HERE)}
        (folder / "passphrase").touch(mode=0o600)
        (folder / "passphrase").write_text("secret")
        entry = NewEntry(workload_id(DOMAIN, "default", "web"))
        prepare(folder / "ca", DOMAIN, b"secret", [entry], f"127.0.0.1:{self.port}")
        self.enrolment = enrolment_file(folder / "ca", entry.spiffe_id)

    def ca(self) -> subprocess.Popen[bytes]:
        serve = ["ca", "serve", "--dir", str(self.folder / "ca")]
        secret = ["--passphrase-file", str(self.folder / "passphrase")]
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*MESH, *serve, *secret], env=self.env, stdout=quiet, stderr=quiet)

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        state = str(self.folder / "state")
        command = ["run", "-f", str(self.folder / "one.yaml"), "--enrolment", str(self.enrolment), "--state", state]
        return subprocess.Popen(
            [*MESH, *command, *arguments], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def machine(folder: Path) -> Machine:
    return Machine(folder)


@pytest.mark.integration
def test_a_command_lives_inside_a_real_sidecar(machine: Machine) -> None:
    ca = machine.ca()
    try:
        seen = machine.run("--", "sh", "-c", f'echo $GREETING; {" ".join(MESH)} status --ready; exit 7')
        out, errors = seen.communicate(timeout=40)
        assert (seen.returncode, out) == (7, "hello\nready\n"), errors
        app = machine.run("--with-app")
        app.communicate(timeout=40)
        assert app.returncode == 6
        alone = machine.run()
        while not (machine.folder / "run" / "web.sock").exists():
            time.sleep(0.02)
        ready = [*MESH, "status", "--ready"]
        while subprocess.run(ready, env=machine.env, capture_output=True, check=False).returncode:
            assert alone.poll() is None
        alone.send_signal(signal.SIGTERM)
        alone.communicate(timeout=40)
        assert alone.returncode == 0
    finally:
        ca.terminate()
        ca.wait(20)
    assert not (machine.folder / "run" / "web.sock").exists()


@pytest.mark.integration
def test_without_a_ca_the_command_waits_until_there_is_one(machine: Machine) -> None:
    """The CA is away at the start: nothing is started and nothing given up; status says why."""
    process = machine.run("--", "sh", "-c", "echo started")
    status = [*MESH, "status", "-o", "json"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        seen = subprocess.run(status, env=machine.env, capture_output=True, text=True, check=False).stdout
        if '"consecutive_failures": 0' not in seen and '"state": "starting"' in seen:
            break
    assert process.poll() is None
    ca = machine.ca()
    try:
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "started\n"), errors
    finally:
        ca.terminate()
        ca.wait(20)
