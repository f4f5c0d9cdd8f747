"""One contract for every wire: in memory, on sockets, in TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.net.port import Cancelled, Expired, PeerGone, Unreachable, WireBroken
from tests.kit.drivers import DRIVERS, Pair, loopback_pair, on_reactor, read_all, read_exactly

BIG = bytes(range(256)) * 32 * 1024  # 8 MiB: more than any socket buffer

Run = Callable[[Any], Any]


@pytest.fixture(params=DRIVERS)
def run(request: pytest.FixtureRequest) -> Run:
    driver: Run = DRIVERS[request.param]
    return driver


def test_bytes_arrive_in_order_and_are_counted_at_both_ends(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        for piece in (b"one ", b"two ", b"three"):
            await a.write(piece)
        assert await read_exactly(b, 13) == b"one two three"
        await b.write(b"four")
        assert await read_exactly(a, 4) == b"four"
        assert (a.sent, b.received, b.sent, a.received) == (13, 13, 4, 4)
        a.close()
        b.close()

    run(scenario)


def test_an_end_ends_one_direction_and_the_other_goes_on(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        await a.write(b"question")
        await a.finish()
        assert await read_all(b) == b"question"
        assert await b.read() == b""  # and again, however often one asks
        await b.write(b"a long answer")
        await b.finish()
        assert await read_all(a) == b"a long answer"

    run(scenario)


def test_a_writer_waits_for_a_slow_reader(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        writer = port.spawn(a.write(BIG))
        await port.sleep(0.05)
        assert not writer.happened
        assert 0 < a.sent < len(BIG)
        assert await read_exactly(b, len(BIG)) == BIG
        await port.wait(writer)
        assert a.sent == len(BIG)

    run(scenario)


def test_both_directions_flow_at_once(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        tasks = [port.spawn(a.write(BIG)), port.spawn(b.write(BIG))]
        found: dict[str, bytes] = {}

        async def drain(name: str, wire: Any) -> None:
            found[name] = await read_exactly(wire, len(BIG))

        tasks += [port.spawn(drain("a", a)), port.spawn(drain("b", b))]
        for task in tasks:
            await port.wait(task)
        assert found == {"a": BIG, "b": BIG}

    run(scenario)


def test_a_close_is_an_end_to_who_has_read_everything(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        await a.write(b"goodbye")
        a.close()
        assert await read_all(b) == b"goodbye"

    run(scenario)


def test_an_abort_is_never_taken_for_an_end(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        await a.write(b"half of it")
        a.abort()
        with pytest.raises(WireBroken):
            await read_all(b)

    run(scenario)


def test_writing_to_one_who_left_fails_in_the_end(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        b.close()

        async def write_on() -> None:
            for _ in range(100):
                await a.write(b"x" * 1000)
                await port.sleep(0.01)

        with pytest.raises(WireBroken):
            await write_on()

    run(scenario)


def test_a_blocked_writer_learns_of_a_reset(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()

        async def leave() -> None:
            await port.sleep(0.02)
            b.abort()

        port.spawn(leave())
        with pytest.raises(WireBroken):
            await a.write(BIG)

    run(scenario)


def test_what_is_closed_stays_closed(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, _ = await pair()
        a.close()
        a.close()
        a.abort()
        await a.finish()
        with pytest.raises(WireBroken):
            await a.write(b"x")

    run(scenario)


def test_closing_tells_our_own_reader(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, _ = await pair()

        async def close_soon() -> None:
            await port.sleep(0.01)
            a.close()

        port.spawn(close_soon())
        with pytest.raises(WireBroken, match="by ourselves"):
            await a.read()

    run(scenario)


def test_a_deadline_ends_a_read_and_nothing_else(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        port.deadline(port.now + 0.05)
        began = port.now
        with pytest.raises(Expired):
            await b.read()
        assert port.now - began >= 0.05  # never early
        await a.write(b"later")
        assert await b.read() == b"later"  # and the deadline is gone

    run(scenario)


def test_a_cancelled_reader_loses_no_byte(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        reader = port.spawn(b.read())
        await port.sleep(0.01)
        await a.write(b"for the next one")
        reader.cancel()
        assert isinstance(reader.error, Cancelled)
        assert await read_exactly(b, 16) == b"for the next one"

    run(scenario)


def test_a_resting_wire_says_once_that_something_came(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        stirs: list[str] = []
        b.rest(lambda: stirs.append("stirred"))
        await port.sleep(0.02)
        assert stirs == []
        await a.write(b"unasked")
        await port.sleep(0.02)
        await a.write(b"again")
        await port.sleep(0.02)
        assert stirs == ["stirred"]

    run(scenario)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_resting_wire_says_that_the_other_side_left(run: Run, how: str) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        stirs: list[str] = []
        b.rest(lambda: stirs.append("stirred"))
        getattr(a, how)()
        await port.sleep(0.02)
        assert stirs == ["stirred"]

    run(scenario)


def test_a_wire_called_back_from_rest_is_read_as_ever(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        a, b = await pair()
        stirs: list[str] = []
        b.rest(lambda: stirs.append("stirred"))
        b.rest(None)
        await a.write(b"hello")
        await port.sleep(0.02)
        assert stirs == []
        assert await b.read() == b"hello"

    run(scenario)


@pytest.mark.parametrize(("how", "reset"), [("close", False), ("abort", True)])
def test_who_waits_for_one_wire_learns_that_the_other_hung_up(run: Run, how: str, reset: bool) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        caller, downstream = await pair()
        upstream, _ = await pair()
        await downstream.write(b"!")  # in TLS session tickets travel with it, and unread they would turn FIN into RST
        assert await caller.read() == b"!"

        async def leave() -> None:
            await port.sleep(0.01)
            getattr(caller, how)()

        port.spawn(leave())
        with pytest.raises(PeerGone) as gone:
            await upstream.read(downstream)
        assert gone.value.reset is reset
        with pytest.raises(PeerGone):  # it stays true
            await upstream.read(downstream)

    run(scenario)


def test_bytes_on_the_watched_wire_are_no_reason_to_wake(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        caller, downstream = await pair()
        upstream, app = await pair()

        async def play() -> None:
            await caller.write(b"a pipelined request")
            await port.sleep(0.02)
            await app.write(b"answer")

        port.spawn(play())
        assert await upstream.read(downstream) == b"answer"
        assert await downstream.read() == b"a pipelined request"

    run(scenario)


def test_who_reads_the_watched_wire_is_not_disturbed(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        caller, downstream = await pair()
        upstream, app = await pair()
        found: list[bytes] = []

        async def pump() -> None:
            found.append(await read_exactly(downstream, 4))
            await app.write(b"answer")

        port.spawn(pump())
        await caller.write(b"body")
        assert await upstream.read(downstream) == b"answer"
        assert found == [b"body"]

    run(scenario)


def test_an_address_that_nobody_listens_on_is_unreachable(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        with pytest.raises(Unreachable):
            await port.dial("127.0.0.1", 1)

    run(scenario)


def test_a_reset_wire_does_not_spin_the_reactor() -> None:
    """EPOLLHUP cannot be silenced: such a wire leaves epoll until somebody reads it."""
    from sidecar.net.wires import SocketWire

    async def body(reactor: Any) -> None:
        left, right = loopback_pair()
        a, b = SocketWire(reactor, left), SocketWire(reactor, right)
        a.abort()
        await reactor.sleep(0.15)
        turns = reactor.batch
        await reactor.sleep(0.3)
        assert reactor.batch - turns < 5
        with pytest.raises(WireBroken):
            await b.read()
        b.close()

    on_reactor(body)


def test_unread_bytes_do_not_spin_the_reactor() -> None:
    from sidecar.net.wires import SocketWire

    async def body(reactor: Any) -> None:
        left, right = loopback_pair()
        a, b = SocketWire(reactor, left), SocketWire(reactor, right)
        await a.write(b"nobody wants me")
        await reactor.sleep(0.15)
        turns = reactor.batch
        await reactor.sleep(0.3)
        assert reactor.batch - turns < 5
        assert await b.read() == b"nobody wants me"
        a.close()
        b.close()

    on_reactor(body)
