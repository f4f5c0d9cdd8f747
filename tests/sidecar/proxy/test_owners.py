"""Whom an address means: one upstream, none, or nobody because two hold it; as lists change."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.destinations import Destination
from sidecar.config.terms import Address
from sidecar.errors import AmbiguousUpstream, UndeclaredUpstream
from sidecar.net.original import place
from sidecar.proxy.owners import Called, Held, Owners


class Upstream:
    """As far as owners look at one: a name, and the places of its endpoints, replaced whole."""

    def __init__(self, name: str, *addresses: Address) -> None:
        self.name = name
        self.lists(*addresses)

    def lists(self, *addresses: Address) -> None:
        self.places = {Endpoint(each): None for each in addresses}


@dataclass(frozen=True, eq=False)
class Endpoint:
    address: Address


def held(upstream: Any, *addresses: Address) -> Held:
    return Held(upstream, Called(upstream.name, addresses))


ORDERS = Upstream("orders", Address("10.77.0.2", 8080), Address("fd77::2", 8080), Address("orders.internal", 8080))
STOCK = Upstream("stock", Address("10.77.0.3", 8080), Address("::ffff:10.77.0.4", 8080), Address("unix:/run/x", 0))
OWNERS = Owners(
    [held(ORDERS, Address("10.96.0.1", 80)), held(STOCK, Address("10.96.0.1", 81), Address("10.96.0.2", 80))],
    [Destination(ip_network("10.9.0.0/16"), 5432), Destination(ip_network("fd09::/16"))],
)


@pytest.mark.parametrize(
    ("host", "port", "owner"),
    [
        ("10.77.0.2", 8080, "orders"),
        ("10.77.0.2", 8081, None),
        ("fd77::2", 8080, "orders"),
        ("fd77:0:0:0:0:0:0:2", 8080, "orders"),
        ("::ffff:10.77.0.2", 8080, "orders"),
        ("10.77.0.4", 8080, "stock"),
        ("10.96.0.1", 80, "orders"),
        ("10.96.0.1", 81, "stock"),
        ("10.96.0.2", 80, "stock"),
        ("127.0.0.1", 8080, None),
        ("10.9.0.7", 5432, None),
    ],
)
def test_an_address_means_who_holds_it(host: str, port: int, owner: str | None) -> None:
    found = OWNERS.of(place(host, port))
    assert (found.name if found is not None else None) == owner


@pytest.mark.parametrize(
    ("host", "port", "passes"),
    [
        ("10.9.0.7", 5432, "10.9.0.0/16:5432"), ("10.9.0.7", 5433, None), ("fd09::1", 1, "fd09::/16"),
        ("10.8.0.7", 5432, None), ("::ffff:10.9.0.7", 5432, "10.9.0.0/16:5432"), ("10.77.0.2", 8080, None),
    ],
)  # fmt: skip
def test_where_plaintext_may_go(host: str, port: int, passes: str | None) -> None:
    asked = place(host, port)
    if passes is not None:
        assert str(OWNERS.check_passthrough(asked)) == passes
        return
    with pytest.raises(UndeclaredUpstream) as refused:
        OWNERS.check_passthrough(asked)
    if OWNERS.of(asked) is None:
        assert f"redirect: {{passthrough: ['{asked}']}}" in refused.value.hint


def test_an_upstream_comes_before_a_passthrough_and_two_before_none() -> None:
    anywhere = [Destination(ip_network("0.0.0.0/0"))]
    twin = Upstream("twin", Address("10.77.0.2", 8080))
    with pytest.raises(UndeclaredUpstream, match="of the upstream orders now"):
        Owners([held(ORDERS)], anywhere).check_passthrough(place("10.77.0.2", 8080))
    both = Owners([held(ORDERS), held(twin)], anywhere)
    for ask in (both.of, both.check_passthrough):
        with pytest.raises(AmbiguousUpstream, match="orders and twin"):
            ask(place("10.77.0.2", 8080))  # type: ignore[operator]


def test_one_upstream_that_holds_an_address_twice_is_no_two() -> None:
    once = Upstream("orders", Address("10.77.0.2", 8080), Address("10.77.0.2", 8080))
    assert Owners([held(once, Address("10.77.0.2", 8080))]).of(place("10.77.0.2", 8080)) is once


def test_lists_that_change_are_noticed() -> None:
    upstream = Upstream("orders")
    named = Address("orders.shop.svc", 80)
    called = Called("orders", [named, Address("10.96.0.1", 80)])
    owners = Owners([Held(upstream, called)])  # type: ignore[arg-type]
    assert called.names == (named,)
    assert owners.of(place("10.77.0.2", 8080)) is None
    upstream.lists(Address("10.77.0.2", 8080))
    assert owners.of(place("10.77.0.2", 8080)) is upstream
    called.found(named, ("10.96.0.7", "fd96::7"))
    for host in ("10.96.0.7", "fd96::7", "10.96.0.1"):
        assert owners.of(place(host, 80)) is upstream
    called.found(named, ("10.96.0.8",))
    assert owners.of(place("10.96.0.7", 80)) is None
    upstream.lists()
    assert owners.of(place("10.77.0.2", 8080)) is None


HOSTS = st.sampled_from(["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1", "fd00::1", "name.test"])
PLACES = st.builds(Address, HOSTS, st.integers(1, 3))


@given(st.lists(st.tuples(st.lists(PLACES, max_size=3), st.lists(PLACES, max_size=2)), max_size=4), PLACES)
def test_it_is_what_looking_through_all_of_them_finds(lists: Any, asked: Address) -> None:
    upstreams = [Upstream(f"u{number}", *endpoints) for number, (endpoints, _) in enumerate(lists)]
    owners = Owners([held(each, *called) for each, (_, called) in zip(upstreams, lists, strict=True)])
    if asked.named:
        return
    wanted = place(asked.host, asked.port)
    found = [
        each for each, (endpoints, called) in zip(upstreams, lists, strict=True)
        if any(not one.named and place(one.host, one.port) == wanted for one in (*endpoints, *called))
    ]  # fmt: skip
    if len(found) > 1:
        with pytest.raises(AmbiguousUpstream):
            owners.of(wanted)
    else:
        assert owners.of(wanted) is (found[0] if found else None)
