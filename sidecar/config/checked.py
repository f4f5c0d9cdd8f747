"""Health checks that say nothing, for `mesh check`: times that cannot be kept, and paths that the target's own rules
refuse.

The second is only said where a rule provably does not let us: the target is in this file, strict, and no rule that is
in force allows us that method and path. Whether a header or an address would be right is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.config.assemble import Placed, View
from sidecar.config.mistakes import Book
from sidecar.config.quantities import show_seconds
from sidecar.config.schema_inbound import Inbound, Rule
from sidecar.config.schema_outbound import HealthCheck, Outbound

GRPC_PATH = "/grpc.health.v1.Health/Check"


def asked(health: HealthCheck) -> tuple[str, str]:
    """Method and path of what a check asks for; empty where it only connects."""
    if health.tcp:
        return "", ""
    return ("GET", health.http.partition("?")[0]) if health.http else ("POST", GRPC_PATH)


def never_checked(view: View, placed: Placed[Outbound], views: Sequence[View], book: Book) -> None:
    """Note what of a health check never acts, and a check that would always fail."""
    health, path = placed.value.health, f"{placed.path}.health"
    if health is None:
        return
    if health.within >= health.every:
        message = f"within {show_seconds(health.within)}, and the next one comes after {show_seconds(health.every)}"
        key = "within" if f"{path}.within" in book.places else "every"
        book.warn("MESH093", f"{path}.{key}", message, "make within shorter than every")
    if not health.http and f"{path}.expect" in book.places:
        book.warn("MESH093", f"{path}.expect", "never acts: it is about http, which is not asked for", "remove it")
    target = next((each for each in views if each.name == placed.value.to), None)
    method, wanted = asked(health)
    if target is None or not wanted or "%" in wanted:
        return
    listener = next((each for each in target.built.inbound if each.name == placed.value.listener), None)
    if listener is not None and listener.posture == "strict" and not _may(view, target, listener, method, wanted):
        message = f"no rule of {target.name} allows {view.name} to {method} {wanted}, so its checks say nothing"
        hint = f"add to services.{target.name}.allow: {{from: {view.name}, method: {method}, path: {wanted}}}"
        book.warn("MESH094", f"{path}.{'http' if health.http else 'grpc'}", message, hint)


def _may(view: View, target: View, listener: Inbound, method: str, wanted: str) -> bool:
    """Whether some rule may allow it; False is a promise."""
    segments = tuple(wanted.split("/")[1:])
    return any(_fits(rule, view, method, segments) for rule in _in_force(target, listener))


def _in_force(target: View, listener: Inbound) -> Iterator[Rule]:
    return (
        rule for rule in target.built.allow
        if not rule.shadow and (not rule.ports or listener.name in rule.ports)
    )  # fmt: skip


def _fits(rule: Rule, view: View, method: str, segments: tuple[str, ...]) -> bool:
    return (
        any(pattern.matches(view.identity) for pattern in rule.callers)
        and (not rule.methods or method in rule.methods)
        and (not rule.paths or any(template.matches(segments) for template in rule.paths))
    )
