"""The least rate of bodies: who trickles is ended, and nobody else is (sidecar.proxy.pace)."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"
HOUR = 3600
EARLY = "mesh_connections_ended_early_total"


async def trickle(line: Line, stage: Stage, every: float = 1.0, data: bytes = b"x") -> None:
    """Send so little, again and again, until the other side has had enough."""
    while not line.wire.closed and not line.wire.reset:
        await line.say(data)
        await stage.sleep(every)


async def deaf(line: Line) -> None:
    """Reads the head, and then whatever comes, and never answers."""
    await line.request_head()
    await line.hear_all()


def counted(stage: Stage, reason: str) -> float:
    """How often a request was ended for this reason at the sidecar of orders."""
    text = stage.orders.books.metrics.render().decode()
    wanted = f'{EARLY}{{direction="inbound",reason="{reason}"}} '
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted))


@pytest.mark.parametrize("head", [POST % 10000, CHUNKED + b"2710\r\n"], ids=["length", "chunk"])
@scene()
async def test_a_body_of_a_byte_a_second_is_ended_after_20_s(stage: Stage, head: bytes) -> None:
    stage.attend()
    stage.app(deaf)
    peer = await stage.peer()
    await peer.say(head)
    sending = stage.port.spawn(trickle(peer, stage))
    answer = await peer.answer()
    sending.cancel()
    hop = stage.orders.books.hop
    assert (answer.status, answer.get("connection"), hop.flag) == (408, b"close", "DT")
    assert hop.error is not None
    assert hop.error.name == "too_slow"
    assert 20.0 < hop.ended <= 21.5
    assert counted(stage, "slow_body") == 1
    await stage.quiet()
    assert stage.apps[0].wire.closed, "the application was not told that it has only a part"


@scene()
async def test_the_next_caller_is_unharmed(stage: Stage) -> None:
    stage.attend()
    stage.app(apps.always(apps.OK))
    slow, other = await stage.peer(), await stage.peer()
    await slow.say(POST % 10000)
    sending = stage.port.spawn(trickle(slow, stage))
    while "DT" not in stage.orders.books.flags:
        await other.say(GET)
        assert (await other.answer()).status == 200
        await stage.sleep(1.0)
    assert (await slow.answer()).status == 408
    sending.cancel()
    await other.say(GET)
    assert (await other.answer()).status == 200


@scene()
async def test_a_slow_upload_of_our_own_application_is_judged_by_the_called_sidecar_alone(stage: Stage) -> None:
    stage.attend()
    stage.app(deaf)
    web = await stage.call()
    await web.say(POST % 10000)
    sending = stage.port.spawn(trickle(web, stage))
    answer = await web.answer()
    sending.cancel()
    assert (answer.status, answer.get("mesh-decision-id")) == (408, stage.orders.books.hop.decision_id.encode())
    await stage.sleep(3.0)
    assert stage.orders.books.flags == ["DT"]
    assert "DT" not in stage.web.books.flags


@scene()
async def test_a_byte_a_minute_is_ended_too(stage: Stage) -> None:
    """Of each pause 5 s count, so it takes a few of them."""
    stage.attend()
    stage.app(deaf)
    peer = await stage.peer()
    await peer.say(POST % 10000)
    sending = stage.port.spawn(trickle(peer, stage, every=60.0))
    assert (await peer.answer()).status == 408
    sending.cancel()
    assert 180.0 < stage.orders.books.hop.ended < 300.0


@scene(orders_limits=", body_rate: off")
async def test_without_a_least_rate_a_body_may_take_for_ever(stage: Stage) -> None:
    stage.attend()
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(POST % 1000)
    for _ in range(1000):
        await peer.say(b"x")
        await stage.sleep(1.0)
    assert (await peer.answer()).status == 200


@scene(orders="    timeouts: {slow: 2s}", orders_limits=", body_rate: 4KiB")
async def test_rate_and_patience_can_be_chosen(stage: Stage) -> None:
    stage.attend()
    stage.app(deaf)
    peer = await stage.peer()
    await peer.say(POST % 1_000_000)
    sending = stage.port.spawn(trickle(peer, stage, data=bytes(1024)))
    assert (await peer.answer()).status == 408
    sending.cancel()
    assert 2.0 < stage.orders.books.hop.ended <= 4.5  # at a quarter of the rate, three quarters of the time count


@scene()
async def test_a_body_at_the_least_rate_comes_through(stage: Stage) -> None:
    stage.attend()
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(POST % 300_000)
    for _ in range(600):
        await peer.say(bytes(500))
        await stage.sleep(1.0)
    assert (await peer.answer()).status == 200


@scene()
async def test_a_body_may_still_pause_for_5_min(stage: Stage) -> None:
    stage.attend()
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(POST % 100_000)
    for _ in range(10):
        await peer.say(bytes(10_000))
        await stage.sleep(299.0)
    assert (await peer.answer()).status == 200


@scene()
async def test_and_not_longer(stage: Stage) -> None:
    stage.attend()
    stage.app(deaf)
    peer = await stage.peer()
    await peer.say(POST % 10 + b"12345")
    assert (await peer.answer()).status == 408
    assert (stage.orders.books.hop.flag, stage.orders.books.hop.ended) == ("SI", 300.0)


@scene()
async def test_a_stream_of_small_chunks_owes_nothing_between_them(stage: Stage) -> None:
    stage.attend()
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(CHUNKED)
    for _ in range(HOUR // 10):
        await peer.say(b"1\r\n.\r\n")
        await stage.sleep(10.0)
    await peer.say(b"0\r\n\r\n")
    assert (await peer.answer()).status == 200


@scene(orders="    timeouts: {response_head: 1h}")
async def test_time_in_which_the_application_does_not_read_does_not_count(stage: Stage) -> None:
    size = 400_000

    async def slow(line: Line) -> None:
        await line.request_head()
        line_read = 0
        while line_read < size:
            line_read += len(await line.hear(min(100, size - line_read)))
            await stage.sleep(1.0)
        await line.say(apps.OK)

    stage.attend()
    stage.port.read_bytes = 100
    stage.app(slow)
    peer = await stage.peer()
    sending = stage.port.spawn(peer.say(POST % size + bytes(size)))
    assert (await peer.answer()).status == 200
    assert stage.now >= HOUR
    assert sending.happened
    assert stage.orders.books.flags == ["-"]


@scene()
async def test_who_waits_for_100_continue_owes_nothing(stage: Stage) -> None:
    async def thinks(line: Line) -> None:
        await line.request_head()
        await stage.sleep(120.0)
        await line.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await line.hear(5)
        await line.say(apps.OK)

    stage.attend()
    stage.app(thinks)
    peer = await stage.peer()
    await peer.say(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % 5)
    assert await peer.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await peer.say(b"hello")
    assert (await peer.answer()).status == 200


@scene(orders="    timeouts: {response_head: 1h}")
async def test_a_long_poll_is_not_slow(stage: Stage) -> None:
    async def later(line: Line) -> None:
        await line.request()
        await stage.sleep(HOUR - 1.0)
        await line.say(apps.OK)

    stage.attend()
    stage.app(later)
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200


@scene()
async def test_an_answer_that_comes_slowly_is_not_its_readers_fault(stage: Stage) -> None:
    async def ticks(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(HOUR // 10):
            await stage.sleep(10.0)
            await line.say(b"1\r\n.\r\n")
        await line.say(b"0\r\n\r\n")

    stage.attend()
    stage.app(ticks)
    peer = await stage.peer()
    await peer.say(GET)
    assert len((await peer.answer()).body) == HOUR // 10


async def pour(line: Line) -> None:
    """A long answer, as fast as it is taken."""
    await line.request()
    await line.say(LONG + bytes(10_000_000))


async def sip(line: Line, stage: Stage, seconds: int) -> int:
    """Take 100 bytes a second for so long, or until the connection breaks; returns for how many seconds it went."""
    for second in range(seconds):
        if line.wire.reset:
            return second
        await line.hear(100)
        await stage.sleep(1.0)
    return seconds


@scene()
async def test_a_slow_reader_is_cut(stage: Stage) -> None:
    stage.attend()
    stage.port.read_bytes = 100
    stage.app(pour)
    peer = await stage.peer()
    await peer.say(GET)
    assert await sip(peer, stage, 600) < 60
    hop = stage.orders.books.hop
    assert hop.error is not None
    assert (hop.error.name, hop.flag, hop.status) == ("too_slow", "DT", 200)
    assert "takes its answer" in hop.error.detail
    assert 20.0 < hop.ended < 30.0
    assert counted(stage, "slow_reader") == 1


@scene(orders_limits=", body_rate: 100B")
async def test_a_reader_at_the_least_rate_is_not(stage: Stage) -> None:
    stage.attend()
    stage.port.read_bytes = 100
    stage.app(pour)
    peer = await stage.peer()
    await peer.say(GET)
    assert await sip(peer, stage, 600) == 600
    assert not stage.orders.books.hops
    peer.close()
    await stage.quiet()


@scene()
async def test_a_reader_may_pause_for_5_min(stage: Stage) -> None:
    stage.attend()
    stage.app(pour)
    peer = await stage.peer()
    await peer.say(GET)
    await peer.until(b"\r\n\r\n")
    for _ in range(5):
        await stage.sleep(299.0)
        await peer.hear(400_000)
    assert not stage.orders.books.hops
    peer.close()
    await stage.quiet()


@scene()
async def test_an_upgrade_has_no_least_rate(stage: Stage) -> None:
    async def chat(line: Line) -> None:
        await line.request_head()
        await line.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await line.hear_all()

    stage.attend()
    stage.app(chat)
    peer = await stage.peer()
    await peer.say(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await peer.answer()).status == 101
    for _ in range(600):
        await peer.say(b"x")
        await stage.sleep(1.0)
    peer.close()
    await stage.sleep(1.0)
    assert stage.orders.books.hop.received_bytes == 600
    assert counted(stage, "slow_body") == 0


@scene()
async def test_raw_tcp_has_no_least_rate(stage: Stage) -> None:
    async def sink(line: Line) -> None:
        await line.hear_all()

    stage.attend()
    stage.app(sink, "127.0.0.1:5432")
    web = await stage.call(9002)
    for _ in range(600):
        await web.say(b"x")
        await stage.sleep(1.0)
    web.close()
    await stage.sleep(1.0)
    assert stage.orders.books.hop.received_bytes == 600
