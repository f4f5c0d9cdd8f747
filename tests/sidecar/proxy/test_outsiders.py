"""DNS rebinding, with a DNS server that says something else each time: what was judged is what is connected to."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio

from sidecar.config.terms import Address
from sidecar.discovery.names import SystemNames
from sidecar.errors import PrivateAddress
from sidecar.net.port import Port, Unreachable, Wire
from sidecar.policy.reach import Reach
from sidecar.proxy.outsiders import OutsideWay, with_token
from tests.kit.dns_server import DnsServer, serving

NAME = "api.partner.test"
PUBLIC, INSIDE, METADATA = "93.184.216.34", "127.0.0.1", "169.254.169.254"


class Dialling:
    """A port that looks names up by the DNS server, and notes what it was to connect to."""

    def __init__(self, names: SystemNames, closed: tuple[str, ...] = ()) -> None:
        self._names = names
        self._closed = closed
        self.dialled: list[str] = []

    async def lookup(self, host: str) -> list[str]:
        return list((await self._names.look_up(host)).addresses)

    async def dial(self, host: str, port: int) -> Wire:
        self.dialled.append(host)
        if host in self._closed:
            raise Unreachable(f"{host}:{port}: Connection refused")
        return cast(Wire, object())


def played(script: Any) -> None:
    async def run() -> None:
        async with serving() as server:
            server.ttl = 0
            await script(server, SystemNames(server.resolver()))

    trio.run(run)


def way(**more: Any) -> OutsideWay:
    return OutsideWay(None, Reach(private=True, **more), frozenset({Address(NAME, 443), Address(INSIDE, 8443)}))


def test_a_name_that_turns_inside_between_two_answers() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        port = Dialling(names)
        for answer, good in ((PUBLIC, True), (INSIDE, False), (PUBLIC, True), (METADATA, False), ("10.0.0.1", False)):
            server.records[NAME, "A"] = (answer,)
            asked = len([kind for _, kind in server.asked if kind == "A"])
            if good:
                await way().dial(cast(Port, port), Address(NAME, 443))
            else:
                with pytest.raises(PrivateAddress, match=answer):
                    await way().dial(cast(Port, port), Address(NAME, 443))
            assert len([kind for _, kind in server.asked if kind == "A"]) == asked + 1  # and nobody asks again
        assert port.dialled == [PUBLIC, PUBLIC]

    played(script)


def test_an_answer_with_both_is_asked_outside_alone_and_in_turn() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        server.records[NAME, "A"] = (INSIDE, PUBLIC, "8.8.8.8", METADATA)
        port = Dialling(names, closed=("8.8.8.8",))
        await way().dial(cast(Port, port), Address(NAME, 443))
        assert port.dialled == ["8.8.8.8", PUBLIC]
        port = Dialling(names, closed=("8.8.8.8", PUBLIC))
        with pytest.raises(Unreachable, match=PUBLIC):
            await way().dial(cast(Port, port), Address(NAME, 443))

    played(script)


def test_addresses_by_ipv6_and_those_that_carry_another() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        port = Dialling(names)
        for answer in ("::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"):
            server.records[NAME, "AAAA"] = (answer,)
            with pytest.raises(PrivateAddress):
                await way().dial(cast(Port, port), Address(NAME, 443))
        server.records[NAME, "AAAA"] = ("2606:4700::1",)
        await way().dial(cast(Port, port), Address(NAME, 443))
        assert port.dialled == ["2606:4700::1"]

    played(script)


def test_what_stands_in_the_configuration_is_not_judged_and_what_was_learned_is() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        port = Dialling(names)
        await way().dial(cast(Port, port), Address(INSIDE, 8443))  # the operator's own word
        with pytest.raises(PrivateAddress):
            await way().dial(cast(Port, port), Address(INSIDE, 9999))  # as discovery lists it
        await way().dial(cast(Port, port), Address("unix:/run/x.sock", 0))
        assert (port.dialled, server.asked) == ([INSIDE, "unix:/run/x.sock"], [])

    played(script)


def test_one_token_and_no_other_authorization() -> None:
    headers = [(b"host", b"x"), (b"authorization", b"a"), (b"accept", b"*/*"), (b"authorization", b"b")]
    assert with_token(headers, b"t") == [(b"host", b"x"), (b"accept", b"*/*"), (b"authorization", b"Bearer t")]
