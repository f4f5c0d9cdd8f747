"""Active health checks of one upstream's endpoints: who is asked when, and what an answer means.

A check takes the road of a request: the endpoint's own pool or HTTP/2 connections, mTLS with the declared identity, the
peer's ordinary allowlist. So what it finds holds for requests, its connections are renewed, evicted and retired like
all others, and there are no more of them. It is no request of the application: no ceiling, budget, breaker or hop
counts it; `user-agent: mesh-health` and `mesh_health_checks_total` show it. A check by TCP makes a connection each
time, to a peer with the whole handshake.

`look` is called at each sweep and starts what is due, at most `AT_ONCE` at a time, as tasks of the driver. Each has one
deadline for all that it does; a body is read up to `MOST_BODY` bytes, and what follows is not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import HopError, Overflow, PeerIdentityMismatch, UpstreamClosed, UpstreamReset
from sidecar.http import grpc, protobuf
from sidecar.http.headers import first
from sidecar.http.message import NEED_DATA, Data, End, RequestHead, ResponseHead
from sidecar.net.pool import FRESH
from sidecar.net.port import NEVER, Expired, WireBroken
from sidecar.net.tls import AlertReceived
from sidecar.telemetry import redact
from sidecar.telemetry.record import Checked
from sidecar.traffic.health import Health, HealthRules, Result, first_due, next_due, observe
from sidecar.traffic.outcome import Outcome, of_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema_outbound import HealthCheck
    from sidecar.hop import Headers
    from sidecar.net.pool import Connection
    from sidecar.net.port import Port, Task
    from sidecar.proxy.places import Place
    from sidecar.proxy.upstream import Upstream
    from sidecar.traffic.endpoints import Endpoint

AT_ONCE: Final = 64  # checks of one upstream under way: where all are silent, as many get their turn a second
MOST_BODY: Final = 16 * 1024  # bytes of an answer that are read
USER_AGENT: Final = (b"user-agent", b"mesh-health")
CHECK: Final = b"/grpc.health.v1.Health/Check"
_SERVING: Final = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus
_STATUSES: Final = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_REFUSALS: Final = frozenset((401, 403, 429))  # by a peer's sidecar: they are about us, and not about the endpoint
_GRPC_REFUSALS: Final = frozenset(("PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"))
PASSED: Final = Result("passed")


class _Answer:
    """What came back: of a body no more than is looked at."""

    __slots__ = ("body", "head", "trailers", "whole")

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self.body = b""
        self.trailers: Headers = []
        self.whole = False

    @property
    def by_mesh(self) -> bool:
        """Whether a peer's sidecar says that it has made the answer itself."""
        return first([*self.head.headers, *self.trailers], b"mesh-decision-id") is not None


