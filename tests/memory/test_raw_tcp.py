"""Raw connections: bytes both ways, each direction ending by itself, nobody waiting for a first word."""

from __future__ import annotations

import pytest

from tests.kit.h1_line import Line
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene

APP = "127.0.0.1:5432"
BIG = bytes(range(256)) * 8192  # 2 MiB


async def ask_and_answer(line: Line) -> None:
    """Answers only once the question has ended."""
    question = await line.hear_all()
    await line.say(b"you asked: " + question)


@scene()
async def test_a_half_closed_question_still_gets_its_long_answer(stage: Stage) -> None:
    stage.app(ask_and_answer, APP)
    web = await stage.call(9002)
    await web.say(b"why?")
    await web.finish()
    assert await web.hear_all() == b"you asked: why?"
    await stage.quiet()
    hop = stage.orders.books.hop
    assert (hop.protocol, hop.received_bytes, hop.sent_bytes, hop.flag) == ("tcp", 4, 15, "-")
    assert hop.rule == "web-may"


@scene()
async def test_the_server_may_speak_first_and_end_first(stage: Stage) -> None:
    heard: list[bytes] = []

    async def server(line: Line) -> None:
        await line.say(b"220 hello\n")
        await line.finish()
        heard.append(await line.hear_all())

    stage.app(server, APP)
    web = await stage.call(9002)
    assert await web.hear_all() == b"220 hello\n"
    await web.say(b"so long")
    await web.finish()
    await stage.quiet()
    assert heard == [b"so long"]


@scene()
async def test_nothing_is_held_in_memory_for_a_slow_reader(stage: Stage) -> None:
    async def pour(line: Line) -> None:
        await line.say(BIG)

    stage.app(pour, APP)
    web = await stage.call(9002)
    await stage.quiet()
    assert stage.apps[0].wire.sent <= 3 * 64 * 1024 + 2 * 64 * 1024
    assert await web.hear_all() == BIG


@pytest.mark.parametrize("who", ["caller", "app"])
@scene()
async def test_a_reset_goes_through(stage: Stage, who: str) -> None:
    found: list[bool] = []

    async def server(line: Line) -> None:
        await line.until(b"\n")
        if who == "app":
            line.abort()
        else:
            found.append(await line.is_reset())

    stage.app(server, APP)
    web = await stage.call(9002)
    await web.say(b"begin\n")
    await stage.quiet()
    if who == "caller":
        web.abort()
        await stage.quiet()
    else:
        found.append(await web.is_reset())
    assert found == [True]
    assert stage.orders.books.hop.flag == {"caller": "DC", "app": "UR"}[who]
    assert stage.web.books.hop.flag == {"caller": "DC", "app": "UR"}[who]


@scene()
async def test_a_connection_on_which_nothing_moves_ends_after_an_hour(stage: Stage) -> None:
    stage.app(ask_and_answer, APP)
    web = await stage.call(9002)
    await web.say(b"one")
    await stage.sleep(3000.0)
    await web.say(b"two")  # counts for both directions
    began = stage.now
    assert await web.is_reset()
    assert stage.now - began == 3600.0
    assert "SI" in stage.web.books.flags + stage.orders.books.flags


@scene()
async def test_a_connection_ends_with_the_certificate_that_it_rests_on(stage: Stage) -> None:
    stage.gates[WEB].not_after = stage.port.wall() + 600.0
    stage.app(ask_and_answer, APP)
    web = await stage.call(9002)
    began = stage.now
    assert await web.is_reset()
    assert stage.now - began == 600.0
    assert stage.orders.books.hop.flag == "ID"


@scene()
async def test_who_is_not_allowed_is_cut_off_before_the_application_hears_of_it(stage: Stage) -> None:
    stage.app(ask_and_answer, APP)
    mallory = await stage.peer(MALLORY, 17444)
    assert await mallory.is_closed()
    assert stage.apps == []
    assert (stage.orders.books.hop.flag, stage.orders.books.hop.attempts) == ("PD", 0)


@scene()
async def test_an_application_that_is_down_closes_the_connection(stage: Stage) -> None:
    web = await stage.call(9002)
    assert await web.is_closed()
    assert stage.orders.books.hop.flag == "UF"


@scene()
async def test_an_upstream_sidecar_that_is_down_closes_the_connection(stage: Stage) -> None:
    stage.port.refuse("10.0.0.2", 17444)
    web = await stage.call(9002)
    assert await web.is_closed()
    assert stage.web.books.hop.flag == "UF"
