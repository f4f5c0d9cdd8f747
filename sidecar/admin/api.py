"""The admin API: HTTP/1.1 and JSON on a Unix socket, for `mesh status`, `up`, `explain` and `certs` (S30).

The table of endpoints is `_ROUTES`. What they show comes from an `Inspect`, which the runtime implements; nothing here
knows how a sidecar is built. A refused connection is closed without a word, with a line in the log. Browsers cannot
reach a Unix socket, but tools that forward to one exist, so a request that carries `Origin` or a foreign `Host` is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import trio

from certs.errors import MeshError
from sidecar.admin.unix import listen_unix, may_use, peer_credentials, remove
from sidecar.net.http_server import HttpLimits, Request, Response, serve_http
from sidecar.telemetry.decisions import is_decision_id
from sidecar.telemetry.log import Log
from sidecar.traffic.quota_store import QuotaStoreFailed

MAX_CONNECTIONS = 32
_LIMITS = HttpLimits(idle_seconds=30.0)
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


Acted = Callable[[str, int, int, int], None]
"""Told of whoever asked for a change: path, status of the answer, user and process; status 403 for one who may not."""


class Inspect(Protocol):
    """What a running sidecar can tell of itself and be asked to do. Every value is ready for JSON."""

    def status(self) -> dict[str, Any]:
        """service, spiffe_id, instance, state, identity, policy, listeners, connections, in_flight, streams, version,
        pid.
        """
        ...

    def hops(self, since: int | None) -> dict[str, Any]:
        """`Table.read`: sequence, interval_seconds, hops."""
        ...

    def endpoints(self) -> dict[str, Any]:
        """What the balancers see: service, endpoints."""
        ...

    def plaintext(self) -> dict[str, Any]:
        """Who speaks plaintext and by whose leave: service, now, listeners, connections, forgotten, upstreams,
        passthrough.
        """
        ...

    async def quotas(self) -> dict[str, Any]:
        """What has been used of each quota, and what is open under TCP limits: service, quotas, problem, tcp_limits."""
        ...

    async def reset_quota(self, query: dict[str, Any], uid: int, pid: int) -> dict[str, Any]:
        """Give a key its quota anew, on behalf of this user. Raises MeshError where there is none, or it cannot be."""
        ...

    def inventory(self) -> dict[str, Any]:
        """Which edges were used, since when and until when: service, spiffe_id, since, left_out, edges."""
        ...

    def detections(self) -> dict[str, Any]:
        """What detectors found, and whom they hold: service, on, held, found."""
        ...

    def unblock(self, query: dict[str, Any], uid: int, pid: int) -> dict[str, Any]:
        """Let a caller go that a detector holds, on behalf of this user. Raises MeshError where none does."""
        ...

    def limits(self) -> dict[str, Any]:
        """How the rate limits stand: service, limits, redis."""
        ...

    def contracts(self) -> dict[str, Any]:
        """What was seen of each contract since it came into force: service, contracts."""
        ...

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """The decision and its explanation; None where it is not, or no longer, known."""
        ...

    def explain(self, query: dict[str, Any]) -> dict[str, Any]:
        """What policy says of a request that was never sent. Raises MeshError for a query that makes no sense."""
        ...

    def drain(self) -> dict[str, Any]:
        """Begin to drain; returns what is in flight."""
        ...

    async def rotate(self) -> dict[str, Any]:
        """Fetch a new certificate now; returns the new one's serial and end. Raises MeshError where that fails."""
        ...

    def certs(self) -> dict[str, Any]:
        """Our certificate chain and the trust bundles, no keys."""
        ...


class AdminApi:
    """Answers requests out of an Inspect."""

    def __init__(self, inspect: Inspect, acted: Acted | None = None) -> None:
        self._inspect = inspect
        self._acted = acted

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        if request.header(b"origin") is not None or request.header(b"host") not in (b"mesh", b"localhost"):
            self._tell(request, 403)
            return Response.error(403, "forbidden", "the admin API is for the mesh command, not for browsers")
        for method, pattern, handle in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if request.method != method:
                return Response.error(405, "method_not_allowed", f"use {method}", ((b"allow", method.encode()),))
            response = await handle(self._inspect, request, *match.groups())
            if method != "GET" and handle is not _explain:
                self._tell(request, response.status)
            return response
        known = (
            "GET /status /hops /endpoints /limits /contracts /quotas /detections /inventory /plaintext"
            " /decisions/<id> /certs, "
            "POST /explain /drain /certs/rotate /quotas/reset /detections/unblock"
        )
        return Response.error(404, "not_found", known)

    def _tell(self, request: Request, status: int) -> None:
        if self._acted is not None:
            uid, pid = (request.peer.uid, request.peer.pid) if request.peer is not None else (-1, -1)
            self._acted(request.path, status, uid, pid)


