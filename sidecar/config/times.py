"""Time-outs and retries that contradict each other, so that one of them never acts: what somebody has written and
believes to hold. The classic is a time-out for one try that is longer than the one for all: Kuma's defaults had it
(S23).

Each finding stands where it was written, at the upstream or at its service; there it must hold of every upstream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.config.assemble import Placed, View
from sidecar.config.mistakes import Book
from sidecar.config.quantities import show_seconds
from sidecar.config.schema import Timeouts
from sidecar.config.schema_outbound import Outbound

SHORTEST_BACK_OFF: Final = 0.025  # seconds: the first wait is by chance below that (sidecar.traffic.retry)
BEATEN: Final = ("MESH100", "make it shorter, or remove it")
ALONE: Final = ("MESH101", "allow retries (retries.resends), or remove it")
NO_OTHER: Final = "nothing is sent again (retries.resends: 0)"
Finding = tuple[str, str, tuple[str, str]]  # key, why, and (code, what to do)


def times(view: View, book: Book) -> None:
    """Note what never acts of one service's time-outs and retries."""
    service = view.built
    called = [each for each in view.outbound if each.value.protocol != "tcp"]
    found = [list(_of_upstream(each.value, service.timeouts)) for each in called]
    for placed, findings in zip(called, found, strict=True):
        for key, why, what in findings:
            _warn(f"{placed.path}.{key}", why, what, book)
    for key, why, what in found[0] if found else ():
        if key.startswith("timeouts.") and all(key in {each[0] for each in others} for others in found):
            _warn(f"{view.path}.{key}", why, what, book)
    for key, why, what in _of_service(view):
        _warn(f"{view.path}.{key}", why, what, book)
    for placed in view.outbound:
        if placed.value.protocol == "tcp":
            _raw(placed, book)


def _warn(path: str, why: str, what: tuple[str, str], book: Book) -> None:
    if path in book.places:
        book.warn(what[0], path, f"never acts: {why}", what[1])


def _of_upstream(upstream: Outbound, service: Timeouts) -> Iterator[Finding]:
    times, retries = upstream.timeouts, upstream.retries
    total, per_try = times.total, times.per_try
    if total is not None:
        yield from _beaten_by(total, {"response_head": times.response_head, "per_try": per_try})
    if per_try is not None and not (total is not None and per_try >= total):
        if retries.resends == 0:
            yield "timeouts.per_try", f"{NO_OTHER}, and a last try is not cut short", ALONE
        elif per_try >= service.connect + service.handshake + times.response_head:
            why = f"a try without an answer is over after response_head {show_seconds(times.response_head)}"
            yield "timeouts.per_try", why, BEATEN
    if retries.resends == 0:
        for key in ("statuses", "grpc_statuses"):
            yield f"retries.{key}", NO_OTHER, ("MESH102", "raise resends, or remove it")
    elif total is not None and total < SHORTEST_BACK_OFF:
        why = f"the request is over (total {show_seconds(total)}) before the wait that comes before a second try"
        yield "retries.resends", why, ("MESH102", "give it more time, or write resends: 0")


def _beaten_by(total: float, others: dict[str, float | None]) -> Iterator[Finding]:
    for name, seconds in others.items():
        if seconds is not None and seconds >= total:
            yield f"timeouts.{name}", f"the whole request is over before (total {show_seconds(total)})", BEATEN


def _of_service(view: View) -> Iterator[Finding]:
    """What is said at the service alone, and so is no upstream's."""
    service = view.built
    times, limits = service.timeouts, service.limits
    protocols = {each.protocol for each in service.inbound} | {each.protocol for each in service.outbound}
    totals = [each.value.timeouts.total for each in view.outbound]
    if times.total is not None and protocols == {"http"} and all(each is not None for each in totals):
        longest = max((times.total, *(each for each in totals if each is not None)))
        yield from _beaten_by(longest, {"connect": times.connect})
    resends = [each.value.retries.resends for each in view.outbound if each.value.protocol != "tcp"]
    if not any(resends):
        why = NO_OTHER if resends else "there is no HTTP upstream to ask again"
        yield "limits.retries", why, ("MESH103", "remove it")
    elif limits.retries >= limits.requests:
        why = f"each retry is one of the {limits.requests} requests that may be under way (limits.requests)"
        yield "limits.retries", why, ("MESH103", "make it a part of limits.requests: a fifth is the default")


def _raw(placed: Placed[Outbound], book: Book) -> None:
    for key in ("total", "per_try", "response_head"):
        path = f"{placed.path}.timeouts.{key}"
        if path in book.places:
            book.warn("MESH050", path, "never acts: it is about HTTP, and this upstream is protocol: tcp", "remove it")
