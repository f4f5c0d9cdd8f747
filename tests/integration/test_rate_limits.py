"""Rate limits between real processes: a caller that asks too often gets 429, and nobody else notices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet, spiffe
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
    rates:
      - {{name: everybody, limit: 1000/s}}
      - {{name: each-caller, per: caller, limit: 3/h}}
      - {{name: searches, per: endpoint, path: /search, limit: {searches}}}
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: "127.0.0.1:{p.app_health}"}}
"""


class Trio(Fleet):
    """`web` and `cart`, which both call `app`."""

    def __init__(self, folder: Path) -> None:
        self.ports = Ports()
        super().__init__(folder, self.text(folder))

    def text(self, folder: Path, searches: str = "1/h") -> str:
        return TEXT.format(domain=TRUST_DOMAIN, p=self.ports, folder=folder, searches=searches)

    def ask(self, caller: str, path: str = "/orders/7") -> str:
        """What curl prints of an answer, its head included."""
        return curl("-i", f"http://127.0.0.1:{getattr(self.ports, caller)}{path}").text

    def status(self, caller: str, path: str = "/orders/7") -> int:
        return int(self.ask(caller, path).split()[1])


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Trio]:
    mesh = Trio(tmp_path)
    with echo_app(tmp_path, mesh.ports.app), mesh:
        mesh.start_all()
        yield mesh


def test_a_caller_over_its_limit_is_told_when_to_come_again_and_another_is_not_touched(mesh: Trio) -> None:
    assert [mesh.status("web") for _ in range(4)] == [200, 200, 200, 429]
    head, _, body = mesh.ask("web").partition("\r\n\r\n")
    head = head.lower()
    assert head.startswith("http/1.1 429 ")
    wait = re.search(r"retry-after: (\d+)", head)
    assert wait is not None
    assert 1000 <= int(wait[1]) <= 1200
    assert 'ratelimit-policy: "each-caller";q=3;w=3600' in head
    assert re.search(r'ratelimit: "each-caller";r=0;t=3[56]\d\d', head)
    problem = json.loads(body)
    assert (problem["title"], problem["status"]) == ("Too Many Requests", 429)

    assert [mesh.status("cart") for _ in range(3)] == [200, 200, 200]

    metrics = mesh["app"].metrics()
    assert metrics.total("mesh_rate_limited_total", source=spiffe("web"), limit="each-caller", per="caller") == 2
    assert metrics.total("mesh_rate_limited_total", source=spiffe("cart")) == 0
    told = mesh.explain(problem["decision"])
    assert "over the limit each-caller (" in told
    assert "3/h per caller, 3 at once)" in told
    assert "has room again after" in told
    (line,) = [each for each in mesh["app"].access_log() if each["decision_id"] == problem["decision"]]
    assert (line["status"], line["flags"]) == (429, "RL")
    for sidecar in mesh.sidecars.values():
        sidecar.assert_well()


def test_a_reload_forgets_nothing_of_the_limits_that_stay(mesh: Trio) -> None:
    assert [mesh.status("web", "/search"), mesh.status("web", "/search"), mesh.status("web")] == [200, 429, 200]
    mesh.file.write_text(mesh.text(mesh.folder, "50/h"))
    eventually("the reload", lambda: mesh["app"].status()["config"]["generation"] == 2)
    assert [mesh.status("web", "/search"), mesh.status("web", "/search")] == [200, 429]  # the caller's third and fourth
    assert mesh.status("cart", "/search") == 200
