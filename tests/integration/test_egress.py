"""A partner outside the mesh by real TLS: its roots, its name, its pins; and our token, from endpoints good and bad."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports
from tests.kit.oidc import Provider
from tests.kit.processes import eventually
from tests.kit.programs import curl
from tests.kit.web_server import Asked, Authority, Says, WebServer

pytestmark = pytest.mark.integration

NAME = "api.partner.test"
SECRET = "p:s w/%+é&="  # what a form has to escape
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound:
      - {{to: partner, host: {name}, unmeshed: passthrough, listen: "127.0.0.1:{p.door}", retries: {{resends: 0}},
         breaker: "off", endpoints: "127.0.0.1:{partner}"{more}}}
    forward_proxy: 127.0.0.1:{p.proxy}
    timeouts: {{pool_idle_app: 100ms}}
    health: {{listen: "127.0.0.1:{p.health}"}}
"""


class Office(Fleet):
    """`web`, and a partner in the world outside."""

    def __init__(self, folder: Path, partner: WebServer, more: str) -> None:
        self.ports, self.partner = Ports(), partner
        super().__init__(folder, self.text(more))

    def text(self, more: str) -> str:
        return TEXT.format(domain=TRUST_DOMAIN, p=self.ports, partner=self.partner.port, name=NAME, more=more)

    def reload(self, more: str) -> None:
        """Another upstream, in force when this returns."""
        known = self["web"].status()["config"]["generation"]
        self.file.write_text(self.text(more))
        eventually("the reload", lambda: self["web"].status()["config"]["generation"] > known)

    def ask(self, *arguments: str, path: str = "/v1/charges") -> int:
        """The status of a request out of the application, on a new connection to the partner."""
        url = f"http://127.0.0.1:{self.ports.door}{path}"
        code = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", "-H", f"Host: {NAME}")
        return int(curl(*code, *arguments, url).text)


@contextmanager
def office(folder: Path, partner: WebServer, more: str) -> Iterator[Office]:
    with Office(folder, partner, more) as mesh:
        mesh.start_all()
        yield mesh


def closing(asked: Asked) -> Says:
    """A good answer on a connection that ends with it."""
    return Says(body=b"ok", headers={"Content-Type": "text/plain", "Connection": "close"})


def pin(pem: bytes) -> str:
    key = x509.load_pem_x509_certificate(pem).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256/" + base64.b64encode(hashlib.sha256(der).digest()).decode()


def test_https_by_roots_name_and_pins(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "other")
    good = ours.server(NAME)
    good.verify_mode = ssl.CERT_NONE
    tls = f", tls: {{roots: {ours.roots}}}"
    with WebServer(closing, tls=good) as partner, office(tmp_path, partner, tls) as mesh:
        assert mesh.ask(path="/a/../b//c;x=%2f?q=%zz") == 200
        assert partner.asked[-1].path == "/a/../b//c;x=%2f?q=%zz"  # untouched (decision D4)
        assert partner.asked[-1].headers["host"] == NAME
        assert not [name for name in partner.asked[-1].headers if name.startswith(("mesh-", "x-forwarded"))]
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        bad = {
            "other name": ours.server("www.partner.test"), "deeper name": ours.server("*.api.partner.test"),
            "only an address": ours.server("127.0.0.1"), "other roots": other.server(NAME),
            "expired": ours.server(NAME, not_after=yesterday),
            "common name alone": ours.server("www.partner.test", common_name=NAME),
        }  # fmt: skip
        for what, context in bad.items():
            partner.use(context)
            assert mesh.ask() == 503, what
        wildcard = ours.server("*.partner.test")
        partner.use(wildcard)
        assert mesh.ask() == 200
        before = len(partner.asked)
        _pins(mesh, partner, ours, tls)
        assert len(partner.asked) == before + 2
        _other_roots(mesh, partner, ours, other)


def _pins(mesh: Office, partner: WebServer, ours: Authority, tls: str) -> None:
    wrong = "sha256/" + "A" * 43 + "="
    mesh.reload(f"{tls[:-1]}, pins: [{wrong}, {pin(ours.pem)}]}}")  # that of the CA, one of two
    assert mesh.ask() == 200
    mesh.reload(f"{tls[:-1]}, pins: [{wrong}]}}")
    assert mesh.ask() == 503
    mesh.reload(tls)
    assert mesh.ask() == 200


def _other_roots(mesh: Office, partner: WebServer, ours: Authority, other: Authority) -> None:
    """The file of roots is replaced, and nobody restarts anything."""
    partner.use(other.server(NAME))
    assert mesh.ask() == 503
    ours.roots.write_bytes(other.pem)
    eventually("the new roots", lambda: mesh.ask() == 200)


