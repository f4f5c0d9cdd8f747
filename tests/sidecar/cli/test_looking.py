"""`mesh status`, `explain` and `certs` against admin sockets: answers, refusals and exit codes."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import MeshError
from sidecar.cli.root import run_command
from sidecar.config.posture import show_moment
from tests.kit.identities import Authority, a_bundle, a_root, an_issuer, an_svid
from tests.sidecar.cli.conftest import Start

CONFIG = """\
trust_domain: demo.mesh
services:
  web:
    outbound: [{to: orders, listen: "127.0.0.1:17101"}]
  orders:
    inbound: [{name: http, port: 17443, app: "127.0.0.1:17201"}]
    allow:
      - {name: reads, from: web, method: GET, path: "/orders/{id}"}
  payments: {}
"""


class Mesh:
    """Runs the command in this process and keeps what it said."""

    def __init__(self, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.run_dir, self._capsys = run_dir, capsys

    def __call__(self, *arguments: str) -> int:
        code = run_command([*arguments, "--run-dir", str(self.run_dir)])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        return code

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def mesh(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Mesh:
    return Mesh(run_dir, capsys)


# ---- status --------------------------------------------------------------------------------------------------------


def test_nobody_running_is_exit_3_with_advice(mesh: Mesh) -> None:
    assert mesh("status") == 3
    assert "no sidecar is running here" in mesh.err
    assert "mesh up" in mesh.err


def test_a_service_that_does_not_run_is_named_with_those_that_do(mesh: Mesh, start: Start) -> None:
    start("web")
    assert mesh("status", "--service", "wbe") == 3
    assert "no sidecar of 'wbe'" in mesh.err
    assert "Did you mean web? Running here: web." in mesh.err
    assert mesh("status", "--service", "payments") == 3
    assert "      Running here: web." in mesh.err


def test_ready_is_said_in_a_word_and_a_code(mesh: Mesh, start: Start) -> None:
    start("web")
    orders = start("orders")
    assert (mesh("status", "--ready"), mesh.out) == (0, "ready\n")
    orders.state = "starting"
    assert (mesh("status", "--ready"), mesh.out) == (1, "orders is starting\n")
    assert (mesh("status", "--ready", "--service", "web"), mesh.out) == (0, "ready\n")


def test_a_dead_socket_does_not_hide_the_others(mesh: Mesh, start: Start) -> None:
    start("web")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(mesh.run_dir / "ghost.sock"))
    assert mesh("status") == 3
    assert "ready" in mesh.out
    assert "unreachable" in mesh.out
    assert mesh("status", "--ready") == 3


def test_status_tells_identity_listeners_and_what_deserves_an_eye(mesh: Mesh, start: Start) -> None:
    web = start("web")
    web.identity |= {"ca_connected": False, "consecutive_failures": 4, "last_error": "connection refused",
                     "clock_warning": "this machine's clock is 2 d ahead of the CA's; set it"}  # fmt: skip
    assert mesh("status") == 0
    for words in ("web", "127.0.0.1:17443", "CA out of reach", "4 failed renewals: connection refused", "2 d ahead"):
        assert words in mesh.out
    assert mesh("status", "-o", "json") == 0
    assert mesh.json["services"][0]["policy"]["rules"] == 3


def test_who_has_no_certificate_yet_is_not_said_to_have_lost_the_ca(mesh: Mesh, start: Start) -> None:
    start("web").identity |= {"serial": "", "ca_connected": False, "consecutive_failures": 2, "last_error": "used"}
    assert mesh("status") == 0
    assert "2 failed tries for a first certificate: used" in " ".join(mesh.out.split())
    assert "out of reach" not in mesh.out


ALARMS = [
    ({"alarm": "", "age_seconds": 5.0, "problem": ""}, ""),
    ({"alarm": "old", "age_seconds": 7200.0, "problem": "it is away"}, "of issuer login are 2 h 0 m old: it is away"),
    ({"alarm": "failing", "age_seconds": 90.0, "problem": "it is away"}, "issuer login are 1 m 30 s old: it is away"),
    ({"alarm": "none", "age_seconds": None, "problem": ""}, "no keys of issuer login, so its tokens are not believed"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "note"), ALARMS)
def test_status_tells_of_keys_that_are_not_to_be_had(
    mesh: Mesh, start: Start, keys: dict[str, Any], note: str
) -> None:
    start("orders").tokens = [{"issuer": "login", **keys}]
    assert mesh("status") == 0
    said = " ".join(mesh.out.split())
    assert note in said if note else "issuer login" not in said


def test_status_tells_what_is_wrong_with_the_audit(mesh: Mesh, start: Start) -> None:
    alarms = ["audit to logs.internal:6514: nearly full", "the audit was not witnessed for 1200 s: the CA is away"]
    orders = start("orders")
    orders.audit = {"alarms": [], "exports": []}
    assert mesh("status") == 0
    assert "audit" not in mesh.out
    orders.audit = {"alarms": alarms, "exports": [{"kind": "syslog", "full": 0.9, "dropped": 0}]}
    assert mesh("status") == 0, "the sidecar serves; what is wrong is said beside it"
    assert all(alarm in " ".join(mesh.out.split()) for alarm in alarms)
    assert mesh("status", "-o", "json") == 0
    assert mesh.json["services"][0]["audit"]["alarms"] == alarms
    assert mesh.json["services"][0]["audit"]["exports"][0]["full"] == 0.9


POSTURES = [
    ("permissive", 1, "listener http is PERMISSIVE until 2026-01-10T00:00:00Z: strict would have refused 1 hop"),
    ("observe", 12, "listener http is OBSERVE until 2026-01-10T00:00:00Z: strict would have refused 12 hops"),
    ("strict", 3, "listener http is strict since 2026-01-10T00:00:00Z, its posture observe has ended; "
     "strict would have refused 3 hops before"),
]  # fmt: skip


@pytest.mark.parametrize(("posture", "count", "note"), POSTURES)
def test_status_shouts_while_a_listener_is_not_strict(
    mesh: Mesh, start: Start, posture: str, count: int, note: str
) -> None:
    orders = start("orders")
    assert mesh("status") == 0
    assert "listener http" not in mesh.out
    declared = "observe" if posture == "strict" else posture
    orders.posture = {
        "posture": posture, "declared_posture": declared, "until": "2026-01-10T00:00:00.000000Z", "would_refuse": count
    }  # fmt: skip
    assert mesh("status") == 0
    assert note in " ".join(mesh.out.split())
    assert mesh("status", "-o", "json") == 0
    (listener,) = mesh.json["services"][0]["listeners"]
    assert (listener["posture"], listener["until"], listener["would_refuse"]) == (
        posture, "2026-01-10T00:00:00.000000Z", count
    )  # fmt: skip


def test_a_run_folder_that_others_may_write_to_is_refused(mesh: Mesh, start: Start) -> None:
    start("web")
    mesh.run_dir.chmod(0o777)
    assert mesh("status") == 1
    assert "writable by others" in mesh.err


# ---- explain -------------------------------------------------------------------------------------------------------


def test_a_decision_is_found_with_whichever_sidecar_made_it(mesh: Mesh, start: Start) -> None:
    start("web")
    start("orders").decisions["1f0c9a3b-2s"] = {
        "id": "1f0c9a3b-2s", "at": "2026-01-01T00:00:00Z", "service": "orders", "verdict": "deny", "method": "GET",
        "host": "orders", "path": "/x\x1b[2J", "caller": "spiffe://demo.mesh/ns/default/sa/web", "flag": "PD",
        "destination": "spiffe://demo.mesh/ns/default/sa/orders", "status": 403, "error": "policy_denied",
        "explained": {"happened": "The rules refuse it.", "todo": "Look below."}, "text": "deny: web GET /x\n",
    }  # fmt: skip
    assert mesh("explain", "1f0c9a3b-2s") == 1
    for words in ("by the sidecar of orders", "web → orders", "403, flag PD", "The rules refuse it.", "deny: web GET"):
        assert words in mesh.out
    assert "\x1b" not in mesh.out  # the path is the caller's; it must not move our cursor


def test_rules_that_have_changed_since_a_decision_are_no_contradiction(mesh: Mesh, start: Start) -> None:
    orders = start("orders")
    refused = {"id": "1f0c9a3b-2s", "verdict": "deny", "error": "policy_denied", "rule": "no-deletes", "text": "…"}
    orders.decisions["1f0c9a3b-2s"] = refused | {"policy": {"verdict": "permit", "rule": "all"}}
    assert mesh("explain", "1f0c9a3b-2s") == 1
    assert "the rules in force now" in mesh.out
    assert "deny by rule 'no-deletes'" in mesh.out
    orders.decisions["1f0c9a3b-2s"] = refused | {"policy": {"verdict": "deny", "rule": "no-deletes"}}
    assert mesh("explain", "1f0c9a3b-2s") == 1
    assert "note" not in mesh.out


def test_an_unknown_decision_says_where_else_to_ask(mesh: Mesh, start: Start) -> None:
    start("web")
    assert mesh("explain", "1f0c9a3b-zz") == 1
    assert "no sidecar here knows the decision 1f0c9a3b-zz" in mesh.err
    assert mesh("explain", "../status") == 2
    assert "no decision id" in mesh.err


def test_a_question_goes_to_the_called_service_as_asked(mesh: Mesh, start: Start) -> None:
    orders = start("orders")
    orders.answer = {"verdict": "permit", "text": "permit: fine\n"}
    who, what = ("--from", "web", "--to", "orders"), ("--method", "get", "--path", "/orders/1", "--header", "x-a: b")
    code = mesh("explain", *who, *what)
    assert (code, mesh.out) == (0, "permit: fine\n")
    assert orders.asked == [{"from": "web", "method": "GET", "path": "/orders/1", "headers": {"x-a": "b"}}]


def test_a_question_that_makes_no_sense_is_a_usage_error(mesh: Mesh, start: Start) -> None:
    start("orders").answer = MeshError("'*' is a pattern")
    assert mesh("explain", "--from", "*", "--to", "orders") == 2
    assert "'*' is a pattern" in mesh.err
    assert mesh("explain", "--from", "web") == 2


def test_a_file_answers_without_any_sidecar_and_names_the_smallest_change(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG)
    asked = ("explain", "-f", str(file), "--to", "orders", "--path", "/orders/7", "--from")
    assert mesh(*asked, "web") == 0
    assert mesh(*asked, "payments", "-o", "json") == 1
    answer = mesh.json
    assert answer["nearest"]["differences"] == [{"field": "from", "wanted": "web", "seen": "payments"}]
    assert "payments" in answer["changes"][0]["yaml"]
    assert "declares no upstream 'orders'" in answer["note"]
    assert "text" not in answer


def test_why_a_permitted_request_is_not_refused(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG)
    asked = ("explain", "-f", str(file), "--to", "orders", "--path", "/orders/7", "--why-not", "--from")
    assert mesh(*asked, "web") == 0
    assert "why not refused: rule 'reads'" in mesh.out
    assert "method GET (it is GET)" in mesh.out
    assert "without 'reads' no rule would allow it" in mesh.out
    assert mesh(*asked, "payments") == 1
    assert "why not refused: it is refused" in mesh.out
    assert mesh(*asked, "web", "-o", "json") == 0
    assert [field["field"] for field in mesh.json["why_not"]["because"]] == ["from", "method", "path"]
    assert "text" not in mesh.json["why_not"]


def test_of_a_listener_that_observes_both_answers_are_given(mesh: Mesh, tmp_path: Path) -> None:
    file, asked = tmp_path / "mesh.yaml", ("--to", "orders", "--path", "/orders/7", "--from")
    until = show_moment(time.time() + 3600.0)
    file.write_text(CONFIG.replace('17201"}', f'17201", posture: observe, until: "{until}"}}'))
    assert mesh("explain", "-f", str(file), *asked, "payments") == 1
    assert f"strict would refuse this; listener http is in posture observe, so it passes until {until}" in mesh.out
    assert "declares no upstream 'orders'" in mesh.out
    assert mesh("explain", "-f", str(file), *asked, "web") == 0
    assert "observe" not in mesh.out


def test_what_goes_outside_is_judged_by_the_callers_own_list(mesh: Mesh, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("""
trust_domain: demo.mesh
services: {web: {outbound: [{to: partner, unmeshed: passthrough, listen: "127.0.0.1:9001", endpoints: "a.test:80",
                             allow: [{method: GET, path: /v1}]}]}}