class Checks:
    """The checks of one upstream."""

    def __init__(self, upstream: Upstream, port: Port, spec: HealthCheck, on_check: Callable[[Checked], None]) -> None:
        self.spec = spec
        self._upstream = upstream
        self._port = port
        self._rules = HealthRules(spec.every, spec.healthy, spec.unhealthy)
        self._on_check = on_check
        self._running: dict[Endpoint, Task] = {}
        self._stopped = False
        self._told = ""  # what was said last of checks that say nothing

    # ---- when --------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Start the checks that are due."""
        if self._stopped:
            return
        upstream, now = self._upstream, self._port.now
        for endpoint, place in upstream.places.items():
            health = endpoint.health
            if health is None:
                due = first_due(now, len(upstream.places), self._rules, upstream.dice())
                health = endpoint.health = Health(due)
            elif health.due > now + 2.0 * self._rules.every:  # by rules of before
                health.due = next_due(now, self._rules, upstream.dice())
            if health.due <= now and len(self._running) < AT_ONCE and endpoint not in self._running:
                health.due = next_due(now, self._rules, upstream.dice())
                self._running[endpoint] = self._port.start(self._check(endpoint, place, health))

    def stop(self) -> None:
        """End those that are under way, and begin no more."""
        self._stopped = True
        for task in list(self._running.values()):
            task.cancel()

    async def _check(self, endpoint: Endpoint, place: Place, health: Health) -> None:
        try:
            result = await self._in_time(place)
            result = result._replace(why=result.why.removeprefix(f"{endpoint.name}: "))
        finally:
            self._running.pop(endpoint, None)
        if endpoint not in self._upstream.places:
            return  # it has left the list meanwhile
        changed = observe(endpoint, health, result, self._port.now, self._rules)
        nothing = result.why if result.passed is None else ""
        told, self._told = self._told, nothing
        self._on_check(
            Checked(
                self._upstream.name, endpoint.name, result.word, result.why, healthy=endpoint.healthy, changed=changed,
                silent=bool(nothing) and nothing != told,
            )
        )  # fmt: skip

    async def _in_time(self, place: Place) -> Result:
        """One check, from connecting on, within its time. Whatever goes wrong is a result."""
        port, found = self._port, list[Result]()
        within = self.spec.within

        async def ask() -> None:
            found.append(await (self._connect(place) if self.spec.tcp else self._ask(place)))

        asking = port.spawn(ask())
        port.deadline(port.now + within)
        try:
            await port.wait(asking)
        except Expired:
            asking.cancel()
            return Result("timed_out", f"no answer within {within:g} s")
        except HopError as error:
            return _of_error(error)
        finally:
            port.deadline(NEVER)
        return found[0]

    # ---- how ---------------------------------------------------------------------------------------------------------

    async def _connect(self, place: Place) -> Result:
        upstream = self._upstream
        connection = await upstream.dialer.connect(place.endpoint.address, raw=upstream.protocol == "tcp")
        connection.wire.close()
        return PASSED

    async def _ask(self, place: Place) -> Result:
        """Ask on a connection of the endpoint's, and once more where that was dead without our knowing."""
        answer = await self._once(place, NEVER) or await self._once(place, FRESH)
        assert answer is not None
        return self._judge_grpc(answer) if self.spec.grpc is not None else self._judge(answer)

    async def _once(self, place: Place, max_idle: float) -> _Answer | None:
        """None where the connection was stale. Raises HopError."""
        head, body = self._request()
        road = place.road(self._upstream.way(head))
        if road.full:  # with requests; that they last tells less of an endpoint than our own limit does
            raise Overflow("no place for a check (limits.pool)")
        connection = await road.take(max_idle)
        stale = connection.reused and max_idle != FRESH
        received, good = connection.wire.received, False
        try:
            answer = await self._exchange(connection, head, body)
            good = answer.whole and connection.codec.clean
            return answer
        except (UpstreamClosed, UpstreamReset):
            if stale and connection.wire.received == received:
                return None
            raise
        finally:
            if good:
                road.give(connection)
            else:
                connection.wire.abort()
                road.discard(connection)

    def _request(self) -> tuple[RequestHead, bytes]:
        host = (b"host", self._upstream.host.encode("ascii"))
        service = self.spec.grpc
        if service is None:
            headers: Headers = [host, USER_AGENT, (b"accept", b"*/*")]
            return RequestHead(b"GET", self.spec.http.encode("ascii"), headers), b""
        message = protobuf.text(1, service)
        body = b"\0%b%b" % (len(message).to_bytes(4, "big"), message)
        headers = [
            host, USER_AGENT, (b"content-type", b"application/grpc"),
            (grpc.TIMEOUT_FIELD, grpc.timeout(self.spec.within)), (b"content-length", b"%d" % len(body)),
        ]  # fmt: skip
        return RequestHead(b"POST", CHECK, headers, version=b"2", body=True, length=len(body)), body

    async def _exchange(self, connection: Connection, head: RequestHead, body: bytes) -> _Answer:
        """Send, and read the answer as far as it is looked at. Raises HopError."""
        codec, wire = connection.codec, connection.wire
        self._port.deadline(NEVER)  # whoever waits for us has one
        data = codec.begin(head)
        if body:
            data += codec.send_data(body)
        data += codec.send_end()
        answer: _Answer | None = None
        try:
            await wire.write(data)
            while True:
                event = codec.next_event()
                if event is NEED_DATA:
                    codec.receive(bytes(await wire.read()))
                elif isinstance(event, ResponseHead):
                    answer = _Answer(event) if event.status >= 200 else None
                elif isinstance(event, Data) and answer is not None:
                    answer.body += event.data
                    if len(answer.body) > MOST_BODY:
                        return answer
                elif isinstance(event, End) and answer is not None:
                    answer.trailers, answer.whole = event.trailers, True
                    return answer
                else:
                    raise UpstreamClosed("the upstream ended without an answer")
        except AlertReceived as error:
            raise PeerIdentityMismatch(f"alert_{error.reason}", error.detail) from None
        except WireBroken as error:
            raise UpstreamReset(f"{connection.endpoint}: {error}", reused=connection.reused) from None

    # ---- what it means -----------------------------------------------------------------------------------------------

    def _judge(self, answer: _Answer) -> Result:
        status = answer.head.status
        if answer.by_mesh and status in _REFUSALS:
            return self._refused("GET", self.spec.http.partition("?")[0], by_number=status == 429)
        if status in self.spec.expect:
            return PASSED
        by = "its sidecar answers" if answer.by_mesh else "answers"
        return Result("failed", f"{by} {status} to {self.spec.http}, not {self.spec.expect}")

    def _judge_grpc(self, answer: _Answer) -> Result:
        headers = answer.head.headers
        value = first(answer.trailers, grpc.STATUS_FIELD) or first(headers, grpc.STATUS_FIELD)
        word = grpc.status_name(value) if value is not None else grpc.without_status(answer.head.status)
        if answer.by_mesh and word in _GRPC_REFUSALS:
            return self._refused("POST", CHECK.decode(), by_number=word == "RESOURCE_EXHAUSTED")
        if word == "UNIMPLEMENTED":
            return Result("failed", "has no grpc.health.v1.Health: let it serve that, or check with tcp: true")
        if word == "NOT_FOUND":
            return Result("failed", f'its health service knows no "{self.spec.grpc}"')
        if word != "OK":
            return Result("failed", f"grpc-status {word}")
        return _serving(answer.body)

    def _refused(self, method: str, path: str, *, by_number: bool) -> Result:
        name = self._upstream.name
        if by_number:
            return Result("refused", f"the check is refused by a rate limit of {name}, so it says nothing")
        why = f"the check is refused by {name}'s allowlist, so it says nothing: allow {method} {path}"
        return Result("refused", why)


def _serving(body: bytes) -> Result:
    """By the one message of the answer."""
    size = int.from_bytes(body[1:5], "big")
    if len(body) < 5 or body[0] or size != len(body) - 5:
        return Result("failed", "its health service answers with no message")
    try:
        fields: list[Any] = [value for number, value in protobuf.fields(body[5:]) if number == 1]
    except protobuf.InvalidMessage as error:
        return Result("failed", f"its health service answers with no message: {error}")
    status = fields[-1] if fields else 0  # proto3 leaves out what is 0
    return PASSED if status == _SERVING else Result("failed", f"says {_STATUSES.get(status, 'a status unknown to us')}")


def _of_error(error: HopError) -> Result:
    """What is no failure of the endpoint for a request is none for a check (`sidecar.traffic.outcome`)."""
    why = redact.text(error.detail or error.name, 200)
    if isinstance(error, PeerIdentityMismatch) and error.reason.startswith("alert_"):
        return Result("refused", f"it does not believe who we are: {why}")
    if of_error(error) is Outcome.NEUTRAL:
        return Result("skipped", why)
    return Result("unreachable", why)
