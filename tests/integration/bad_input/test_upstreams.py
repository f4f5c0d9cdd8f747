"""Upstreams that are not who they should be, or are not there: what web's application is told, and what explains it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from OpenSSL import SSL

from certs.svid import X509Svid
from tests.integration.bad_input.conftest import assert_books, assert_explained, assert_still_serving
from tests.integration.bad_input.test_callers import FOREIGN, FOREIGN_ISSUER, an_issuer_as_leaf
from tests.kit.identities import DAY, NOW, a_root, an_issuer, an_svid
from tests.kit.processes import eventually
from tests.kit.programs import Done, curl
from tests.kit.sidecars import LocalSidecar, World
from tests.kit.tls_peers import Stranger, answer_ok, context_of

APP = "spiffe://demo.mesh/ns/default/sa/app"


@dataclass(frozen=True)
class Answer:
    """What the application got from its own sidecar."""

    status: int
    headers: dict[str, str]
    json: Any

    @classmethod
    def of(cls, done: Done) -> Answer:
        head, _, body = done.text.partition("\r\n\r\n")
        line, *fields = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        return cls(int(line.split(" ")[1]), headers, json.loads(body))


def ask(world: World, *arguments: str) -> Answer:
    """curl, through web's sidecar."""
    return Answer.of(curl("-i", *arguments, world.url + "/orders/7"))


def assert_told(web: LocalSidecar, answer: Answer, *, flag: str, error: str, proxy_error: str, tries: int = 1) -> str:
    """503 problem+json with the id, flag and error on loopback, and nothing of the reason; returns the id."""
    decision_id = answer.headers["mesh-decision-id"]
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json == {"title": "Service Unavailable", "status": 503, "decision": decision_id}
    expected = f'mesh; error={proxy_error}; details="{flag.split(",")[0]} {error} decision={decision_id}"'
    assert answer.headers["proxy-status"] == expected
    eventually("the access log", web.access_log)
    (line,) = web.access_log()
    assert (line["flags"], line["error"], line["decision_id"], line["attempt"]) == (flag, error, decision_id, tries)
    assert line["endpoint"] == web.config.outbound[0].endpoints[0].name
    return decision_id


@dataclass(frozen=True)
class Row:
    """One kind of bad upstream."""

    name: str
    shows: Callable[[World], X509Svid]
    reason: str
    presented: str = ""


