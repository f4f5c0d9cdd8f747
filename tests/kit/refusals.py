"""Every refusal that the tables of this project's promises name, made the way it is made in production.

What can be read from bytes is read from bytes; a bad certificate is minted and checked. Failures on the way to an
upstream, which need a network, are written down with the very words that the proxy raises them with (a test holds
these to the source).
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_address
from typing import Final

from certs.errors import InvalidSvid
from certs.spiffe import SpiffeId
from certs.svid import check_leaf, check_signer
from sidecar import errors
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig
from sidecar.errors import HopError, IdentityRefused, PeerIdentityMismatch
from sidecar.hop import Hop
from sidecar.proxy.respond import status_of
from sidecar.telemetry.record import Handshake, Recorder
from tests.certs.test_svid import BROKEN_LEAVES, BROKEN_SIGNERS, ISSUER, ROOT
from tests.kit.admission import WALL, Admission
from tests.kit.hops import MALLORY, ORDERS, WEB, a_hop
from tests.kit.identities import an_issuer, an_svid

CONFIG: Final = textwrap.dedent("""\
    trust_domain: demo.mesh
    services:
      web:
        outbound:
          - {to: orders, port: http, listen: "127.0.0.1:9001"}
          - {to: orders, port: db, listen: "127.0.0.1:9002", host: orders-db}
        forward_proxy: 127.0.0.1:9000
      mallory: {}
      orders:
        inbound:
          - name: http
            port: 17443
            app: 127.0.0.1:8080
            routes: [{path: /upload, method: POST, max_body: 10B, content_types: text/plain}]
          - {name: db, port: 17444, app: "127.0.0.1:5432", protocol: tcp}
          - {name: trial, port: 17445, app: "127.0.0.1:8080", posture: observe, until: 2026-10-01}
          - {name: raw-trial, port: 17446, app: "127.0.0.1:5432", protocol: tcp, posture: observe, until: 2026-10-01}
          - {name: open, port: 17447, app: "127.0.0.1:8080", posture: permissive, until: 2026-10-01T06:00:00Z}
          - {name: raw-open, port: 17448, app: "127.0.0.1:5432", protocol: tcp, posture: permissive, until: 2026-10-01}
        allow:
          - {name: web-reads, from: web, method: GET, path: ["/orders", "/orders/{id}"], port: http}
          - {name: web-uploads, from: web, method: POST, path: /upload, port: http}
          - {name: paid-only, from: web, path: /paid, headers: {x-plan: {prefix: paid}}, port: http}
          - {name: office, from: web, path: /office, source: 10.0.0.0/8, port: http}
        deny:
          - {name: no-internals, from: "**", path: /internal/**}
        limits: {connections: 200}
        audit: {on_full: refuse}
    """)

Told = str  # a decision id
Make = Callable[["Scene"], Told]


class Clock:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return 100.0

    def wall(self) -> float:
        return WALL


@cache
def _config() -> MeshConfig:
    return load_text(CONFIG, now=WALL)


class Scene:
    """Two sidecars, the caller's and the called one's, that remember what they decided."""

    def __init__(self) -> None:
        self.config = config = _config()
        self.recorders: dict[str, Recorder] = {}
        self.sidecars: dict[str, Admission] = {}
        for name, instance in (("orders", "0d0e0f01"), ("web", "0a0b0c02")):
            service = config.services[name]
            wanted = {header.name for rule in (*service.allow, *service.deny) for header in rule.headers}
            self.recorders[name] = Recorder(instance=instance, rule_headers=wanted, clock=Clock())
            self.sidecars[name] = Admission(service, self.recorders[name])

    def keep(self, service: str, hop: Hop) -> str:
        """Record a hop that has failed as the proxy does, and say its decision id."""
        assert hop.error is not None, f"{hop} is not refused"
        recorder = self.recorders[service]
        hop.decision_id = hop.decision_id or recorder.decision_id()
        hop.endpoint = hop.endpoint or hop.error.endpoint
        hop.status = status_of(hop.error) if hop.protocol == "http" else 0
        recorder.observe(hop)
        return hop.decision_id

    def passed(self, hop: Hop) -> str:
        """Record a hop to orders that only a posture let pass, well ended, and say its decision id."""
        assert hop.waived is not None, f"{hop} is not let pass by a posture"
        assert hop.error is None, hop.error
        hop.endpoint, hop.attempts = "127.0.0.1:8080", 1
        hop.status = 200 if hop.protocol == "http" else 0
        self.recorders["orders"].observe(hop)
        return hop.decision_id


# ---- how a refusal comes about -------------------------------------------------------------------------------------


def request(raw: bytes, peer: SpiffeId = WEB) -> Make:
    """A peer sends these bytes to orders."""
    return lambda scene: scene.keep("orders", scene.sidecars["orders"].request(raw, peer))


def get(path: str, *lines: str, peer: SpiffeId = WEB, method: str = "GET") -> Make:
    """A peer sends an ordinary request to orders."""
    head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: orders", *lines))
    return request(f"{head}\r\n".encode(), peer)


def let_pass(path: str, peer: SpiffeId | None, listener: str, method: str = "GET") -> Make:
    """A request to orders that only the posture of this listener lets pass; without a peer it comes without TLS."""
    raw = f"{method} {path} HTTP/1.1\r\nHost: orders\r\n\r\n".encode()
    return lambda scene: scene.passed(scene.sidecars["orders"].request(raw, peer, listener))


def without_tls(path: str, error: HopError | None = None) -> Make:
    """A request without TLS to a permissive listener of orders that is refused, or passes and ends in this error."""

    def make(scene: Scene) -> str:
        hop = scene.sidecars["orders"].request(f"GET {path} HTTP/1.1\r\nHost: orders\r\n\r\n".encode(), None, "open")
        hop.error = hop.error or error
        return scene.keep("orders", hop)

    return make


def local(raw: bytes, listener: str = "forward_proxy") -> Make:
    """The application web sends these bytes to its own sidecar."""
    return lambda scene: scene.keep("web", scene.sidecars["web"].local(raw, listener))


def failed(error: HopError, service: str = "orders", endpoint: str = "127.0.0.1:8080", **hop: object) -> Make:
    """An exchange that ended in this error: toward the application of orders, or from web toward orders."""
    if service == "web":
        hop = {"direction": "outbound", "listener": "orders.http", "host": "127.0.0.1", "port": 9001,
               "source": ip_address("127.0.0.1"), **hop}  # fmt: skip
        endpoint = "127.0.0.1:17443" if endpoint else ""
    hop.setdefault("attempts", 1 if endpoint else 0)
    facts = {"error": error, "endpoint": endpoint, "rule": "web-reads", "route": "/orders/{id}", **hop}
    return lambda scene: scene.keep(service, a_hop(**facts))


def refused(reason: str, detail: str, presented: SpiffeId | None = None) -> Make:
    """A caller that orders does not let in."""
    error = IdentityRefused(reason, detail, presented)
    return shaken(Handshake(
        "inbound", "http", ok=False, source=ip_address("192.0.2.7"), reason=reason, detail=detail, error=error,
        peer=presented,
    ))  # fmt: skip


def shaken(handshake: Handshake, service: str = "orders") -> Make:
    """A handshake that failed."""
    return lambda scene: scene.recorders[service].handshake(handshake)


def dialled(error: HopError, reason: str, presented: SpiffeId | None = None) -> Make:
    """An upstream that web does not get to, or does not believe."""
    return shaken(Handshake(
        "outbound", "orders.http", ok=False, reason=reason, detail=error.detail, error=error, peer=presented,
        endpoint="127.0.0.1:17443", expected=ORDERS,
    ), "web")  # fmt: skip


def doubted(reason: str, detail: str, presented: SpiffeId | None = None) -> Make:
    """An upstream whose identity web refuses."""
    return dialled(PeerIdentityMismatch(reason, detail, presented), reason, presented)


# ---- the tables ----------------------------------------------------------------------------------------------------

ORDER = b"GET /orders/7 HTTP/1.1\r\nHost: orders\r\n"
POST = b"POST /upload HTTP/1.1\r\nHost: orders\r\nContent-Type: text/plain\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

BYTES: Final[dict[str, Make]] = {
    "not_http": request(b"\x00\x01garbage\r\n\r\n"),
    "tls_inside": request(b"\x16\x03\x01\x02\x00\x01\x00"),
    "no_request_line": request(b"GET /orders/7\r\nHost: orders\r\n\r\n"),
    "length_and_chunked": request(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "two_lengths": request(POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    "two_equal_lengths": request(POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    "length_no_number": request(POST + b"Content-Length: +5\r\n\r\n"),
    "chunked_in_http_1_0": request(CHUNKED.replace(b"1.1", b"1.0")),
    "coding_gzip": request(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "bare_lf": request(b"GET /orders/7 HTTP/1.1\nHost: orders\n\n"),
    "bare_cr": request(ORDER + b"X-A: a\rb\r\n\r\n"),
    "folded_line": request(ORDER + b"X-A: a\r\n b\r\n\r\n"),
    "space_before_colon": request(ORDER + b"X-A : a\r\n\r\n"),
    "no_colon": request(ORDER + b"nonsense\r\n\r\n"),
    "control_character": request(ORDER + b"X-A: a\x01b\r\n\r\n"),
    "repeated_singleton": request(ORDER + b"Authorization: a\r\nAuthorization: b\r\n\r\n"),
    "connection_names_host": request(ORDER + b"Connection: host\r\n\r\n"),
    "bad_chunk_size": request(CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    "bad_chunk_end": request(CHUNKED + b"5\r\nhelloXX0\r\n\r\n"),
    "forbidden_trailer": request(CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    "head_of_many_bytes": request(ORDER + b"Cookie: " + b"x" * 40000 + b"\r\n\r\n"),
    "head_of_many_lines": request(ORDER + b"X-A: a\r\n" * 101 + b"\r\n"),
    "expectation": request(ORDER + b"Expect: 200-maybe\r\n\r\n"),
    "encoded_slash": get("/orders%2f7"),
    "encoded_nul": get("/orders/%00"),
    "dot_segments": get("/orders/../internal"),
    "encoded_dot_segments": get("/orders/%2e%2e/internal"),
    "path_parameter": get("/orders;a=b/7"),
    "double_encoding": get("/orders/%252e"),
    "empty_segment": get("/orders//7"),
    "backslash": get("/orders\\7"),
    "broken_escape": get("/orders/%zz"),
    "host_missing": request(b"GET /orders/7 HTTP/1.1\r\n\r\n"),
    "host_twice": get("/orders/7", "Host: other"),
    "host_differs": get("http://other/orders/7"),
    "host_malformed": request(b"GET /orders/7 HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "connect_from_a_peer": get("orders:80", method="CONNECT"),
    "loop": get("/orders/7", "mesh-via: 0d0e0f01"),
    "body_too_large": request(POST + b"Content-Length: 11\r\n\r\nhello world"),
    "content_type": request(POST.replace(b"text/plain", b"text/html") + b"Content-Length: 5\r\n\r\nhello"),
}

POLICY: Final[dict[str, Make]] = {
    "policy_other_caller": get("/orders/7", peer=MALLORY),
    "policy_other_method": get("/orders/7", method="DELETE"),
    "policy_other_path": get("/refunds"),
    "policy_header_missing": get("/paid"),
    "policy_header_differs": get("/paid", "X-Plan: free"),
    "policy_network": get("/office"),
    "policy_two_fields": get("/refunds", method="PUT"),
    "policy_deny_rule": get("/internal/keys"),
    "policy_unlisted_method": get("/orders/7", method="PURGE"),
    "policy_lower_case_method": get("/orders/7", method="get"),
    "policy_far_namespace": get("/orders/7", peer=SpiffeId.parse("spiffe://demo.mesh/ns/shop/sa/web")),
    "policy_tcp": lambda scene: scene.keep("orders", scene.sidecars["orders"].connection(MALLORY, "db")),
}

POSTURES: Final[dict[str, Make]] = {
    "observe_other_caller": let_pass("/orders/7", MALLORY, "trial"),
    "observe_other_method": let_pass("/orders/7", WEB, "trial", "DELETE"),
    "observe_deny_rule": let_pass("/internal/keys", WEB, "trial"),
    "observe_tcp": lambda scene: scene.passed(scene.sidecars["orders"].connection(MALLORY, "raw-trial")),
    "permissive_request": let_pass("/orders/7", None, "open"),
    "permissive_tcp": lambda scene: scene.passed(scene.sidecars["orders"].connection(None, "raw-open")),
    "permissive_deny_rule": without_tls("/internal/keys"),
    "permissive_failed": without_tls("/orders/7", errors.ResponseTimeout("the application did not answer")),
}

LOCAL: Final[dict[str, Make]] = {
    "undeclared_host": local(b"GET http://payments/ HTTP/1.1\r\nHost: payments\r\n\r\n"),
    "undeclared_at_a_listener": local(b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n", "orders.http"),
    "cross_site": local(b"GET http://orders/ HTTP/1.1\r\nHost: orders\r\nSec-Fetch-Site: cross-site\r\n\r\n"),
    "https_through_the_proxy": local(b"GET https://orders/ HTTP/1.1\r\nHost: orders\r\n\r\n"),
    "tcp_through_the_proxy": local(b"GET http://orders-db/ HTTP/1.1\r\nHost: orders-db\r\n\r\n"),
}

EXCHANGES: Final[dict[str, Make]] = {
    "request_timeout": failed(errors.RequestTimeout("no whole request head within 10 s (timeouts.request_head)"),
                              endpoint="", method="", host="", target="", segments=(), rule="", route=""),
    "body_idle": failed(errors.DownstreamIdle("no byte of the request body within the idle time (timeouts.idle)")),
    "tcp_idle": failed(errors.DownstreamIdle("no byte in either direction for 3600 s (timeouts.tcp_idle)"),
                       endpoint="127.0.0.1:5432", listener="db", protocol="tcp", method="", host="", target=""),
    "slow_reader": failed(errors.DownstreamIdle("the downstream does not read its answer (timeouts.idle)")),
    "body_too_slow": failed(errors.DownstreamSlow(
        "the downstream sends its body at less than 500 bytes a second (limits.body_rate), and is 20 s behind "
        "(timeouts.slow)")),
    "reader_too_slow": failed(errors.DownstreamSlow(
        "the downstream takes its answer at less than 500 bytes a second (limits.body_rate), and is 20 s behind "
        "(timeouts.slow)", reading=True)),
    "too_many_streams": failed(errors.TooManyStreams(
        "182 upgrades, tunnels, raw connections and requests over 30 s are open, and from 177 on no other is let in "
        "(limits.streams)"), endpoint=""),
    "caller_left_in_head": failed(errors.DownstreamGone("the downstream left in the middle of a request head"),
                                  endpoint="", method="", host="", target="", segments=(), rule="", route=""),
    "caller_left_in_body": failed(errors.DownstreamGone("the downstream left in the middle of its request body")),
    "app_down": failed(errors.ConnectFailed("127.0.0.1:8080: Connection refused")),
    "app_does_not_answer": failed(errors.ConnectFailed("127.0.0.1:8080 did not answer within 2 s")),
    "app_closed": failed(errors.UpstreamClosed("the upstream closed in the middle of its answer")),
    "app_closed_reused": failed(errors.UpstreamClosed(
        "the upstream closed the connection before it answered (reused)", reused=True)),
    "app_reset": failed(errors.UpstreamReset("the upstream broke off its answer: Connection reset by peer")),
    "app_slow": failed(errors.ResponseTimeout("no response head within 15 s (timeouts.response_head)")),
    "app_stuck": failed(errors.UpstreamIdle("no byte of the answer within the idle time (timeouts.idle)")),
    "app_speaks_nonsense": failed(errors.UpstreamProtocolViolation("not a status line: 'hello'")),
    "pool_full": failed(errors.Overflow("no place in the pool of 1024 within 1 s (limits.pool)"), endpoint=""),
    "rate_limited": failed(errors.RateLimited(
        "over the limit each-caller (mesh.yaml:12: 100/s per caller, 100 at once), which has room again after 10 ms",
        limit="each-caller", per="caller", wait=0.01), endpoint=""),
    "audit_full": failed(errors.AuditFull("the audit record cannot be written (audit.on_full is refuse)"),
                         endpoint="", rule="", route=""),
    "draining": failed(errors.Draining("the sidecar has ended")),
    "certificate_ended_meanwhile": failed(errors.IdentityRefused(
        "expired", f"the certificate of {WEB} has expired since the connection began"), endpoint=""),
    "fault_of_ours": failed(errors.InternalError("ZeroDivisionError: division by zero")),
    "overload": failed(errors.Overload(), endpoint="", method="", host="", target="", segments=(), rule="", route=""),
    "no_route": failed(errors.NoRoute(), endpoint=""),
    "peer_down": failed(errors.ConnectFailed("127.0.0.1:17443: Connection refused"), "web"),
    "peer_does_not_answer": failed(errors.ConnectFailed("127.0.0.1:17443 did not answer within 2 s"), "web"),
    "peer_without_endpoint": failed(errors.NoHealthyUpstream("orders.http has no endpoint"), "web", ""),
    "peer_is_no_sidecar": dialled(errors.HandshakeFailed("no handshake within 5 s", "handshake_timeout"),
                                  "handshake_timeout"),
    "peer_left_the_handshake": dialled(errors.HandshakeFailed(
        "the upstream left during the handshake: Connection reset by peer", "reset"), "reset"),
    "no_identity_yet": failed(errors.NoIdentity("no certificate has been issued to this sidecar yet"), "web", ""),
    "no_identity_any_more": failed(errors.NoIdentity(
        "our own certificate ended at 2026-09-21T13:06:40Z and was not renewed"), "web", ""),
    "no_identity_since_it_was_revoked": failed(errors.NoIdentity(
        f"our own certificate holds no more: {WEB} was revoked (denylist 7)"), "web", ""),
    "revoked_meanwhile": failed(errors.IdentityRevoked("revoked", f"{WEB} was revoked (denylist 7)", WEB)),
    "upstream_revoked_meanwhile": failed(errors.PeerIdentityMismatch(
        "revoked", f"orders.http: {ORDERS} was revoked (denylist 7)"), "web"),
}  # fmt: skip

_BEGAN = "2026-09-23T12:00:00Z; check the clocks of both machines"
CALLERS: Final[dict[str, Make]] = {
    "no_certificate": refused("no_certificate", "the peer showed no certificate"),
    "proxy_header": refused("proxy_header", "bad PROXY header: the connection does not begin with a PROXY header"),
    "proxy_sender": refused("proxy_sender", "a PROXY header from an address that proxy_protocol.from does not name"),
    "wrong_trust_domain": refused("wrong_trust_domain", "spiffe://other.mesh/ns/default/sa/web is of a trust domain "
                                  "that we do not know", SpiffeId.parse("spiffe://other.mesh/ns/default/sa/web")),
    "no_bundle": refused("no_bundle", "spiffe://other.mesh/ns/default/sa/web: we know no trust domain other.mesh"),
    "expired": refused("expired", f"the certificate of {WEB} has expired; check both clocks", WEB),
    "not_yet_valid": refused("not_yet_valid", f"the certificate of {WEB} is not valid yet; check both clocks", WEB),
    "revoked": refused("revoked", f"{WEB} was revoked (denylist 7)", WEB),
    "revoked_by_serial": refused("revoked", f"the certificate 5f3a91 of {WEB} was revoked (denylist 7)", WEB),
    "denylist_stale": refused("denylist_stale", "the denylist is missing, or older than revocation.max_age, and so "
                              "nobody is believed", WEB),
    "unknown_root": refused("unknown_root", f"{WEB}: unable to get local issuer certificate"),
    "unknown_ca": refused("unknown_ca", "the peer's chain leads to no root in our trust bundle; its last issuer is "
                          "'O=somebody'"),
    "bad_chain": refused("bad_chain", "a signature in the peer's certificate chain does not hold"),
    "bad_signature": refused("bad_signature", f"{WEB}: certificate signature failure"),
    "path_length": refused("path_length", f"{WEB}: path length constraint exceeded"),
    "invalid_issuer": refused("invalid_issuer", f"{WEB}: invalid CA certificate"),
    "chain_too_long": refused("chain_too_long", "9 certificates were presented; at most 8 are read"),
    "not_pinned": refused("not_pinned", "spiffe://demo.mesh/mesh/ca shows no root that we were told to trust"),
    "protocol_version": refused("protocol_version", "the peer offers no TLS version that we accept (OpenSSL: "
                                "unsupported protocol)"),
    "plaintext": refused("plaintext", "the peer speaks plain HTTP where TLS is required (OpenSSL: http request)"),
    "alpn": refused("alpn", "the peer offered no application protocol that we speak (OpenSSL: no application "
                    "protocol)"),
    "handshake_failure": refused("handshake_failure", "we and the peer have no cipher suite in common (OpenSSL: "
                                 "no shared cipher)"),
    "handshake_timeout": refused("handshake_timeout", "no handshake within 5 s"),
    "reset": refused("reset", "the peer left during the handshake"),
    "truncated": refused("truncated", "the peer closed the connection without ending TLS"),
    "closed": refused("closed", "the peer ended TLS"),
    "bad_certificate": refused("alert_bad_certificate", "the peer says our certificate is bad or not valid yet; check "
                               "both clocks (TLS alert: bad certificate)"),
    "alert_unknown_ca": refused("alert_unknown_ca", "the peer does not trust the root of our certificate (TLS alert: "
                                "unknown ca)"),
    "certificate_expired": refused("certificate_expired", f"the certificate of {WEB} has expired; check both clocks"),
    "certificate_required": refused("certificate_required", "the peer showed no certificate"),
    "serial_positive": refused("serial_positive", "the serial number is not positive, so nothing could name it"),
    "never_heard_of": refused("tls", "TLS failed: bad extension"),
}  # fmt: skip

UPSTREAMS: Final[dict[str, Make]] = {
    "other_identity": doubted("other_identity", f"expected {ORDERS}, got {MALLORY}", MALLORY),
    "upstream_expired": doubted("expired", f"the certificate of {ORDERS} has expired; check both clocks", ORDERS),
    "upstream_revoked": doubted("revoked", f"{ORDERS} was revoked (denylist 7)", ORDERS),
    "upstream_not_yet_valid": doubted("not_yet_valid", f"a CA certificate in the peer's chain is not valid before "
                                      f"{_BEGAN}"),
    "upstream_of_another_root": doubted("unknown_ca", "the peer's chain ends in a root that is not in our trust "
                                        "bundle: 'O=somebody'"),
    "upstream_distrusts_us": doubted("alert_unknown_ca", "the peer does not trust the root of our certificate (TLS "
                                     "alert: unknown ca)"),
    "upstream_says_we_expired": doubted("alert_expired", "the peer says that our certificate has expired; check both "
                                        "clocks (TLS alert: certificate expired)"),
    "upstream_of_tls_1_2": doubted("alert_protocol_version", "we and the peer have no TLS version in common (TLS "
                                   "alert: protocol version)"),
}  # fmt: skip


def _profile() -> Iterator[tuple[str, Make]]:
    """A minted certificate for each rule of the X.509-SVID profile, and what the check of it says."""
    for rule, broken in BROKEN_LEAVES:
        try:
            check_leaf(an_svid(ISSUER, "web", **broken).leaf)
        except InvalidSvid as error:
            yield f"profile_{rule}", refused(error.rule, str(error))
    for rule, broken in BROKEN_SIGNERS:
        try:
            check_signer(an_issuer(ROOT, **broken).certificate, an_svid(ISSUER).spiffe_id)
        except InvalidSvid as error:
            yield f"profile_{rule}", refused(error.rule, str(error))


def profile() -> dict[str, Make]:
    """The first refusal of each rule."""
    found: dict[str, Make] = {}
    for name, make in _profile():
        found.setdefault(name, make)
    return found


def bare() -> dict[str, Make]:
    """Every kind of error with no words but its own name's."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HopError)]
    plain = [kind for kind in kinds if kind is not HopError and not hasattr(kind("x"), "presented")]
    return {kind.name: failed(kind()) for kind in plain}


TABLES: Final[dict[str, dict[str, Make]]] = {
    "bytes": BYTES, "policy": POLICY, "local": LOCAL, "exchanges": EXCHANGES, "callers": CALLERS,
    "upstreams": UPSTREAMS, "profile": profile(), "bare": bare(), "postures": POSTURES,
}  # fmt: skip
