"""An API server for tests that holds one MutatingWebhookConfiguration, over real HTTPS; and calls webhooks as one does.

It judges what it is asked as a real one: token, verb, content type; a JSON patch whose `test` fails changes nothing.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from sidecar.deploy.kube.patch import apply, steps

NAME = "mesh-injector"
DNS_NAME = "mesh-injector.mesh-system.svc"
PATH = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{NAME}"
TOKEN = "the-injector's-own-token"


def a_configuration() -> dict[str, Any]:
    """As our manifests have it: no caBundle yet."""
    service = {"namespace": "mesh-system", "name": "mesh-injector", "path": "/inject"}
    webhook = {"name": "inject.sidecar.mesh", "clientConfig": {"service": service}, "failurePolicy": "Fail"}
    metadata = {"name": NAME, "resourceVersion": "1"}
    return {"kind": "MutatingWebhookConfiguration", "metadata": metadata, "webhooks": [webhook]}


class FakeWebhooks:
    """What it holds and says may be changed at any time."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.configuration: dict[str, Any] | None = a_configuration()
        self.token = TOKEN
        self.refuse: tuple[int, bytes] | None = None  # status and body, for everything
        self.meanwhile = False  # somebody else changes it between each read and write
        self.asked: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost").configure_cert(context)
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._serve(self)

            def do_PATCH(self) -> None:
                api._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]

    def __enter__(self) -> FakeWebhooks:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, folder: Path) -> tuple[Path, Path]:
        """A service account's token and certificates."""
        token, authority = folder / "token", folder / "ca.crt"
        token.write_text(TOKEN)
        authority.write_bytes(self.authority.cert_pem.bytes())
        return token, authority

    @property
    def ca_bundle(self) -> str:
        """The roots that stand in the configuration, as PEM."""
        assert self.configuration is not None
        return base64.b64decode(self.configuration["webhooks"][0]["clientConfig"].get("caBundle", "")).decode()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.command)
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        status, answer = self._answer(handler, body)
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        if self.refuse is not None:
            return self.refuse
        if handler.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if handler.path != PATH or self.configuration is None:
            return _status(404, f'mutatingwebhookconfigurations.admissionregistration.k8s.io "{NAME}" not found')
        if handler.command == "PATCH":
            if handler.headers.get("content-type") != "application/json-patch+json":
                return _status(415, "the body of the request was in an unknown format")
            return self._patch(json.loads(body))
        found = json.dumps(self.configuration).encode()
        if self.meanwhile:
            self._bump()
        return 200, found

    def _patch(self, operations: list[dict[str, Any]]) -> tuple[int, bytes]:
        assert self.configuration is not None
        changes = [each for each in operations if each["op"] != "test"]
        for each in operations:
            if each["op"] == "test":
                value: Any = self.configuration
                for step in steps(each["path"]):
                    value = value[step]
                if value != each["value"]:
                    return _status(422, "the server rejected our request due to an error in our request")
        apply(self.configuration, changes)
        self._bump()
        return 200, json.dumps(self.configuration).encode()

    def _bump(self) -> None:
        assert self.configuration is not None
        metadata = self.configuration["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)


def _status(code: int, message: str) -> tuple[int, bytes]:
    return code, json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message}).encode()


class ToWebhook(http.client.HTTPSConnection):
    """A connection as an API server makes it: to the Service's name, believed by `caBundle` alone."""

    def __init__(self, port: int, ca_bundle: str, name: str = DNS_NAME) -> None:
        context = ssl.create_default_context(cadata=ca_bundle)
        super().__init__("127.0.0.1", port, context=context, timeout=10)
        self._name = name

    def connect(self) -> None:
        """Connect to loopback, in the name of the Service."""
        plain = socket.create_connection((self.host, self.port), 10)
        try:
            self.sock = self._context.wrap_socket(plain, server_hostname=self._name)  # type: ignore[attr-defined]
        except OSError:
            plain.close()
            raise

    def ask(
        self,
        body: bytes,
        method: str = "POST",
        path: str = "/inject?timeout=10s",
        kind: str | None = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        """One request: status and document."""
        self.request(method, path, body, {"content-type": kind} if kind else {})
        answer = self.getresponse()
        document: dict[str, Any] = json.loads(answer.read() or b"{}")
        return answer.status, document
