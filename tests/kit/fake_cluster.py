"""A Kubernetes API server for tests, over real HTTPS: TokenReview, OIDC discovery and keys; and the tokens it makes.

    async with a_cluster() as cluster:
        cluster.token(namespace="shop", account="orders")
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from certs.errors import MeshError
from certs.jwk import public_jwk
from certs.jwt import Jwt, sign_jwt
from certs.keys import new_key
from sidecar.net.http_server import Request, Response, serve_https

NOW = 1_800_000_000.0
OWN_TOKEN = "the-ca's-own-token"


@dataclass
class FakeCluster:
    """What it answers may be changed; `up` is whether it answers at all."""

    port: int
    ca_pem: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    kid: str = "c1"
    now: float = NOW
    up: bool = True
    ignores_audiences: bool = False
    deleted_pods: set[str] = field(default_factory=set)
    answers: dict[str, Callable[[Request], Response]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    own_tokens: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def token(
        self,
        namespace: str = "shop",
        account: str = "orders",
        audience: str = "mesh-ca",
        pod: str = "orders-1",
        **more: Any,
    ) -> str:
        """A projected service-account token."""
        claims: dict[str, Any] = {
            "iss": self.url, "sub": f"system:serviceaccount:{namespace}:{account}", "aud": [audience],
            "iat": int(self.now), "nbf": int(self.now), "exp": int(self.now) + 3600,
            "kubernetes.io": {
                "namespace": namespace, "serviceaccount": {"name": account, "uid": "u1"},
                "pod": {"name": pod, "uid": f"uid-of-{pod}"}, "node": {"name": "node-7"},
            },
        }  # fmt: skip
        return sign_jwt({"kid": self.kid}, claims | more, self.key)

    async def handle(self, request: Request) -> Response:
        self.seen.append(request.path)
        if request.path in self.answers:
            return self.answers[request.path](request)
        match request.path:
            case "/.well-known/openid-configuration":
                return Response.of_json(200, {"issuer": self.url, "jwks_uri": f"{self.url}/openid/v1/jwks"})
            case "/openid/v1/jwks":
                key = {"use": "sig", "kid": self.kid, **public_jwk(self.key.public_key())}
                return Response.of_json(200, {"keys": [key]})
            case "/apis/authentication.k8s.io/v1/tokenreviews":
                return self._review(request)
        return Response.error(404, "not_found")

    def _review(self, request: Request) -> Response:
        own = (request.header(b"authorization") or b"").decode()
        self.own_tokens.append(own.removeprefix("Bearer "))
        spec = request.json()["spec"]
        claims = self._claims(spec["token"])
        if claims is None:
            error = "[invalid bearer token, token has been invalidated]"
            status: dict[str, Any] = {"authenticated": False, "error": error}
        else:
            bound = claims["kubernetes.io"]
            extra = {"authentication.kubernetes.io/pod-name": [bound["pod"]["name"]],
                     "authentication.kubernetes.io/pod-uid": [bound["pod"]["uid"]]}  # fmt: skip
            status = {"authenticated": True, "user": {"username": claims["sub"], "uid": "u1", "extra": extra}}
            if not self.ignores_audiences:
                status["audiences"] = [one for one in spec["audiences"] if one in claims["aud"]]
        return Response.of_json(201, {"kind": "TokenReview", "status": status})

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            jwt = Jwt.parse(token)
            jwt.check_signature(self.key.public_key())
        except MeshError:
            return None
        claims = dict(jwt.claims)
        return None if claims["kubernetes.io"]["pod"]["name"] in self.deleted_pods else claims


@asynccontextmanager
async def a_cluster() -> AsyncIterator[FakeCluster]:
    """One that serves on a port of loopback, by the name `localhost`."""
    authority = trustme.CA()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    authority.issue_cert("localhost").configure_cert(context)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    cluster = FakeCluster(port, authority.cert_pem.bytes().decode())

    async def serve(stream: trio.SocketStream) -> None:
        if not cluster.up:
            await trio.aclose_forcefully(stream)
            return
        await serve_https(stream, context, cluster.handle, identify=lambda _: None)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield cluster
        nursery.cancel_scope.cancel()


def as_json(response: Any) -> Response:
    """An answer with this document."""
    return Response(200, (), json.dumps(response).encode())
