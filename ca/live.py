"""Which certificates are live, as the log and the acknowledgements tell (decision D10)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from ca.roots import certificate_of
from ca.rotation import Leaf
from ca.slots import IN_BUNDLE
from ca.store.base import Ack, Issuance, Store


def live_leaves(store: Store, now: float) -> tuple[Leaf, ...]:
    """Every certificate that somebody may still show, by SPIFFE ID. The CA's own are not among them."""
    issuers = {f"{certificate_of(slot).serial_number:x}": slot for slot in store.slots() if slot.kind == "issuer"}
    issued = [one for serial in issuers for one in store.live(serial, now) if one.entry]
    acks = _by_serial(store.acks())
    denied = {one.target for one in store.revocations(now)}
    given_up = _given_up(issued, acks)
    leaves = [
        _leaf(one, issuers[one.issuer_serial].root, acks.get(one.serial, ()))
        for one in issued
        if issuers[one.issuer_serial].state in IN_BUNDLE
        and one.serial not in given_up
        and not {one.serial, one.spiffe_id} & denied
    ]
    return tuple(sorted(leaves, key=lambda leaf: (leaf.spiffe_id, leaf.not_after)))


def _by_serial(acks: Iterable[Ack]) -> Mapping[str, list[Ack]]:
    found: dict[str, list[Ack]] = {}
    for ack in acks:
        found.setdefault(ack.serial, []).append(ack)
    return found


def _given_up(issued: Iterable[Issuance], heard: Container[str]) -> frozenset[str]:
    """Serials of those that were renewed by one that was heard of, or that was given up in its turn."""
    found: set[str] = set()
    for one in sorted(issued, key=lambda one: -one.number):  # successors first
        if one.proof == "renewal" and (one.serial in heard or one.serial in found):
            found.add(one.proof_detail)
    return frozenset(found)


def _leaf(one: Issuance, root: str, acks: Iterable[Ack]) -> Leaf:
    said = {ack.topic: ack.sequence for ack in acks}
    return Leaf(
        one.spiffe_id,
        one.serial,
        root,
        one.not_after,
        bundle=said.get("bundle", 0),
        heard_at=max((ack.at for ack in acks), default=0.0),
        connected=said.get("watch") == 1,
    )