""")
    asked = ("explain", "-f", str(file), "--from", "web", "--to", "partner", "--path")
    assert mesh(*asked, "/v1") == 0
    assert "the request goes out to partner" in mesh.out
    assert mesh(*asked, "/v2") == 1
    assert "outbound: [{to: partner, allow: [{method: GET, path: '/v2'}]}]" in mesh.out
    web = start("web")
    web.answer = {"verdict": "permit", "text": "fine\n"}
    assert mesh("explain", "--from", "web", "--to", "partner") == 0
    assert web.asked == [{"from": "web", "method": "GET", "path": "/", "to": "partner"}]
    assert mesh("explain", "--from", "nobody", "--to", "partner") == 3


def test_a_path_with_two_readings_is_refused_before_any_rule(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG)
    assert mesh("explain", "-f", str(file), "--from", "web", "--to", "orders", "--path", "/orders/../admin") == 1
    assert "ambiguous_path" in mesh.out
    assert "dot segments" in mesh.out


def test_a_broken_file_shows_every_mistake_and_exits_2(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG.replace("method: GET", "metod: GET").replace("to: orders", "to: order"))
    assert mesh("explain", "-f", str(file), "--from", "web", "--to", "orders") == 2
    assert "mesh.yaml:4" in mesh.err
    assert 'did you mean "method"?' in mesh.err


# ---- certs ---------------------------------------------------------------------------------------------------------


def test_certs_list_shows_who_holds_what(mesh: Mesh, start: Start) -> None:
    start("web")
    assert mesh("certs", "list") == 0
    for words in ("spiffe://demo.mesh/ns/default/sa/web", "0a1b", "connected", "7"):
        assert words in mesh.out
    assert mesh("certs", "list", "-o", "json") == 0
    assert mesh.json["certs"][0]["service"] == "web"


def test_rotate_tells_the_new_serial_or_why_there_is_none(mesh: Mesh, start: Start) -> None:
    web = start("web")
    assert mesh("certs", "rotate", "web") == 0
    assert "serial 0c0d" in mesh.out
    web.rotated = MeshError("the CA is silent")
    assert mesh("certs", "rotate", "web") == 1
    assert "web keeps its certificate: the CA is silent" in mesh.err


@pytest.fixture(scope="module")
def root() -> Authority:
    return a_root()


def pem(*certificates: x509.Certificate) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def test_a_running_service_is_judged_by_its_own_bundle(mesh: Mesh, start: Start, root: Authority) -> None:
    web = start("web")
    svid = an_svid(an_issuer(root), "web")
    web.certificates = {
        "chain": [pem(each) for each in svid.chain],
        "bundles": [{"trust_domain": "demo.mesh", "sequence": 1, "roots": pem(root.certificate)}],
    }
    assert mesh("certs", "verify", "web") == 0
    assert mesh.out.count("ok  ") == 4
    assert mesh("certs", "show", "web", "-o", "json") == 0
    assert mesh.json["certificates"][0]["uris"] == ["spiffe://demo.mesh/ns/default/sa/web"]
    web.certificates["bundles"] = [{"trust_domain": "demo.mesh", "sequence": 2, "roots": pem(a_root().certificate)}]
    assert mesh("certs", "verify", "web", "-o", "json") == 1
    assert [check["check"] for check in mesh.json["checks"] if not check["ok"]] == ["trust"]


def test_a_file_is_judged_by_the_roots_that_are_named(mesh: Mesh, tmp_path: Path, root: Authority) -> None:
    chain, roots, others = tmp_path / "web.crt", tmp_path / "roots.txt", tmp_path / "bundle.json"
    chain.write_text(pem(*an_svid(an_issuer(root), "web").chain))
    roots.write_text(pem(root.certificate))
    others.write_bytes(a_bundle(a_root()).to_jwks())
    assert mesh("certs", "verify", str(chain)) == 0
    assert "not judged" in mesh.out
    assert mesh("certs", "verify", str(chain), "--bundle", str(roots)) == 0
    assert "not judged" not in mesh.out
    assert mesh("certs", "verify", str(chain), "--bundle", str(others)) == 1
    assert "unknown_root" in mesh.out


def test_what_is_no_certificate_is_a_usage_error(mesh: Mesh, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.crt"
    nonsense.write_text("hello")
    assert mesh("certs", "show", str(nonsense)) == 2
    assert "no certificate in PEM" in mesh.err
    assert mesh("certs", "show", str(tmp_path / "missing.crt")) == 2
    assert "there is no file" in mesh.err


def test_of_a_question_ahead_the_moment_can_be_named(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG.replace('path: "/orders/{id}"}', 'path: "/orders/{id}", when: ["day in [sat]"]}'))
    asked = ("explain", "-f", str(file), "--from", "web", "--to", "orders", "--path", "/orders/7", "--time")
    assert mesh(*asked, "2026-01-03T12:00:00Z") == 0
    assert mesh(*asked, "2026-01-05T12:00:00Z") == 1
    assert "day in [sat], seen Mon 12:00 UTC" in mesh.out
    assert mesh(*asked, "monday") == 2
    assert "neither a date nor a moment" in mesh.err