ROWS = [
    Row(
        "server_of_another_identity", lambda w: an_svid(w.issuer, "mallory"), "other_identity",
        "spiffe://demo.mesh/ns/default/sa/mallory",
    ),
    Row("server_of_another_root", lambda w: an_svid(an_issuer(a_root()), "app"), "unknown_ca"),
    Row("server_whose_id_a_foreign_root_signed", lambda w: an_svid(FOREIGN_ISSUER, APP), "unknown_ca"),
    Row(
        "server_of_another_trust_domain", lambda w: an_svid(w.issuer, "spiffe://other.mesh/ns/default/sa/app"),
        "wrong_trust_domain", "spiffe://other.mesh/ns/default/sa/app",
    ),
    Row(
        "server_expired", lambda w: an_svid(w.issuer, "app", not_before=NOW - 3 * DAY, not_after=NOW - 2 * DAY),
        "expired",
    ),
    Row(
        "server_not_yet_valid", lambda w: an_svid(w.issuer, "app", not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        "not_yet_valid",
    ),
    Row("server_with_two_uri_sans", lambda w: an_svid(w.issuer, "app", uris=[APP, APP + "-two"]), "one_uri_san"),
    Row("server_that_is_a_ca", an_issuer_as_leaf, "not_a_ca"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_server_that_is_not_the_declared_one_gets_no_request(world: World, row: Row) -> None:
    requests: list[bytes] = []

    def serve(connection: SSL.Connection) -> None:
        requests.append(connection.recv(65536))

    with world.sidecar("web") as web:
        with Stranger(world.ports.app_in, context_of(row.shows(world)), serve) as stranger:
            answer = ask(world)
        assert stranger.connections == 1  # never tried again: another try would meet the same impostor
        assert requests == []

        decision_id = assert_told(web, answer, flag="ID", error="peer_identity", proxy_error="tls_certificate_error")
        audited = web.handshake_failure()
        assert (audited["reason"], audited["expected"], audited["peer"]) == (row.reason, APP, row.presented)
        logged = web.warning()
        assert (logged["reason"], logged["expected"]) == (row.reason, APP)
        assert logged["endpoint"] == f"127.0.0.1:{world.ports.app_in}"
        eventually("the refusal in the audit", lambda: web.audit("refusal"))
        (refusal,) = web.audit("refusal")
        assert (refusal["decision_id"], refusal["flag"], refusal["reason"]) == (decision_id, "ID", row.reason)
        assert web.total("mesh_tls_handshake_failures_total", direction="outbound", reason=row.reason) == 1

        assert_explained(row.name, world.explain(decision_id))
        of_the_handshake = world.explain(audited["decision_id"])
        assert explained_in(of_the_handshake) == explained_in(world.explain(decision_id))

        with world.sidecar("app") as app:  # the right one comes up in its place
            assert_still_serving(world, web, app)
            assert_books(web, direction="outbound", ok=1, failed=1, requests=2)


def explained_in(text: str) -> list[str]:
    """The lines that say what happened and what to do."""
    return re.findall(r"^(?:happened|to do) .*$", text, re.MULTILINE)


# ---- servers that speak no TLS, old TLS, or nothing -----------------------------------------------------------------


def plain_http(sock: Any) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


def silence(sock: Any) -> None:
    while sock.recv(65536):
        pass


ROADS = [
    ("server_without_tls", None, plain_http, "plaintext"),
    ("server_that_says_nothing", None, silence, "handshake_timeout"),
    ("server_of_tls_1_2", SSL.TLS1_2_VERSION, answer_ok, "alert_protocol_version"),
]


@pytest.mark.parametrize(("name", "newest", "serve", "reason"), ROADS, ids=[road[0] for road in ROADS])
def test_a_server_without_our_tls_is_a_failed_road_and_no_identity(
    world: World, name: str, newest: int | None, serve: Callable[[Any], None], reason: str
) -> None:
    context = None if newest is None else context_of(an_svid(world.issuer, "app"), newest=newest)
    with world.sidecar("web") as web:
        with Stranger(world.ports.app_in, context, serve):
            answer = ask(world)
        decision_id = assert_told(web, answer, flag="UF", error="handshake_failed", proxy_error="tls_protocol_error")
        assert web.handshake_failure()["reason"] == reason
        assert_explained(name, world.explain(decision_id))
        with world.sidecar("app") as app:
            assert_still_serving(world, web, app)


# ---- the peer's verdict on us, which TLS 1.3 delivers in place of the first byte of the answer ----------------------


def refuse_with_alert(connection: SSL.Connection) -> None:
    """Never reached: the handshake fails in the server."""
    raise AssertionError


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_alert_in_place_of_the_answer_is_ID_and_nothing_is_sent_again(world: World, method: str) -> None:
    wary = context_of(an_svid(world.issuer, "app"), [FOREIGN.certificate])  # it trusts others, not us
    with world.sidecar("web") as web:
        with Stranger(world.ports.app_in, wary, refuse_with_alert, drain=True) as stranger:
            answer = ask(world, "-X", method)
        assert (stranger.connections, stranger.handshakes) == (1, 0)
        decision_id = assert_told(web, answer, flag="ID", error="peer_identity", proxy_error="tls_certificate_error")
        eventually("the refusal in the audit", lambda: web.audit("refusal"))
        (refusal,) = web.audit("refusal")
        assert refusal["reason"] == "alert_unknown_ca"
        if method == "GET":
            assert_explained("server_that_distrusts_us", world.explain(decision_id))
        with world.sidecar("app") as app:
            assert_still_serving(world, web, app)


def test_a_sidecar_that_distrusts_our_root_shows_as_ID_at_both_ends(world: World) -> None:
    """The same between two of ours: one of them has another mesh's bundle."""
    elsewhere = an_svid(FOREIGN_ISSUER, "spiffe://demo.mesh/ns/default/sa/web")  # signed by a root that app lacks
    with world.sidecar("app") as app, world.sidecar("web", elsewhere) as web:
        answer = ask(world)
        decision_id = assert_told(
            web, answer, flag="ID", error="peer_identity", proxy_error="tls_certificate_error"
        )
        assert "our certificate" in world.explain(decision_id)
        assert app.handshake_failure()["reason"] == "unknown_ca"
        assert web.total("mesh_tls_handshakes_total", direction="outbound", result="ok") == 1  # TLS 1.3: too early
        web.publish(an_svid(world.issuer, "web"))  # and now with a certificate of this mesh
        assert_still_serving(world, web, app)


# ---- nobody there ---------------------------------------------------------------------------------------------------


def test_an_upstream_that_is_down_is_UF_with_its_endpoint_and_errno(world: World) -> None:
    with world.sidecar("web") as web:
        decision_id = assert_told(
            web, ask(world), flag="UF,URX", error="connect_failed", proxy_error="connection_refused", tries=3
        )
        assert web.audit("refusal") == []  # nobody refused anything
        text = world.explain(decision_id)
        assert "Connection refused" in text
        assert_explained("upstream_down", text)
        with world.sidecar("app") as app:
            assert_still_serving(world, web, app)
            assert_books(web, direction="outbound", ok=1, failed=0, requests=2)


def test_several_endpoints_that_are_down_are_all_named(a_world: Callable[..., World]) -> None:
    world = a_world(upstream=', endpoints: ["127.0.0.1:9", "127.0.0.2:9"]')
    with world.sidecar("web") as web:
        answer = ask(world)
        text = world.explain(answer.headers["mesh-decision-id"])
        assert "127.0.0.1:9: Connection refused" in text
        assert "127.0.0.2:9: Connection refused" in text
        web.assert_well()


def test_an_application_that_is_down_is_told_by_its_own_sidecar(a_world: Callable[..., World]) -> None:
    world = a_world(app_port=None)  # nobody listens there
    with world.sidecar("app") as app, world.sidecar("web") as web:
        answer = ask(world)
        decision_id = answer.headers["mesh-decision-id"]
        assert answer.status == 503
        assert decision_id.startswith(app.worker.instance)  # the id is of the sidecar that knows why
        told = f'mesh; received-status=503; details="refused by the peer, decision={decision_id}"'
        assert answer.headers["proxy-status"] == told
        eventually("both access logs", lambda: app.access_log() and web.access_log())
        assert (app.access_log()[0]["flags"], web.access_log()[0]["status"]) == ("UF", 503)
        assert_explained("application_down", world.explain(decision_id))
        app.assert_well()
        web.assert_well()
