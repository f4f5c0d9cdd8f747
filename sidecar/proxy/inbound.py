"""Inbound: peers come in over mTLS, the application gets plaintext on loopback.

A listener whose posture is not strict (decision D12) waives a refusal here, and nowhere else: `_waive`. What is waived
is written on the hop, counted, and over by itself at the posture's end.

What happens to a request, in the order the bytes travel:

1. The handshake proves who calls; `Peer` is fixed for the connection.
2. One canonical reading of target and host (decision D4). Policy, limits, logs and the application all use that one.
3. The bearer token, where the listener asks for one: whoever is the user behind the caller, verified before any rule.
   Without a good one 401, or 503 where nobody can tell.
4. Loops are cut: our own instance id in `mesh-via` is 508.
5. Authorization: a Permit, or 403. The answer of no policy is that of no match.
6. The limits of its route: size and content type; then the contract of the service, where it has one. Its body is
   held to that before anybody is asked. Then OPA, where it is to be asked.
7. Rate limits and then quotas, last of all that may refuse it: whoever is refused for another reason takes nothing
   from anybody. A quota may have to be waited for, so it is charged where the exchange begins.
8. Its route: to which application, and which fault it meets.
9. Hygiene: hop-by-hop fields go, `mesh-*` and x-forwarded-client-cert go, then ours are set from what the handshake
   proved.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sidecar.config.posture import posture_of
from sidecar.errors import (
    AuditFull,
    BodyTooLarge,
    Draining,
    HopError,
    IdentityRefused,
    LoopDetected,
    Undetected,
    UnsupportedContentType,
    UnsupportedFeature,
)
from sidecar.hop import Deny, Headers, Hop, Waived
from sidecar.http.headers import XFCC, end_to_end, first, without_reserved
from sidecar.http.message import RequestHead, ResponseHead
from sidecar.http.plain import JudgedReader
from sidecar.http.plain_stencil import StencilReader
from sidecar.http.trace import trace_of
from sidecar.http.xfcc import appended, element
from sidecar.policy.strangers import for_strangers
from sidecar.proxy.attempts import RETRIED
from sidecar.proxy.forwarding import MAX_VIA, VIA, outgoing_headers, via_of
from sidecar.proxy.lane import ENABLED, MAX_LANES, Lane
from sidecar.proxy.lease import lease_of
from sidecar.proxy.side import Caller, Door, Plan, with_head
from sidecar.proxy.tcp import Far, Tunnels, carrying, introduce, tunnel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from certs.spiffe import SpiffeId
    from sidecar.config.schema import Limits, Timeouts
    from sidecar.config.schema_inbound import Inbound, Route
    from sidecar.contract.judge import Contract
    from sidecar.contract.reading import Operation
    from sidecar.hop import Direction, Permit
    from sidecar.http.canonical import Target
    from sidecar.http.plain import PlainRequest
    from sidecar.net.mtls import Gate, Peer
    from sidecar.net.pool import Connection
    from sidecar.net.port import Port, Wire
    from sidecar.policy.authz import RuleSet
    from sidecar.policy.reading import Reading
    from sidecar.proxy.asking import Asking
    from sidecar.proxy.bearer import Bearer
    from sidecar.proxy.contracted import Checked
    from sidecar.proxy.intake import Intake
    from sidecar.proxy.steering import AppRoutes
    from sidecar.proxy.upstream import Upstream
    from sidecar.telemetry.record import Recorder
    from sidecar.traffic.limits import Dues, RateLimits
    from sidecar.traffic.marks import Marks
    from sidecar.traffic.tcp import Bucket

    Question = Callable[[Port], Awaitable[None]]

INFORMATIONAL = 200  # below it
FAILED, UNAVAILABLE = 500, (b"grpc-status", b"14")  # answers after which somebody may want to try again
PLAINTEXT = "the caller speaks no TLS, so it has proved no identity"


class InboundSide:
    """What one inbound listener does to hops."""

    direction: Direction = "inbound"

    def __init__(
        self,
        spec: Inbound,
        *,
        identity: SpiffeId,
        instance: str,
        rules: RuleSet,
        gate: Gate,
        app: Upstream,
        timeouts: Timeouts,
        limits: Limits,
        recorder: Recorder,
        tunnels: Tunnels,
        marks: Marks,
        audit_accepts: Callable[[], bool],
        reading: Reading,
        only_http: bool = False,
        intake: Intake | None = None,
        steering: AppRoutes | None = None,
        asking: Asking | None = None,
        contract: Contract | None = None,
        bearer: Bearer | None = None,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.timeouts = timeouts
        self.limits = limits
        self.recorder = recorder
        self.tunnels = tunnels
        self._marks = marks
        self.door = Door(self)
        self._identity = identity
        self._instance = instance.encode()
        self._rules = rules
        self._gate = gate
        self.app = app
        self._audit_accepts = audit_accepts
        self._reading = reading
        self.steering = steering
        self._intake = intake  # None where nothing is limited
        self._asking = asking  # OPA, where there is one
        self.contract = contract
        self._bearer = bearer  # None where no tokens are asked for
        self.only_http = only_http and spec.protocol == "auto"  # raw TCP would get around a rule (semantics S9)
        self.posture = posture_of(spec)  # None for strict
        self._reader = JudgedReader(limits.head_bytes, limits.head_lines)
        self._lanes: dict[object, Lane] = {}
        self._limits_bodies = any(route.max_body is not None or route.content_types for route in spec.routes)
        permissive = self.posture is not None and self.posture.kind == "permissive"
        self._strangers = for_strangers(rules, identity.trust_domain) if permissive else rules

    @property
    def rates(self) -> RateLimits | None:
        """The rate limits of this listener."""
        return self._intake.rates if self._intake is not None else None

    @property
    def draining(self) -> bool:
        """Whether the listener takes no new work."""
        return self.door.draining

    def take_over(self, before: InboundSide) -> None:
        """Stand behind the same door from now on."""
        self.door = before.door
        self.door.side = self

    def check_peer(self, caller: Caller, wire: Wire, wall: float) -> None:
        """No connection outlives the certificate that it rests on, nor the root behind that, nor the posture that let
        it in without any. Raises IdentityRefused.
        """
        peer = caller.peer
        if peer is None:
            if self.lets_plaintext_in(wall):
                return
            raise IdentityRefused("plaintext", f"the caller speaks no TLS, and the listener {self.name} is strict now")
        if wall > peer.tls.not_after:
            raise IdentityRefused("expired", f"the certificate of {peer.id} has expired since the connection began")
        if caller.trust != self._gate.trust:
            self._gate.judge_again(wire, peer, wall)
            caller.trust = self._gate.trust

    def judge_again(
        self, port: Port, hop: Hop, caller: Caller, wire: Wire, upstream: Upstream, connection: Connection
    ) -> None:
        """Judge a tunnel under way by the rules and the roots of today (decision D17). Raises HopError."""
        if port.now >= self.door.ends_at:
            raise Draining(f"the listener {self.name} has gone from the configuration")
        wall = port.wall()
        self.check_peer(caller, wire, wall)
        self._check_detected(hop)
        verdict = (self._rules if hop.peer is not None else self._strangers).check(hop, wall)
        if isinstance(verdict, Deny):
            self._waive(hop, verdict, wall)

    def lets_plaintext_in(self, wall: float) -> bool:
        """Whether a caller without TLS may come in at this moment."""
        posture = self.posture
        return posture is not None and posture.kind == "permissive" and posture.in_force(wall)

    def _waive(self, hop: Hop, verdict: Deny, wall: float) -> None:
        """Let a refused hop pass where the listener's posture says so, with a note of what strict would have done;
        elsewhere raise the refusal.

        `observe` waives whatever the rules say of a verified peer. `permissive` waives that no rule allows a caller
        without identity, because none can; what a deny rule forbids to everybody stays forbidden.
        """
        posture, error = self.posture, verdict.error
        if posture is None or not posture.in_force(wall):
            waived = None
        elif posture.kind == "observe" and hop.peer is not None:
            waived = Waived("observe", posture.until, error.name, error.flag, "", verdict.rule, error.detail)
        elif posture.kind == "permissive" and hop.peer is None and not verdict.rule:
            name, flag = IdentityRefused.name, IdentityRefused.flag
            waived = Waived("permissive", posture.until, name, flag, "plaintext", "", PLAINTEXT)
        else:
            waived = None
        if waived is None:
            hop.rule = verdict.rule
            raise error
        hop.waived, hop.rule = waived, waived.let_in_by
        hop.decision_id = hop.decision_id or self.recorder.decision_id()

    def open_hop(self, caller: Caller, head: RequestHead | None, now: float) -> Hop:
        """A hop for this request, with nothing read yet but what cannot fail."""
        return with_head(self._hop(caller, "http", now), head)

    def _hop(self, caller: Caller, protocol: str, now: float) -> Hop:
        peer = caller.peer
        return Hop(
            "inbound",
            self.name,
            self.spec.port,
            "http" if protocol == "http" else "tcp",
            peer=peer.id if peer is not None else None,
            destination=self._identity,
            source=caller.source,
            source_port=caller.source_port,
            started=now,
            tls=peer.tls if peer is not None else None,
        )

    # ---- plain requests ---------------------------------------------------------------------------------------------

    def lane(self, caller: Caller) -> Lane | None:
        """Where this caller's plain requests run: nowhere without identity, and nowhere under a contract."""
        peer = caller.peer
        if peer is None or not ENABLED or self.contract is not None or self._bearer is not None:
            return None
        looks = self._rules.looks_at(peer.id)
        if "more" in looks:
            return None
        key = (peer.id.text, peer.fingerprint, caller.source if "source" in looks else None)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                self._lanes.clear()
            rated = self._intake is not None and self._intake.looks_at_headers
            steering, judge, heads, throws = self.steering, self.judge_plain, "headers" in looks, False
            if self._asking is not None:
                judge = self._judge_unasked
            if steering is not None:
                judge, throws = partial(steering.judge_plain, judge), steering.throws(peer.id)
                heads = heads or steering.looks_at_headers
            lane = self._lanes[key] = Lane(
                self, caller, StencilReader(self._reader).read, judge, memo=not heads and not throws,
                limits_bodies=self._limits_bodies, wants_headers=heads or rated or self.recorder.wants_headers,
            )  # fmt: skip
        return lane

    def plain_hop(self, caller: Caller, now: float) -> Hop:
        """A hop for plain requests, one after the other."""
        assert caller.peer is not None
        return Hop(
            "inbound", self.name, self.spec.port, "http", peer=caller.peer.id, destination=self._identity,
            source=caller.source, source_port=caller.source_port, version="1.1", started=now, attempts=1,
            tls=caller.peer.tls,
        )  # fmt: skip

    def may_go_on(self, caller: Caller, upstream: Upstream, wall: float) -> bool:
        """Whether the caller's certificate and roots still stand, and the audit takes another line."""
        peer = caller.peer
        return (
            peer is not None
            and wall <= peer.tls.not_after
            and caller.trust == self._gate.trust
            and self._audit_accepts()
        )

    def judge_plain(self, hop: Hop, request: PlainRequest) -> tuple[Upstream, Permit, Dues | None] | None:
        """Judge a plain request by the rules. The clock has no say in them, so the verdict can be kept, and with it
        what the clock does have a say in: the rate limits that it comes under.
        """
        verdict = self._rules.check(hop, 0.0)
        if isinstance(verdict, Deny) or verdict.shadow:
            return None
        if self._intake is None:
            return self.app, verdict, None
        dues = self._intake.plain_dues(hop, verdict.route)
        return (self.app, verdict, dues) if dues is None or dues.plain else None

    def _judge_unasked(self, hop: Hop, request: PlainRequest) -> tuple[Upstream, Permit, Dues | None] | None:
        """The same, where OPA is asked about some requests: those are no plain ones."""
        assert self._asking is not None
        return None if self._asking.concerns(hop) else self.judge_plain(hop, request)

    async def let_in(self, port: Port, wire: Wire, dues: Dues, keys: Sequence[str]) -> bool:
        """Whether all sidecars together let a plain request in."""
        assert self._intake is not None
        return await self._intake.let_in(port, wire, dues, keys)

    def plain_lines(self, upstream: Upstream) -> bytes:
        """None: what the application is told stands at the end."""
        return b""

    def plain_tail(self, caller: Caller, upstream: Upstream, via: Sequence[bytes]) -> bytes | None:
        """x-forwarded-client-cert from the handshake, and ourselves in mesh-via."""
        if self._instance in via or len(via) >= MAX_VIA:
            return None
        assert caller.peer is not None
        return b"".join((
            XFCC, b": ", element(self._identity, caller.peer.fingerprint, caller.peer.id), b"\r\n",
            VIA, b": ", b",".join((*via, self._instance)), b"\r\n\r\n",
        ))  # fmt: skip

    # ---- every other ------------------------------------------------------------------------------------------------

    def before(self, hop: Hop, caller: Caller, head: RequestHead) -> Callable[[Port], Awaitable[None]] | None:
        """The keys of whoever has issued its bearer token, in the rare case that they are not at hand."""
        bearer = self._bearer
        if bearer is None:
            return None
        try:
            fetch = bearer.before(hop, caller.peer.fingerprint if caller.peer is not None else "")
        except HopError as error:
            self._read(hop, head)
            self._observe(hop, error, bearer.wall())
            return None
        if fetch is None:
            return None
        self._read(hop, head)
        return partial(self._fetched, hop, fetch)

    async def _fetched(self, hop: Hop, fetch: Callable[[Port], Awaitable[None]], port: Port) -> None:
        try:
            await fetch(port)
        except HopError as error:
            self._observe(hop, error, port.wall())

    def _observe(self, hop: Hop, error: HopError, wall: float) -> None:
        """Let a hop pass whose token is refused where the posture is to watch; elsewhere raise the refusal."""
        if self.posture is None or self.posture.kind != "observe":
            raise error
        self._waive(hop, Deny(error), wall)

    def _read(self, hop: Hop, head: RequestHead) -> tuple[Target, Route | None]:
        """The canonical reading of a request, which the hop knows from now on. Raises HopError."""
        return self._reading.read(hop, head.target, [value for name, value in head.headers if name == b"host"])

    def admit(self, hop: Hop, caller: Caller, head: RequestHead, wall: float) -> Plan:
        """Read the request canonically, judge it, and say where it goes. Raises HopError."""
        target, route = self._read(hop, head)
        peer = caller.peer
        via = via_of(head.headers) if peer is not None else []  # a hop header, and so a verified peer's alone (D21)
        if self._instance in via:
            raise LoopDetected(f"the request has been through this sidecar before: {b' '.join(via).decode('latin-1')}")
        operation = self.contract.find(hop) if self.contract is not None else None
        self._authorize(hop, wall)
        if target.form == "authority":
            raise UnsupportedFeature("CONNECT is for the forward proxy, not for peers")
        if route is not None:
            _check_route(route, head)
        headers = outgoing_headers(head)
        if hop.token is not None and self._bearer is not None:
            headers = self._bearer.strip(headers)
        if peer is not None:
            headers.append((XFCC, self._client_cert(peer, head.headers)))
        headers.append((VIA, b",".join((*via, self._instance))))
        plan = Plan(self.app, target.origin_form, headers, route.max_body if route is not None else None)
        if self.contract is not None and self.contract.judges:
            plan.checked = self._checked(self.contract, operation, hop, head, plan, wall)
        if not hop.attempts:  # what the express has sent already has been through all limits
            questions = self._questions(hop, head, plan)
            if questions or plan.checked is not None:
                plan.ask = partial(self._ask, plan, hop, questions)
            else:
                self._limit(plan, hop, wall)
        if self.steering is not None and route is not None:
            self.steering.follow(route, hop, plan)
        if first(plan.headers, b"host") is None:  # only in HTTP/1.0; what we send on is 1.1 and must have one
            plan.headers.insert(0, (b"host", plan.upstream.authority))
        return plan

    def _checked(
        self, contract: Contract, operation: Operation | None, hop: Hop, head: RequestHead, plan: Plan, wall: float
    ) -> Checked:  # fmt: skip
        """Hold a request to the contract, as far as its head goes. Raises HopError."""
        from sidecar.proxy.contracted import Checked  # most have no contract, and it is memory

        checked = Checked(contract, operation, self.recorder, hop, head)
        wrong = contract.wrong_head(operation, hop, head, wall, switches=plan.lasts or bool(head.protocol))
        if wrong is not None:
            checked.refuse(wrong)
        plan.headers = contract.asked(operation, hop, plan.headers)
        return checked

    def _questions(self, hop: Hop, head: RequestHead, plan: Plan) -> tuple[Question, ...]:
        """Whom else to ask about a request that the rules permit, in this order; each may raise HopError."""
        if self._asking is not None and self._asking.concerns(hop):
            return (partial(self._ask_opa, hop),)
        return ()

    async def _ask_opa(self, hop: Hop, port: Port) -> None:
        assert self._asking is not None
        error = await self._asking.judge(port, hop)
        if error is not None:
            self._waive(hop, Deny(error, error.rule or ""), port.wall())

    async def _ask(self, plan: Plan, hop: Hop, questions: tuple[Question, ...], port: Port) -> None:
        for question in questions:
            await question(port)
        self._limit(plan, hop, port.wall())

    def _limit(self, plan: Plan, hop: Hop, wall: float) -> None:
        """Take from its limits. Raises RateLimited, QuotaSpent."""
        if self._intake is not None:
            self._intake.take(plan, hop, self.app.now, wall)

    def _authorize(self, hop: Hop, wall: float) -> None:
        if not self._audit_accepts():
            raise AuditFull("the audit record cannot be written (audit.on_full is refuse)")
        verdict = (self._rules if hop.peer is not None else self._strangers).check(hop, wall)
        hop.shadow = verdict.shadow
        if isinstance(verdict, Deny):
            self._waive(hop, verdict, wall)
            return
        hop.rule = verdict.rule
        hop.route = verdict.route

    def _client_cert(self, peer: Peer, headers: Headers) -> bytes:
        """x-forwarded-client-cert: set anew from the handshake; appended to only for listed forwarders
        (semantics S10). Raises ProtocolViolation where theirs has two readings.
        """
        ours = element(self._identity, peer.fingerprint, peer.id)
        if any(pattern.matches(peer.id) for pattern in self.spec.xfcc_forwarders):
            return appended(ours, headers)
        return ours

    def response_headers(self, hop: Hop, head: ResponseHead, upstream: Upstream) -> Headers:
        """The header fields of the application's answer, without what only the mesh may say; with a note where it
        failed and we have spent retries on what it asked for meanwhile, so that nobody farther away does too.
        """
        headers = without_reserved(end_to_end(head.headers))
        if self._intake is not None:
            headers += self._intake.told(hop, head.status)
        failed = head.status >= FAILED or UNAVAILABLE in headers
        if failed and hop.peer is not None and self._marks.marks(trace_of(hop.headers), hop.started):
            headers.append(RETRIED)
        if hop.held is not None and head.status >= INFORMATIONAL:
            headers += hop.held.told
        return headers

    def response_trailers(self, hop: Hop, trailers: Headers, upstream: Upstream) -> Headers:
        """What follows the messages of a gRPC call, without what only the mesh may say."""
        return without_reserved(trailers)

    def explain_refusal(self, hop: Hop, error: HopError) -> tuple[bool, bool]:
        """A verified peer gets the decision id; reasons never leave."""
        return hop.peer is not None, False

    # ---- raw TCP ----------------------------------------------------------------------------------------------------

    def _check_detected(self, hop: Hop) -> None:
        """Raise Undetected for raw TCP where only HTTP may pass."""
        if self.only_http and hop.protocol == "tcp":
            raise Undetected(f"the listener {self.name} is auto, and its first bytes were no request")

    async def serve_tcp(self, port: Port, wire: Wire, caller: Caller, early: bytes = b"") -> None:
        """Judge a raw connection, then move its bytes to the application; `early` has been read already."""
        hop = self._hop(caller, "tcp", port.now)
        with carrying(hop, port, wire, self.recorder) as far:
            self._check_detected(hop)
            self._authorize(hop, port.wall())
            if self._intake is None:
                await self._carry(port, wire, caller, hop, far, early)
                return
            async with self._intake.connection(port, wire, hop) as buckets:
                await self._carry(port, wire, caller, hop, far, early, buckets)

    async def _carry(
        self, port: Port, wire: Wire, caller: Caller, hop: Hop, far: Far, early: bytes, buckets: Sequence[Bucket] = ()
    ) -> None:
        hop.attempts = 1
        far.connection = connection = await self.app.connect_raw()
        hop.endpoint = connection.endpoint
        if self.spec.app_proxy_protocol != "none":
            await introduce(port, connection.wire, caller, self.spec.app_proxy_protocol, self.timeouts.connect)
        with self.tunnels.open(port.current, self._judge(port, hop, caller, wire, connection)):
            idle, lease = self.timeouts.tcp_idle, lease_of(hop, port)
            await tunnel(port, wire, connection.wire, hop, idle=idle, lease=lease, early=early, buckets=buckets)

    def _judge(self, port: Port, hop: Hop, caller: Caller, wire: Wire, connection: Connection) -> Callable[[], None]:
        return lambda: self.door.side.judge_again(port, hop, caller, wire, self.app, connection)


def _check_route(route: Route, head: RequestHead) -> None:
    if not head.body:
        return
    if route.max_body is not None and head.length is not None and head.length > route.max_body:
        raise BodyTooLarge(
            f"the request body is {head.length} bytes; {route.path.text} allows {route.max_body} (max_body)"
        )
    if route.content_types:
        given = (first(head.headers, b"content-type") or b"").partition(b";")[0].strip().lower().decode("latin-1")
        if given not in route.content_types:
            raise UnsupportedContentType(
                f"content type {given or 'absent'}; accepted: {', '.join(route.content_types)}"
            )
