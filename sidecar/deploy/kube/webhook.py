"""The server of `mesh injector`: HTTPS for the API server, plain HTTP for the kubelet's probes.

Its certificate is one of the mesh, for the name of its Service, obtained and renewed as a sidecar does it. Without a
valid one nothing is answered: the API server then refuses pods of the labelled namespaces (`failurePolicy: Fail`),
which is better than a pod without a sidecar. Ready means: a valid certificate with our name in it, and roots in
`caBundle` by which the API server believes it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from certs.bundle import BundleSet
from certs.enrolment import Enrolment
from certs.source import Source
from certs.svid import X509Svid
from sidecar.deploy.kube.ca_bundle import CaBundle, Cluster
from sidecar.deploy.kube.review import answer
from sidecar.deploy.kube.webhook_metrics import CONTENT_TYPE, Result, WebhookMetrics, result_of
from sidecar.identity.rotator import IdentityConfig, Rotator
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import Clock
from sidecar.net.contexts import make_context
from sidecar.net.http_server import HttpLimits, Request, Response, serve_http, serve_https
from sidecar.telemetry.log import Log

PATH: Final = "/inject"
MAX_BODY: Final = 6 * 1024 * 1024  # an object of Kubernetes has at most 3 MiB, and a review may hold it twice
MAX_CONNECTIONS: Final = 256
MAX_PROBES: Final = 64  # connections of their own, so that a busy webhook is not restarted for being busy
LIMITS: Final = HttpLimits(body_bytes=MAX_BODY, idle_seconds=120.0)
_PROBES: Final = HttpLimits(body_bytes=0, idle_seconds=30.0)
_TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"))


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """What there is to know beforehand. A `cluster` of None keeps no caBundle: somebody else does."""

    enrolment: Enrolment
    state_dir: Path
    dns_name: str
    host: str
    port: int
    health_port: int
    options: Mapping[str, str]
    cluster: Cluster | None = None
    configuration: str = ""
    lame_duck: float = 5.0  # seconds for which we go on after SIGTERM, not ready


@dataclass(slots=True)
class Webhook:
    """The injector while it runs."""

    config: WebhookConfig
    clock: Clock
    log: Log
    svids: Source[X509Svid] = field(default_factory=lambda: Source("SVID"))
    bundles: Source[BundleSet] = field(default_factory=lambda: Source("trust bundle"))
    status: Source[IdentityStatus] = field(default_factory=lambda: Source("identity status"))
    metrics: WebhookMetrics = field(default_factory=WebhookMetrics)
    ended: bool = False
    _bundle: CaBundle | None = None
    _context: tuple[tuple[int, int], SSL.Context] | None = None
    _places: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_CONNECTIONS))
    _probe_places: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_PROBES))

    async def run(self, *, task_status: trio.TaskStatus[tuple[int, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the ports of webhook and probes. Raises OSError where one is taken."""
        config = IdentityConfig(self.config.enrolment, self.config.state_dir)
        rotator = Rotator(config, self.svids, self.bundles, self.clock, random.random, self.status)
        doors = await trio.open_tcp_listeners(self.config.port, host=self.config.host)
        probes = await trio.open_tcp_listeners(self.config.health_port, host=self.config.host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotator.run)
            nursery.start_soon(trio.serve_listeners, self._serve_probe, probes)
            nursery.start_soon(trio.serve_listeners, self._serve, doors)
            if self.config.cluster is not None:
                self._bundle = CaBundle(self.config.cluster, self.config.configuration, self._roots_pem)
                nursery.start_soon(self._keep_bundle, self._bundle)
            nursery.start_soon(self._tell_readiness)
            task_status.started((doors[0].socket.getsockname()[1], probes[0].socket.getsockname()[1]))

    async def drain(self) -> None:
        """Become not ready, and go on for a while: the API server may still know us."""
        self.ended = True
        await trio.sleep(self.config.lame_duck)

    def not_ready(self) -> list[str]:
        """Why we are not ready; empty where we are."""
        if self.ended:
            return ["ending"]
        if unusable := self._unusable():
            return [unusable]
        if self._bundle is not None and self._bundle.problem:
            return [self._bundle.problem]
        return []

    def _unusable(self) -> str:
        """Why our certificate cannot be shown; empty where it can."""
        if not self.svids.number or not self.bundles.number:
            error = self.status.current.last_error if self.status.number else ""
            return "no certificate yet" + (f": {error}" if error else "")
        svid = self.svids.current
        if self.clock.wall() > svid.not_after:
            return f"our certificate has expired: {self.status.current.last_error or 'not renewed'}"
        if self.config.dns_name not in dns_names(svid):
            return (
                f"our certificate does not say {self.config.dns_name}: give the entry {self.config.enrolment.entry} "
                "that name where the CA is (`mesh ca entry add … --dns NAME`)"
            )
        return ""

    def _roots_pem(self) -> bytes:
        bundle = self.bundles.current.of(self.config.enrolment.trust_domain)
        roots = () if bundle is None else bundle.roots  # of other trust domains, nobody vouches for us
        return b"".join(sorted(root.public_bytes(Encoding.PEM) for root in roots))

    async def _keep_bundle(self, bundle: CaBundle) -> None:
        await self.bundles.wait_past(0)

        def changed() -> Awaitable[object]:
            return self.bundles.wait_past(self.bundles.number)

        await bundle.keep(changed, lambda text: self.log.info(text))

    async def _tell_readiness(self) -> None:
        """Say in the log when we become ready, and when we cease to be."""
        said: list[str] | None = None
        while True:
            reasons = self.not_ready()
            if reasons != said:
                said = reasons
                if reasons:
                    self.log.warning("not ready", why="; ".join(reasons))
                else:
                    self.log.info("ready", dns_name=self.config.dns_name, expires=self.svids.current.not_after)
            await trio.sleep(0.5)

    def _tls(self) -> SSL.Context:
        """The context for the certificate that we hold now."""
        generation = (self.svids.number, self.bundles.number)
        if self._context is None or self._context[0] != generation:
            made = make_context(
                self.svids.current, self.bundles.current.roots(), server=True, verify="none", alpn=(b"http/1.1",)
            )
            self._context = (generation, made)
        return self._context[1]

    async def _serve(self, stream: trio.SocketStream) -> None:
        if self._unusable():
            await trio.aclose_forcefully(stream)  # there is nothing that we could show
            return
        serve = partial(serve_https, stream, self._tls(), self.handle, identify=lambda _: None, limits=LIMITS)
        await _in_a_place(self._places, stream, serve)

    async def _serve_probe(self, stream: trio.SocketStream) -> None:
        await _in_a_place(self._probe_places, stream, partial(serve_http, stream, self.probe, limits=_PROBES))

    async def probe(self, request: Request) -> Response:
        """Answer the kubelet, and Prometheus."""
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, "method_not_allowed", "read-only", ((b"allow", b"GET, HEAD"),))
        match request.path:
            case "/livez":
                return Response(200, _TEXT, b"ok\n")
            case "/readyz" | "/healthz":
                reasons = self.not_ready()
                text = "".join(f"not ready: {reason}\n" for reason in reasons) or "ready\n"
                return Response(503 if reasons else 200, _TEXT, text.encode())
            case "/metrics":
                return Response(200, ((b"content-type", CONTENT_TYPE),), self._scrape())
        return Response.error(404, "not_found", "/livez, /readyz, /healthz or /metrics")

    def _scrape(self) -> bytes:
        bundle = self._bundle is None or not self._bundle.problem
        not_after = self.svids.current.not_after if self.svids.number else 0.0
        return self.metrics.render(ready=not self.not_ready(), not_after=not_after, bundle=bundle)

    async def handle(self, request: Request) -> Response:
        """Answer the API server."""
        began = self.clock.monotonic()
        result, response = self._answer(request)
        self.metrics.count(result, self.clock.monotonic() - began)
        return response

    def _answer(self, request: Request) -> tuple[Result, Response]:
        if request.path != PATH:
            return "not_understood", Response.error(404, "not_found", f"POST {PATH}")
        if request.method != "POST":
            headers = ((b"allow", b"POST"),)
            return "not_understood", Response.error(405, "method_not_allowed", f"POST {PATH}", headers)
        kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            what = "an AdmissionReview comes as application/json"
            return "not_understood", Response.error(415, "unsupported_media_type", what)
        if unusable := self._unusable():
            return "unavailable", Response.error(503, "not_ready", unusable)
        status, document = answer(request.body, self.config.options)
        self._log_answer(document)
        return result_of(document), Response.of_json(status, document)

    def _log_answer(self, document: Mapping[str, object]) -> None:
        response = document.get("response")
        if not isinstance(response, dict):
            self.log.warning("a request was not understood", why=str(document.get("detail")))
        elif not response["allowed"]:
            self.log.warning("a pod was refused", uid=response["uid"], why=response["status"]["message"])
        else:
            self.log.info("a pod was admitted", uid=response["uid"], injected="patch" in response)


async def _in_a_place(
    places: trio.CapacityLimiter, stream: trio.SocketStream, serve: Callable[[], Awaitable[None]]
) -> None:
    try:
        places.acquire_on_behalf_of_nowait(stream)
    except trio.WouldBlock:
        await trio.aclose_forcefully(stream)
        return
    try:
        await serve()
    finally:
        places.release_on_behalf_of(stream)


def dns_names(svid: X509Svid) -> list[str]:
    """The DNS names in a certificate."""
    try:
        names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name) for name in names.get_values_for_type(x509.DNSName)]
