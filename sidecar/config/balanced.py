"""What an upstream says of its endpoints: what contradicts itself, and what can never act.

A name stands for any number of endpoints, and so may whatever else lists them; of those nothing is claimed but what
holds for all lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.config.assemble import Placed, View
from sidecar.config.mistakes import Book
from sidecar.config.schema_outbound import EndpointEntry, HealthCheck, Outbound
from sidecar.config.terms import Address

MOST: Final = 4096  # endpoints of one upstream; sidecar.traffic.endpoints.MOST, and a test holds the two together
_LOOPBACK: Final = ("127.0.0.1", "::1")


def contradictions(view: View, placed: Placed[Outbound], book: Book) -> None:
    """Note what cannot be meant."""
    _endpoints(view, placed, book)
    _affinity(placed, book)
    if placed.value.health is not None:
        _health(placed, placed.value.health, book)


def _endpoints(view: View, placed: Placed[Outbound], book: Book) -> None:
    spec, first = placed.value, dict[str, int]()
    if len(spec.endpoints) > MOST:
        message = f"{len(spec.endpoints)} endpoints, and {MOST} are the most"
        book.at(f"{placed.path}.endpoints", message, "let a DNS name stand for them, or split the upstream", "MESH008")
        return
    ours = _own_listeners(view, spec)
    for index, entry in enumerate(spec.endpoints):
        path = book.item(placed.path, "endpoints", index)
        if entry.name in first:
            hint = f"remove one; it is endpoints[{first[entry.name]}] already"
            book.at(path, f"{entry.name} is listed twice", hint, "MESH008")
        first.setdefault(entry.name, index)
        what = next((name for own, name in ours if _same(own, entry.address)), "")
        if what:
            hint = "name where the upstream itself listens"
            book.at(path, f"{entry.name} is {what}", hint, "MESH007")


def _own_listeners(view: View, spec: Outbound) -> list[tuple[Address, str]]:
    """Where our own application reaches us: who is sent there comes back to the same decision. And where peers do,
    unless it is one's own replicas that are called: they would meet our identity, and not the declared one.
    """
    service, round_ = view.built, "of this very service: a request would go round for ever"
    ours = [(each.listen, f"the local listener for {each.name} {round_}") for each in service.outbound if each.listen]
    if service.forward_proxy is not None:
        ours.append((service.forward_proxy, f"the forward proxy {round_}"))
    if spec.identity != service.identity:
        hosts = {view.address, *(each.bind for each in service.inbound)}
        ours += [
            (Address(host, each.port), f"the inbound listener {each.name} of this very service, not of {spec.to}")
            for each in service.inbound for host in hosts
        ]  # fmt: skip
    return ours


def _same(one: Address, other: Address) -> bool:
    hosts = [_LOOPBACK if each.host == "localhost" else (each.host,) for each in (one, other)]
    return one.port == other.port and bool(set(hosts[0]) & set(hosts[1]))


def _affinity(placed: Placed[Outbound], book: Book) -> None:
    spec = placed.value
    if spec.affinity is None:
        if spec.balance == "maglev":
            message, hint = "maglev, and nothing says what requests stick by", "add affinity: header x-user, or caller"
            book.at(f"{placed.path}.balance", message, hint, "MESH008")
        return
    if spec.balance != "maglev":
        message = f"{spec.balance} takes no notice of affinity: {spec.affinity}"
        book.at(f"{placed.path}.balance", message, "remove balance:, or affinity:", "MESH008")
    if spec.protocol == "tcp" and spec.affinity.kind != "caller":
        message = f"{spec.name} is tcp, which has no headers and no cookies"
        book.at(f"{placed.path}.affinity", message, "affinity: caller is what it can stick by", "MESH008")


def _health(placed: Placed[Outbound], health: HealthCheck, book: Book) -> None:
    path = f"{placed.path}.health"
    said = {"http": bool(health.http), "grpc": health.grpc is not None, "tcp": health.tcp}
    kinds = [key for key in said if said[key]]
    if len(kinds) != 1:
        message = f"{' and '.join(kinds)} at once" if kinds else "does not say how to ask"
        book.at(path, message, "one of http: /healthz, grpc: package.Service, or tcp: true", "MESH008")
    elif placed.value.protocol == "tcp" and kinds != ["tcp"]:
        message = f"{placed.value.name} is tcp, so nobody there need answer {kinds[0]}"
        book.at(f"{path}.{kinds[0]}", message, "tcp: true asks for a connection", "MESH008")


# ---- what can never act ----------------------------------------------------------------------------------------------


def never_balanced(view: View, placed: Placed[Outbound], book: Book) -> None:
    """Note settings of balancing that change nothing."""
    spec = placed.value
    entries = spec.endpoints
    if not entries:
        return  # they are learned from elsewhere, and may be any
    alone = len(entries) == 1 and not entries[0].address.named
    if alone:
        _only_one(placed, book)
    else:
        _weights(placed, entries, book)
    zones = {entry.zone for entry in entries}
    zone = view.built.zone
    for index, entry in enumerate(entries):
        if entry.zone and not zone:
            message = f"zone {entry.zone} is compared with nothing: service {view.name} has no zone:"
            book.warn("MESH091", _within(placed, index, "zone", book), message, f"add zone: to services.{view.name}")
            return
    if zone and zones != {""} and zone not in zones:
        path, named = f"{placed.path}.endpoints", ", ".join(sorted(zones - {""}))
        message = f"no endpoint is in {zone}, which is our zone; they are in {named}"
        book.warn("MESH091", path, message, f"compare with services.{view.name}.zone")


def _only_one(placed: Placed[Outbound], book: Book) -> None:
    """There is nothing to choose."""
    said = [key for key in ("balance", "affinity", "slow_start") if f"{placed.path}.{key}" in book.places]
    for key in said:
        message = f"never acts: {placed.value.name} has one endpoint, {placed.value.endpoints[0].name}"
        book.warn("MESH092", f"{placed.path}.{key}", message, "remove it, or list more endpoints")
    if placed.value.endpoints[0].weight != 1:
        message = "never acts: there is no other endpoint to share with"
        book.warn("MESH090", _within(placed, 0, "weight", book), message, "remove it")


def _weights(placed: Placed[Outbound], entries: Sequence[EndpointEntry], book: Book) -> None:
    weighty = next((index for index, each in enumerate(entries) if each.weight != 1), None)
    if weighty is None:
        if placed.value.balance == "weighted":
            message = "all weights are the same, so this is round_robin"
            book.warn("MESH090", f"{placed.path}.balance", message, "give endpoints weights, or remove it")
    elif placed.value.balance == "round_robin":
        message = "round_robin gives everybody the same"
        book.warn("MESH090", _within(placed, weighty, "weight", book), message, "say balance: weighted")
    elif len({each.weight for each in entries}) == 1 and not any(each.address.named for each in entries):
        message = f"never acts: all endpoints have weight {entries[0].weight}"
        book.warn("MESH090", _within(placed, weighty, "weight", book), message, "remove the weights")


def _within(placed: Placed[Outbound], index: int, key: str, book: Book) -> str:
    return f"{book.item(placed.path, 'endpoints', index)}.{key}"
