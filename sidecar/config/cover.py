"""Whether one pattern, rule or route matches wherever another does. True is a promise; False only means "not proved".

`mesh check` rests its claims on this: a rule is said to have no effect only where another one provably takes every hop
that it could match. So each function errs to one side. What a rule matches is `sidecar.policy.authz`'s business; the
asymmetries between allow and deny that matter here are its table's (several lines of one header, a method that nobody
listed, an unknown source address, no `from:` at all).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Any, Final, TypeVar

from sidecar.config.schema_inbound import Inbound, Route, Rule
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate

T = TypeVar("T")

KNOWN_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))  # decision D3
_PATHLESS: Final = frozenset(("OPTIONS", "CONNECT"))  # the methods whose target may have no path at all
_MAPPED: Final = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2: these mean IPv4 addresses


# ---- patterns ----------------------------------------------------------------------------------------------------


def identity_covers(wide: IdentityPattern, narrow: IdentityPattern) -> bool:
    """Whether every identity that `narrow` means is one that `wide` means."""
    if wide.trust_domain != narrow.trust_domain:
        return False
    return _segments_cover(wide.segments, wide.rest, narrow.segments, narrow.rest, lambda ours, theirs: ours is None)


def path_covers(wide: PathTemplate, narrow: PathTemplate) -> bool:
    """Whether every path that `narrow` means is one that `wide` means. A placeholder takes no empty segment."""
    return _segments_cover(
        wide.segments, wide.rest, narrow.segments, narrow.rest, lambda ours, theirs: ours is None and theirs != ""
    )


def _segments_cover(
    wide: tuple[str | None, ...],
    wide_rest: bool,
    narrow: tuple[str | None, ...],
    narrow_rest: bool,
    takes: Callable[[str | None, str | None], bool],
) -> bool:
    """Segment by segment; `rest` means at least one more, whatever follows."""
    if narrow_rest:
        fits = wide_rest and len(narrow) >= len(wide)
    else:
        fits = len(narrow) > len(wide) if wide_rest else len(narrow) == len(wide)
    return fits and all(a == b or takes(a, b) for a, b in zip(wide, narrow, strict=False))


def host_covers(wide: HostPattern, narrow: HostPattern) -> bool:
    """Whether every host that `narrow` means is one that `wide` means."""
    if narrow.wildcard:
        return wide.wildcard and wide.host == narrow.host
    return wide.matches(narrow.host)


def value_covers(wide: HeaderPattern, narrow: HeaderPattern) -> bool:
    """Whether every header line that satisfies `narrow` satisfies `wide`."""
    if wide.name != narrow.name:
        return False
    if wide.kind == "exact":
        return narrow.kind == "exact" and narrow.value == wide.value
    return narrow.value.startswith(wide.value)  # `present` is the empty prefix


def networks_cover(
    wide: Sequence[IPv4Network | IPv6Network], narrow: Sequence[IPv4Network | IPv6Network]
) -> bool:
    """Whether every address in `narrow` is in `wide`, several networks together included."""
    merged = _merged(wide)
    return all(any(network.subnet_of(each) for each in merged[network.version]) for network in map(_plain, narrow))


def _merged(networks: Sequence[IPv4Network | IPv6Network]) -> dict[int, list[Any]]:
    plain = [_plain(network) for network in networks]
    return {
        4: list(collapse_addresses(each for each in plain if isinstance(each, IPv4Network))),
        6: list(collapse_addresses(each for each in plain if isinstance(each, IPv6Network))),
    }


def _plain(network: IPv4Network | IPv6Network) -> Any:
    """Networks within ::ffff:0:0/96 as the IPv4 networks that they mean."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


# ---- rules -------------------------------------------------------------------------------------------------------


def covers(wide: Rule, narrow: Rule, listeners: Sequence[Inbound]) -> bool:
    """Whether `wide` matches every hop on these listeners that `narrow` matches, whatever either says of it then."""
    return (
        _callers(wide, narrow)
        and _listeners(wide, narrow, listeners)
        and _methods(wide) >= _methods(narrow)
        and _paths(wide, narrow)
        and _all(wide.hosts, narrow.hosts, host_covers)
        and all(_header(pattern, wide, narrow) for pattern in wide.headers)
        and _networks(wide, narrow)
        and _conditions(wide, narrow)
    )


