"""The CA's metrics, `GET /v1/metrics`: counters of what was issued and refused, gauges of what could stop it.

No label holds an identity: `error` is one of the short names in `ca.errors`, `trust_domain` one that the operator
federates with, `phase` one of `ca.rotation`. The table in docs/ca.md is held against this file by a test.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ca.health import Health
from ca.rotation import PHASES
from ca.standing import Standing

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store at one moment: whether it takes writes, how often it did not, free bytes and its own size on disk."""

    writable: bool
    failures: int
    free_bytes: int | None
    bytes: int | None


class CaMetrics:
    """One CA's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.issued = self._counter("issued", "Certificates that have left, each after its record.")
        self.tokens = self._counter("jwt_issued", "JWT-SVIDs that have left, each after its record.")
        self.refused = self._counter("refused", "Requests that were refused or failed, by the error's name.", "error")
        self._ready = self._gauge("ready", "1 while the CA could issue.")
        self._writable = self._gauge("store_writable", "1 while the store takes a write.")
        self._failures = self._gauge("store_failures", "Records that the store did not take; nothing was issued.")
        self._free = self._gauge("store_free_bytes", "Free space on the store's disk.")
        self._size = self._gauge("store_bytes", "Size of the store and its journal on disk.")
        self._expires = self._gauge("certificate_expires_at_seconds", "End of its life, since the epoch.", "kind")
        self._connections = self._gauge("connections", "Open connections.")
        self._waiting = self._gauge("handshakes_waiting", "Connections that wait for their turn to shake hands.")
        self._bundle = self._gauge("bundle_sequence", "Of the trust bundle; grows with each change.")
        self._watches = self._gauge("watches", "Sidecars that are connected.")
        self._entries = self._gauge("entries", "Registration entries.")
        self._denied = self._gauge("denylist_entries", "Certificates and SPIFFE IDs that are revoked.")
        self._denylist = self._gauge("denylist_sequence", "Of the denylist; grows with each change.")
        self._federation = self._gauge("federation_sequence", "Of other trust domains' bundles, all of them.")
        self._lines = self._gauge("log_lines", "Lines of the log.")
        self._unsigned = self._gauge("log_unsigned_lines", "Lines of the log above its newest signed head.")
        self._phase = self._gauge("rotation_phase", "1 for the phase of a root's rotation that is under way.", "phase")
        self._since = self._gauge("rotation_phase_since_seconds", "Its begin, since the epoch; 0 while none is.")
        self._laggards = self._gauge("rotation_laggards", "Live certificates that the phase waits for.")
        self._fresh = self._gauge("federation_fresh", "0 where the last try of its endpoint failed.", "trust_domain")
        self._accepted = self._gauge(
            "federation_accepted_at_seconds", "When its bundle was last found good, since the epoch.", "trust_domain"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mesh_ca_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"mesh_ca_{name}", text, labels, registry=self._registry)

    def render(self, health: Health, store: StoreFacts, *, connections: int = 0, waiting: int = 0) -> bytes:
        """All of them, as text."""
        self._ready.set(health.ready)
        self._writable.set(store.writable)
        self._failures.set(store.failures)
        self._free.set(NAN if store.free_bytes is None else store.free_bytes)
        self._size.set(NAN if store.bytes is None else store.bytes)
        self._connections.set(connections)
        self._waiting.set(waiting)
        self._bundle.set(health.bundle_sequence)
        self._expires.labels("root").set(health.root_not_after)
        self._expires.labels("issuer").set(health.issuer_not_after)
        if health.svid_not_after is not None:
            self._expires.labels("svid").set(health.svid_not_after)
        if health.standing is not None:
            self._show(health.standing)
        return generate_latest(self._registry)

    def _show(self, known: Standing) -> None:
        self._watches.set(known.watches)
        self._entries.set(known.entries)
        self._denied.set(known.denied)
        self._denylist.set(known.denylist_sequence)
        self._federation.set(known.federation_sequence)
        self._lines.set(known.log_lines)
        self._unsigned.set(known.log_lines - known.log_signed)
        for phase in PHASES[:-1]:
            self._phase.labels(phase).set(phase == known.phase)
        self._since.set(known.phase_since)
        self._laggards.set(known.laggards)
        active = [key.ends_at for key in known.jwt_keys if key.state == "active"]
        self._expires.labels("jwt_key").set(max(active, default=0.0))
        self._fresh.clear()
        self._accepted.clear()
        for partner in known.partners:
            self._fresh.labels(partner.trust_domain).set(not partner.problem and partner.sequence is not None)
            self._accepted.labels(partner.trust_domain).set(partner.accepted_at)
