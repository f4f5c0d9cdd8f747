"""The deadline of a gRPC call on its way (PROTOCOL-HTTP2.md, Timeout): each hop is told what is left of it."""

from __future__ import annotations

import pytest

from tests.kit.h1_line import HungUp, Line
from tests.kit.h2_line import ORDERS_POST, H2Line, answer_ok, h2_app, h2_call, h2_peer
from tests.kit.h2_wire import RST_STREAM, data, frame, headers, word
from tests.kit.play import Stage, scene

REFUSED = 7


def a_call(timeout: bytes) -> bytes:
    """A call with this deadline."""
    fields = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"grpc-timeout", timeout))
    return headers(1, fields, end=False) + data(1, b"", end=True)


class App:
    """An application that keeps what it is told of each deadline."""

    def __init__(self, stage: Stage, *, refusals: int = 0) -> None:
        self.told: list[bytes] = []
        self._stage = stage
        self._refusals = refusals

    async def __call__(self, line: H2Line, stream: int) -> None:
        """Answer a call, or say that it has not begun, after a moment."""
        self.told.append(line.answers[stream].headers[b"grpc-timeout"])
        if len(self.told) > self._refusals:
            await answer_ok(line, stream)
            return
        await self._stage.sleep(0.2)
        await line.say(frame(RST_STREAM, 0, stream, word(REFUSED)))

    def listen(self, delay: float) -> None:
        """Be hard to reach."""

        async def serve(wire: object) -> None:
            try:
                await h2_app(self)(Line(wire))  # type: ignore[arg-type]
            except HungUp:
                pass
            finally:
                wire.close()  # type: ignore[attr-defined]

        self._stage.port.listen("127.0.0.1", 8080, serve, delay=delay)  # type: ignore[arg-type]


WHOLE = [(b"1S", b"1000000u"), (b"250m", b"250000u"), (b"99999999n", b"99999999n"), (b"3H", b"10800000m")]


@pytest.mark.parametrize(("given", "told"), WHOLE)
@scene()
async def test_what_is_passed_on_is_all_of_it_where_no_time_was_lost(stage: Stage, given: bytes, told: bytes) -> None:
    app = App(stage)
    stage.app(h2_app(app))
    web = await h2_call(stage, a_call(given))
    assert (await web.answer(1)).status == 200
    assert app.told == [told]


@scene()
async def test_time_that_was_spent_connecting_is_not_given_twice(stage: Stage) -> None:
    app = App(stage)
    app.listen(delay=0.3)
    web = await h2_call(stage, a_call(b"1S"))
    assert (await web.answer(1)).status == 200
    (told,) = app.told
    assert told[-1:] == b"u"
    assert 690_000 < int(told[:-1]) <= 700_000


@scene()
async def test_each_attempt_is_told_anew(stage: Stage) -> None:
    app = App(stage, refusals=2)
    stage.app(h2_app(app))
    web = await h2_peer(stage, a_call(b"1S"))
    assert (await web.answer(1)).status == 200
    first, second, third = (int(told.rstrip(b"u")) for told in app.told)
    assert first == 1_000_000
    assert first - 300_000 < second <= first - 200_000  # what the refusal took, and the wait before another attempt
    assert second - 400_000 < third <= second - 200_000


@pytest.mark.parametrize("delay", [1.0, 1.5])
@scene()
async def test_who_cannot_be_reached_in_time_is_not_asked(stage: Stage, delay: float) -> None:
    app = App(stage)
    app.listen(delay=delay)
    web = await h2_peer(stage, a_call(b"1S"))
    answer = await web.answer(1)
    assert answer.headers[b"grpc-status"] == b"4"
    await stage.sleep(2)
    assert app.told == []
    hop = stage.orders.books.hop
    assert (hop.grpc_status, hop.endpoint) == ("DEADLINE_EXCEEDED", "")


@scene()
async def test_a_request_that_is_no_call_keeps_its_field(stage: Stage) -> None:
    """What is not gRPC may mean anything by it."""
    told: list[bytes] = []

    async def serve(line: Line) -> None:
        told.append((await line.request()).get("grpc-timeout") or b"")
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    stage.app(serve)
    web = await h2_call(stage, headers(1, (*ORDERS_POST, (b"grpc-timeout", b"1S"))))
    assert (await web.answer(1)).status == 200
    assert told == [b"1S"]
