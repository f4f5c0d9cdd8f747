"""The one door into telemetry: every hop ends in `Recorder.observe`, whatever befell it.

`observe` runs once per request on the thread of the reactor. It takes no lock, waits for nothing and never raises: a
fault in here is counted, logged and forgotten, and the hop has its answer already. To be cheap it looks up everything
that depends on a hop's *kind* once, by one small tuple, and keeps it: after that a plain permitted hop costs two dict
look-ups and a few additions. What is rare (refusals, failures, shadow verdicts, lines for a log) takes the longer
way.

The tuple holds only values that come from configuration, verified identities and code, so there are few; the cache is
emptied when it grows past a bound or when idle series were swept away, and refills by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import trio

from certs.spiffe import SpiffeId
from sidecar.errors import HopError, RateLimited
from sidecar.hop import Direction, Hop, TlsInfo, Token
from sidecar.net.clock import Clock, SystemClock
from sidecar.telemetry import outcome, redact
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.audit import Audit, Permits
from sidecar.telemetry.decisions import Decision, Decisions, bounded
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import HopSeries, Metrics, WatchedSeries
from sidecar.telemetry.plaintext import Plaintext
from sidecar.telemetry.shape import path_shape
from sidecar.telemetry.table import Row, Table
from sidecar.telemetry.tally import Tally

if TYPE_CHECKING:
    from sidecar.config.schema_audit import Audit as AuditConfig
    from sidecar.net.mtls import Peer

_MAX_KINDS = 4096
_MAX_PLACES = 64  # for each tally
TICK_SECONDS = 15.0  # between two rounds of sweeping and flushing

Kind = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Handshake:
    """A TLS handshake between sidecars that ended, well or not."""

    direction: Direction
    listener: str  # inbound listener, or the upstream
    ok: bool
    peer: SpiffeId | None = None  # the verified peer; where refused after verification, who it was
    source: IPv4Address | IPv6Address | None = None  # address of the other end
    reason: str = ""  # short and stable where not ok: "expired", "no_certificate", "one_uri_san" …
    tls: TlsInfo | None = None
    seconds: float = 0.0
    detail: str = ""  # for the operator, where not ok
    error: HopError | None = None  # what it came to, where not ok; None stands for an identity that was refused
    endpoint: str = ""  # outbound: "host:port"
    expected: SpiffeId | None = None  # outbound: the declared identity


@dataclass(frozen=True, slots=True)
class Checked:
    """An active health check of an endpoint that has ended (`sidecar.proxy.health`)."""

    upstream: str
    endpoint: str  # "host:port"
    result: str  # passed, failed, timed_out, unreachable, refused, skipped
    why: str  # for people; empty where it passed
    healthy: bool  # what the endpoint counts as now
    changed: bool  # by this check
    silent: bool  # the first of a row of checks that say nothing, for this reason


class Recorder:
    """Hands finished hops and handshakes to every view. `clock` must be the one that the hops are timed by."""

    def __init__(
        self,
        *,
        instance: str,
        metrics: Metrics | None = None,
        table: Table | None = None,
        decisions: Decisions | None = None,
        access_log: AccessLog | None = None,
        audit: Audit | None = None,
        log: Log | None = None,
        rule_headers: Iterable[bytes] = (),
        clock: Clock | None = None,
    ) -> None:
        self.instance = instance
        self.clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self.table = table or Table()
        self.decisions = decisions or Decisions(instance)
        self.access_log = access_log
        self.audit = audit
        self.log = log
        self.plaintext = Plaintext(log)
        self.decision_id: Callable[[], str] = self.decisions.new_id
        self._wanted_headers = frozenset(rule_headers) | (access_log.headers if access_log else frozenset())
        self._wall = self.clock.wall
        self._kinds: dict[Kind, tuple[HopSeries, Row]] = {}
        self._epoch = 0  # grows before anything that tallies point at is forgotten
        self._faults = self.metrics.cell("mesh_telemetry_faults_total")
        self._watch: Callable[[Hop], None] | None = None
        self.metrics.before_scrape(self._refresh)

    def reads_headers(self, names: Iterable[bytes]) -> None:
        """From now on rules look at these headers, so decisions keep them."""
        self._wanted_headers = frozenset(names) | (self.access_log.headers if self.access_log else frozenset())

    def watch(self, watch: Callable[[Hop], None] | None) -> None:
        """From now on show each hop that has ended to this one too; None for nobody."""
        if watch is not self._watch:
            self._watch = watch
            self._kinds.clear()
            self._epoch += 1

    def _series(self, hop: Hop) -> HopSeries:
        series, watch = self.metrics.series(hop), self._watch
        return series if watch is None else WatchedSeries(series, watch)

    @property
    def wants_headers(self) -> bool:
        """Whether some view keeps headers of a hop that has ended well."""
        return bool(self._wanted_headers)

    # ---- hops ----------------------------------------------------------------------------------------------------

    def observe(self, hop: Hop) -> None:
        """Take note of a hop that has ended. Never waits, never raises."""
        try:
            self._observe(hop)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not reach the hop
            self._fault("a hop could not be recorded", fault)

    def observe_plain(self, hop: Hop, tally: Tally | None) -> Tally | None:
        """As `observe`, for a permitted HTTP hop that nothing befell: no error, no shadow verdict, no decision id.

        Takes the tally of an earlier hop of the same caller, listener, destination, rule and route, with a status of
        the same class, and returns one for the next.
        """
        try:
            now = self._wall()
            if tally is None or tally.epoch != self._epoch:
                tally = Tally(self._epoch, self._series(hop), self.table.row(hop))
            seconds = hop.ended - hop.started
            tally.series.add(hop, seconds)
            tally.row.add(hop, seconds, now)
            audit = self.audit
            if audit is not None:
                place = (hop.method, hop.host, hop.segments)
                permits = tally.places.get(place) or self._permits(audit, tally, place, hop, now)
                if permits is not None:
                    permits.count += 1
                    permits.last = now
            access_log = self.access_log
            if access_log is not None and access_log.wants(hop):
                self._log_plain(access_log, tally, hop, now)
        except Exception as fault:  # noqa: BLE001 - as in observe
            self._fault("a hop could not be recorded", fault)
            return None
        return tally

    def _log_plain(self, access_log: AccessLog, tally: Tally, hop: Hop, now: float) -> None:
        """A line of a plain hop, and its decision. The hop itself stays as it is: the next request will use it."""
        plain, wanted = access_log.plain, self._wanted_headers
        template = tally.template
        if template is None:
            template = tally.template = plain.template(hop)
        headers = redact.chosen_headers(hop.headers, wanted) if wanted else None
        decision_id = self.decisions.new_id()
        line, clean = plain.line(template, hop, now, decision_id, headers)
        data = line.encode("ascii")
        access_log.put(data)
        segments = hop.segments if clean else bounded(hop.segments)
        self.decisions.keep_permit((decision_id, now, hop.port, data, segments, headers))

    def _permits(
        self, audit: Audit, tally: Tally, place: tuple[str, str, tuple[str, ...]], hop: Hop, now: float
    ) -> Permits | None:
        """Where the audit counts what goes to a place that this tally has not seen lately."""
        shape = (hop.method, hop.host, path_shape(hop.segments))
        permits = tally.shapes.get(shape)
        if permits is None:
            permits = audit.kind_of(hop, now)
            if permits is None:
                audit.permit(hop, now)
                return None
            if len(tally.shapes) >= _MAX_PLACES:
                tally.shapes.clear()
            tally.shapes[shape] = permits
        if len(tally.places) >= _MAX_PLACES:
            tally.places.clear()
        tally.places[place] = permits
        return permits

    def _observe(self, hop: Hop) -> None:
        now = self._wall()
        peer, destination, error = hop.peer, hop.destination, hop.error
        kind: Kind = (
            hop.direction,
            None if peer is None else peer.text,
            None if destination is None else destination.text,
            hop.route,
            hop.rule,
            hop.status // 100,
            hop.attempts > 0,
            error.__class__,
            hop.flag if hop.delayed or hop.exhausted or hop.held is not None else None,
        )
        found = self._kinds.get(kind)
        if found is None:
            found = self._learn(kind, hop)
        seconds = hop.ended - hop.started
        found[0].add(hop, seconds)
        found[1].add(hop, seconds, now)
        if hop.grpc_status:
            self.metrics.observe_call(hop)
        if error is not None and not hop.endpoint:
            hop.endpoint = error.endpoint
        if error is not None or hop.shadow or hop.waived is not None or hop.delayed:
            self.metrics.observe_rare(hop)
            if error is not None and error.midway:
                self.metrics.counter("mesh_connections_ended_early_total").add((hop.direction, error.midway))
        access_log = self.access_log
        logged = access_log is not None and access_log.wants(hop)
        if error is not None or logged or hop.decision_id:
            self._keep(hop, now)
            if logged and access_log is not None:
                access_log.write(hop, now)
        if self.audit is not None:
            self._audit(self.audit, hop, now)

    def _learn(self, kind: Kind, hop: Hop) -> tuple[HopSeries, Row]:
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        found = self._kinds[kind] = (self._series(hop), self.table.row(hop))
        return found

    def _keep(self, hop: Hop, now: float) -> None:
        told = bool(hop.decision_id)
        if not told:
            hop.decision_id = self.decisions.new_id()
        decision = Decision.of_hop(hop, now, self._wanted_headers)
        if told or hop.error is not None or hop.waived is not None:
            self.decisions.keep(decision)
        else:  # it went well, and is here only because it is logged
            self.decisions.keep_permit(decision)

    def _audit(self, audit: Audit, hop: Hop, now: float) -> None:
        if hop.error is None:
            audit.permit(hop, now)
        elif isinstance(hop.error, RateLimited):
            audit.limited(hop, hop.error, now)
        elif outcome.refused(hop) or outcome.cut_off(hop):
            audit.refusal(hop, now)
        elif outcome.verdict(hop) == "permit":
            audit.permit(hop, now)

    # ---- connections and handshakes ------------------------------------------------------------------------------

    def retry(self, upstream: str, what: str) -> None:
        """Count another attempt of a request, or why there was none (`sidecar.proxy.attempts`)."""
        self.metrics.counter("mesh_retries_total").add((upstream, what))

    def checked(self, it: Checked) -> None:
        """Count a health check; tell the log what has changed by it, and when checks say nothing. Never raises."""
        try:
            self.metrics.counter("mesh_health_checks_total").add((it.upstream, it.result))
            if self.log is None or not (it.changed or it.silent):
                return
            tell = self.log.info if it.healthy and not it.silent else self.log.warning
            what = "a health check says nothing" if it.silent else f"an endpoint is {'' if it.healthy else 'un'}healthy"
            tell(what, upstream=it.upstream, endpoint=it.endpoint, result=it.result, reason=it.why or None)
        except Exception as fault:  # noqa: BLE001 - as in observe
            self._fault("a health check could not be recorded", fault)

    def outside_contract(self, listener: str, operation: str, part: str, *, refused: bool) -> None:
        """Count a request or an answer that is not what the contract says."""
        effect = "deny" if refused else "permit"
        labels = (listener, operation or "-", part, effect)
        self.metrics.counter("mesh_contract_broken_total").add(labels, now=self.clock.monotonic())

    def token(self, hop: Hop, token: Token) -> None:
        """Take note of a bearer token that was found good, and was not known before."""
        if self.audit is not None:
            self.audit.token(hop, token)

    def split(self, listener: str, route: str, to: str) -> None:
        """Count a request that a split has sent one way."""
        self.metrics.counter("mesh_split_requests_total").add((listener, route, to))

    def handshake(self, handshake: Handshake) -> str:
        """Take note of a TLS handshake that ended; returns the decision id of a failed one, else "". Never raises."""
        try:
            return self._handshake(handshake)
        except Exception as fault:  # noqa: BLE001 - as in observe
            self._fault("a handshake could not be recorded", fault)
            return ""

    def _handshake(self, it: Handshake) -> str:
        now = self._wall()
        self.metrics.observe_handshake(it.direction, it.listener, it.ok, it.reason, it.tls, it.seconds)
        decision_id = "" if it.ok else self._keep_handshake(it, now)
        if self.audit is not None:
            self.audit.handshake(it, decision_id, now)
        if not it.ok and self.log is not None:
            self.log.warning(
                "a TLS handshake failed",
                direction=it.direction,
                listener=it.listener,
                source=it.source,
                peer=it.peer,
                expected=it.expected,
                endpoint=it.endpoint or None,
                reason=it.reason,
                detail=it.detail,
                decision_id=decision_id,
            )
        return decision_id

    def _keep_handshake(self, it: Handshake, now: float) -> str:
        inbound = it.direction == "inbound"
        decision = Decision(
            id=self.decisions.new_id(),
            kind="handshake",
            at=now,
            direction=it.direction,
            listener=it.listener,
            caller="",  # nobody was let in; whom the other end claimed or proved to be is `presented`
            destination=it.expected.text if it.expected is not None else "",
            presented=it.peer.text if it.peer is not None else "",
            source=str(it.source) if it.source is not None else "",
            error=it.error.name if it.error is not None else "identity_refused" if inbound else "peer_identity",
            reason=redact.text(it.reason, 64),
            detail=redact.text(it.detail),
            flag=it.error.flag if it.error is not None else "ID",
            endpoint=it.endpoint,
        )
        self.decisions.keep(decision)
        return decision.id

    def evicted(self, callers: Sequence[Peer], called: int) -> None:
        """Tell of the connections that were cut because their other end was revoked: those of callers, one peer for
        each, and how many to upstreams. Never raises.
        """
        ended = self.metrics.counter("mesh_revoked_connections_total")
        ended.add(("inbound",), len(callers))
        ended.add(("outbound",), called)
        serials: dict[str, set[str]] = {}
        for peer in callers:
            serials.setdefault(peer.id.text, set()).add(peer.tls.serial)
        for peer_id, shown in serials.items():
            count = sum(peer.id.text == peer_id for peer in callers)
            self._evicted("a revoked caller was cut off", "inbound", count, peer_id, " ".join(sorted(shown)))
        if called:
            self._evicted("connections to a revoked upstream were cut", "outbound", called)

    def _evicted(self, what: str, direction: Direction, connections: int, peer: str = "", serials: str = "") -> None:
        if self.log is not None:
            self.log.warning(what, peer=peer or None, connections=connections, serials=serials or None, flag="ID")
        if self.audit is not None:
            told = {"direction": direction, "peer": peer, "connections": connections, "serials": serials}
            self.audit.event("evicted", told)

    def connection_opened(self, direction: Direction, listener: str) -> None:
        """Count a downstream connection that was accepted."""
        self.metrics.connection_opened(direction, listener)

    def connection_closed(self, direction: Direction, listener: str) -> None:
        """Count a downstream connection that ended."""
        self.metrics.connection_closed(direction, listener)

    def connection_refused(self, direction: Direction, listener: str, why: str) -> None:
        """Count a downstream connection that was turned away; `why` is the limit: see `sidecar.net.admission`."""
        self.metrics.counter("mesh_connections_refused_total").add((direction, listener, why))
        if self.audit is not None:
            self.audit.turned_away(listener, why, self._wall())
        if self.log is not None:
            self.log.warning("a connection is refused", direction=direction, listener=listener, reason=why, flag="OM")

    def trunk_ended(self, direction: Direction, listener: str, reason: str) -> None:
        """Count a shared HTTP/2 connection of ours to an upstream that ended; `reason`: see `sidecar.proxy.trunks`."""
        self.metrics.counter("mesh_trunks_ended_total").add((direction, listener, reason))

    def use_audit(self, config: AuditConfig) -> None:
        """From now on the audit is kept as this says."""
        if self.audit is not None:
            self.audit.use(config)
            self._epoch += 1  # nothing is counted any more where hops were counted before

    def audit_accepts(self) -> bool:
        """Whether the audit can take one more line; False only with `audit.on_full: refuse`."""
        return self.audit is None or self.audit.accepting()

    # ---- now and then --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sweep and flush until cancelled; then call `close`."""
        while True:
            await trio.sleep(TICK_SECONDS)
            self.tick()

    def tick(self) -> None:
        """One round: forget what was idle for ten minutes, flush the audit's counts each minute. Never raises."""
        self._epoch += 1
        try:
            self.sweep(self.clock.monotonic())
            if self.audit is not None:
                self.audit.tick(self._wall())
            if self.log is not None:
                self.log.sweep()
        except Exception as fault:  # noqa: BLE001 - the round must go on
            self._fault("telemetry could not be swept", fault)

    def sweep(self, now: float) -> None:
        """Forget what was idle for ten minutes at monotonic `now`."""
        if self.metrics.sweep(now) + self.table.sweep(now):
            self._kinds.clear()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds each; tell the log what was not. Blocks: call in a thread."""
        self._epoch += 1
        unwritten = self.access_log.close(timeout) if self.access_log is not None else 0
        lost = self.audit.close(self._wall(), timeout) if self.audit is not None else 0
        if self.log is None:
            return
        if unwritten:
            self.log.warning("the access log ends early", lines=unwritten)
        if lost:
            self.log.error("audit lines could not be kept", lines=lost)

    def _refresh(self, metrics: Metrics) -> None:
        if self.access_log is not None:
            metrics.counter("mesh_access_log_dropped_total").set(self.access_log.dropped)
        if self.audit is not None:
            metrics.counter("mesh_audit_lost_total").set(self.audit.lost)
            metrics.counter("mesh_audit_waiting_bytes").set(self.audit.waiting_bytes)
        if self.log is not None:
            metrics.counter("mesh_log_suppressed_total").set(self.log.suppressed)

    def _fault(self, message: str, fault: Exception) -> None:
        self._faults.value += 1
        if self.log is not None:
            self.log.fault(message, fault)
