"""Trunks: places, waiting, failure, renewal and death, with virtual time and an upstream made by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from sidecar.errors import ConnectFailed, HopError, InternalError, Overflow, UpstreamClosed, UpstreamIdle
from sidecar.http.h2 import H2Limits
from sidecar.http.message import NEED_DATA, Data, End, RequestHead, ResponseHead
from sidecar.net.memory import EPOCH, MemoryPort
from sidecar.net.mtls import Peer
from sidecar.net.pool import Connection
from sidecar.net.port import NEVER, Task, WireBroken
from sidecar.proxy.trunks import Trunks
from tests.kit.h1_line import HungUp, Line
from tests.kit.h2_line import H2Line, Requests, answer_ok, h2_app
from tests.kit.h2_wire import GOAWAY, SETTINGS, frame, settings, word
from tests.kit.hops import A_TLS, ORDERS
from tests.kit.play import Serve

PEER = Peer(ORDERS, A_TLS, "ab")


class Scene:
    """An upstream, trunks to it, and requests that share them."""

    def __init__(
        self, port: MemoryPort, serve: Serve, *, most: int = 4, peer: Peer | None = None, **limits: Any
    ) -> None:
        self.port = port
        self.peer = peer
        self.lines: list[Line] = []
        self.failure: Exception | None = None
        self.delay = 0.0
        self.generation = 0
        self.ends: list[str] = []  # why connections have ended
        self._serve = serve
        port.listen("up", 1, self._accept)
        self.trunks = Trunks(
            port, self._connect, name="up", limits=H2Limits(**limits), scheme=b"http", idle=60.0, stall=300.0,
            most=most, pending=1.0, on_end=self.ends.append,
        )  # fmt: skip

    async def _accept(self, wire: Any) -> None:
        line = Line(wire)
        self.lines.append(line)
        try:
            await self._serve(line)
        except (HungUp, WireBroken):
            pass
        finally:
            wire.close()

    async def _connect(self) -> Connection:
        generation = self.generation
        if self.delay:
            await self.port.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        wire = await self.port.dial("up", 1)
        codec: Any = None
        return Connection(wire, codec, self.peer, "up:1", generation)

    async def ask(self) -> bytes:
        """One request; the body of its answer."""
        connection = await self.trunks.take(NEVER)
        self.port.deadline(NEVER)
        try:
            connection.codec.begin(RequestHead(b"GET", b"/", [(b"host", b"up")]))
            await connection.wire.write(b"")
            body = b""
            while True:
                event = connection.codec.next_event()
                if event is NEED_DATA:
                    await connection.wire.read()
                elif isinstance(event, Data):
                    body += event.data
                elif isinstance(event, End):
                    return body
                else:
                    assert isinstance(event, ResponseHead)
                    assert event.status == 200
        finally:
            self.trunks.discard(connection)

    def many(self, count: int) -> list[Task]:
        """So many at once."""
        self.answers: list[bytes | BaseException] = []

        async def one() -> None:
            try:
                self.answers.append(await self.ask())
            except HopError as error:
                self.answers.append(error)

        return [self.port.spawn(one()) for _ in range(count)]

    async def all(self, count: int) -> list[bytes | BaseException]:
        """Ask so many at once, and wait for what becomes of them."""
        for task in self.many(count):
            await self.port.wait(task)
        return self.answers


def play(script: Callable[[Scene], Coroutine[Any, Any, None]], serve: Serve, **options: Any) -> None:
    """Run a scene; in the end every task and wire has gone."""
    port = MemoryPort()

    async def whole() -> None:
        scene = Scene(port, serve, **options)
        await script(scene)
        trunks = scene.trunks
        trunks.retire()
        await port.settled()
        assert (trunks.open, trunks._connecting, len(trunks._calls), len(trunks._waiting)) == (0, 0, 0, 0)

    try:
        port.run(whole())
    finally:
        port.close()


def test_many_callers_share_one_connection() -> None:
    async def script(scene: Scene) -> None:
        assert await scene.all(80) == [b"ok"] * 80
        assert len(scene.lines) == 1

    play(script, h2_app(answer_ok))


def test_no_more_is_asked_at_once_than_the_upstream_takes() -> None:
    """Nobody knows before its SETTINGS have come; so only one request goes before."""
    under_way = most = 0

    async def slowly(line: H2Line, stream: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)

        async def later() -> None:
            nonlocal under_way
            await scene_port[0].sleep(0.1)
            under_way -= 1
            await answer_ok(line, stream)

        scene_port[0].spawn(later())

    scene_port: list[MemoryPort] = []

    async def script(scene: Scene) -> None:
        scene_port.append(scene.port)
        assert await scene.all(30) == [b"ok"] * 30
        assert most == 5
        assert len(scene.lines) == 1

    play(script, h2_app(slowly, greeting=settings((3, 5))), most=1)


def test_who_finds_no_place_in_time_overflows_and_the_places_stay_right() -> None:
    async def never(line: H2Line, stream: int) -> None:
        held.append((line, stream))

    held: list[tuple[H2Line, int]] = []

    async def script(scene: Scene) -> None:
        tasks = scene.many(5)
        await scene.port.sleep(1.5)
        assert [type(answer) for answer in scene.answers] == [Overflow] * 3
        assert not scene.trunks._waiting
        for line, stream in held:
            await answer_ok(line, stream)
        for task in tasks:
            await scene.port.wait(task)
        assert scene.answers[3:] == [b"ok"] * 2
        assert scene.trunks._find() is not None

    play(script, h2_app(never, greeting=settings((3, 2))), most=1)


def test_all_who_wait_for_a_connection_wait_as_long_as_connecting_takes() -> None:
    async def script(scene: Scene) -> None:
        scene.delay = 3.0
        assert await scene.all(10) == [b"ok"] * 10
        assert scene.port.now == pytest.approx(3.0, abs=0.1)

    play(script, h2_app(answer_ok))


@pytest.mark.parametrize(("failure", "told"), [(ConnectFailed("no"), ConnectFailed), (KeyError("x"), InternalError)])
def test_all_who_wait_fail_with_the_connection_and_the_next_one_tries_again(
    failure: Exception, told: type[HopError]
) -> None:
    async def script(scene: Scene) -> None:
        scene.failure, scene.delay = failure, 0.5
        answers = await scene.all(10)
        assert {type(answer) for answer in answers} == {told}
        assert scene.port.now == pytest.approx(0.5, abs=0.2)
        scene.failure = None
        assert await scene.ask() == b"ok"

    play(script, h2_app(answer_ok))


def test_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    async def script(scene: Scene) -> None:
        scene.delay = 0.5
        tasks = scene.many(3)
        await scene.port.sleep(0.1)
        tasks[0].cancel()
        for task in tasks[1:]:
            await scene.port.wait(task)
        assert scene.answers == [b"ok"] * 2

    play(script, h2_app(answer_ok))


def test_a_connection_that_dies_fails_its_requests_and_those_who_wait_get_another() -> None:
    async def mortal(line: H2Line, stream: int) -> None:
        if len(lines[0].lines) == 1:
            if stream == 3:
                line.line.close()
            return
        await answer_ok(line, stream)

    lines: list[Scene] = []

    async def script(scene: Scene) -> None:
        lines.append(scene)
        answers = await scene.all(5)
        assert [type(answer) for answer in answers] == [UpstreamClosed] * 2 + [bytes] * 3
        assert len(scene.lines) == 2

    play(script, h2_app(mortal, greeting=settings((3, 2))), most=1)


def test_a_connection_is_replaced_before_it_is_full() -> None:
    async def script(scene: Scene) -> None:
        for _ in range(10):
            assert await scene.ask() == b"ok"
        await scene.port.settled()
        assert len(scene.lines) == 4
        assert scene.trunks.open == 1  # the others have been left, and closed

    play(script, h2_app(answer_ok), streams_per_connection=3)


def test_goaway_takes_no_more_requests_and_ends_with_those_it_has() -> None:
    async def leaving(line: H2Line, stream: int) -> None:
        await line.say(frame(GOAWAY, 0, 0, word(stream) + word(0)))
        await answer_ok(line, stream)

    async def script(scene: Scene) -> None:
        for _ in range(3):
            assert await scene.ask() == b"ok"
            await scene.port.settled()
            assert scene.trunks.open == 0
        assert len(scene.lines) == 3

    play(script, h2_app(leaving))


def test_renewal_replaces_connections_and_requests_under_way_end_on_the_old_one() -> None:
    async def held(line: H2Line, stream: int) -> None:
        waiting.append((line, stream))

    waiting: list[tuple[H2Line, int]] = []

    async def script(scene: Scene) -> None:
        tasks = scene.many(1)
        await scene.port.settled()
        scene.generation = 1
        scene.trunks.renew(1)
        tasks += scene.many(1)
        await scene.port.settled()
        assert len(scene.lines) == 2
        for line, stream in waiting:
            await answer_ok(line, stream)
        for task in tasks:
            await scene.port.wait(task)
        await scene.port.settled()
        assert scene.trunks.open == 1

    play(script, h2_app(held))


def test_a_retired_upstream_serves_who_was_on_the_way_and_keeps_nothing() -> None:
    async def script(scene: Scene) -> None:
        scene.trunks.retire()
        assert await scene.ask() == b"ok"
        await scene.port.settled()
        assert scene.trunks.open == 0
        assert len(scene.lines) == 1

    play(script, h2_app(answer_ok))


def test_an_idle_connection_is_left_and_closed() -> None:
    async def script(scene: Scene) -> None:
        assert await scene.ask() == b"ok"
        await scene.port.sleep(59)
        scene.trunks.sweep()
        await scene.port.settled()
        assert scene.trunks.open == 1
        await scene.port.sleep(2)
        scene.trunks.sweep()
        await scene.port.settled()
        assert scene.trunks.open == 0

    play(script, h2_app(answer_ok))


@pytest.mark.parametrize("answers_pings", [True, False])
def test_a_peer_that_has_died_in_silence_is_found_out(answers_pings: bool) -> None:
    async def silent(raw: Line) -> None:
        line = H2Line(raw, polite=answers_pings)
        await raw.hear(24)
        await line.say(settings())
        while True:
            await line.next()

    async def script(scene: Scene) -> None:
        tasks = scene.many(2)
        for _ in range(60):
            await scene.port.sleep(0.5)
            scene.trunks.sweep()
        await scene.port.settled()
        if answers_pings:
            assert scene.answers == []
            for task in tasks:
                task.cancel()
        else:
            assert {type(answer) for answer in scene.answers} == {UpstreamIdle}
            assert scene.trunks.open == 0

    play(script, silent, peer=PEER)


# ---- places for tunnels ----------------------------------------------------------------------------------------------

TAKES_TUNNELS = settings((8, 1))  # SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441 section 3


@pytest.mark.parametrize(("greeting", "takes"), [(settings(), False), (TAKES_TUNNELS, True), (settings((8, 0)), False)])
def test_a_tunnel_has_a_place_only_where_the_other_side_takes_them(greeting: bytes, takes: bool) -> None:
    async def script(scene: Scene) -> None:
        scene.delay = 0.5
        for _ in range(2):
            connection = await scene.trunks.take_tunnel()
            assert (connection is not None) is takes
            if connection is not None:
                scene.trunks.discard(connection)
        assert len(scene.lines) == 1

    play(script, h2_app(answer_ok, greeting=greeting))


def test_who_never_says_whether_it_takes_tunnels_does_not() -> None:
    async def script(scene: Scene) -> None:
        async def sweep() -> None:
            while True:
                await scene.port.sleep(0.5)
                scene.trunks.sweep()

        sweeping = scene.port.spawn(sweep())
        assert await scene.trunks.take_tunnel() is None
        assert scene.port.now == pytest.approx(10.0, abs=1.0)  # limits.head_seconds
        sweeping.cancel()
        assert scene.ends == ["protocol"]

    async def mute(raw: Line) -> None:
        await raw.hear_all()

    play(script, mute)


def test_who_gives_up_waiting_for_that_word_leaves_its_place() -> None:
    async def script(scene: Scene) -> None:
        waiting = scene.port.spawn(scene.trunks.take_tunnel())
        await scene.port.sleep(1)
        waiting.cancel()
        await scene.port.settled()
        assert not scene.trunks._calls
        scene.lines[0].close()

    async def mute(raw: Line) -> None:
        await raw.hear_all()

    play(script, mute)


# ---- why they end ----------------------------------------------------------------------------------------------------


async def broken(line: H2Line, stream: int) -> None:
    line.line.abort()


async def closing(line: H2Line, stream: int) -> None:
    await line.line.finish()


async def lawless(line: H2Line, stream: int) -> None:
    await line.say(frame(SETTINGS, 0, stream))  # on a stream, where it has no place


async def going(line: H2Line, stream: int) -> None:
    await answer_ok(line, stream)
    await line.say(frame(GOAWAY, 0, 0, word(stream) + word(0)))


ENDS: list[tuple[str, Requests, dict[str, int]]] = [
    ("broken", broken, {}),
    ("closed", closing, {}),
    ("protocol", lawless, {}),
    ("goaway", going, {}),
    ("full", answer_ok, {"streams_per_connection": 1}),
]


@pytest.mark.parametrize(("why", "serve", "limits"), ENDS, ids=[why for why, *_ in ENDS])
def test_a_connection_that_ends_is_counted_by_its_reason(
    why: str, serve: Requests, limits: dict[str, int]
) -> None:
    async def script(scene: Scene) -> None:
        await scene.all(1)
        await scene.port.settled()
        assert scene.ends == [why]

    play(script, h2_app(serve), **limits)


@pytest.mark.parametrize("why", ["idle", "renewed", "retired", "expired"])
def test_a_connection_that_we_leave_is_counted_by_our_reason(why: str) -> None:
    async def script(scene: Scene) -> None:
        assert await scene.ask() == b"ok"
        if why == "renewed":
            scene.generation = 1
            scene.trunks.renew(1)
        elif why == "retired":
            scene.trunks.retire()
        elif why == "idle":
            await scene.port.sleep(61)
            scene.trunks.sweep()
        else:
            await scene.port.sleep(10)
            scene.peer = PEER
            assert await scene.ask() == b"ok"
            assert len(scene.lines) == 2
        await scene.port.settled()
        assert scene.ends == [why]

    tls = replace(A_TLS, not_after=EPOCH + (5 if why == "expired" else 1e9))
    play(script, h2_app(answer_ok), peer=Peer(ORDERS, tls, "ab"))


def test_a_connection_whose_peer_fell_silent_is_counted_as_such() -> None:
    async def script(scene: Scene) -> None:
        scene.many(1)
        for _ in range(40):
            await scene.port.sleep(0.5)
            scene.trunks.sweep()
        assert scene.ends == ["silent"]

    async def mute(raw: Line) -> None:
        await raw.hear(24)
        await raw.say(settings())
        await raw.hear_all()

    play(script, mute, peer=PEER)
