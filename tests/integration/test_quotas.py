"""Quotas between real processes: counted across restarts and kills, shown and reset by `mesh quota`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.fleet import MESH, TRUST_DOMAIN, Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: app, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  cart:
    outbound: [{{to: app, listen: "127.0.0.1:{p.cart}"}}]
    health: {{listen: "127.0.0.1:{p.cart_health}"}}
  app:
    inbound: [{{name: main, port: {p.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}"}}]
    allow: [{{name: both-may, from: [web, cart]}}]
    quotas: [{{name: monthly, limit: {limit}/month, time_zone: Europe/Berlin}}]
    audit: {{path: {folder}/app.audit}}
    health: {{listen: "127.0.0.1:{p.app_health}"}}
"""


class Trio(Fleet):
    """`web` and `cart`, which both call `app`."""

    def __init__(self, folder: Path, limit: int = 300) -> None:
        self.ports = Ports()
        super().__init__(folder, self.text(folder, limit))

    def text(self, folder: Path, limit: int) -> str:
        return TEXT.format(domain=TRUST_DOMAIN, p=self.ports, folder=folder, limit=limit)

    def status(self, caller: str) -> int:
        return int(curl("-i", f"http://127.0.0.1:{getattr(self.ports, caller)}/").text.split()[1])

    def statuses(self, caller: str, number: int) -> list[int]:
        """Those of so many requests on one connection."""
        url = f"http://127.0.0.1:{getattr(self.ports, caller)}/[1-{number}]"
        answer = curl("-o", "/dev/null", "-w", "%{http_code}\n", url)
        return [int(line) for line in answer.text.split()]

    def quota(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`mesh quota` with the sidecars of this fleet."""
        return subprocess.run(
            [*MESH, "quota", *arguments, "--run-dir", str(self.run_dir)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def used(self, caller: str = "web") -> int:
        _, document = self["app"].admin("GET", "/quotas")
        return sum(key["used"] for row in document["quotas"] for key in row["keys"] if key["key"] == spiffe(caller))


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Trio]:
    mesh = Trio(tmp_path)
    with echo_app(tmp_path, mesh.ports.app), mesh:
        mesh.start_all()
        yield mesh


def test_a_quota_is_shown_used_up_reset_and_audited(mesh: Trio, tmp_path: Path) -> None:
    assert mesh.statuses("web", 301) == [200] * 300 + [429]
    assert mesh.status("cart") == 200

    shown = mesh.quota("show")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"app +monthly +caller +\S*web +300 +0 +in .*\[#{20}\] 100 %", shown.stdout), shown.stdout
    assert re.search(r"app +monthly +caller +\S*cart +1 +299 +in .*\[-{20}\]   0 %", shown.stdout), shown.stdout

    answer = curl("-i", f"http://127.0.0.1:{mesh.ports.web}/").text.lower()
    assert "retry-after: " in answer
    assert re.search(r'ratelimit: "monthly";r=0;t=\d+', answer)
    decision = re.search(r"mesh-decision-id: (\S+)", answer)
    assert decision is not None
    explained = mesh["app"].decision(decision[1])
    assert explained["error"] == "quota_spent"
    assert "monthly (" in explained["detail"]
    assert "mesh.yaml:" in explained["detail"]
    assert "mesh quota show" in json.dumps(explained["explained"])

    refused = mesh.quota("reset", "monthly", "--caller", "web")
    assert (refused.returncode, "Say --yes" in refused.stderr) == (2, True)
    unknown = mesh.quota("reset", "montly", "--caller", "web", "--yes")
    assert (unknown.returncode, "Did you mean monthly?" in unknown.stderr) == (1, True)
    nobody = mesh.quota("reset", "monthly", "--caller", "wep", "--yes")
    assert (nobody.returncode, "has used nothing" in nobody.stderr) == (1, True)
    done = mesh.quota("reset", "monthly", "--caller", "web", "--yes")
    assert done.returncode == 0, done.stderr
    assert "had used 300" in done.stdout
    assert mesh.statuses("web", 301) == [200] * 300 + [429]

    def audited() -> bool:
        lines = [json.loads(line) for line in (tmp_path / "app.audit").read_text().splitlines()]
        found = [line for line in lines if line["kind"] == "quota_reset"]
        return [(line["quota"], line["key"]) for line in found] == [("monthly", spiffe("web"))] and found[0]["pid"] > 0

    eventually("an audit line for the reset", audited)
    assert mesh["app"].metrics().total("mesh_quota_store_up") == 1


def test_killed_while_it_is_used_nobody_has_more_than_the_quota_and_little_is_lost(mesh: Trio) -> None:
    """Two clients at once; killed in the middle, three times."""
    permitted = 0
    for _ in range(3):
        before = mesh.used()
        counts: list[int] = []

        def ask(into: list[int] = counts) -> None:
            into.append(mesh.statuses("web", 150).count(200))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        eventually("use", lambda: mesh.used() >= min(before + 20, 280))  # noqa: B023 - asked here and now
        mesh["app"].process.kill()
        for thread in threads:
            thread.join()
        permitted += sum(counts)
        mesh["app"].start()
        seen: list[int] = []
        eventually("web asks again", lambda: seen.append(mesh.status("web")) or seen[-1] in (200, 429))  # noqa: B023
        permitted += seen.count(200)
    permitted += mesh.statuses("web", 301).count(200)
    # A request whose answer was lost with the process has had its share too. Each kill loses that, and a lease of 3.
    assert 300 - 3 * (3 + 2) <= permitted <= 300


def test_a_stop_in_order_loses_nothing_and_a_changed_limit_acts_at_once(mesh: Trio) -> None:
    assert mesh.statuses("web", 100) == [200] * 100
    assert mesh["app"].stop() == 0
    mesh["app"].start()
    assert mesh.used() == 100
    file = mesh["app"].state / "quotas.sqlite"
    assert file.stat().st_mode & 0o777 == 0o600
    assert mesh.statuses("web", 10) == [200] * 10
    mesh.file.write_text(mesh.text(mesh.folder, 115))
    eventually("the reload", lambda: mesh["app"].status()["config"]["generation"] == 2)
    assert mesh.statuses("web", 10) == [200] * 5 + [429] * 5


def test_a_file_that_is_none_is_loud_and_lets_nobody_in_until_it_is_moved_away(mesh: Trio) -> None:
    assert mesh["app"].stop() == 0
    file = mesh["app"].state / "quotas.sqlite"
    for each in file.parent.glob("quotas.sqlite*"):
        each.unlink()
    file.write_bytes(b"this is no database" * 500)
    mesh["app"].start()
    assert mesh.statuses("web", 3) == [503] * 3
    eventually("the metric", lambda: mesh["app"].metrics().total("mesh_quota_store_up") == 0)
    log = (mesh.folder / "logs" / "app.log").read_text()
    assert "quotas cannot be counted" in log
    assert "not a database" in log
    shown = mesh.quota("show")
    assert (shown.returncode, "cannot be read" in shown.stderr) == (1, True)
    shutil.move(file, file.with_suffix(".broken"))
    eventually("a new file", lambda: mesh.status("web") == 200)
    eventually("the metric", lambda: mesh["app"].metrics().total("mesh_quota_store_up") == 1)
