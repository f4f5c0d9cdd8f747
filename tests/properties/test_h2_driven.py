"""The whole proxy over driven HTTP/2 connections, at random: no answer crosses, none is lost, all books balance.

Callers (as the application web, and as a peer without a sidecar) and an application keep to the rules, by hand; between
them are two sidecars on the memory driver. What happens is what happens to a mesh: windows that are withheld, resets
from either side, early answers, 1xx, trailers, GOAWAY, half-closes, connections that end or break, drain, reload,
renewal, and time. After every step nothing has crossed, no window is overdrawn, nothing piles up, and nobody who kept
to the rules is blamed. In the end every request has an outcome within a bounded time, and those that nothing befell are
answered whole.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sidecar.errors import AbusivePeer, InternalError, ProtocolViolation, UpstreamProtocolViolation
from sidecar.http.h2 import Code
from sidecar.net.memory_gate import DAY
from sidecar.proxy.http2 import Http2Connection
from tests.kit.h2_mesh import PATIENT, PROMPT, World
from tests.kit.h2_wire import Fields
from tests.kit.hops import ORDERS, WEB

BOUND = 60.0  # seconds within which every request has come to an end: three times the longest of these but drain
UNSENT = 256 * 1024  # bytes of one body that wait for a window: what was read at once, and what may wait beside it
CODES = [Code.CANCEL, Code.INTERNAL_ERROR, Code.REFUSED_STREAM, Code.NO_ERROR]
WINDOWS = st.sampled_from([0, 10, 65_535, 1 << 20])  # that callers announce
SIZES = st.sampled_from([0, 1, 700, 16_384, 50_000, 200_000])
PICK = st.integers(0, 99)
MISHAPS = [
    "caller finish", "caller close", "caller abort", "caller goaway", "app goaway", "app goaway", "app polite",
    "app finish", "app close", "app abort", "silence", "a long time", "drain", "drain",
]  # fmt: skip


class Mesh(RuleBasedStateMachine, World):
    """What happens to a mesh, at random."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        World.__init__(self)

    # ---- callers -----------------------------------------------------------------------------------------------------

    @initialize(peer=st.booleans(), window=WINDOWS, most=st.sampled_from([2, 100]))
    def begin(self, peer: bool, window: int, most: int) -> None:
        self.most = most
        self.connect_one(peer, window)

    @precondition(lambda self: len(self.usable()) < 3)
    @rule(peer=st.booleans(), window=WINDOWS)
    def connect(self, peer: bool, window: int) -> None:
        self.connect_one(peer, window)

    @precondition(lambda self: self.usable())
    @rule(pick=PICK, post=st.booleans(), size=SIZES, end=st.booleans(), settle=st.booleans(), many=st.integers(1, 8))
    def ask(self, pick: int, post: bool, size: int, end: bool, settle: bool, many: int) -> None:
        line = self.usable()[pick % len(self.usable())]

        async def asking() -> None:
            for _ in range(many):
                await self.open(line, post=post, size=size, end=end)

        self.do(asking(), settle=settle)

    @precondition(lambda self: self.unfinished())
    @rule(pick=PICK, size=SIZES, end=st.booleans(), settle=st.booleans())
    def send_more(self, pick: int, size: int, end: bool, settle: bool) -> None:
        calls = self.unfinished()
        self.do(self.send_body(calls[pick % len(calls)], size, end=end), settle=settle)

    @precondition(lambda self: self.live())
    @rule(pick=PICK, code=st.sampled_from(CODES), settle=st.booleans())
    def cancel(self, pick: int, code: Code, settle: bool) -> None:
        call = self.live()[pick % len(self.live())]
        call.outcome = "cancelled"
        self.do(call.end.reset(call.stream, code), settle=settle)

    @precondition(lambda self: self.lines)
    @rule(pick=PICK, size=st.sampled_from([1, 100, 20_000, 1 << 20]), whole=st.booleans(), widen=st.booleans())
    def make_room(self, pick: int, size: int, whole: bool, widen: bool) -> None:
        """For answers: on a connection, on all its streams, or on one."""
        line = self.lines[pick % len(self.lines)]
        mine = [call for call in self.live() if call.end is line]
        if widen:
            self.do(line.announce(size))
        elif whole or not mine:
            self.do(line.give(0, size))
        else:
            self.do(line.give(mine[pick % len(mine)].stream, size))

    # ---- the application ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pending())
    @rule(
        pick=PICK, size=SIZES, inform=st.booleans(), finish=st.booleans(), settle=st.booleans(),
        trailers=st.sampled_from([(), ((b"x-sum", b"1"),)]),
    )  # fmt: skip
    def answer(self, pick: int, size: int, inform: bool, finish: bool, settle: bool, trailers: Fields) -> None:
        """A piece of an answer, or the rest of one; perhaps before its request has come whole."""
        asked = self.pending()[pick % len(self.pending())]
        self.do(self.tell(asked, size, inform=inform, finish=finish, trailers=trailers), settle=settle)

    @precondition(lambda self: len(self.pending()) > 1)
    @rule(pick=PICK, code=st.sampled_from(CODES))
    def give_up(self, pick: int, code: Code) -> None:
        """The application resets a stream; it also does where it has answered before a request was whole."""
        asked = self.pending()[pick % len(self.pending())]
        asked.over = True
        asked.call.spoiled = asked.call.spoiled or "the application gave it up"
        self.do(asked.end.reset(asked.stream, code))

    @precondition(lambda self: any(not end.gone for end in self.apps))
    @rule(pick=PICK, size=st.sampled_from([1, 100, 20_000, 1 << 20]), whole=st.booleans(), widen=st.booleans())
    def take_more(self, pick: int, size: int, whole: bool, widen: bool) -> None:
        """Room for requests."""
        ends = [end for end in self.apps if not end.gone]
        end = ends[pick % len(ends)]
        asked = self.pending(end)
        if widen:
            self.window = size
            self.do(end.announce(size))
        elif whole or not asked:
            self.do(end.give(0, size))
        else:
            self.do(end.give(asked[pick % len(asked)].stream, size))

    # ---- the mesh ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.calls) > 3)
    @rule(pick=PICK, what=st.sampled_from(MISHAPS), settle=st.booleans())
    def befall(self, pick: int, what: str, settle: bool) -> None:
        """One of many things, so that all of them together are not more often than an answer."""
        who, _, how = what.partition(" ")
        if who == "caller":
            self.leave(pick, how)
        elif who == "app":
            self.go_away(pick, how, settle)
        elif what == "silence":
            self.silent = True
        elif what == "a long time":
            self.wait(25.0)
        elif self.drained:
            self.come_back()
        else:
            self.drain()

    @precondition(lambda self: self.reloads < 4 and self.calls)
    @rule(upstreams=st.booleans(), settle=st.booleans())
    def reload(self, upstreams: bool, settle: bool) -> None:
        """The same rules under another name, or also other upstreams in the places of the old ones."""
        self.reloads += 1

        async def reloading() -> None:
            seconds = 20 + self.reloads if upstreams else 20
            changed = PATIENT.replace("idle: 20s", f"idle: {seconds}s")
            self.stage.reload(orders=changed, web=changed)

        self.do(reloading(), settle=settle)

    @precondition(lambda self: self.calls)
    @rule(orders=st.booleans(), settle=st.booleans())
    def renew(self, orders: bool, settle: bool) -> None:
        """A sidecar has a new certificate."""

        async def renewing() -> None:
            gate = self.stage.gates[ORDERS if orders else WEB]
            gate.renew(self.stage.port.wall() + DAY)
            (self.stage.orders if orders else self.stage.web).renew()

        self.do(renewing(), settle=settle)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0]))
    def wait(self, seconds: float) -> None:
        for call in self.live():
            if self.stage.now + seconds - call.began > PROMPT or (self.most < 100 and call.number not in self.asked):
                call.spoiled = call.spoiled or "it took too long"
        self.do(self.pass_time(seconds))

    # ---- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_piles_up(self) -> None:
        for codec in self.codecs():
            limits, windows = codec.limits, codec._windows
            assert 0 <= windows.room <= limits.connection_window
            assert sum(stream.buffered for stream in codec.streams.values()) <= limits.connection_window
            for stream in codec.streams.values():
                assert 0 <= stream.buffered <= limits.stream_window
                assert 0 <= stream.unsent <= UNSENT, stream.unsent
            assert len(codec._reset_by_us) <= 1000

    @invariant()
    def every_request_under_way_has_one_open_hop(self) -> None:
        for proxy in self.proxies():
            serving = sum(len(found._serving) for found in proxy._reception.http if isinstance(found, Http2Connection))
            under_way = proxy.books.opened - len(proxy.books.hops)
            assert 0 <= under_way <= serving, (under_way, serving)

    @invariant()
    def nobody_is_blamed(self) -> None:
        for proxy in self.proxies():
            for hop in proxy.books.hops:
                error = hop.error
                # whoever leaves no window, or changes its mind a hundred times at once, may be
                if not isinstance(error, AbusivePeer) or error.reason not in ("zero_window", "settings_flood"):
                    assert not isinstance(error, (InternalError, ProtocolViolation, UpstreamProtocolViolation)), error

    # ---- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if not self.silent:
                self.do(self.finish_all())
                for call in self.calls:
                    if not call.spoiled and call.outcome != "cancelled":
                        call.assert_served()
                for codec in self.codecs():
                    windows = codec._windows  # of a caller's later connections it is narrower (proxy.rooms)
                    assert codec.streams or windows.room + windows._drained == windows._limit, "room was lost"
            self.do(self.pass_time(BOUND))
            assert not [(call.number, call.spoiled) for call in self.live()], "requests without an end"
            self.every_request_under_way_has_one_open_hop()
            self.nobody_is_blamed()
            assert all(proxy.books.opened == len(proxy.books.hops) for proxy in self.proxies())
            self.stage.end()
        finally:
            self.stage.port.close()
            self.small.stop()


DEPTHS = [pytest.param(100, 40, id="brief"), pytest.param(3000, 80, id="long", marks=pytest.mark.deep)]


@pytest.mark.parametrize(("examples", "steps"), DEPTHS)
def test_whatever_happens_no_answer_crosses_none_is_lost_and_the_books_balance(examples: int, steps: int) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    depth = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(Mesh, settings=depth)