def same(one: Rule, other: Rule, listeners: Sequence[Inbound]) -> bool:
    """Whether two rules match the very same hops."""
    return covers(one, other, listeners) and covers(other, one, listeners)


def route_covers(wide: Route, narrow: Route) -> bool:
    """Whether every request on the route `narrow` is on `wide` too."""
    return (
        path_covers(wide.path, narrow.path)
        and (not wide.methods or (bool(narrow.methods) and set(narrow.methods) <= set(wide.methods)))
        and _all(wide.callers, narrow.callers, identity_covers)
        and _all(wide.hosts, narrow.hosts, host_covers)
        and header_covers(wide.headers, narrow.headers)
        and set(wide.query) <= set(narrow.query)
    )


def header_covers(wide: Sequence[HeaderPattern], narrow: Sequence[HeaderPattern]) -> bool:
    """Whether headers that satisfy all of `narrow` satisfy all of `wide`, each by every line of its name."""
    return all(any(value_covers(ours, theirs) for theirs in narrow) for ours in wide)


def _all(wide: Collection[T], narrow: Collection[T], covered: Callable[[T, T], bool]) -> bool:
    """Of two lists of which any one is enough, where an empty one does not narrow."""
    return not wide or (bool(narrow) and all(any(covered(ours, theirs) for ours in wide) for theirs in narrow))


def _callers(wide: Rule, narrow: Rule) -> bool:
    if not wide.callers:
        return wide.effect == "deny" or (narrow.effect == "allow" and not narrow.callers)
    if not narrow.callers:
        return narrow.effect == "allow"  # it matches nobody
    return _all(wide.callers, narrow.callers, identity_covers)


def _listeners(wide: Rule, narrow: Rule, listeners: Sequence[Inbound]) -> bool:
    """Whether `wide` is asked on every listener on which `narrow` can match."""
    return all(_asked(wide, each) for each in listeners if _asked(narrow, each))


def _asked(rule: Rule, listener: Inbound) -> bool:
    if rule.ports and listener.name not in rule.ports and str(listener.port) not in rule.ports:
        return False
    return listener.protocol != "tcp" or not rule.http_only


def _conditions(wide: Rule, narrow: Rule) -> bool:
    """Whether what `narrow` asks for is enough for the conditions of `wide`: those very ones, read the same way.

    Path parameters are those of a rule's own templates, and the two effects read doubtful facts differently.
    """
    if not wide.conditional:
        return True
    asked = set(wide.when) <= set(narrow.when) and (not wide.when or wide.effect == narrow.effect)
    places = any(subject.kind == "path" for condition in wide.when for subject in condition.subjects())
    return (
        asked
        and (not places or wide.paths == narrow.paths)
        and set(wide.scopes) <= set(narrow.scopes)
        and _all(wide.operations, narrow.operations, lambda ours, theirs: ours == theirs)
    )


class _Every(frozenset[str]):
    """The methods of a deny rule that lists none: all there are, and all there will be."""

    def __ge__(self, other: object) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return isinstance(other, _Every)


_EVERY: Final = _Every()


def _methods(rule: Rule) -> frozenset[str]:
    if rule.methods:
        return frozenset(rule.methods)
    return _EVERY if rule.effect == "deny" else KNOWN_METHODS


def _paths(wide: Rule, narrow: Rule) -> bool:
    if wide.paths and not narrow.paths:  # any path there is, and no path at all where the method allows that
        whole = any(path.rest and not path.segments for path in wide.paths)
        return whole and bool(narrow.methods) and not _PATHLESS & set(narrow.methods)
    return _all(wide.paths, narrow.paths, path_covers)


def _header(pattern: HeaderPattern, wide: Rule, narrow: Rule) -> bool:
    """Whether what `narrow` asks of the headers is enough for one pattern of `wide`.

    An allow rule asks that there is a line and every one satisfies it, a deny rule that one does.
    """
    for asked in narrow.headers:
        if wide.effect == "allow" and narrow.effect == "deny":
            if asked.name == pattern.name and pattern.kind == "present":
                return True
        elif value_covers(pattern, asked):
            return True
    return False


def _networks(wide: Rule, narrow: Rule) -> bool:
    if not wide.networks:
        return True
    if (narrow.effect == "deny" or not narrow.networks) and wide.effect != "deny":
        return False  # the narrow one matches where the address is not known, too
    if not narrow.networks:
        return networks_cover(wide.networks, (IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))
    return networks_cover(wide.networks, narrow.networks)
