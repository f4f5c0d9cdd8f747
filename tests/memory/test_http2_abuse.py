"""HTTP/2 against the whole proxy: floods and mistakes end what they must, are recorded once, and hurt nobody else."""

from __future__ import annotations

import struct

import pytest

from sidecar.proxy.rooms import CONFINED_SECONDS, NARROW_STREAMS, WIDE
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_line import ORDERS_GET, ORDERS_POST, H2Line, h2_call, h2_peer
from tests.kit.h2_wire import (
    CONTINUATION,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data,
    frame,
    headers,
    literal,
    settings,
    word,
)
from tests.kit.hops import MALLORY
from tests.kit.play import Stage, scene

CALM = 0xB
GRPC = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"))
PINGS = b"".join(frame(PING, 0, 0, struct.pack("!Q", n)) for n in range(200))


def rapid_reset(count: int = 600, *, code: int = 8) -> bytes:
    """Requests that are cancelled as soon as they have begun."""
    pairs = [headers(n, ORDERS_GET) + frame(RST_STREAM, 0, n, word(code)) for n in range(1, 2 * count, 2)]
    return b"".join(pairs)


FLOODS = {
    "rapid_reset": rapid_reset(),
    "ping_flood": PINGS,
    "settings_flood": settings() * 100,
    "priority_flood": b"".join(frame(PRIORITY, 0, n, bytes(5)) for n in range(1, 601, 2)),
    "window_update_flood": frame(WINDOW_UPDATE, 0, 0, word(1)) * 1500,
    "unknown_frame_flood": frame(77, 0, 0, b"x") * 300,
    "empty_frame_flood": headers(1, ORDERS_POST, end=False) + data(1, b"") * 300,
    "continuation_flood": frame(HEADERS, 0, 1, literal(ORDERS_GET)) + frame(CONTINUATION, 0, 1, b"") * 30,
    "excess_streams": b"".join(headers(n, ORDERS_POST, end=False) for n in range(1, 3000, 2)),
}


@pytest.mark.parametrize("name", FLOODS)
@scene()
async def test_a_flood_is_recorded_once_by_name_and_the_next_caller_is_served(stage: Stage, name: str) -> None:
    stage.app(apps.always(apps.OK))
    other = await h2_peer(stage)
    foe = await h2_peer(stage, FLOODS[name])
    assert (await foe.last_word()).error_code == CALM
    await stage.quiet()
    books = stage.orders.books
    blamed = [hop for hop in books.hops if hop.error is not None and hop.error.name == "abuse"]
    assert {getattr(hop.error, "reason", "") for hop in blamed} == {name}
    assert {hop.flag for hop in blamed} == {"DPE"}
    assert len(blamed) == (1 if name not in ("empty_frame_flood", "excess_streams") else len(books.hops))
    assert failures(stage, name) == 1
    await other.say(headers(1, ORDERS_GET))
    assert (await other.answer(1)).status == 200


@scene()
async def test_who_cancels_by_the_hundred_is_sent_away_with_what_is_under_way_answered(stage: Stage) -> None:
    """The resets come at an age at which none of them is a rapid one."""
    waiting: list[Line] = []

    async def held(line: Line) -> None:
        waiting.append(line)
        await line.request()
        await line.hear_all()

    stage.app(held)
    foe = await h2_peer(stage, headers(1, ORDERS_GET))
    await stage.quiet()
    for first in range(3, 5000, 120):
        streams = range(first, first + 120, 2)
        await foe.say(*[headers(number, ORDERS_GET) for number in streams])
        await stage.sleep(0.3)
        await foe.say(*[frame(RST_STREAM, 0, number, word(8)) for number in streams])
        await stage.quiet()
        if failures(stage, "reset_flood"):
            break
    assert 1.5 < stage.now < 6
    await foe.until(lambda: foe.goaways)
    assert foe.goaways[0].error_code == CALM
    await waiting[0].say(apps.OK)
    assert (await foe.answer(1)).status == 200
    await foe.last_word()
    await stage.quiet()
    books = stage.orders.books
    assert {hop.flag for hop in books.hops} == {"-", "DC"}
    assert failures(stage, "reset_flood") == 1
    stage.app(apps.always(apps.OK))
    for seconds, streams in ((5.0, NARROW_STREAMS), (CONFINED_SECONDS, 100)):
        await stage.sleep(seconds)
        stage.sweep()
        other = await h2_peer(stage, headers(1, ORDERS_GET))
        assert (await other.answer(1)).status == 200
        assert other.settings[3] == streams
    innocent = await h2_peer(stage, who=MALLORY)
    await innocent.next()
    assert innocent.settings[3] == 100


def failures(stage: Stage, reason: str) -> float:
    """What the counter says."""
    return stage.orders.books.metrics.cell("mesh_protocol_failures_total", ("inbound", "http", reason)).value


@scene()
async def test_a_violation_with_requests_under_way_is_what_they_are_recorded_with(stage: Stage) -> None:
    stage.app(apps.silent)
    foe = await h2_peer(stage, headers(1, ORDERS_GET), headers(3, ORDERS_GET))
    await stage.quiet()
    await foe.say(frame(SETTINGS, 0, 1))
    assert (await foe.last_word()).error_code == 1
    await stage.quiet()
    assert [hop.error.name for hop in stage.orders.books.hops if hop.error] == ["protocol_violation"] * 2
    assert failures(stage, "protocol") == 1


