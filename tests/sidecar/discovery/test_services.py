"""SRV records to endpoints, with a real DNS server on loopback and as tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from sidecar.config.terms import Address
from sidecar.discovery.answers import NotFound, Offered
from sidecar.discovery.names import SystemNames
from sidecar.discovery.services import AGAIN_SECONDS, Services, Srv, usable, weighed
from sidecar.traffic.endpoints import Declared
from tests.kit.dns_server import DnsServer, serving

NAME = "_mesh._tcp.orders.test"
Script = Callable[[DnsServer, Callable[[], Awaitable[Offered]]], Awaitable[None]]


def played(script: Script, most: int = 256) -> None:
    """Play a script with a server, and with somebody who asks it for the name."""

    async def run() -> None:
        async with serving() as server:
            names = SystemNames(server.resolver(search=("mesh.test.",)), Path("/nonexistent/hosts"))
            await script(server, Services(names, f"{NAME}.", most).look_up)

    trio.run(run)


def shown(offered: Offered) -> dict[str, int]:
    return {str(each.address): each.weight for each in offered.declared}


def test_targets_are_looked_up_where_their_addresses_did_not_come_along() -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        server.records[NAME, "SRV"] = ("0 3 15006 a.test.", "0 1 15007 B.test.")
        server.records["a.test", "A"] = ("10.0.0.1",)
        server.records["b.test", "AAAA"] = ("fd00::2",)
        assert shown(await look_up()) == {"10.0.0.1:15006": 3, "[fd00::2]:15007": 1}
        server.asked.clear()
        server.beside["a.test", "A"] = ("10.0.0.9",)
        assert shown(await look_up()) == {"10.0.0.9:15006": 3, "[fd00::2]:15007": 1}
        assert ("a.test", "A") not in server.asked

    played(script)


def test_the_lowest_priority_alone_and_the_next_where_it_leads_nowhere() -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        server.records[NAME, "SRV"] = ("20 1 1 c.test.", "10 1 1 b.test.", "10 1 1 a.test.")
        for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")):
            server.records[f"{name}.test", "A"] = (address,)
        assert shown(await look_up()) == {"10.0.0.1:1": 1, "10.0.0.2:1": 1}
        del server.records["a.test", "A"], server.records["b.test", "A"]
        found = await look_up()
        assert shown(found) == {"10.0.0.3:1": 1}
        assert found.notes == ("none of the targets of priority 10 has an address",)

    played(script)


@pytest.mark.parametrize("records", [(), ("0 0 0 .",)])
def test_a_service_that_is_not_offered_is_an_answer(records: tuple[str, ...]) -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        if records:
            server.records[NAME, "SRV"] = records
        found = await look_up()
        assert found.declared == ()
        assert found.ttl == (30.0 if records else 7.0)  # of the zone's SOA, where there is none

    played(script)


def test_an_alias() -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        server.records[NAME, "CNAME"] = ("_mesh._tcp.other.test.",)
        server.records["_mesh._tcp.other.test", "SRV"] = ("0 1 80 a.test.",)
        server.records["a.test", "A"] = ("10.0.0.1",)
        assert shown(await look_up()) == {"10.0.0.1:80": 1}

    played(script)


def test_an_answer_that_was_cut_off_comes_whole_by_tcp_and_is_bounded() -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        server.records[NAME, "SRV"] = tuple(f"0 1 80 n{n}.test." for n in range(300))
        for n in range(300):
            server.records[f"n{n}.test", "A"] = (f"10.0.{n // 250}.{n % 250 + 1}",)
        server.truncated = True
        found = await look_up()
        assert (len(found.declared), found.left_out) == (20, 280)
        assert server.by_tcp
        assert sum(name != NAME for name, _ in server.asked) <= 2 * 2 * 20  # nobody looks up what is left out

    played(script, most=20)


def test_a_target_that_nobody_can_tell_of_keeps_what_it_had() -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        server.records[NAME, "SRV"] = ("0 1 80 a.test.", "0 1 80 b.test.")
        server.records["a.test", "A"], server.records["b.test", "A"] = ("10.0.0.1",), ("10.0.0.2",)
        before = await look_up()
        server.silent_for.add("b.test")
        found = await look_up()
        assert found.declared == before.declared
        assert found.ttl == AGAIN_SECONDS
        assert "b.test could not be looked up" in found.notes[0]
        server.broken = True
        with pytest.raises(NotFound):
            await look_up()

    played(script)


def test_targets_that_nobody_can_tell_of_at_all_are_no_answer() -> None:
    async def script(server: DnsServer, look_up: Callable[[], Awaitable[Offered]]) -> None:
        server.records[NAME, "SRV"] = ("0 1 80 a.test.",)
        server.silent_for.add("a.test")
        with pytest.raises(NotFound, match=r"a\.test could not be looked up"):
            await look_up()

    played(script)


@pytest.mark.parametrize(
    ("weights", "addresses", "found"),
    [
        ((10, 20), (1, 1), [1, 2]),
        ((0, 0), (1, 1), [1, 1]),
        ((0, 65535), (1, 1), [1, 65535]),
        ((10, 10), (1, 2), [2, 1, 1]),  # a target's weight is shared among its addresses
        ((1, 1, 1), (1, 2, 3), [6, 3, 3, 2, 2, 2]),
        ((7, 7), (0, 1), [1]),
        ((), (), []),
    ],
)
def test_weights(weights: tuple[int, ...], addresses: tuple[int, ...], found: list[int]) -> None:
    records = [Srv(0, weight, f"t{n}", 80) for n, weight in enumerate(weights)]
    there = {f"t{n}": tuple(f"10.0.{n}.{m}" for m in range(count)) for n, count in enumerate(addresses)}
    assert [each.weight for each in weighed(records, there)] == found


def test_an_address_of_two_targets_is_one_endpoint() -> None:
    records = [Srv(0, 1, "a", 80), Srv(0, 1, "b", 80), Srv(0, 1, "b", 81)]
    found = weighed(records, {"a": ("10.0.0.1",), "b": ("10.0.0.1",)})
    assert found == (Declared(Address("10.0.0.1", 80)), Declared(Address("10.0.0.1", 81)))


def test_records_that_lead_nowhere() -> None:
    records = [Srv(0, 1, "a.test", 0), Srv(0, 1, "b test", 80), Srv(0, 1, "", 80), Srv(0, 1, "c.test", 80)]
    good, odd = usable(records)
    assert [each.target for each in good] == ["c.test"]
    assert odd == ("a.test with port 0", "a target that is no name: 'b test'")
