"""Real processes: a sidecar that is known by its user on the CA's socket, and one that shows a Kubernetes token."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.kit.fake_cluster import FakeCluster, a_cluster
from tests.kit.fleet import MESH, Fleet
from tests.kit.free_ports import Ports
from tests.kit.processes import Process, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mesh-pr-") as name:
        yield Path(name)


def a_fleet(folder: Path) -> Fleet:
    services = "services: {web: {health: {listen: off}}}"
    text = f"trust_domain: demo.mesh\nca: {{address: '127.0.0.1:{Ports().ca}'}}\n{services}\n"
    return Fleet(folder, text)


def ca(mesh: Fleet, *arguments: str) -> str:
    done = mesh.mesh("ca", *arguments, "--dir", str(mesh.folder / "ca"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def replace_entry(mesh: Fleet, *selectors: str) -> None:
    ca(mesh, "entry", "remove", "web")
    ca(mesh, "entry", "add", "web", *(word for each in selectors for word in ("--selector", each)))


def start(mesh: Fleet, *more: str) -> None:
    """The CA, then the sidecar, which is waited for."""
    where = ["--dir", str(mesh.folder / "ca"), "--passphrase-file", str(mesh.folder / "passphrase")]
    serve = [*MESH, "ca", "serve", *where, "--listen", mesh.ca_address, *more]
    mesh.ca = Process("the CA", serve, mesh.folder / "logs" / "ca.log")
    mesh.ca.until("ready", lambda: "ca ready" in mesh.ca.text())  # type: ignore[union-attr]
    mesh["web"].start(ready=False)
    mesh["web"].process.until("silent no more", lambda: mesh["web"].state_word() != "silent")


def test_a_user_of_this_machine_needs_no_secret(tmp_path: Path, place: Path) -> None:
    with a_fleet(tmp_path) as mesh:
        replace_entry(mesh, f"unix:uid:{os.getuid()}")
        ca(mesh, "enrolment", "web", "--socket", f"{place}/ca.sock", "--out", str(mesh.enrolment("web")), "--force")
        start(mesh, "--socket", f"{place}/ca.sock")
        mesh["web"].wait_ready()
        lines = json.loads(ca(mesh, "log", "--all", "-o", "json"))["lines"]
        proofs = {line["proof"]: line["proof_detail"] for line in lines if line["kind"] == "issued"}
        assert f"unix:uid:{os.getuid()} " in proofs["unix"]
        first = mesh["web"].identity()["serial"]
        assert mesh["web"].rotate() != first, "renewal is by certificate, over TCP"


def test_another_user_is_told_which_selector_differs(tmp_path: Path, place: Path) -> None:
    with a_fleet(tmp_path) as mesh:
        replace_entry(mesh, "unix:uid:4242")
        ca(mesh, "enrolment", "web", "--socket", f"{place}/ca.sock", "--out", str(mesh.enrolment("web")), "--force")
        start(mesh, "--socket", f"{place}/ca.sock")
        wanted = f"asks for unix:uid:4242 and saw unix:uid:{os.getuid()}"
        eventually("the refusal in the status", lambda: wanted in mesh["web"].identity()["last_error"])


@pytest.mark.parametrize("mode", ["review", "oidc"])
def test_a_pod_shows_its_token_which_is_read_anew(tmp_path: Path, place: Path, mode: str) -> None:
    async def story() -> None:
        async with a_cluster() as cluster:
            cluster.now = time.time() - 10
            await trio.to_thread.run_sync(act, cluster)

    def act(cluster: FakeCluster) -> None:
        with a_fleet(tmp_path) as mesh:
            (place / "ca.pem").write_text(cluster.ca_pem)
            (place / "own").write_text("own")
            (place / "token").write_text(cluster.token(audience="istio-ca"))
            how = [f"--{mode}", cluster.url, "--ca-file", f"{place}/ca.pem"]
            how += ["--token-file", f"{place}/own"] if mode == "review" else []
            ca(mesh, "cluster", "add", "prod", *how)
            assert "prod" in ca(mesh, "cluster", "list")
            replace_entry(mesh, "k8s:cluster:prod", "k8s:ns:shop", "k8s:sa:orders")
            made = ("--kubernetes", f"{place}/token", "--out", str(mesh.enrolment("web")), "--force")
            ca(mesh, "enrolment", "web", *made)
            start(mesh)
            eventually("the refusal", lambda: "prod asks for mesh-ca" in mesh["web"].identity()["last_error"])
            (place / "token").write_text(cluster.token())
            mesh["web"].wait_ready()
            assert mesh["web"].identity()["last_error"] == ""
            ca(mesh, "cluster", "remove", "prod")
            assert "no clusters" in ca(mesh, "cluster", "list")

    trio.run(story)
