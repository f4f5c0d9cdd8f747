"""The injector's metrics, `GET /metrics` of its health port: what it was asked, and what could stop it.

No label holds a name out of a pod: `result` is one of `RESULTS`. The table in docs/kubernetes.md is held against this
file by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Result = Literal["injected", "left_alone", "refused", "not_understood", "unavailable"]
RESULTS: Final[tuple[Result, ...]] = ("injected", "left_alone", "refused", "not_understood", "unavailable")
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # webhooks have 10 s


class WebhookMetrics:
    """One injector's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reviews = Counter(
            "mesh_injector_reviews", "Requests of the API server, by what came of them.", ["result"],
            registry=self._registry,
        )  # fmt: skip
        for result in RESULTS:
            self._reviews.labels(result)  # so that a rate has something to begin with
        self._seconds = Histogram(
            "mesh_injector_review_seconds", "How long an answer took.", buckets=SECONDS, registry=self._registry
        )
        self._ready = self._gauge("ready", "1 while it is ready.")
        self._expires = self._gauge(
            "certificate_expires_at_seconds", "End of its certificate, since the epoch; 0 while it has none."
        )
        self._bundle = self._gauge(
            "ca_bundle_current", "1 while the API server knows our roots as far as we know, or others see to that."
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"mesh_injector_{name}", text, registry=self._registry)

    def count(self, result: Result, seconds: float) -> None:
        """One request was answered, within so many seconds."""
        self._reviews.labels(result).inc()
        self._seconds.observe(seconds)

    def render(self, *, ready: bool, not_after: float, bundle: bool) -> bytes:
        """All of them, as text."""
        self._ready.set(ready)
        self._expires.set(not_after)
        self._bundle.set(bundle)
        return generate_latest(self._registry)


def result_of(document: Mapping[str, object]) -> Result:
    """What an answer to an AdmissionReview says."""
    response = document.get("response")
    if not isinstance(response, dict):
        return "not_understood"
    if not response["allowed"]:
        return "refused"
    return "injected" if "patch" in response else "left_alone"
