"""A certified OpenID provider that nobody here wrote: npm's `oidc-provider`, by TLS, on ports of its own.

    with Provider(tmp_path) as provider:
        token = provider.token("https://orders.example")     # client credentials (RFC 6749 section 4.4), a JWT
        provider.rotate()                                     # it signs by a new key; the old one is published still
        provider.mode("down")                                 # an outage: connections are cut
        provider.stop(); provider.start()                     # the process itself; its keys outlive it

What a sidecar has to be told: `issuer`, `ca_file` (roots in PEM), and for client credentials `token_url`, `client_id`
and `secret`. Without node or npm the test is skipped, and says why.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import trustme

from tests.kit.free_ports import free_port
from tests.kit.processes import Process, listens
from tests.kit.programs import node_folder
from tests.kit.tools import need

SOURCES = Path(__file__).parent / "oidc_provider"
Mode = Literal["up", "down", "slow", "redirect", "empty", "huge"]


class Provider:
    """One provider, from the `with` to its end."""

    client_id = "billing"  # "bound" gets tokens that are bound to the client's certificate (RFC 8705)
    secret = "a-secret-of-the-tests-0123456789"

    def __init__(self, folder: Path) -> None:
        self._scripts = node_folder(SOURCES)
        self._port, self._control = free_port(), free_port()
        self._folder = folder / "oidc"
        self._folder.mkdir(exist_ok=True)
        authority = trustme.CA()
        self.ca_file = self._folder / "roots.crt"
        authority.cert_pem.write_to_path(self.ca_file)
        self._certificate, self._key = self._folder / "server.crt", self._folder / "server.private"
        server = authority.issue_cert("localhost")
        server.cert_chain_pems[0].write_to_path(self._certificate)
        server.private_key_pem.write_to_path(self._key)
        self._process: Process | None = None
        self.issuer = f"https://localhost:{self._port}"
        self.keys_url = f"{self.issuer}/jwks"
        self.token_url = f"{self.issuer}/token"

    # ---- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Provider:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, and wait until it listens."""
        command = [
            need("node"), str(self._scripts / "server.js"), str(self._port), str(self._control),
            str(self._certificate), str(self._key), str(self._folder),
        ]  # fmt: skip
        process = self._process = Process("oidc-provider", command, self._folder / "provider.log")
        process.until("listening", lambda: listens(self._port) and listens(self._control))

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    # ---- what it is to do ------------------------------------------------------------------------------------------

    def mode(self, mode: Mode) -> None:
        """From now on: be up; cut every connection; never answer; redirect; give no keys, or 10 MB of them."""
        self._ask("POST", f"/mode?mode={mode}")

    def rotate(self, *, keep: bool = True, algorithm: str = "") -> str:
        """Sign by a new key from now on (RS256, ES256 or Ed25519, by default as before), and publish it; the old ones
        too, unless not `keep`. Returns its `kid`.
        """
        query = {"keep": "1" if keep else "0"} | ({"alg": algorithm} if algorithm else {})
        return str(self._ask("POST", f"/rotate?{urlencode(query)}")["kid"])

    def seen(self, path: str = "/jwks") -> int:
        """How often this path was asked for since the process has started."""
        return int(self._ask("GET", "/seen")["seen"].get(path, 0))

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def token(
        self, audience: str, scope: str = "orders:read", *, lifetime: int = 600, certificate: bytes = b""
    ) -> str:
        """An access token for this audience, an absolute URI (RFC 8707), by client credentials; with the `certificate`
        (DER) of a client it is bound to that.
        """
        client = "bound" if certificate else self.client_id
        form = urlencode({"grant_type": "client_credentials", "resource": audience, "scope": scope})
        proof = base64.b64encode(f"{client}:{self.secret}".encode()).decode()
        headers = {
            "authorization": f"Basic {proof}", "content-type": "application/x-www-form-urlencoded",
            "x-lifetime": str(lifetime),
        }  # fmt: skip
        if certificate:
            headers["x-client-certificate"] = base64.b64encode(certificate).decode()
        request = urllib.request.Request(self.token_url, form.encode(), headers)
        return str(_json(request, ssl.create_default_context(cafile=str(self.ca_file)))["access_token"])

    def _ask(self, method: str, path: str) -> Any:
        return _json(urllib.request.Request(f"http://127.0.0.1:{self._control}{path}", method=method), None)


def _json(request: urllib.request.Request, context: ssl.SSLContext | None) -> Any:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # nothing of our environment
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(request, timeout=20) as answer:
        return json.load(answer)
