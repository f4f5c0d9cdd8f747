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

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from certs.spiffe import SpiffeId
from sidecar.hop import Direction, Hop, TlsInfo
from sidecar.telemetry import redact
from sidecar.telemetry.decisions import Decision, Decisions
from sidecar.telemetry.metrics import HopSeries, Metrics
from sidecar.telemetry.table import Row, Table

_MAX_KINDS = 4096

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
    expected: SpiffeId | None = None  # outbound: the declared identity


class Recorder:
    """Hands finished hops and handshakes to every view."""

    def __init__(
        self,
        *,
        instance: str,
        metrics: Metrics | None = None,
        table: Table | None = None,
        decisions: Decisions | None = None,
        rule_headers: Iterable[bytes] = (),
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instance = instance
        self.metrics = metrics or Metrics()
        self.table = table or Table()
        self.decisions = decisions or Decisions(instance)
        self.decision_id: Callable[[], str] = self.decisions.new_id
        self._wanted_headers = frozenset(rule_headers)
        self._wall = wall
        self._monotonic = monotonic
        self._kinds: dict[Kind, tuple[HopSeries, Row]] = {}
        self._faults = self.metrics.cell("mesh_telemetry_faults_total")

    def observe(self, hop: Hop) -> None:
        """Take note of a hop that has ended. Never waits, never raises."""
        try:
            self._observe(hop)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not reach the hop
            self._fault("observe", fault)

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
        )
        found = self._kinds.get(kind)
        if found is None:
            found = self._learn(kind, hop)
        seconds = hop.ended - hop.started
        found[0].add(hop, seconds)
        found[1].add(hop, seconds, now)
        if error is not None or hop.shadow:
            self.metrics.observe_rare(hop)
        if error is not None or hop.decision_id:
            self._keep(hop, now)

    def _keep(self, hop: Hop, now: float) -> None:
        if not hop.decision_id:
            hop.decision_id = self.decisions.new_id()
        self.decisions.keep(Decision.of_hop(hop, now, self._wanted_headers))

    def _learn(self, kind: Kind, hop: Hop) -> tuple[HopSeries, Row]:
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        found = self._kinds[kind] = (self.metrics.series(hop), self.table.row(hop))
        return found

    def handshake(self, handshake: Handshake) -> str:
        """Take note of a TLS handshake that ended; returns the decision id of a failed one, else "". Never raises."""
        try:
            return self._handshake(handshake)
        except Exception as fault:  # noqa: BLE001 - as in observe
            self._fault("handshake", fault)
            return ""

    def _handshake(self, it: Handshake) -> str:
        self.metrics.observe_handshake(it.direction, it.listener, it.ok, it.reason, it.tls, it.seconds)
        if it.ok:
            return ""
        decision_id = self.decisions.new_id()
        self.decisions.keep(
            Decision(
                id=decision_id,
                kind="handshake",
                at=self._wall(),
                direction=it.direction,
                listener=it.listener,
                caller=it.peer.text if it.peer is not None and it.direction == "inbound" else "",
                destination=it.expected.text if it.expected is not None else "",
                source=str(it.source) if it.source is not None else "",
                error="identity_refused" if it.direction == "inbound" else "peer_identity",
                reason=redact.text(it.reason, 64),
                detail=redact.text(it.detail),
                flag="ID",
            )
        )
        return decision_id

    def connection_opened(self, direction: Direction, listener: str) -> None:
        """Count a downstream connection that was accepted."""
        self.metrics.connection_opened(direction, listener)

    def connection_closed(self, direction: Direction, listener: str) -> None:
        """Count a downstream connection that ended."""
        self.metrics.connection_closed(direction, listener)

    def sweep(self, now: float) -> None:
        """Forget what was idle for ten minutes at monotonic `now`."""
        if self.metrics.sweep(now) + self.table.sweep(now):
            self._kinds.clear()

    def _fault(self, where: str, fault: Exception) -> None:
        self._faults.value += 1
