"""What the mesh port promises of its TLS to whoever calls: the alert arrives, nothing resumes, the group is hybrid."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from certs.svid import X509Svid
from tests.integration.bad_input.conftest import assert_still_serving
from tests.integration.bad_input.test_callers import UNSAFE
from tests.kit.identities import an_svid
from tests.kit.processes import eventually
from tests.kit.programs import curl, run
from tests.kit.sidecars import LocalSidecar, World
from tests.kit.tls_peers import REQUEST, call, context_of
from tests.kit.tools import need


@pytest.fixture
def app(world: World) -> Iterator[LocalSidecar]:
    """The called sidecar; afterwards a good request must still pass."""
    with world.sidecar("app") as app:
        yield app
        with world.sidecar("web") as web:
            assert_still_serving(world, app, web)


def pem_of(folder: Path, svid: X509Svid) -> Path:
    """Certificate chain and key in one file, for programs."""
    path = folder / "identity.pem"
    path.touch(mode=0o600)
    key = svid.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(svid.chain_pem() + key)
    return path


@pytest.mark.parametrize("size", [0, 100_000])
def test_the_alert_reaches_a_caller_that_has_sent_its_request_and_reads_late(
    world: World, app: LocalSidecar, size: int
) -> None:
    """A close with unread bytes would be a reset, and a reset destroys what the caller has not read yet."""
    request = REQUEST[:-2] + b"content-length: %d\r\n\r\n" % size + bytes(size)

    def one(_: int) -> str:
        return call(world.ports.app_in, None, request=request, pause=0.05).alert

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(40))) == {"certificate required"}


@pytest.mark.parametrize("sort", ["TLS 1.3", "TLS 1.2 with tickets"])
def test_no_session_is_ever_resumed(a_world: Callable[..., World], tmp_path: Path, sort: str) -> None:
    """By the standard library's TLS, which keeps tickets and offers them again."""
    world = a_world(tls="" if sort == "TLS 1.3" else UNSAFE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(pem_of(tmp_path, an_svid(world.issuer, "web")))
    if sort != "TLS 1.3":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    session = None
    with world.sidecar("app") as app:
        for _ in range(4):
            plain = socket.create_connection(("127.0.0.1", world.ports.app_in), timeout=10)
            with context.wrap_socket(plain, session=session) as secure:
                assert secure.session_reused is False
                secure.sendall(REQUEST)
                assert b" 200 " in secure.recv(65536)
                session = secure.session
        assert app.total("mesh_tls_handshakes_total", direction="inbound", result="ok") == 4
        app.assert_well()


def test_openssl_s_client_cannot_resume_either(world: World, app: LocalSidecar, tmp_path: Path) -> None:
    identity, kept = pem_of(tmp_path, an_svid(world.issuer, "web")), tmp_path / "session"
    common = (
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{world.ports.app_in}", "-cert", str(identity), "-ign_eof",
        "-cert_chain", str(identity),
    )  # fmt: skip
    first = run(*common, "-sess_out", str(kept), stdin=REQUEST)
    assert "200 Fine" in first.text
    again = run(*common, *(("-sess_in", str(kept)) if kept.exists() else ()), stdin=REQUEST)
    assert "200 Fine" in again.text
    for done in (first, again):
        assert re.search(r"^New, TLSv1\.3", done.text, re.MULTILINE)
        assert "Reused" not in done.text


def test_the_group_is_hybrid_and_shows_in_metrics_and_audit(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        assert_still_serving(world, app, web)
        for sidecar, direction in ((app, "inbound"), (web, "outbound")):
            labels = {"direction": direction, "version": "TLSv1.3", "group": "X25519MLKEM768"}
            assert sidecar.total("mesh_tls_handshakes_total", **labels) == 1
            eventually("the handshake in the audit", lambda: sidecar.audit("handshake"))  # noqa: B023
            (line,) = sidecar.audit("handshake")
            assert (line["tls_version"], line["tls_group"]) == ("TLSv1.3", "X25519MLKEM768")


def test_an_older_client_may_still_agree_on_x25519_and_that_shows_too(
    world: World, app: LocalSidecar, tmp_path: Path
) -> None:
    identity = pem_of(tmp_path, an_svid(world.issuer, "web"))
    done = run(
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{world.ports.app_in}", "-cert", str(identity),
        "-cert_chain", str(identity), "-groups", "X25519", "-ign_eof", stdin=REQUEST,
    )  # fmt: skip
    assert "200 Fine" in done.text
    eventually("the handshake in the audit", lambda: app.audit("handshake"))
    assert [line["tls_group"].lower() for line in app.audit("handshake")] == ["x25519"]


def test_renegotiation_is_refused(a_world: Callable[..., World]) -> None:
    """TLS 1.3 has none; TLS 1.2, where it is switched on, must not bring it back."""
    world = a_world(tls=UNSAFE)
    with world.sidecar("app") as app, world.sidecar("web") as web:
        context = context_of(an_svid(world.issuer, "web"), newest=SSL.TLS1_2_VERSION)
        sock = socket.create_connection(("127.0.0.1", world.ports.app_in), timeout=10)
        sock.settimeout(None)
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        connection.do_handshake()
        connection.renegotiate()
        with pytest.raises(SSL.Error) as failure:
            connection.do_handshake()
        assert "no renegotiation" in str(failure.value)
        sock.close()
        assert_still_serving(world, app, web)


CURLS = [
    # what curl does, its exit code, what it says
    (("-k", "https://127.0.0.1:{port}/"), 56, "alert certificate required"),
    (("-k", "--tls-max", "1.2", "https://127.0.0.1:{port}/"), 35, "alert protocol version"),
    (("http://127.0.0.1:{port}/",), 52, "Empty reply"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), CURLS, ids=["no certificate", "TLS 1.2", "plain HTTP"])
def test_what_curl_says_of_our_refusals(
    world: World, app: LocalSidecar, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = curl(*(argument.format(port=world.ports.app_in) for argument in arguments))
    assert done.code == code
    assert says in done.err
