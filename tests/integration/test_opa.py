"""OPA's REST API before a real Rego engine, asked by a real sidecar: yes, no, and everything that is neither."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.opa_server import OpaServer
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.web_server import Says

pytestmark = pytest.mark.integration

POLICY = """\
package mesh

default allow := false

allow if {
    input.caller == "spiffe://demo.mesh/ns/default/sa/web"
    input.method == "GET"
    input.path[0] == "orders"
    input.headers["x-team"][_] == "shop"
}

decision := {"allow": allow, "reason": "no team"}

sometimes := true if input.method == "GET"
"""
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: orders, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  orders:
    inbound: [{{name: http, port: {p.inbound}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}"}}]
    allow: [{{name: web-may, from: web}}]
    opa: {{url: "http://127.0.0.1:{opa}", headers: [x-team]{more}}}
    health: {{listen: "127.0.0.1:{p.health}"}}
"""
NONSENSE = [
    Says(body=b'{"result": "true"}'), Says(body=b'{"result": {"allow": "yes"}}'), Says(body=b"{}"), Says(body=b"yes"),
    Says(body=b'{"result": false, "result": true}'), Says(body=b'{"result": NaN}'), Says(500, b'{"result": true}'),
    Says(302, b'{"result": true}', {"Location": "http://127.0.0.1:1/", "Content-Type": "application/json"}),
    Says(body=b'{"result": true}', headers={"Content-Type": "text/html"}), Says(body=b"[" * 50_000),
    Says(body=b'{"result": true, "pad": "' + b"x" * 70_000 + b'"}'), Says(after=3.0, body=b'{"result": true}'),
    Says(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    Says(raw=b"\x16\x03\x01\x00\x02\x01\x00"), Says(raw=b""),
]  # fmt: skip


class Shop(Fleet):
    """`web` calls `orders`, which asks an OPA."""

    def __init__(self, folder: Path, opa: OpaServer, more: str) -> None:
        self.ports, self.opa = Ports(), opa
        super().__init__(folder, self.text(more))

    def text(self, more: str) -> str:
        return TEXT.format(domain=TRUST_DOMAIN, p=self.ports, opa=self.opa.port, more=more)

    def reload(self, more: str) -> None:
        """Another `opa`, in force when this returns."""
        known = self["orders"].status()["config"]["generation"]
        self.file.write_text(self.text(more))
        eventually("the reload", lambda: self["orders"].status()["config"]["generation"] > known)

    def ask(self, *arguments: str, path: str = "/orders/7", team: str = "shop") -> int:
        """The status of a request out of `web`."""
        url = f"http://127.0.0.1:{self.ports.web}{path}"
        code = ("-o", "/dev/null", "-w", "%{http_code}", "-s")
        return int(curl(*code, "-H", "Host: orders", "-H", f"X-Team: {team}", *arguments, url).text)

    def asked(self, answer: str) -> float:
        """What the metrics count of this answer."""
        return self["orders"].metrics().total("mesh_asks_total", answer=answer)


@contextmanager
def shop(folder: Path, more: str = "") -> Iterator[Shop]:
    with OpaServer(POLICY) as opa, Shop(folder, opa, more) as mesh:
        assert isinstance(opa, OpaServer)
        with echo_app(folder, mesh.ports.app):
            mesh.start_all()
            yield mesh


def test_rego_decides_and_whatever_is_neither_is_refused(tmp_path: Path) -> None:
    with shop(tmp_path) as mesh:
        assert mesh.ask() == 200
        assert mesh.ask(team="other") == 403
        assert mesh.ask("-X", "DELETE") == 403
        assert mesh.opa.inputs[0] | {"source": ""} == {
            "caller": spiffe("web"), "service": spiffe("orders"), "source": "", "listener": "http", "host": "orders",
            "method": "GET", "path": ["orders", "7"], "operation": None, "rule": "web-may", "route": "/**",
            "headers": {"x-team": ["shop"]},
        }  # fmt: skip
        for says in NONSENSE:
            mesh.opa.broken = says
            assert mesh.ask() == 403, says.body[:40]
            mesh.opa.broken = None
            assert mesh.ask() == 200, "it did not recover"
        assert mesh.asked("silent") == len(NONSENSE)
        assert mesh.asked("permit") == 1 + len(NONSENSE)
        assert mesh.asked("deny") == 2
        said = mesh["orders"].process.text()
        assert "OPA says neither yes nor no" in said
        assert "OPA answers" in said
        assert mesh.opa.connections < len(mesh.opa.asked)  # connections are used again
        _explained(mesh)
        _reloaded(mesh)


def _explained(mesh: Shop) -> None:
    answer = curl("-s", "-H", "Host: orders", f"http://127.0.0.1:{mesh.ports.web}/orders/7").text
    decision = json.loads(answer)["decision"]
    shown = mesh["orders"].decision(decision)
    assert (shown["error"], shown["flag"]) == ("ask_denied", "UAEX")
    assert "OPA" in shown["explained"]["happened"]
    _, ahead = mesh["orders"].admin("POST", "/explain", {"from": "web", "method": "GET", "path": "/orders/7"})
    assert ahead["verdict"] == "permit"
    assert ahead["asks"]["input"]["path"] == ["orders", "7"]
    assert ahead["asks"]["opa"] == f"http://127.0.0.1:{mesh.opa.port}/v1/data/mesh/allow"


def _reloaded(mesh: Shop) -> None:
    """An object is a decision too, and a document that is undefined for an input is silence."""
    mesh.reload(", path: /v1/data/mesh/decision")
    assert (mesh.ask(), mesh.opa.asked[-1].path) == (200, "/v1/data/mesh/decision")
    assert mesh.ask(team="other") == 403
    mesh.reload(", path: /v1/data/mesh/sometimes")
    assert (mesh.ask(), mesh.opa.asked[-1].path) == (200, "/v1/data/mesh/sometimes")
    silent = mesh.asked("silent")
    assert mesh.ask("-X", "DELETE") == 403
    assert mesh.asked("silent") == silent + 1
    mesh.reload(", mode: shadow")
    assert mesh.ask(team="other") == 200
    mesh.reload(", cache: {ttl: 1m}")
    assert mesh.ask(team="other") == 403
    mesh.ask()
    before = len(mesh.opa.asked)
    for _ in range(5):
        assert mesh.ask() == 200
    assert len(mesh.opa.asked) == before
    assert mesh.asked("cached_permit") == 5


def test_opa_that_is_not_there_refuses_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    with shop(tmp_path, ", silent: unsafe_permit, timeout: 500ms") as mesh:
        mesh.opa.broken = Says(after=5.0)
        assert mesh.ask() == 200
        mesh.reload("")
        assert mesh.ask() == 403
