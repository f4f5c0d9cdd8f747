"""The access log: one JSON line for a hop, by default only for those that failed or were refused (S26, D9).

The keys are Linkerd's, and ours for what a mesh adds; docs/telemetry.md lists them. A line never holds a query
string, a credential, a cookie or a body; of the request headers only those that the operator listed. Lines go through
a bounded queue to a thread; when that falls behind, lines are dropped and counted, and the hop is never held up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from sidecar.config.schema import AccessLog as AccessLogConfig
from sidecar.hop import Hop
from sidecar.telemetry import outcome, redact
from sidecar.telemetry.clock import rfc3339
from sidecar.telemetry.lines import json_line
from sidecar.telemetry.plain_lines import PlainLines, peer_address
from sidecar.telemetry.writer import LineWriter, Problem

CAPACITY = 4 * 1024 * 1024  # bytes of lines that may wait for the writer


class AccessLog:
    """Decides which hops are logged, and hands their lines to the writer."""

    def __init__(
        self,
        config: AccessLogConfig,
        *,
        instance: str,
        capacity: int = CAPACITY,
        on_problem: Problem | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.headers = frozenset(name.lower().encode("latin-1") for name in config.headers)
        self._all = config.mode == "all"
        self._errors = config.mode != "off"
        self._share = config.sample if config.mode == "errors" else 0.0
        self._dice = dice
        self._instance = instance
        self.plain = PlainLines(instance, self.headers)
        self._writer = LineWriter(config.path, capacity=capacity, name="access-log", on_problem=on_problem)

    @property
    def dropped(self) -> int:
        """Lines dropped since the start because the writer could not keep up."""
        return self._writer.lost

    def wants(self, hop: Hop) -> bool:
        """Whether this hop is to be logged. Rolls the dice of a sample, so ask once."""
        if self._errors and (outcome.failed(hop) or hop.waived is not None or hop.delayed):
            return True
        return self._all or (self._share > 0.0 and self._dice() < self._share)

    def write(self, hop: Hop, now: float) -> None:
        """Log a hop that ended at `now` (seconds since the epoch)."""
        self._writer.put(json_line(self.line(hop, now)))

    def put(self, line: bytes) -> None:
        """Log a line that `plain` has made."""
        self._writer.put(line)

    def line(self, hop: Hop, now: float) -> dict[str, Any]:
        """The hop as the line's keys and values."""
        seconds = hop.ended - hop.started
        error, tls = hop.error, hop.tls
        values: dict[str, Any] = {
            "timestamp": rfc3339(now - seconds),
            "instance": self._instance,
            "direction": hop.direction,
            "listener": hop.listener,
            "protocol": hop.protocol,
            "client.addr": peer_address(hop),
            "client.id": hop.peer.text if hop.peer is not None else "",
            "server.id": hop.destination.text if hop.destination is not None else "",
            "method": redact.text(hop.method, 32),
            "host": redact.text(hop.host, 256),
            "uri": redact.target(hop.target),
            "version": hop.version,
            "status": hop.status,
            "request_bytes": hop.received_bytes,
            "response_bytes": hop.sent_bytes,
            "processing_ns": round((hop.first_byte - hop.started) * 1e9) if hop.first_byte else 0,
            "total_ns": round(seconds * 1e9),
            "attempt": hop.attempts,
            "endpoint": hop.endpoint,
            "route": hop.route,
            "rule": hop.rule,
            "flags": hop.flag,
            "error": error.name if error is not None else "",
            "detail": redact.text(error.detail) if error is not None else "",
            "decision_id": hop.decision_id,
            "trace_id": redact.text(hop.trace_id, 64),
            "tls.version": tls.version if tls is not None else "",
            "tls.group": tls.group if tls is not None else "",
            "peer.cert_serial": tls.serial if tls is not None else "",
        }
        if hop.delayed:
            values["delayed_ms"] = round(hop.delayed * 1e3)
        if len(hop.tried) > 1:
            values["tried"] = list(hop.tried)
        if hop.held is not None and hop.held.delayed:
            values["waited"] = {"seconds": round(hop.held.delayed, 3), "limit": hop.held.limit}
        if hop.held is not None and hop.held.alone:
            values["limited_alone"] = hop.held.alone
        if hop.token is not None:
            values["token"] = {"issuer": hop.token.issuer, "id": hop.token.id}
        if hop.grpc_status:
            values["grpc_status"] = hop.grpc_status
        if hop.waived is not None:
            it = hop.waived
            values["would_refuse"] = {"posture": it.posture, "error": it.error, "flag": it.flag, "rule": it.rule}
        if hop.shadow:
            values["shadow"] = {each.rule: each.effect for each in hop.shadow}
        if self.headers:
            headers = redact.chosen_headers(hop.headers, self.headers)
            if "user-agent" in headers:
                values["user_agent"] = headers.pop("user-agent")
            values["headers"] = headers
        return values

    def close(self, timeout: float = 2.0) -> int:
        """Write what waits; returns how many lines could not be."""
        return self._writer.close(timeout)
