"""Read-only HTTP on TCP for probes and Prometheus: /livez, /readyz, /metrics (decision D26).

/livez answers 200 for as long as the loop turns: that it answers at all is the proof. /readyz answers 200 only while
identity, policy and listeners stand and nothing drains, else 503 with the reasons, which name no peer and no rule.
Nothing here changes anything, so only GET and HEAD are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from sidecar.net.http_server import HttpLimits, Request, Response, serve_http
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from sidecar.admin.pod_health import PodHealth

MAX_CONNECTIONS = 128
_LIMITS = HttpLimits(body_bytes=0, idle_seconds=30.0)
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NO_STORE = (b"cache-control", b"no-store")

NotReady = Callable[[], Sequence[str]]  # why we are not ready; empty where we are


class HealthApi:
    """Answers probes and scrapes."""

    def __init__(self, metrics: Metrics, not_ready: NotReady, pod: PodHealth | None = None) -> None:
        self._metrics = metrics
        self._not_ready = not_ready
        self._pod = pod
        self._scrapes = trio.CapacityLimiter(1)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, "method_not_allowed", "read-only", ((b"allow", b"GET, HEAD"),))
        match request.path:
            case "/livez":
                return Response(200, (_TEXT, _NO_STORE), b"ok\n")
            case "/readyz":
                return self._readiness()
            case "/metrics":
                return await self._scrape()
            case path if self._pod is not None and path.startswith("/app-health/"):
                return await self._pod.answer(request)
        return Response.error(404, "not_found", "/livez, /readyz or /metrics")

    def _readiness(self) -> Response:
        reasons = self._not_ready()
        if reasons:
            text = "".join(f"not ready: {reason}\n" for reason in reasons)
            return Response(503, (_TEXT, _NO_STORE), text.encode())
        return Response(200, (_TEXT, _NO_STORE), b"ready\n")

    async def _scrape(self) -> Response:
        """All metrics, rendered in a thread, one scrape at a time, so that many series hold up no hop."""
        self._metrics.counter("mesh_ready").set(0 if self._not_ready() else 1)
        body = await trio.to_thread.run_sync(self._metrics.render, limiter=self._scrapes)
        return Response(200, ((b"content-type", CONTENT_TYPE.encode()), _NO_STORE), body)


async def serve_health(
    metrics: Metrics,
    not_ready: NotReady,
    listeners: Sequence[trio.SocketListener],
    log: Log,
    pod: PodHealth | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Beyond MAX_CONNECTIONS a connection is closed at once: probes must not exhaust us."""
    api, places = HealthApi(metrics, not_ready, pod), trio.CapacityLimiter(MAX_CONNECTIONS)

    async def connection(stream: trio.SocketStream) -> None:
        try:
            places.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            await serve_http(
                stream, api, limits=_LIMITS, report=lambda error: log.fault("a health request failed", error)
            )
        finally:
            places.release_on_behalf_of(stream)

    async with trio.open_nursery() as nursery:
        task_status.started()
        await trio.serve_listeners(connection, list(listeners), handler_nursery=nursery)