@scene()
async def test_a_violation_with_nothing_under_way_is_a_hop_of_its_own(stage: Stage) -> None:
    foe = await h2_peer(stage, frame(SETTINGS, 0, 1))
    await foe.last_word()
    hop = stage.orders.books.hop
    assert (hop.flag, hop.method, hop.version) == ("DPE", "", "2")
    assert hop.decision_id


@scene()
async def test_half_a_preface_is_given_ten_seconds(stage: Stage) -> None:
    stage.attend()
    line = await stage.peer(h2=True)
    await line.say(PREFACE[:10])
    assert (await H2Line(line, polite=False).last_word()).error_code == CALM
    assert 10 <= stage.now < 12
    hop = stage.orders.books.hop
    assert getattr(hop.error, "reason", "") == "slow_head"


def test_who_asks_on_and_reads_nothing_is_ended_before_our_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.proxy.rooms.NARROW_UNREAD_BYTES", 8000)
    _ask_on_without_reading()


@scene()
async def _ask_on_without_reading(stage: Stage) -> None:
    """Refusals of gRPC are heads alone, so they end at once, and their streams make room for more."""
    for _ in range(WIDE["inbound"]):
        await h2_peer(stage, who=MALLORY)
    foe = await h2_peer(stage, who=MALLORY, polite=False)
    asked = 0
    while not failures(stage, "unread_answers"):
        await foe.say(*[headers(asked * 20 + n, GRPC) for n in range(1, 20, 2)])
        await stage.quiet()
        asked += 1
        assert asked < 400
    assert asked > 20
    # As long as it reads nothing it can see nothing; once it does, the GOAWAY follows what was on its way.
    assert (await foe.last_word()).error_code == CALM


@scene()
async def test_a_bad_head_on_one_stream_is_answered_there_and_the_others_go_on(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    bad = headers(3, (*ORDERS_POST, (b"x", b"a\x00b")), end=False)
    large = headers(5, (*ORDERS_POST, *[(b"x", b"y")] * 120), end=False)
    web = await h2_peer(stage, headers(1, ORDERS_GET), bad, large, headers(7, ORDERS_GET))
    answers = [await web.answer(stream) for stream in (1, 3, 5, 7)]
    assert [(a.status, a.reset) for a in answers] == [(200, None), (0, 1), (431, None), (200, None)]
    assert not web.goaways
    await stage.quiet()
    assert sorted(stage.orders.books.flags) == ["-", "-", "DPE", "DPE"]


@scene()
async def test_only_the_first_connections_of_an_identity_are_wide(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    lines = [await h2_peer(stage, headers(1, ORDERS_GET)) for _ in range(WIDE["inbound"] + 2)]
    for line in lines:
        assert (await line.answer(1)).status == 200
    offers = [(line.settings[3], line.settings[4]) for line in lines]
    assert offers == [(100, 1 << 20)] * WIDE["inbound"] + [(NARROW_STREAMS, 65_535)] * 2
    lines[0].line.close()
    await stage.quiet()
    again = await h2_peer(stage, headers(1, ORDERS_GET))
    await again.answer(1)
    assert again.settings[3] == 100


@scene()
async def test_a_flood_by_our_own_application_is_counted_too(stage: Stage) -> None:
    foe = await h2_call(stage, PINGS)
    assert (await foe.last_word()).error_code == CALM
    await stage.quiet()
    labels = ("outbound", stage.web._outbound[0][0], "ping_flood")
    assert stage.web.books.metrics.cell("mesh_protocol_failures_total", labels).value == 1


@scene()
async def test_an_upstreams_flood_is_not_blamed_on_the_caller(stage: Stage) -> None:
    async def flooding(line: Line) -> None:
        await line.say(settings() * 100)
        await line.hear_all()

    stage.app(flooding)
    web = await h2_peer(stage, headers(1, GRPC))
    answer = await web.answer(1)
    assert answer.headers[b"grpc-status"] == b"13"
    hop = stage.orders.books.hop
    assert hop.flag == "UPE"


@scene(orders_limits=", body_rate: off", orders="    timeouts: {idle: 5s}")
async def test_an_answer_that_nobody_makes_room_for_ends_its_stream(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)))
    stage.attend()
    foe = await h2_peer(stage, settings((4, 0)), headers(1, ORDERS_GET))
    assert (await foe.answer(1)).reset == 8
    assert not foe.goaways
    await stage.quiet()
    assert failures(stage, "zero_window") == 1
    assert stage.orders.books.hop.flag == "DPE"
    await foe.say(settings((4, 65_535)), headers(3, ORDERS_GET))
    await foe.until(lambda: len(foe.answers[3].body) == 65_535 if 3 in foe.answers else False)


@scene()
async def test_our_own_application_is_sent_away_too_but_its_next_connection_is_a_wide_one(stage: Stage) -> None:
    """It has one connection and keeps it for hours: made narrow, it would stay so."""
    stage.app(apps.silent)
    web = await h2_call(stage)
    for first in range(1, 3000, 120):
        streams = range(first, first + 120, 2)
        await web.say(*[headers(number, ORDERS_GET) for number in streams])
        await stage.sleep(0.3)
        await web.say(*[frame(RST_STREAM, 0, number, word(8)) for number in streams])
        await stage.quiet()
        while web.line.wire.unread:
            await web.next()
        if web.goaways:
            break
    assert web.goaways[0].error_code == CALM
    again = await h2_call(stage)
    await again.next()
    assert again.settings[3] == 100
