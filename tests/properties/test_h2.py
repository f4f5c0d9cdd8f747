"""Two HTTP/2 connections back to back, driven at random and cut anywhere: nothing is lost, nothing crosses, nothing
piles up, and no window goes below zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sidecar.hop import Headers
from sidecar.http.h2 import Abuse, Code, H2Client, H2Limits, H2Server, H2Stream, Opened
from sidecar.http.h2.limits import RATES, Rate
from sidecar.http.message import CLOSED, NEED_DATA, Data, End, RequestHead, ResponseHead
from tests.kit.h2_wire import exchange

WINDOW = 5000
# Whoever cancels at random, and sends bodies in drops, does what the budgets are there to end.
LIMITS = H2Limits(stream_window=WINDOW, connection_window=70_000, streams=6, rates=dict.fromkeys(RATES, Rate(1e9, 1e9)))


@dataclass
class Way:
    """One message as it was sent and as it has come."""

    sent: bytearray = field(default_factory=bytearray)
    ended: bool = False
    trailers: Headers = field(default_factory=list)
    come: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def take(self, event: object) -> None:
        assert not self.whole, "something after the end"
        if isinstance(event, Data):
            self.come += event.data
            assert self.sent.startswith(self.come), "other bytes than were sent"
        elif isinstance(event, End):
            assert self.ended
            assert self.come == self.sent, "an end before all was there"
            assert event.trailers == self.trailers
            self.whole = True


@dataclass
class Call:
    """One exchange, from both ends."""

    mine: H2Stream
    path: bytes
    theirs: H2Stream | None = None
    request: Way = field(default_factory=Way)
    response: Way = field(default_factory=Way)
    status: int = 0
    seen_status: int = 0
    given_up: bool = False
    finished: bool = False  # by the server, before all of the request was there


class TwoConnections(RuleBasedStateMachine):
    """A client and a server of ours, and the wires between them."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.server = H2Client(LIMITS), H2Server(LIMITS)
        exchange(self.client, self.server)  # before that, a client takes the limit of streams for 100
        self.wires = {True: bytearray(), False: bytearray()}  # to the server; to the client
        self.calls: list[Call] = []
        self.count = 0
        self.now = 0.0
        self.leaving = False

    # ---- what is done ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.client.room > 0)
    @rule(body=st.booleans(), stated=st.none() | st.integers(0, 3000))
    def ask(self, body: bool, stated: int | None) -> None:
        self.count += 1
        path = b"/%d" % self.count
        headers: Headers = [(b"host", b"h"), (b"x-count", b"%d" % self.count)]
        way = Way(ended=not body)
        if body and stated is not None:
            headers.append((b"content-length", b"%d" % stated))
            way.sent += self.bytes_of(stated)
        mine = self.client.open(RequestHead(b"POST", path, headers, body=body, length=stated), scheme=b"https")
        call = Call(mine, path, request=way)
        if way.sent:
            mine.send_data(bytes(way.sent))
        if body and stated is not None:
            mine.send_end()
            way.ended = True
        self.calls.append(call)

    def bytes_of(self, size: int) -> bytes:
        """Bytes that tell where they belong."""
        return (b"<%d:%d>" % (self.count, size) * (size // 4 + 1))[:size]

    def open_calls(self, *, request: bool) -> list[Call]:
        if request:
            return [call for call in self.calls if not call.request.ended and call.mine.on_books]
        return [
            call for call in self.calls
            if call.status >= 200 and not call.response.ended and call.theirs is not None and call.theirs.on_books
        ]  # fmt: skip

    @precondition(lambda self: self.open_calls(request=True) or self.open_calls(request=False))
    @rule(pick=st.integers(0, 99), size=st.integers(0, 9000), request=st.booleans())
    def send_some(self, pick: int, size: int, request: bool) -> None:
        calls = self.open_calls(request=request)
        if calls:
            call = calls[pick % len(calls)]
            stream, way = (call.mine, call.request) if request else (call.theirs, call.response)
            assert stream is not None
            data = self.bytes_of(size)
            stream.send_data(data)
            way.sent += data

    @precondition(lambda self: self.open_calls(request=True) or self.open_calls(request=False))
    @rule(pick=st.integers(0, 99), request=st.booleans(), trailers=st.sampled_from([[], [(b"x-sum", b"1")]]))
    def end(self, pick: int, request: bool, trailers: Headers) -> None:
        calls = self.open_calls(request=request)
        if calls:
            call = calls[pick % len(calls)]
            stream, way = (call.mine, call.request) if request else (call.theirs, call.response)
            assert stream is not None
            way.ended, way.trailers = True, trailers
            stream.send_end(trailers)

    @precondition(lambda self: any(call.theirs is not None and not call.status for call in self.calls))
    @rule(pick=st.integers(0, 99), status=st.sampled_from([103, 200, 404]), end=st.booleans())
    def answer(self, pick: int, status: int, end: bool) -> None:
        calls = [call for call in self.calls if call.theirs is not None and not call.status]
        call = calls[pick % len(calls)]
        assert call.theirs is not None
        if status == 103:
            call.theirs.send_head(ResponseHead(103, []))
            return
        call.status = status
        call.theirs.send_head(ResponseHead(status, [(b"x-path", call.path)]), end=end)
        call.response.ended = end

    @precondition(lambda self: self.calls)
    @rule(pick=st.integers(0, 99), client=st.booleans())
    def give_up(self, pick: int, client: bool) -> None:
        call = self.calls[pick % len(self.calls)]
        stream = call.mine if client else call.theirs
        if stream is not None:
            call.given_up = True
            stream.reset(Code.CANCEL)

    @precondition(lambda self: any(call.theirs is not None and call.theirs.we_are_done for call in self.calls))
    @rule(pick=st.integers(0, 99))
    def finish(self, pick: int) -> None:
        """The answer is whole; whatever of the request has not been read is not wanted."""
        calls = [call for call in self.calls if call.theirs is not None and call.theirs.we_are_done]
        call = calls[pick % len(calls)]
        assert call.theirs is not None
        call.finished = True
        call.theirs.finish()

    @rule(client=st.booleans(), most=st.sampled_from([1, 500, 20_000]), size=st.integers(1, 20_000))
    def carry(self, client: bool, most: int, size: int) -> None:
        """Frame something, and let so many bytes of what is on its way arrive."""
        self.now += 0.001
        wire = self.wires[client]
        wire += (self.client if client else self.server).to_send(self.now, most)
        piece = bytes(wire[:size])
        del wire[:size]
        if piece:
            (self.server if client else self.client).receive(piece, self.now)
        self.look()

    @precondition(lambda self: self.calls)
    @rule(pick=st.integers(0, 99), client=st.booleans(), times=st.integers(1, 4))
    def read(self, pick: int, client: bool, times: int) -> None:
        call = self.calls[pick % len(self.calls)]
        stream = call.mine if client else call.theirs
        if stream is None:
            return
        for _ in range(times):
            if stream.error is not None:
                assert call.given_up or self.leaving or (call.finished and not client)
                return
            event = stream.next_event()
            if event in (NEED_DATA, CLOSED):
                return
            if isinstance(event, ResponseHead):
                assert event.status in (103, call.status)
                if event.status >= 200:
                    assert event.headers == [(b"x-path", call.path)], "the answer of another request"
                    call.seen_status = event.status
            elif not isinstance(event, RequestHead):
                (call.response if client else call.request).take(event)

    @precondition(lambda self: not self.leaving and self.count > 3)
    @rule()
    def leave(self) -> None:
        self.leaving = True
        self.server.begin_shutdown()

    # ---- what happens ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        while self.client.next_event() is not None:
            pass
        while (event := self.server.next_event()) is not None:
            if isinstance(event, Opened):
                head = event.stream.next_event() if event.stream.error is None else None
                if isinstance(head, RequestHead):
                    (call,) = [call for call in self.calls if call.path == head.target]
                    call.theirs = event.stream
                    assert call.mine.id == event.stream.id

    @invariant()
    def both_are_well(self) -> None:
        assert self.client.error is None
        assert self.server.error is None

    @invariant()
    def windows_hold(self) -> None:
        for codec in (self.client, self.server):
            windows = codec._windows
            assert 0 <= windows.room <= LIMITS.connection_window
            assert sum(stream.buffered for stream in codec.streams.values()) <= LIMITS.connection_window
            for stream in codec.streams.values():
                assert 0 <= stream.buffered <= WINDOW
                assert 0 <= windows.room_of(stream.id) <= WINDOW
                assert stream.unsent >= 0
        assert len(self.client.streams) <= LIMITS.streams

    def teardown(self) -> None:
        """Let everything that was begun come to its end, and see that it has come whole."""
        for call in self.calls:
            if not call.request.ended and call.mine.on_books:
                call.request.ended = True
                call.mine.send_end()
        for _ in range(2000):
            before = self.progress()
            for client in (True, False):
                self.carry(client, 1 << 20, 1 << 20)
            for at, call in enumerate(self.calls):
                if call.theirs is not None and not call.status:
                    self.answer_now(call)
                if call.theirs is not None and call.status and not call.response.ended:
                    call.response.ended = True
                    call.theirs.send_end()
                self.read(at, True, 1000)
                self.read(at, False, 1000)
            self.both_are_well()
            self.windows_hold()
            if self.progress() == before and not self.pending():
                break
        for call in self.calls:
            if call.mine.error is None and not call.given_up:
                assert call.seen_status == call.status
                assert call.response.whole, "an answer that was lost"
                assert call.request.whole or call.finished, "a request that was lost"
        assert not self.client.streams
        assert not self.server.streams
        assert self.server.finished is self.leaving
        for codec in (self.client, self.server):
            assert codec._windows.room > LIMITS.connection_window * 3 // 4, "room that was never given back"
            assert not codec._windows._open

    def answer_now(self, call: Call) -> None:
        assert call.theirs is not None
        call.status = 200
        call.theirs.send_head(ResponseHead(200, [(b"x-path", call.path)]))

    def progress(self) -> tuple[object, ...]:
        ways = [way for call in self.calls for way in (call.request, call.response)]
        return [len(way.come) for way in ways], [way.whole for way in ways], [way.ended for way in ways]

    def pending(self) -> bool:
        return bool(self.wires[True] or self.wires[False] or self.client.wants_write or self.server.wants_write)


DEPTHS = [pytest.param(30, 50, id="brief"), pytest.param(3000, 100, id="long", marks=pytest.mark.deep)]


@pytest.mark.parametrize(("examples", "steps"), DEPTHS)
def test_nothing_is_lost_between_two_connections(examples: int, steps: int) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    depth = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(TwoConnections, settings=depth)


def test_the_budgets_of_this_test_are_all_there_are() -> None:
    assert {abuse for abuse in Abuse if abuse in LIMITS.rates} == set(RATES)
