"""The demo as a newcomer runs it: real processes, one JSON document, a refusal explained, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.fleet import descendants
from sidecar.cli.preflight import wanted_ports, why_not
from sidecar.config.load import load_text
from sidecar.config.terms import Address
from sidecar.demo.config import DemoPorts, demo_yaml
from tests.kit.free_ports import free_base

pytestmark = pytest.mark.integration

HERE = Path(__file__).resolve().parents[3]
MESH = [sys.executable, "-P", "-m", "sidecar.cli"]
FIRST_ROW_WITHIN = 5.0  # seconds, once set up: the bar


def all_free(base: int) -> bool:
    wanted = wanted_ports(load_text(demo_yaml(base)), Address("127.0.0.1", DemoPorts(base).ca))
    return all(why_not(want.host, want.port) is None for want in wanted)


class Place:
    """A machine of its own, as far as `mesh` can tell: folders that are empty, and a port base that is free."""

    def __init__(self, folder: Path, base: int) -> None:
        self.folder, self.base = folder, base
        self.run_dir, self.temporary = folder / "run", folder / "tmp"
        self.temporary.mkdir()
        self.before = descendants(os.getpid())  # of other tests, whose meshes stand for a whole session
        ours = {"MESH_RUN_DIR": str(self.run_dir), "TMPDIR": str(self.temporary), "PYTHONPATH": str(HERE)}
        self.env = {**os.environ, **ours}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*MESH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.env, cwd=self.folder,
        )  # fmt: skip

    def mesh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MESH, *arguments], capture_output=True, text=True, timeout=60, env=self.env, cwd=self.folder, check=False
        )

    def up(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start("up", "--port-base", str(self.base), *arguments)

    def wait_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            done = self.mesh("status", "-o", "json")
            states = [each["state"] for each in json.loads(done.stdout)["services"]] if done.stdout else []
            if states == ["ready"] * 3:
                return
            time.sleep(0.05)
        raise AssertionError("not ready in time")

    def serials(self) -> dict[str, str]:
        listed = json.loads(self.mesh("certs", "list", "-o", "json").stdout)
        return {each["service"]: each["serial"] for each in listed["certs"]}

    def assert_nothing_left(self) -> None:
        assert list(self.temporary.iterdir()) == []
        assert not self.run_dir.exists()
        assert all_free(self.base)
        left = set(descendants(os.getpid())) - set(self.before)
        assert [pid for pid in left if b"sidecar" in command_line(pid)] == []


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, str]:
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    return process.returncode, out, errors


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, free_base())


def test_mesh_up_for_a_while_prints_one_document_and_leaves_nothing(place: Place) -> None:
    """Longer than the ten idle seconds of a trio worker thread, because a command must not end with its starter."""
    done = place.up("--for", "14s", "-o", "json")
    out, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    document = json.loads(out)
    hops: dict[tuple[str, str, str, str], dict[str, Any]] = {
        (hop["from"].rpartition("/")[2], hop["to"].rpartition("/")[2], hop["route"], hop["verdict"]): hop
        for hop in document["hops"]
    }
    assert set(hops) == {
        ("web", "orders", "/orders", "permit"), ("web", "orders", "/orders/{id}", "permit"),
        ("orders", "payments", "/charges", "permit"), ("web", "payments", "", "deny"),
    }  # fmt: skip
    for (_, _, _, verdict), hop in hops.items():
        assert hop["from"].startswith("spiffe://demo.mesh/ns/default/sa/")
        assert hop["tls_version"] == "TLSv1.3"
        assert hop["tls_group"] == "X25519MLKEM768"
        assert hop["p50_ms"] <= hop["p99_ms"]
        if verdict == "permit":
            assert hop["failures"] == 0
            assert hop["rule"]
    assert hops["web", "orders", "/orders/{id}", "permit"]["requests"] > 14 * 15 * 0.5
    assert hops["web", "payments", "", "deny"]["requests"] >= 8
    assert "nothing is left running" in errors
    place.assert_nothing_left()


def test_a_refusal_is_explained_by_its_id_and_the_whole_mesh_can_be_looked_at(place: Place) -> None:
    began = time.monotonic()
    process = place.up()
    try:
        place.wait_ready(process)
        assert time.monotonic() - began < FIRST_ROW_WITHIN + 5  # five more for a busy machine; the bench has the bar
        ports = DemoPorts(place.base)
        head = raw_get(ports.web_to_payments, "/charges/1")
        assert head.startswith("HTTP/1.1 403 ")
        decision = next(line.split(": ")[1] for line in head.splitlines() if line.startswith("mesh-decision-id"))
        told = place.mesh("explain", decision)
        assert told.returncode == 1
        for words in ("web → payments", "no rule allows it", "orders-read", "from: wanted orders, seen web", "- name:"):
            assert words in told.stdout
        asked = place.mesh("explain", "--from", "web", "--to", "orders", "--path", "/orders/1", "-o", "json")
        assert (asked.returncode, json.loads(asked.stdout)["rule"]) == (0, "shop-reads")
        assert raw_get(ports.web_to_orders, "/orders/7").startswith("HTTP/1.1 200 ")
        assert place.mesh("status", "--ready").stdout == "ready\n"
        before = place.serials()
        assert place.mesh("certs", "rotate", "orders").returncode == 0
        after = place.serials()
        assert {service for service in before if before[service] != after[service]} == {"orders"}
        assert place.mesh("certs", "verify", "orders").returncode == 0
    finally:
        code, _, errors = stop(process)
    assert code == 0, errors
    place.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_it_early_leaves_nothing(place: Place, number: int) -> None:
    """In the middle of the start, when some processes run and others do not."""
    process = place.up()
    while not list(place.temporary.glob("mesh-up-*/logs/*.log")):
        assert process.poll() is None
        time.sleep(0.005)
    code, _, errors = stop(process, number)
    assert code == 0, errors
    place.assert_nothing_left()


def test_a_kill_leaves_no_process_and_the_next_one_clears_the_folder(place: Place) -> None:
    process = place.up()
    place.wait_ready(process)
    below = descendants(process.pid)
    assert len(below) >= 7  # the CA, three sidecars, three applications
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while (left := [pid for pid in below if b"sidecar" in command_line(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert len(list(place.temporary.iterdir())) == 1
    done = place.up("--for", "1s", "-o", "json")
    _, errors = done.communicate(timeout=30)
    assert done.returncode == 0, errors
    assert list(place.temporary.iterdir()) == []


def test_a_taken_port_is_named_before_anything_starts(place: Place) -> None:
    port = DemoPorts(place.base).payments_inbound
    with socket.create_server(("127.0.0.1", port)):
        done = place.mesh("up", "--port-base", str(place.base), "--for", "1s")
    assert done.returncode == 3
    assert f"port {port} is taken by " in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "payments, for its peers" in done.stderr
    assert "mesh up --port-base" in done.stderr
    place.assert_nothing_left()


def test_a_second_mesh_in_the_same_place_is_turned_away(place: Place) -> None:
    process = place.up()
    try:
        place.wait_ready(process)
        second = place.mesh("up", "--port-base", str(place.base + 1000), "--for", "1s")
        assert second.returncode == 3
        assert "is running already" in second.stderr
        assert "mesh up --run-dir /tmp/other --port-base 27000" in second.stderr
        (place.folder / "mesh.yaml").write_text(demo_yaml(place.base + 1000))
        mine = place.mesh("up", "-f", "mesh.yaml", "--for", "1s")
        assert mine.returncode == 3
        assert f"apart from it: mesh up -f {place.folder / 'mesh.yaml'} --run-dir /tmp/other" in mine.stderr
        assert place.mesh("status", "--ready").returncode == 0
    finally:
        stop(process)
    place.assert_nothing_left()


def test_your_own_services_run_from_your_own_file(place: Place) -> None:
    """The demo's config as a file, with a service that ends well and one whose command is not there."""
    file = place.folder / "mesh.yaml"
    batch = f'  batch:\n    run: ["true"]\n    health: {{listen: "127.0.0.1:{place.base + 99}"}}\n'
    file.write_text(demo_yaml(place.base) + batch)
    done = place.mesh("up", "-f", "mesh.yaml", "--for", "6s")
    assert done.returncode == 0, done.stderr
    assert "batch has ended" in done.stderr
    assert "orders-charge" in done.stdout
    place.assert_nothing_left()
    file.write_text(file.read_text().replace('["true"]', '["no-such-program"]'))
    done = place.mesh("up", "-f", "mesh.yaml", "--for", "6s")
    assert done.returncode == 1
    assert "batch ended with code 127" in done.stderr
    assert "there is no program 'no-such-program'" in done.stderr
    place.assert_nothing_left()


def raw_get(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received.decode().lower().replace("http/1.1", "HTTP/1.1")
