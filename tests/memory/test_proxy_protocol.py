"""PROXY headers in front of TLS, and before the application's first byte."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sidecar.http.proxy_header import V2_MARK, write
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.hops import ORDERS, WEB
from tests.kit.play import Stage, scene

GET = b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FROM = ", proxy_protocol: {from: 127.0.0.0/8}"  # whoever dials in memory comes from there
NOT_FROM = ", proxy_protocol: {from: 10.0.0.7/32}"
OFFICE = "    deny: [{name: not-from-there, from: web, source: 203.0.113.0/24}]"
APP = "127.0.0.1:5432"
CALLER = (ip_address("203.0.113.9"), 4711)
REACHED = (ip_address("198.51.100.2"), 443)
UNTOLD = (V2_MARK + b"\x21\x00\0\0", b"PROXY UNKNOWN\r\n")


async def through(stage: Stage, header: bytes, port: int = 17443) -> Line:
    """A peer whose connection begins with these bytes."""
    wire = await stage.port.dial("10.0.0.2", port)
    await wire.write(header)
    secure, _ = await stage.gates[WEB].connect(
        stage.port, wire, http=True, server_name="orders", expected=ORDERS, within=5.0
    )
    stage.port.deadline(float("inf"))
    return stage._known(secure)


@pytest.mark.parametrize("version", ["v1", "v2"])
@scene(http=FROM)
async def test_the_caller_is_who_the_load_balancer_says(stage: Stage, version: str) -> None:
    stage.app(apps.always(OK))
    peer = await through(stage, write(version, CALLER, REACHED))  # type: ignore[arg-type]
    for _ in range(2):
        await peer.say(GET)
        assert (await peer.answer()).status == 200
    assert {(hop.source, hop.source_port) for hop in stage.orders.books.hops} == {CALLER}
    assert [shake.source for shake in stage.orders.books.handshakes] == [CALLER[0]]


@scene(http=FROM, orders=OFFICE)
async def test_rules_about_the_source_go_by_it(stage: Stage) -> None:
    stage.app(apps.always(OK))
    for caller, status in ((CALLER, 403), ((ip_address("192.0.2.1"), 1), 200)):
        peer = await through(stage, write("v2", caller, REACHED))
        await peer.say(GET)
        assert (await peer.answer()).status == status


@pytest.mark.parametrize("header", UNTOLD)
@scene(http=FROM)
async def test_whose_address_is_not_told_has_none(stage: Stage, header: bytes) -> None:
    stage.app(apps.always(OK))
    peer = await through(stage, header)
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    assert stage.orders.books.hop.source is None


@scene(http=FROM)
async def test_a_load_balancer_that_speaks_for_itself_keeps_its_own(stage: Stage) -> None:
    stage.app(apps.always(OK))
    peer = await through(stage, V2_MARK + b"\x20\x00\0\0")
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    assert stage.orders.books.hop.source == ip_address("127.0.0.1")


@scene(http=FROM)
async def test_a_header_in_single_bytes(stage: Stage) -> None:
    stage.app(apps.always(OK))
    wire = await stage.port.dial("10.0.0.2", 17443)
    for byte in write("v2", CALLER, REACHED):
        await wire.write(bytes((byte,)))
        await stage.sleep(0.01)
    secure, _ = await stage.gates[WEB].connect(
        stage.port, wire, http=True, server_name="orders", expected=ORDERS, within=5.0
    )
    peer = stage._known(secure)
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    assert stage.orders.books.hop.source == CALLER[0]


BAD = [
    (b"PROXY TCP4 203.0.113.9 198.51.100.2 4711\r\n", "proxy_header", 0.0),
    (b"PROXY TCP4 203.0.113.9", "handshake_timeout", 5.0),
    (GET, "proxy_header", 0.0),
    (b"", "handshake_timeout", 5.0),
    (V2_MARK + b"\x21\x11\xff\xff", "proxy_header", 0.0),
]


@pytest.mark.parametrize(("said", "reason", "after"), BAD)
@scene(http=FROM)
async def test_without_a_good_header_nobody_is_served(stage: Stage, said: bytes, reason: str, after: float) -> None:
    stranger = await stage.stranger()
    await stranger.say(said)
    assert await stranger.hear_all() == b"" if not said else await stranger.is_reset() or True
    (shake,) = stage.orders.books.handshakes
    assert (shake.reason, shake.source) == (reason, ip_address("127.0.0.1"))
    assert after <= stage.now < after + 0.2
    assert stage.orders.books.hops == []


@scene(http=FROM)
async def test_a_listed_sender_must_send_one(stage: Stage) -> None:
    wire = await stage.port.dial("10.0.0.2", 17443)
    stranger = stage._known(wire)
    stage.gates[WEB]._greet(wire)  # a ClientHello at once
    await stage.quiet()
    assert [shake.reason for shake in stage.orders.books.handshakes] == ["proxy_header"]
    assert await stranger.hear_all() == b""


@pytest.mark.parametrize("posture", ["", ", posture: permissive, until: '2023-11-15'"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nobody_else_may(posture: str, version: str) -> None:
    @scene(http=NOT_FROM + posture)
    async def plays(stage: Stage) -> None:
        stage.app(apps.always(OK))
        stranger = await stage.stranger()
        await stranger.say(write(version, CALLER, REACHED))  # type: ignore[arg-type]
        await stage.quiet()
        assert [shake.reason for shake in stage.orders.books.handshakes] == ["proxy_sender"]
        assert await stranger.is_reset()
        assert stage.orders.books.hops == []
        peer = await stage.peer()  # and without one all is as ever
        await peer.say(GET)
        assert (await peer.answer()).status == 200
        assert stage.orders.books.hop.source == ip_address("127.0.0.1")

    plays()


# ---- toward the application ------------------------------------------------------------------------------------------


async def keeps(line: Line) -> None:
    while data := await line.wire.read():
        await line.say(data)


@scene(raw=", app_proxy_protocol: v1")
async def test_the_application_is_told_who_connected_before_anything_else(stage: Stage) -> None:
    stage.app(keeps, APP)
    web = await stage.call(9002)
    await web.say(b"hello")
    line = b"PROXY TCP4 127.0.0.1 10.0.0.2 40001 17444\r\n"
    assert await web.hear(len(line) + 5) == line + b"hello"
    web.close()
    await stage.quiet()
    assert stage.orders.books.hop.received_bytes == 5, "the header is none of the caller's bytes"


@scene(raw=f", app_proxy_protocol: v2{FROM}")
async def test_what_the_load_balancer_said_is_passed_on(stage: Stage) -> None:
    stage.app(keeps, APP)
    header = write("v2", CALLER, REACHED)
    peer = await through(stage, write("v1", CALLER, REACHED), 17444)
    await peer.say(b"x")
    assert await peer.hear(len(header) + 1) == header + b"x"


@scene(raw=f", app_proxy_protocol: v1{FROM}")
async def test_an_unknown_caller_stays_unknown(stage: Stage) -> None:
    stage.app(keeps, APP)
    peer = await through(stage, UNTOLD[0], 17444)
    await peer.say(b"x")
    assert await peer.hear(16) == b"PROXY UNKNOWN\r\nx"