def test_a_host_that_speaks_only_http1_or_names_no_version_is_asked_by_that(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    tls = f", tls: {{roots: {ours.roots}}}"
    with WebServer(closing, tls=ours.server(NAME)) as partner, office(tmp_path, partner, f"{tls}, upgrade: h2") as mesh:
        for alpn in (("http/1.1",), ()):
            partner.use(ours.server(NAME, alpn=alpn))
            assert [mesh.ask(), mesh.ask("-d", "x=1")] == [200, 200], alpn
        mesh.reload(tls)
        assert mesh.ask() == 200
    assert [asked.method for asked in partner.asked] == ["GET", "POST", "GET", "POST", "GET"]


# ---- tokens ------------------------------------------------------------------------------------------------------


class Endpoint(WebServer):
    """A token endpoint that knows one client, and gives a new token each time."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(self._token, tls=tls)
        self.secret = SECRET
        self.seconds: Any = 3600
        self.says: Says | None = None
        self.given: list[str] = []

    def _token(self, asked: Asked) -> Says:
        if self.says is not None:
            return self.says
        from urllib.parse import quote_plus

        proof = base64.b64encode(f"us:{quote_plus(self.secret)}".encode()).decode()
        if asked.method != "POST" or asked.headers.get("authorization") != f"Basic {proof}":
            return Says(401, b'{"error": "invalid_client"}')
        assert asked.form == {"grant_type": ["client_credentials"], "scope": ["read write"]}
        self.given.append(f"token-{len(self.given) + 1}")
        said = f'{{"access_token": "{self.given[-1]}", "token_type": "bearer", "expires_in": {self.seconds}}}'
        return Says(body=said.encode())


class Partner(WebServer):
    """Lets in whoever has one of these tokens; without any, everybody."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(self._judge, tls=tls)
        self.takes: set[str] | None = None

    def _judge(self, asked: Asked) -> Says:
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        good = self.takes is None or token in self.takes
        return Says(200 if good else 401, asked.body, {"Content-Type": "text/plain"})

    @property
    def tokens(self) -> list[str]:
        """What was shown, request by request."""
        return [asked.headers.get("authorization", "") for asked in self.asked]


def tokened(roots: Path, endpoint: WebServer, secret: str) -> str:
    token = f'url: "https://127.0.0.1:{endpoint.port}/token", client_id: us, scopes: [read, write], roots: {roots}'
    return f", tls: {{roots: {roots}}}, token: {{{token}, secret: {secret}}}"


def test_a_token_is_got_put_on_and_replaced(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    secret.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with Endpoint(ours.server("127.0.0.1")) as endpoint, Partner(ours.server(NAME)) as partner:
        assert isinstance(endpoint, Endpoint)
        assert isinstance(partner, Partner)
        with office(tmp_path, partner, tokened(ours.roots, endpoint, f"{{file: {secret}}}")) as mesh:
            assert mesh.ask() == 503
            assert partner.asked == []  # nothing is asked without a token
            secret.write_text(f"{SECRET}\n")  # the right one, and nobody restarts anything
            eventually("a token", lambda: mesh.ask() == 200)
            assert mesh.ask("-H", "Authorization: Bearer mine") == 200
            assert set(partner.tokens) == {"Bearer token-1"}
            assert endpoint.given == ["token-1"]
            _refused(mesh, endpoint, partner)
            said = mesh["web"].process.text()
            assert "invalid_client" in said
            for word in (SECRET, "token-1", "wrong\n"):
                assert word not in said
            metrics = mesh["web"].metrics()
            assert metrics.total("mesh_egress_token_requests_total", listener="partner", result="failed") >= 1


def _refused(mesh: Office, endpoint: Endpoint, partner: Partner) -> None:
    """The partner takes the token no more: another one, once, and the request is sent again where it may be."""
    partner.takes = {"token-2"}
    assert mesh.ask("-X", "POST", "-d", "a=1") == 401
    eventually("another token", lambda: mesh.ask() == 200)  # one that young is not replaced at once
    assert partner.tokens[-2:] == ["Bearer token-1", "Bearer token-2"]
    assert endpoint.given == ["token-1", "token-2"]
    partner.takes = set()
    asked = len(endpoint.asked)
    for _ in range(5):
        assert mesh.ask() == 401
    assert len(endpoint.asked) == asked  # whoever is refused for another reason does not hammer the endpoint


def test_a_short_token_is_replaced_in_time_and_a_broken_endpoint_leaves_the_last_one(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    printer = tmp_path / "bin" / "secret"
    printer.parent.mkdir()
    printer.write_text(f"#!/bin/sh\nprintf '%s' '{SECRET}'\n")
    printer.chmod(0o700)
    with Endpoint(ours.server("127.0.0.1")) as endpoint, Partner(ours.server(NAME)) as partner:
        assert isinstance(endpoint, Endpoint)
        assert isinstance(partner, Partner)
        endpoint.seconds = 4
        with office(tmp_path, partner, tokened(ours.roots, endpoint, f"{{command: [{printer}]}}")) as mesh:
            eventually("a token", lambda: mesh.ask() == 200)
            eventually("another one, in time", lambda: mesh.ask() == 200 and len(set(partner.tokens)) >= 2)
            endpoint.seconds = 3600
            given = len(endpoint.given)
            eventually("one that lasts", lambda: mesh.ask() == 200 and len(endpoint.given) > given)
            assert [asked for asked in partner.asked if "authorization" not in asked.headers] == []
            endpoint.says = Says(body=b'{"access_token": "x", "token_type": "mac"}')
            assert mesh.ask() == 200  # the last token is good for a while


def test_a_certified_provider_gives_the_token(tmp_path: Path) -> None:
    """npm's `oidc-provider`, by client credentials, and an outage of it."""
    ours = Authority(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text(Provider.secret)
    secret.chmod(0o600)
    with Provider(tmp_path) as provider, Partner(ours.server(NAME)) as partner:
        assert isinstance(partner, Partner)
        token = (f"url: \"{provider.token_url}\", client_id: {provider.client_id}, resource: 'https://{NAME}', "
                 f"scopes: ['orders:read'], roots: {provider.ca_file}, secret: {{file: {secret}}}")  # fmt: skip
        more = f", tls: {{roots: {ours.roots}}}, token: {{{token}}}"
        with office(tmp_path, partner, more) as mesh:
            eventually("a token", lambda: mesh.ask() == 200)
            head, body, _ = partner.tokens[-1].removeprefix("Bearer ").split(".")
            claims = base64.urlsafe_b64decode(body + "==")
            assert b'"iss":"' + provider.issuer.encode() in claims
            assert NAME.encode() in claims
            assert b"alg" in base64.urlsafe_b64decode(head + "==")
            provider.mode("down")
            assert mesh.ask() == 200  # its outage is nobody's, while the token is good
