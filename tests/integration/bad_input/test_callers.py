"""Callers that are not who they should be, at the mesh port of `app`: what they see, and what the operator does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from OpenSSL import SSL

from certs.svid import X509Svid
from tests.integration.bad_input.conftest import assert_books, assert_explained, assert_still_serving
from tests.kit.identities import DAY, NOW, SERVER_AUTH, a_root, an_issuer, an_svid
from tests.kit.processes import eventually
from tests.kit.sidecars import World
from tests.kit.tls_peers import REQUEST, Seen, call, context_of, plain

FOREIGN = a_root("other.mesh")
FOREIGN_ISSUER = an_issuer(FOREIGN)
WEB = "spiffe://demo.mesh/ns/default/sa/web"
OF_ANOTHER_DOMAIN = "spiffe://other.mesh/ns/default/sa/web"


@dataclass(frozen=True)
class Row:
    """One kind of bad caller. `alert` is what it is told in TLS; without one the connection just ends."""

    name: str
    shows: Callable[[World], X509Svid | None]
    reason: str
    alert: str = ""
    presented: str = ""  # whom a chain that held said it was


def an_issuer_as_leaf(world: World) -> X509Svid:
    """The issuing CA itself calls."""
    return X509Svid(an_svid(world.issuer).spiffe_id, world.issuer.certificate, world.issuer.chain, world.issuer.key)


ROWS = [
    Row("no_client_certificate", lambda w: None, "no_certificate", "certificate required"),
    Row("another_root_of_the_same_name", lambda w: an_svid(an_issuer(a_root()), "web"), "unknown_ca", "unknown ca"),
    Row("another_trust_domain", lambda w: an_svid(FOREIGN_ISSUER, "web"), "unknown_ca", "unknown ca"),
    Row("a_foreign_root_signs_our_id", lambda w: an_svid(FOREIGN_ISSUER, WEB), "unknown_ca", "unknown ca"),
    Row(
        "our_root_signs_a_foreign_id", lambda w: an_svid(w.issuer, OF_ANOTHER_DOMAIN), "wrong_trust_domain",
        presented=OF_ANOTHER_DOMAIN,
    ),
    Row(
        "expired", lambda w: an_svid(w.issuer, "web", not_before=NOW - 3 * DAY, not_after=NOW - 2 * DAY), "expired",
        "certificate expired",
    ),
    Row(
        "not_yet_valid", lambda w: an_svid(w.issuer, "web", not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        "not_yet_valid", "bad certificate",
    ),
    Row(
        "two_uri_sans", lambda w: an_svid(w.issuer, "web", uris=[WEB, "spiffe://demo.mesh/ns/default/sa/admin"]),
        "one_uri_san",
    ),
    Row("no_uri_san", lambda w: an_svid(w.issuer, "web", uris=[], dns=["web"]), "one_uri_san"),
    Row("a_ca_as_leaf", an_issuer_as_leaf, "not_a_ca", "unsupported certificate"),
    Row(
        "a_ca_as_leaf_that_may_sign",
        lambda w: an_svid(w.issuer, "web", ca=True, key_usage=("digital_signature", "key_cert_sign")), "not_a_ca",
    ),
    Row(
        "for_servers_only", lambda w: an_svid(w.issuer, "web", eku=(SERVER_AUTH,)), "eku_both",
        "unsupported certificate",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_bad_identity_is_refused_and_explained_and_the_next_caller_is_served(world: World, row: Row) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        seen = call(world.ports.app_in, row.shows(world))

        assert (seen.end, seen.alert) == (("alert", row.alert) if row.alert else ("close_notify", ""))
        assert seen.answer == b""  # not a byte of HTTP to a stranger, no reason and no id

        audited = app.handshake_failure()
        assert (audited["reason"], audited["peer"], audited["source"]) == (row.reason, row.presented, "127.0.0.1")
        logged = app.warning()
        assert logged["message"] == "a TLS handshake failed"
        assert (logged["reason"], logged["decision_id"]) == (row.reason, audited["decision_id"])
        assert app.total("mesh_tls_handshake_failures_total", listener="main", reason=row.reason) == 1

        assert_explained(row.name, world.explain(audited["decision_id"]))
        assert_still_serving(world, app, web)
        assert_books(app, direction="inbound", ok=1, failed=1, requests=1)


def test_a_valid_identity_that_no_rule_allows_gets_403_an_id_and_no_reason(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        seen = call(world.ports.app_in, an_svid(world.issuer, "mallory"))

        assert seen.status == 403
        decision_id = seen.headers["mesh-decision-id"]
        assert seen.headers["content-type"] == "application/problem+json"
        assert seen.json == {"title": "Forbidden", "status": 403, "decision": decision_id}
        assert "proxy-status" not in seen.headers

        eventually("the refusal in the audit", lambda: app.audit("refusal"))
        (refusal,) = app.audit("refusal")
        assert (refusal["error"], refusal["decision_id"]) == ("policy_denied", decision_id)
        assert refusal["caller"] == "spiffe://demo.mesh/ns/default/sa/mallory"
        assert app.total("mesh_refusals_total", error="policy_denied", flag="PD") == 1

        assert_explained("not_allowed", world.explain(decision_id))
        assert_still_serving(world, app, web)
        assert_books(app, direction="inbound", ok=2, failed=0, requests=2)


def test_on_raw_tcp_a_caller_that_no_rule_allows_is_closed_without_a_byte(a_world: Callable[..., World]) -> None:
    world = a_world(protocol="tcp")
    with world.sidecar("app") as app:
        seen = call(world.ports.app_in, an_svid(world.issuer, "mallory"))
        assert (seen.end, seen.answer) in [("close_notify", b""), ("reset", b"")]
        eventually("the refusal in the audit", lambda: app.audit("refusal"))
        (refusal,) = app.audit("refusal")
        assert_explained("not_allowed_on_tcp", world.explain(refusal["decision_id"]))
        last = b"GET /last HTTP/1.1\r\nHost: app\r\n\r\n"  # the application closes after it
        assert call(world.ports.app_in, an_svid(world.issuer, "web"), request=last).status == 200
        app.assert_well()
        assert_books(app, direction="inbound", ok=2, failed=0, requests=2)


PLAIN = [
    ("plain_http", REQUEST),
    ("garbage", bytes(range(256)) * 4),
    ("a_redis_client", b"*1\r\n$4\r\nPING\r\n"),
    ("half_a_record_and_gone", b"\x16\x03\x01"),
]


@pytest.mark.parametrize(("name", "data"), PLAIN, ids=[name for name, _ in PLAIN])
def test_what_is_not_tls_is_closed_and_never_reaches_http(world: World, name: str, data: bytes) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        answer = plain(world.ports.app_in, data, finish=len(data) < 5)
        assert answer is not None, "a reset: the caller cannot tell it from a broken network"
        assert answer == b"" or answer[0] == 0x15  # at most a TLS alert

        audited = app.handshake_failure()
        assert audited["reason"] == ("truncated" if len(data) < 5 else "plaintext")
        assert_explained(name, world.explain(audited["decision_id"]))
        assert_still_serving(world, app, web)
        assert_books(app, direction="inbound", ok=1, failed=1, requests=1)


def test_silence_ends_with_the_handshake_time_out(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        assert plain(world.ports.app_in, b"") == b""
        audited = app.handshake_failure()
        assert audited["reason"] == "handshake_timeout"
        assert_explained("silence", world.explain(audited["decision_id"]))
        assert_still_serving(world, app, web)


def test_a_caller_that_distrusts_us_is_told_apart_from_one_that_we_distrust(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        wary = context_of(an_svid(world.issuer, "web"), [FOREIGN.certificate])
        assert call(world.ports.app_in, None, context=wary).alert == "certificate verify failed"  # its own finding
        audited = app.handshake_failure()
        assert audited["reason"] == "alert_unknown_ca"
        assert_explained("the_caller_distrusts_us", world.explain(audited["decision_id"]))
        assert_still_serving(world, app, web)


def test_tls_1_2_is_told_so_by_alert(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        old = context_of(an_svid(world.issuer, "web"), newest=SSL.TLS1_2_VERSION)
        seen = call(world.ports.app_in, None, context=old)
        assert (seen.end, seen.alert) == ("alert", "protocol version")
        audited = app.handshake_failure()
        assert audited["reason"] == "protocol_version"
        assert_explained("tls_1_2", world.explain(audited["decision_id"]))
        assert_still_serving(world, app, web)
        assert_books(app, direction="inbound", ok=1, failed=1, requests=1)


UNSAFE = ", tls: {unsafe_tls12: true}"
OLD_SUITES = [
    # what a TLS 1.2 client offers, and whether it gets through
    (b"ECDHE-ECDSA-AES128-GCM-SHA256", True),
    (b"ECDHE-ECDSA-AES256-GCM-SHA384", True),
    (b"ECDHE-ECDSA-CHACHA20-POLY1305", True),
    (b"ECDHE-ECDSA-AES128-SHA256", False),
    (b"ECDHE-ECDSA-AES256-SHA", False),
    (b"ECDHE-ECDSA-AES128-CCM", False),
    (b"AES128-GCM-SHA256", False),
    (b"DHE-RSA-AES128-GCM-SHA256", False),
]


def test_the_unsafe_option_accepts_tls_1_2_with_aead_and_forward_secrecy_only(a_world: Callable[..., World]) -> None:
    world = a_world(tls=UNSAFE)
    svid = an_svid(world.issuer, "web")

    def attempt(suite: bytes) -> Seen:
        context = context_of(svid, newest=SSL.TLS1_2_VERSION, ciphers=suite + b"@SECLEVEL=0")
        return call(world.ports.app_in, None, context=context)

    with world.sidecar("app") as app, world.sidecar("web") as web:
        seen = {suite: attempt(suite) for suite, _ in OLD_SUITES}
        assert {suite for suite in seen if seen[suite].status == 200} == {suite for suite, good in OLD_SUITES if good}
        assert {each.version for each in seen.values() if each.status == 200} == {"TLSv1.2"}
        assert {each.alert for each in seen.values() if each.status == 0} == {"handshake failure"}
        expired = an_svid(world.issuer, "web", not_before=NOW - 3 * DAY, not_after=NOW - 2 * DAY)
        old = context_of(expired, newest=SSL.TLS1_2_VERSION)
        assert call(world.ports.app_in, None, context=old).alert == "certificate expired"
        oldest = context_of(svid, newest=SSL.TLS1_1_VERSION, ciphers=b"ALL@SECLEVEL=0")
        assert call(world.ports.app_in, None, context=oldest).alert == "protocol version"
        assert_still_serving(world, app, web)
