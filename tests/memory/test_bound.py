"""No connection outlives what it rests on: the peer's certificate and its root (decision D17)."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.hops import ORDERS, WEB
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
ASK = b"GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TCP_APP = "127.0.0.1:5432"


async def echo(line: Line) -> None:
    while data := await line.wire.read():
        await line.say(data)


async def chat(line: Line) -> None:
    await line.request_head()
    await line.say(AGREED)
    await echo(line)


def certificate_of_web(stage: Stage, *, lasts: float) -> None:
    """A certificate of the caller that began when the scene did."""
    stage.gates[WEB].not_before = stage.port.wall()
    stage.gates[WEB].not_after = stage.port.wall() + lasts


async def talk(line: Line, stage: Stage, *, until: float, pause: float) -> None:
    while stage.now < until:
        await line.say(b"ping")
        assert await line.hear(4) == b"ping"
        await stage.sleep(pause)


@pytest.mark.parametrize("kind", ["raw", "upgrade"])
def test_in_the_last_tenth_the_first_quiet_second_is_taken(kind: str) -> None:
    @scene()
    async def story(stage: Stage) -> None:
        certificate_of_web(stage, lasts=1000.0)
        stage.app(chat)
        stage.app(echo, TCP_APP)
        line = await stage.call(9002 if kind == "raw" else 9001)
        if kind == "upgrade":
            await line.say(ASK)
            assert (await line.answer()).status == 101
        await stage.sleep(800.0)  # quiet, but long before the last tenth
        await talk(line, stage, until=920.0, pause=0.75)
        last_word = stage.now - 0.75
        assert await line.is_reset()
        assert stage.now == pytest.approx(last_word + 1.0)
        hop = stage.orders.books.hop
        assert (hop.flag, hop.error and hop.error.name) == ("ID", "certificate_ended")
        metrics = stage.orders.books.metrics.render().decode()
        early = 'mesh_connections_ended_early_total{direction="inbound",reason="certificate_quiet"} 1'
        assert early in metrics

    story()


@scene()
async def test_who_is_never_quiet_ends_with_the_certificate(stage: Stage) -> None:
    certificate_of_web(stage, lasts=100.0)
    stage.app(echo, TCP_APP)
    line = await stage.call(9002)
    await talk(line, stage, until=99.5, pause=0.5)
    assert await line.is_reset()
    assert stage.now == 100.0
    assert stage.orders.books.hop.error.midway == "certificate_end"  # type: ignore[union-attr]


@scene()
async def test_who_connects_in_the_last_tenth_is_not_cut_in_every_quiet_second(stage: Stage) -> None:
    """The CA is away, say, and nobody has a younger certificate."""
    certificate_of_web(stage, lasts=100.0)
    stage.app(echo, TCP_APP)
    await stage.sleep(92.0)
    line = await stage.call(9002)
    assert await line.is_reset()
    assert stage.now == 100.0


@scene()
async def test_an_answer_without_end_ends_with_the_certificate(stage: Stage) -> None:
    async def for_ever(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await line.say(b"5\r\nevent\r\n")
            await stage.sleep(0.5 if stage.now < 950.0 else 3.0)

    certificate_of_web(stage, lasts=1000.0)
    stage.app(for_ever)
    peer = await stage.peer()
    await peer.say(GET)
    assert await peer.is_reset()
    assert 951.0 <= stage.now < 954.0  # the first quiet second after the events became rare
    hop = stage.orders.books.hop
    assert (hop.status, hop.flag, hop.error and hop.error.midway) == (200, "ID", "certificate_quiet")


@scene()
async def test_a_long_answer_of_known_length_is_not_cut_for_being_quiet(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await stage.sleep(950.0 - stage.now)
        await line.say(b"cd")

    certificate_of_web(stage, lasts=1000.0)
    stage.app(slow)
    await stage.sleep(880.0)
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).body == b"abcd"
    assert stage.orders.books.hop.flag == "-"


@scene()
async def test_an_upload_ends_with_the_certificate(stage: Stage) -> None:
    certificate_of_web(stage, lasts=100.0)
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n")
    while stage.now < 99.0:
        await peer.say(b"1\r\nx\r\n")
        await stage.sleep(1.0)
    answer = await peer.answer()
    assert (answer.status, answer.get("connection")) == (503, b"close")
    assert stage.now == 100.0
    assert stage.orders.books.hop.flag == "ID"


@scene()
async def test_a_peer_whose_root_has_left_is_refused_at_its_next_request(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    stage.gates[ORDERS].distrust(WEB)
    await peer.say(GET)
    answer = await peer.answer()
    assert (answer.status, answer.get("connection")) == (403, b"close")
    assert await peer.is_closed()
    assert stage.orders.books.flags == ["-", "ID"]
    assert len(stage.apps) == 1


@scene()
async def test_a_peer_whose_root_stays_is_asked_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    for _ in range(3):
        stage.gates[ORDERS].trust += 1  # other roots came and went
        await peer.say(GET)
        assert (await peer.answer()).status == 200
    assert len(stage.orders.tasks) == 1


@pytest.mark.parametrize("kind", ["raw", "upgrade"])
@pytest.mark.parametrize("who", ["the caller", "the called"])
def test_a_tunnel_whose_root_has_left_is_reset_at_once(kind: str, who: str) -> None:
    @scene()
    async def story(stage: Stage) -> None:
        stage.app(chat)
        stage.app(echo, TCP_APP)
        line = await stage.call(9002 if kind == "raw" else 9001)
        if kind == "upgrade":
            await line.say(ASK)
            assert (await line.answer()).status == 101
        await line.say(b"ping")
        assert await line.hear(4) == b"ping"
        judge, judged = (ORDERS, WEB) if who == "the caller" else (WEB, ORDERS)
        proxy = stage.orders if who == "the caller" else stage.web
        stage.gates[judge].distrust(judged)
        proxy.renew()  # as the gate's change would have it
        assert await line.is_reset()
        assert stage.now == 0.0
        hop = proxy.books.hop
        assert (hop.flag, hop.error and hop.error.midway) == ("ID", "identity")

    story()
