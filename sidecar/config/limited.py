"""Rate limits that change nothing, or that hold nobody back. Every claim of the first kind is proved: what the limit is
for cannot be allowed, or another limit refuses all that it would.

Of two limits by the cell rate algorithm, one refuses all that the other would where it comes for all that the other
does, for as many or more of them together, and has neither a higher rate nor a larger burst: then at most
`burst + rate × time` get past it in any time, and that is no more than the other lets in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from sidecar.config.assemble import Placed, View
from sidecar.config.cover import KNOWN_METHODS, identity_covers, path_covers
from sidecar.config.limited_how import never_act
from sidecar.config.mistakes import Book
from sidecar.config.schema_amounts import QuotaLimit
from sidecar.config.schema_inbound import Inbound, RateLimit, Rule
from sidecar.patterns import IdentityPattern, PathTemplate

T = TypeVar("T")
Segments = Sequence[str | None]
_ONE_LISTENER: Final = ("listener", "endpoint")  # what these share never spans two listeners


def limited(view: View, book: Book) -> None:
    """Note every odd limit of a service."""
    service = view.built
    never_act(view, book)
    for index, placed in enumerate(view.rates):
        rate = placed.value
        listeners = listeners_of(rate, service.inbound)
        why = why_never(rate, listeners, service.allow)
        if why:
            book.warn("MESH080", placed.path, f"{rate.name} never acts: {why[0]}", why[1])
            continue
        first = _first(index, view.rates, listeners)
        if first is not None:
            message = f"{rate.name} changes nothing: {first.value.name} ({book.place(first.path)}) refuses all it would"
            book.warn("MESH081", placed.path, message, "lower this one, raise the other, or remove one of them")
        elif rate.per.invented and not is_kept(rate, service.rates, listeners):
            what = rate.per.header or f"the claim {rate.per.claim}, in a token that nobody verifies,"
            message = f"{rate.name} holds nobody back who sends another value of {what} each time"
            book.warn("MESH082", f"{placed.path}.per", message, "add a limit per: caller beside it")


def listeners_of(rate: RateLimit | QuotaLimit, inbound: Sequence[Inbound]) -> list[Inbound]:
    """Those on which anything can come under it."""
    return [
        each for each in inbound
        if (not rate.ports or each.name in rate.ports) and not (rate.http_only and each.protocol == "tcp")
    ]  # fmt: skip


# ---- what never comes ----------------------------------------------------------------------------------------------


def why_never(
    rate: RateLimit | QuotaLimit, listeners: Sequence[Inbound], allow: Sequence[Rule]
) -> tuple[str, str] | None:
    """Why nothing ever comes under it, and what to do; None where something may."""
    if not listeners:
        return "no listener that it is for speaks HTTP", "remove it, or limit what raw TCP has: per: listener or caller"
    if any(each.posture != "strict" for each in listeners):
        return None  # there is more let in than rules allow
    names = {each.name for each in listeners}
    rules = [rule for rule in allow if not rule.shadow and (not rule.ports or names & set(rule.ports))]
    if any(_meet(rate, rule) for rule in rules):
        return None
    return "no rule allows anybody what it is for", "compare from:, method: and path: with the rules under allow:"


def _meet(rate: RateLimit | QuotaLimit, rule: Rule) -> bool:
    """Whether a hop may exist that the rule allows and the limit is for; False is a promise."""
    methods = set(rate.methods or rule.methods or KNOWN_METHODS) & set(rule.methods or KNOWN_METHODS)
    callers = not rate.callers or any(same_caller(a, b) for a in rate.callers for b in rule.callers)
    paths = not (rate.paths and rule.paths) or any(_same_path(a, b) for a in rate.paths for b in rule.paths)
    return callers and paths and bool(methods)


def _same_path(one: PathTemplate, other: PathTemplate) -> bool:
    return _same(one.segments, one.rest, other.segments, other.rest)


def same_caller(one: IdentityPattern, other: IdentityPattern) -> bool:
    return one.trust_domain == other.trust_domain and _same(one.segments, one.rest, other.segments, other.rest)


def _same(one: Segments, one_rest: bool, other: Segments, other_rest: bool) -> bool:
    """Whether two patterns may match one and the same thing. `rest` means at least one more; None is not empty."""
    if one_rest != other_rest:
        longer, shorter = (len(other), len(one)) if one_rest else (len(one), len(other))
        fits = longer > shorter
    else:
        fits = one_rest or len(one) == len(other)
    if not fits:
        return False
    return all(a == b or (a is None and b != "") or (b is None and a != "") for a, b in zip(one, other, strict=False))


def is_kept(rate: RateLimit | QuotaLimit, rates: Sequence[RateLimit], listeners: Sequence[Inbound]) -> bool:
    """Whether whoever invents keys for this limit comes under one whose keys nobody can invent."""
    return any(each.per.kind in ("listener", "caller") and covers(each, rate, listeners) for each in rates)


# ---- what another one takes first ----------------------------------------------------------------------------------


def _first(index: int, rates: Sequence[Placed[RateLimit]], listeners: Sequence[Inbound]) -> Placed[RateLimit] | None:
    """A limit that refuses all that this one would, if there is one."""
    loose = rates[index].value
    return next(
        (each for number, each in enumerate(rates) if _is_first(number, each.value, index, loose, listeners)), None
    )


def _is_first(number: int, tight: RateLimit, index: int, loose: RateLimit, listeners: Sequence[Inbound]) -> bool:
    """Whether the other limit refuses all that this one would; of two that say the same, the earlier one counts."""
    if number == index or not _holds(tight, loose, listeners) or not _lower(tight, loose):
        return False
    return number < index or not (_lower(loose, tight) and _holds(loose, tight, listeners))


def _lower(tight: RateLimit, loose: RateLimit) -> bool:
    """Whether one refuses whatever the other would. Who waits for its turn is let in at the same rate, but later; and a
    sidecar by itself never refuses as soon as all of them together.
    """
    if tight.over != loose.over or (loose.shared == "redis" and tight.shared != "redis"):
        return False
    return tight.burst <= loose.burst and tight.limit.per_second <= loose.limit.per_second


def _holds(wide: RateLimit, narrow: RateLimit, listeners: Sequence[Inbound]) -> bool:
    """Whether all that comes under `narrow` comes under `wide` too, shared by as many or more."""
    if not covers(wide, narrow, listeners):
        return False
    if wide.per == narrow.per:
        return wide.per.kind != "endpoint" or wide.paths == narrow.paths
    whole = len(listeners) == 1 or narrow.per.kind in _ONE_LISTENER
    return wide.per.kind == "listener" and whole


def covers(wide: RateLimit, narrow: RateLimit | QuotaLimit, listeners: Sequence[Inbound]) -> bool:
    """Whether all that comes under `narrow` on these listeners comes under `wide` too."""
    if wide.ports and not all(each.name in wide.ports for each in listeners):
        return False
    if wide.http_only and not narrow.http_only and any(each.protocol != "http" for each in listeners):
        return False
    if wide.methods and not (narrow.methods and set(narrow.methods) <= set(wide.methods)):
        return False
    if wide.paths and not _all(wide.paths, narrow.paths, path_covers):
        return False
    return not wide.callers or _all(wide.callers, narrow.callers, identity_covers)


def _all(wide: Sequence[T], narrow: Sequence[T], covers: Callable[[T, T], bool]) -> bool:
    """Whether each of these is covered by one of those; where none is named, all are meant, and are not."""
    return bool(narrow) and all(any(covers(ours, theirs) for ours in wide) for theirs in narrow)