async def serve_admin(
    inspect: Inspect,
    run_dir: Path,
    service: str,
    log: Log,
    *,
    acted: Acted | None = None,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; starts with the socket's path. Raises SocketTaken, UnsafeRunFolder before it starts."""
    path = socket_path(run_dir, service)
    listener = await listen_unix(path)
    inode = path.lstat().st_ino
    api, places = AdminApi(inspect, acted), trio.CapacityLimiter(MAX_CONNECTIONS)

    async def connection(stream: trio.SocketStream) -> None:
        peer = peer_credentials(stream.socket)
        if not may_use(peer):
            log.warning("the admin socket refused a user", uid=peer.uid, pid=peer.pid)
            if acted is not None:
                acted("connect", 403, peer.uid, peer.pid)
            await trio.aclose_forcefully(stream)
            return
        async with places:
            await serve_http(
                stream, api, peer=peer, limits=_LIMITS, report=lambda error: log.fault("an admin request failed", error)
            )

    try:
        async with trio.open_nursery() as nursery:
            task_status.started(path)
            await trio.serve_listeners(connection, [listener], handler_nursery=nursery)
    finally:
        remove(path, inode)


def socket_path(run_dir: Path, service: str) -> Path:
    """Where the admin socket of a service stands. Raises MeshError for a name that is no file name."""
    if not _SERVICE.match(service):
        raise MeshError(f"{service!r} cannot name a socket")
    return run_dir / f"{service}.sock"


# ---- the endpoints -----------------------------------------------------------------------------------------------


async def _status(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.status())


async def _hops(inspect: Inspect, request: Request) -> Response:
    since = parse_qs(request.query).get("since", [""])[-1]
    if since and not (since.isascii() and since.isdigit() and len(since) < 16):
        return Response.error(400, "bad_query", "since is the sequence of an earlier answer")
    return Response.of_json(200, inspect.hops(int(since) if since else None))


async def _endpoints(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.endpoints())


async def _plaintext(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.plaintext())


async def _quotas(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, await inspect.quotas())


async def _reset_quota(inspect: Inspect, request: Request) -> Response:
    uid, pid = (request.peer.uid, request.peer.pid) if request.peer is not None else (-1, -1)
    try:
        return Response.of_json(200, await inspect.reset_quota(request.json(), uid, pid))
    except QuotaStoreFailed as error:
        return Response.error(503, error.name, str(error))
    except MeshError as error:
        return Response.error(404, error.name, str(error))


async def _inventory(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.inventory())


async def _detections(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.detections())


async def _unblock(inspect: Inspect, request: Request) -> Response:
    uid, pid = (request.peer.uid, request.peer.pid) if request.peer is not None else (-1, -1)
    try:
        return Response.of_json(200, inspect.unblock(request.json(), uid, pid))
    except MeshError as error:
        return Response.error(404, error.name, str(error))


async def _limits(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.limits())


async def _contracts(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.contracts())


async def _decision(inspect: Inspect, request: Request, decision_id: str) -> Response:
    if not is_decision_id(decision_id):
        return Response.error(400, "bad_decision_id", "an id looks like 1f0c9a3b-2s")
    found = inspect.decision(decision_id)
    if found is None:
        return Response.error(404, "unknown_decision", "not one of the last 10,000 decisions of this sidecar")
    return Response.of_json(200, found)


async def _explain(inspect: Inspect, request: Request) -> Response:
    try:
        return Response.of_json(200, inspect.explain(request.json()))
    except MeshError as error:
        return Response.error(400, error.name, str(error))


async def _drain(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(202, inspect.drain())


async def _rotate(inspect: Inspect, request: Request) -> Response:
    try:
        return Response.of_json(200, await inspect.rotate())
    except MeshError as error:
        return Response.error(503, error.name, str(error))


async def _certs(inspect: Inspect, request: Request) -> Response:
    return Response.of_json(200, inspect.certs())


_Handle = Callable[..., Awaitable[Response]]
_ROUTES: tuple[tuple[str, re.Pattern[str], _Handle], ...] = (
    ("GET", re.compile(r"/status"), _status),
    ("GET", re.compile(r"/hops"), _hops),
    ("GET", re.compile(r"/endpoints"), _endpoints),
    ("GET", re.compile(r"/plaintext"), _plaintext),
    ("GET", re.compile(r"/quotas"), _quotas),
    ("POST", re.compile(r"/quotas/reset"), _reset_quota),
    ("GET", re.compile(r"/limits"), _limits),
    ("GET", re.compile(r"/inventory"), _inventory),
    ("GET", re.compile(r"/detections"), _detections),
    ("POST", re.compile(r"/detections/unblock"), _unblock),
    ("GET", re.compile(r"/contracts"), _contracts),
    ("GET", re.compile(r"/decisions/([^/]+)"), _decision),
    ("POST", re.compile(r"/explain"), _explain),
    ("POST", re.compile(r"/drain"), _drain),
    ("POST", re.compile(r"/certs/rotate"), _rotate),
    ("GET", re.compile(r"/certs"), _certs),
)
