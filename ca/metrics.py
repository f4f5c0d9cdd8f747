"""The CA's metrics, `GET /v1/metrics`: counters of what was issued and refused, gauges of what could stop it.

No label holds an identity: `error` is one of the short names in `ca.errors`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ca.health import Health

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class CaMetrics:
    """One CA's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.issued = self._counter("issued", "Certificates that have left, each after its record.")
        self.refused = self._counter("refused", "Requests that were refused or failed, by the error's name.", "error")
        self._ready = self._gauge("ready", "1 while the CA could issue.")
        self._writable = self._gauge("store_writable", "1 while the store takes a write.")
        self._failures = self._gauge("store_failures", "Records that the store did not take; nothing was issued.")
        self._free = self._gauge("store_free_bytes", "Free space on the store's disk.")
        self._expires = self._gauge("certificate_expires_at_seconds", "End of its life, since the epoch.", "kind")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mesh_ca_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"mesh_ca_{name}", text, labels, registry=self._registry)

    def render(self, health: Health, *, writable: bool, failures: int, free: int | None) -> bytes:
        """All of them, as text."""
        self._ready.set(health.ready)
        self._writable.set(writable)
        self._failures.set(failures)
        self._free.set(float("nan") if free is None else free)
        self._expires.labels("root").set(health.root_not_after)
        self._expires.labels("issuer").set(health.issuer_not_after)
        if health.svid_not_after is not None:
            self._expires.labels("svid").set(health.svid_not_after)
        return generate_latest(self._registry)
