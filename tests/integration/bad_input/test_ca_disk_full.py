"""The disk of the CA's store is full: nothing is issued without its record, nobody loses what they have, and once there
is space again everything goes on without a restart.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from ca.config import STORE_FILE
from ca.store.sqlite import SqliteStore
from certs.enrolment import Enrolment
from certs.rotation import BACKOFF_CAP_SECONDS
from sidecar.identity.ca_client import Trust, connect
from sidecar.net.clock import SystemClock
from tests.integration.bad_input.conftest import assert_explained
from tests.kit.full_disk import Disk, own_disk
from tests.kit.meshes import Pair
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import steady

ADVICE = "the disk of the CA's store is full; once there is space on it, the CA issues again by itself"


class Crowded(Pair):
    """A pair whose CA lives on a disk of its own."""

    disk: Disk

    def issued(self) -> set[str]:
        """The serials in the issuance log."""
        with closing(SqliteStore(self.folder / "ca" / STORE_FILE)) as store:
            return {line.serial for line in store.issuances(1000)}

    def ask_ca(self, path: str) -> tuple[int, str]:
        """Status and body of a GET, from anybody at all."""
        proof = Enrolment.load(self.enrolment("web"))

        async def ask() -> tuple[int, str]:
            trust = Trust(proof.trust_domain, pins=proof.root_sha256)
            async with await connect(self.ca_address, trust, None, SystemClock()) as session:
                answer = await session._http.request("GET", path, b"", ())
                return answer.status, answer.body.decode()

        return trio.run(ask)

    def ca_metric(self, name: str, **labels: str) -> float:
        """One number of the CA's metrics."""
        for family in text_string_to_metric_families(self.ask_ca("/v1/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Crowded]:
    mesh = Crowded(tmp_path)
    with own_disk(tmp_path / "ca") as disk, echo_app(tmp_path, mesh.ports.app), mesh:
        mesh.disk = disk
        mesh.start_all()
        yield mesh
        assert mesh.ca is not None
        assert mesh.ca.stop() == 0
        with closing(sqlite3.connect(tmp_path / "ca" / STORE_FILE)) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_stops_issuance_and_nothing_else(mesh: Crowded, tmp_path: Path) -> None:
    ca, web, app = mesh.ca, mesh["web"], mesh["app"]
    assert ca is not None
    eventually("both watches stand", lambda: watched(mesh) == [True, True])
    before = mesh.issued()
    mesh.disk.full(ca.pid)

    with NonceLoad(mesh.ports.door, rate=50) as load:
        for _ in range(2):
            refused = mesh.mesh("certs", "rotate", "web")
            assert refused.returncode == 1
            assert "web keeps its certificate: " in refused.stderr
            assert "the CA answered 503 store_unavailable" in refused.stderr
    load.tally.assert_flawless()
    assert mesh.issued() == before
    assert watched(mesh) == [True, True]  # a bundle or a revocation would still reach them
    assert web.metrics().total("mesh_identity_failures") >= 1

    status, body = mesh.ask_ca("/v1/health")
    assert (status, json.loads(body)["ready"]) == (503, False)
    assert [mesh.ca_metric(f"mesh_ca_{name}") for name in ("ready", "store_writable")] == [0, 0]
    assert mesh.ca_metric("mesh_ca_store_failures") >= 1
    assert mesh.ca_metric("mesh_ca_refused_total", error="store_unavailable") >= 1

    if mesh.disk.real:  # with a limit in its place the CA's log cannot grow, and SQLite cannot name the trouble
        assert ADVICE in refused.stderr
        assert "database or disk is full; free space on the disk of " in json.loads(body)["reasons"][0]
        assert ca.text().count("THE STORE TAKES NO WRITE") == 1
        for command in (["entry", "add", "billing"], ["token", "app"], ["key", "app", "--force"]):
            done = mesh.mesh("ca", *command, "--dir", str(tmp_path / "ca"))
            assert done.returncode == 1, done
            assert "free space on the disk of" in done.stderr
            assert "Traceback" not in done.stderr

    mesh.disk.roomy(ca.pid)
    eventually("the CA is ready", lambda: mesh.ask_ca("/v1/health")[0] == 200)
    serial = web.identity()["serial"]
    eventually("the rotation came after all", lambda: web.identity()["serial"] != serial, BACKOFF_CAP_SECONDS + 30)
    assert mesh.issued() >= before | {web.identity()["serial"], app.identity()["serial"]}
    assert (mesh.ca_metric("mesh_ca_ready"), mesh.ca_metric("mesh_ca_store_writable")) == (1, 1)
    assert "Traceback" not in ca.text()
    if mesh.disk.real:
        assert ca.text().count("the store takes writes again") == 1
    mesh.assert_well()


def test_who_needs_a_first_certificate_meanwhile_says_why_it_waits(mesh: Crowded, tmp_path: Path) -> None:
    if not mesh.disk.real:
        pytest.skip("nobody here may mount a small disk, and a limit has other words")
    assert mesh.ca is not None
    mesh["app"].stop()
    mesh.disk.full(mesh.ca.pid)
    mesh["app"].start(ready=False)  # its certificate was in memory only
    eventually("it has tried", lambda: ADVICE in last_error(mesh))
    text = curl("-i", mesh.url).text
    assert "UF connect_failed" in text
    decision_id = re.findall(r"^mesh-decision-id: (\S+)\r$", text, re.MULTILINE)[0]
    told = f"{steady(mesh.explain(decision_id), tmp_path, mesh.ports)}\nmesh status  {last_error(mesh)}\n"
    assert_explained("ca_disk_full", told)

    mesh.disk.roomy(mesh.ca.pid)
    mesh["app"].wait_ready(BACKOFF_CAP_SECONDS + 30)
    assert mesh["app"].identity()["serial"] in mesh.issued()
    assert curl("-w", "%{http_code}", "-o", "/dev/null", mesh.url).text == "200"
    mesh.assert_well()


def test_a_ca_does_not_start_on_a_full_disk_and_says_what_to_do(mesh: Crowded, tmp_path: Path) -> None:
    if not mesh.disk.real:
        pytest.skip("nobody here may mount a small disk, and a limit has other words")
    assert mesh.ca is not None
    mesh.ca.stop()
    before = mesh.issued()
    mesh.disk.full(mesh.ca.pid)
    with pytest.raises(AssertionError, match="the CA ended before listening"):
        mesh.start_ca()
    assert mesh.ca.code == 1
    assert f"free space on the disk of {tmp_path}" in mesh.ca.text()
    assert "Traceback" not in mesh.ca.text()
    mesh.disk.roomy(mesh.ca.pid)
    assert mesh.issued() == before
    mesh.start_ca()
    eventually("both watches stand again", lambda: watched(mesh) == [True, True], 60)


def watched(mesh: Crowded) -> list[bool]:
    return [bool(mesh[name].identity()["ca_connected"]) for name in ("web", "app")]


def last_error(mesh: Crowded) -> str:
    sidecar = mesh["app"]
    return str(sidecar.identity()["last_error"]) if sidecar.state_word() == "starting" else ""
