"""Contexts refuse inside the handshake, agree on today's groups, and never resume."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from OpenSSL import SSL

from certs.svid import X509Svid
from sidecar.net.contexts import NoCommonProtocol, make_context
from sidecar.net.tls_errors import TlsError, tls_error
from tests.kit.identities import DAY, NOW, Authority, a_root, an_issuer, an_svid

ROOT = a_root()
ISSUER = an_issuer(ROOT)
OTHER_ROOT = a_root("demo.mesh", name="stranger")
WEB, ORDERS = an_svid(ISSUER, "web"), an_svid(ISSUER, "orders")


def server(svid: X509Svid = ORDERS, *roots: Authority, **options: Any) -> SSL.Connection:
    options = {"verify": "require"} | options
    context = make_context(svid, [root.certificate for root in roots or (ROOT,)], server=True, **options)
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def client(svid: X509Svid | None = WEB, *roots: Authority, **options: Any) -> SSL.Connection:
    options = {"verify": "require"} | options
    context = make_context(svid, [root.certificate for root in roots or (ROOT,)], server=False, **options)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return connection


def move(source: SSL.Connection, target: SSL.Connection) -> bool:
    moved = False
    try:
        while True:
            target.bio_write(source.bio_read(1 << 16))
            moved = True
    except SSL.WantReadError:
        return moved


def shake(one: SSL.Connection, two: SSL.Connection) -> dict[SSL.Connection, TlsError]:
    """Carry bytes between both until they stand still; what failed on each side."""
    failed: dict[SSL.Connection, TlsError] = {}
    moved = True
    while moved:
        for side in (one, two):
            if side not in failed:
                try:
                    side.do_handshake()
                    side.recv(1)
                except SSL.WantReadError:
                    pass
                except SSL.Error as error:
                    failed[side] = tls_error(error, side)
        moved = any([move(one, two), move(two, one)])
    return failed


def test_the_group_is_hybrid_post_quantum_by_default() -> None:
    a, b = client(), server()
    assert shake(a, b) == {}
    assert a.get_group_name() == b.get_group_name() == "X25519MLKEM768"
    assert a.get_protocol_version_name() == "TLSv1.3"


def test_the_chain_is_sent_whole_and_without_the_root() -> None:
    a, b = client(), server()
    shake(a, b)
    assert a.get_peer_cert_chain(as_cryptography=True) == list(ORDERS.chain)


def test_the_root_goes_along_where_it_is_asked_for() -> None:
    a, b = client(), server(extra_chain=(ROOT.certificate,))
    shake(a, b)
    assert a.get_peer_cert_chain(as_cryptography=True) == [*ORDERS.chain, ROOT.certificate]


EXPIRED = an_svid(ISSUER, "web", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
FUTURE = an_svid(ISSUER, "web", not_before=NOW + DAY, not_after=NOW + 2 * DAY)
STRANGER = an_svid(an_issuer(OTHER_ROOT), "web")
HEADLESS = an_svid(ISSUER, "web", chain=())
FORGED = an_svid(an_issuer(ROOT, ca=False), "web")

REFUSALS = [
    (EXPIRED, "expired", "certificate expired"),
    (FUTURE, "not_yet_valid", "bad certificate"),
    (STRANGER, "unknown_ca", "unknown ca"),
    (HEADLESS, "unknown_ca", "unknown ca"),
    (FORGED, "bad_chain", "unknown ca"),
    (None, "no_certificate", "certificate required"),
]


@pytest.mark.parametrize(("shown", "reason", "alert"), REFUSALS)
def test_a_bad_client_is_refused_in_the_handshake_with_an_alert(
    shown: X509Svid | None, reason: str, alert: str
) -> None:
    a, b = client(shown), server()
    failed = shake(a, b)
    assert failed[b].reason == reason
    assert failed[a].alert == alert


@pytest.mark.parametrize(("shown", "reason", "alert"), [row for row in REFUSALS if row[0] is not None])
def test_a_bad_server_is_refused_in_the_handshake_with_an_alert(shown: X509Svid, reason: str, alert: str) -> None:
    a, b = client(), server(shown)
    failed = shake(a, b)
    assert failed[a].reason == reason
    assert failed[b].alert == alert


@pytest.mark.parametrize("svid", [EXPIRED, FUTURE])
def test_a_refusal_over_time_speaks_of_the_clock(svid: X509Svid) -> None:
    b = server()
    assert "clock" in str(shake(client(svid), b)[b])


def test_a_time_that_is_passed_in_decides() -> None:
    long_ago = NOW - 1.5 * DAY
    root = a_root(not_before=NOW - 5 * DAY)
    issuer = an_issuer(root, not_before=NOW - 3 * DAY)
    then = an_svid(issuer, "web", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    assert shake(client(then, root, now=long_ago), server(then, root, now=long_ago)) == {}
    assert "expired" in {error.reason for error in shake(client(then, root), server(then, root)).values()}


def named(*roots: Authority, **options: Any) -> list[str]:
    """The authorities that a server with these roots names to whoever it asks for a certificate."""
    one, two = client(WEB, *roots), server(ORDERS, *roots, **options)
    shake(one, two)
    return [name.CN for name in one.get_client_ca_list()]


def test_a_server_names_the_roots_whose_certificates_it_takes() -> None:
    other = a_root("demo.mesh", name="next")
    assert named(ROOT) == ["demo.mesh root"]
    assert named(ROOT, ROOT, other) == ["demo.mesh root", "demo.mesh next"]
    assert named(ROOT, tls12=True) == ["demo.mesh root"]


def test_a_server_that_can_do_without_a_certificate_names_nobody() -> None:
    """Who picks its certificate by name would come without one, and be let in as nobody."""
    assert named(ROOT, verify="optional") == []


def test_roots_are_named_all_or_not_at_all() -> None:
    many = [a_root("demo.mesh", name=f"{number:03} {'x' * 40}") for number in range(70)]
    assert len(named(ROOT, *many[:40])) == 41
    assert named(ROOT, *many) == []
    assert named(ROOT, a_root("demo.mesh", subject="")) == []


@pytest.mark.parametrize("tls12", [False, True])
def test_a_client_of_another_issuer_is_refused_as_ever(tls12: bool) -> None:
    """Ours sends what it has, named or not, so that the refusal can say why."""
    stranger = an_svid(an_issuer(OTHER_ROOT), "web")
    one, two = client(stranger, ROOT, tls12=tls12), server(ORDERS, ROOT, tls12=tls12)
    assert shake(one, two)[two].reason == "unknown_ca"


def test_no_root_trusts_nobody() -> None:
    context = make_context(ORDERS, (), server=True, verify="require")
    b = SSL.Connection(context, None)
    b.set_accept_state()
    assert shake(client(), b)[b].reason == "unknown_ca"


def test_an_optional_certificate_may_be_absent_but_not_bad() -> None:
    assert shake(client(None), server(verify="optional")) == {}
    b = server(verify="optional")
    assert shake(client(STRANGER), b)[b].reason == "unknown_ca"


def test_verification_can_be_left_to_the_caller() -> None:
    assert shake(client(None, OTHER_ROOT, verify="none"), server(verify="optional")) == {}


def test_tls12_is_refused_unless_asked_for() -> None:
    old = ssl_client(maximum=ssl.TLSVersion.TLSv1_2)
    b = server(verify="optional")
    assert shake_stdlib(old, b) == "protocol_version"
    old = ssl_client(maximum=ssl.TLSVersion.TLSv1_2)
    b = server(verify="optional", tls12=True)
    assert shake_stdlib(old, b) is None
    assert b.get_cipher_name() in ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256")


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"])
def test_tls12_without_aead_is_refused_even_then(suite: str) -> None:
    old = ssl_client(maximum=ssl.TLSVersion.TLSv1_2, ciphers=suite)
    assert shake_stdlib(old, server(verify="optional", tls12=True)) == "handshake_failure"


def test_a_common_protocol_is_picked_in_the_servers_order() -> None:
    a, b = client(alpn=(b"http/1.1", b"h2")), server(alpn=(b"h2", b"http/1.1"))
    assert shake(a, b) == {}
    assert a.get_alpn_proto_negotiated() == b.get_alpn_proto_negotiated() == b"h2"


def test_without_a_common_protocol_the_handshake_fails_with_the_alert() -> None:
    a, b = client(alpn=(b"spdy/1",)), server(alpn=(b"h2",))
    failed = shake(a, b)
    assert failed[b].reason == "alpn"
    assert failed[a].alert == "no application protocol"
    assert issubclass(NoCommonProtocol, SSL.Error)  # whoever catches pyOpenSSL's errors catches this one


def test_a_refused_protocol_leaves_nothing_behind_in_the_context() -> None:
    context = make_context(ORDERS, [ROOT.certificate], server=True, verify="require", alpn=(b"h2",))
    for offer, expected in [(b"x", True), (b"h2", False)] * 2:
        b = SSL.Connection(context, None)
        b.set_accept_state()
        assert (b in shake(client(alpn=(offer,)), b)) is expected


def test_a_client_that_offers_no_protocol_is_served() -> None:
    a, b = client(), server(alpn=(b"h2",))
    assert shake(a, b) == {}
    assert b.get_alpn_proto_negotiated() == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_no_session_ever_resumes(version: ssl.TLSVersion) -> None:
    context = make_context(ORDERS, [ROOT.certificate], server=True, verify="optional", tls12=True)
    mine = ssl_client(maximum=version)
    session = None
    for _ in range(3):
        b = SSL.Connection(context, None)
        b.set_accept_state()
        a = Stdlib(mine, session)
        assert shake_stdlib(a, b) is None
        assert a.tls.session_reused is False
        b.shutdown()  # OpenSSL forgets sessions of connections that ended without close_notify
        session = a.tls.session
        assert session is not None  # the client has something to offer, and does


def test_a_server_needs_an_identity() -> None:
    with pytest.raises(ValueError, match="SVID"):
        make_context(None, (), server=True, verify="require")


class Stdlib:
    """The other TLS library: a client of Python's own ssl module, in memory."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self.context = context
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, session=session)


def ssl_client(maximum: ssl.TLSVersion, ciphers: str = "") -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = maximum
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def shake_stdlib(one: Any, two: SSL.Connection) -> str | None:
    """A handshake and a byte each way; the reason where our side refused."""
    peer = one if isinstance(one, Stdlib) else Stdlib(one)
    try:
        for _ in range(6):
            try:
                peer.tls.do_handshake()
                peer.tls.read(1)
            except (ssl.SSLWantReadError, ssl.SSLError):
                pass
            if data := peer.outgoing.read():
                two.bio_write(data)
            try:
                two.do_handshake()
                two.recv(1)
            except SSL.WantReadError:
                pass
            try:
                peer.incoming.write(two.bio_read(1 << 16))
            except SSL.WantReadError:
                pass
    except SSL.Error as error:
        return tls_error(error, two).reason
    peer.tls.do_handshake()
    return None
