"""Requests that their limits hold: in a line, and for an answer from elsewhere (S19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.errors import DownstreamGone, LimiterAway, Throttled
from sidecar.net.port import Port, Wire
from sidecar.net.stay import stay
from sidecar.proxy import lane
from sidecar.traffic.shared import Answered, Away, Question
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_line import h2_call
from tests.kit.h2_wire import headers
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene
from tests.memory.test_rate_limits import CALL, GET, asked, get, rates

LINE = "name: turns, limit: 2/s, burst: 2, per: caller, over: delay, delay: 2s, strikes: 3, block: 30s"
TOKEN = b"Authorization: Bearer eyJhbGciOiJub25lIn0.%b.c2ln\r\n"
ANN, BEN = b"eyJzdWIiOiJhbm4ifQ", b"eyJzdWIiOiJiZW4ifQ"  # {"sub":"ann"} and {"sub":"ben"}


async def timed(line: Line, request: bytes = GET) -> tuple[int, float]:
    """The status of an answer, and how long it took."""
    began = line.wire.port.now
    await line.say(request)
    status = (await line.answer()).status
    return status, line.wire.port.now - began


# ---- in a line -------------------------------------------------------------------------------------------------------


@scene(orders=rates(LINE), may="'**'")
async def test_who_is_over_its_limit_waits_for_its_turn_and_nobody_else_does(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web, other = await stage.peer(), await stage.peer(MALLORY)
    assert [status for status, _ in [await timed(web), await timed(web)]] == [200, 200]
    for _ in range(3):
        status, took = await timed(web)
        assert status == 200
        assert 0.49 <= took <= 0.65
    assert (await timed(other))[1] < 0.1
    hop = stage.orders.books.hops[2]
    assert hop.held is not None
    assert (hop.held.limit, hop.flag) == ("turns", "TH")
    assert 0.49 <= hop.held.delayed <= 0.65
    assert stage.orders.books.decisions.find(hop.decision_id) is None  # that it went well is no decision
    (row,) = stage.orders.show.limits()
    assert (row["limit"], row["delayed"], row["refused"], row["waiting"]) == ("turns", 3, 0, 0)


@scene(orders=rates(LINE), may="'**'")
async def test_free_then_delayed_then_refused_then_blocked_and_then_let_in_again(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    lines = [await stage.peer() for _ in range(12)]
    for line in lines:
        await line.say(GET)
    statuses = [(await line.answer()).status for line in lines]
    assert statuses == [200] * 6 + [429] * 6  # two free, four in two seconds
    errors = [hop.error for hop in stage.orders.books.hops if hop.error is not None]
    assert all(isinstance(error, Throttled) for error in errors)
    assert [round(error.wait) for error in errors[-3:]] == [30, 30, 30]  # type: ignore[union-attr]
    assert {hop.flag for hop in stage.orders.books.hops} == {"-", "TH"}
    blocked = await stage.peer()
    await blocked.say(GET)
    answer = await blocked.answer()
    assert (answer.status, answer.get("ratelimit")) == (429, b'"turns";r=0;t=29') or answer.status == 429
    assert 25 <= int(answer.get("retry-after") or b"0") <= 30
    await stage.sleep(31.0)
    assert (await timed(blocked))[0] == 200


@scene(orders=rates(LINE))
async def test_a_caller_that_leaves_gives_its_place_back(stage: Stage) -> None:
    seen: list[Any] = []
    stage.app(apps.keeping(seen))
    peer, leaving = await stage.peer(), await stage.peer()
    assert await asked(peer, GET, GET) == [200, 200]
    await leaving.say(GET)
    await stage.sleep(0.1)
    leaving.wire.abort()
    await stage.sleep(0.2)
    assert len(seen) == 2
    assert isinstance(stage.orders.books.hops[-1].error, DownstreamGone)
    assert stage.orders.show.limits()[0]["waiting"] == 0
    status, took = await timed(peer)
    assert status == 200
    assert took < 0.4  # the turn that was given back


@scene(orders=rates(LINE))
async def test_one_that_waits_has_nothing_of_what_serves_it_and_a_drain_lets_it_have_its_turn(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer, waiting = await stage.peer(), await stage.peer()
    assert await asked(peer, GET, GET) == [200, 200]
    await waiting.say(GET)
    await stage.sleep(0.1)
    app = next(each for each in stage.orders.upstreams if each.name == "http")
    assert [place.endpoint.active for place in app.places.values()] == [0]
    assert stage.orders.in_flight == 1
    stage.orders.drain()
    assert (await waiting.answer()).status == 200


@scene(orders=rates(LINE))
async def test_a_call_whose_deadline_comes_before_its_turn_is_refused_at_once(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert await asked(await stage.peer(), GET, GET) == [200, 200]
    began = stage.now
    web = await h2_call(stage, headers(1, [*CALL, (b"grpc-timeout", b"100m")]))
    told: dict[bytes, bytes] = dict((await web.answer(1)).headers)
    assert told[b"grpc-status"] == b"8"
    assert 300 < int(told[b"grpc-retry-pushback-ms"]) < 600
    assert stage.now - began < 0.3


@scene(orders=rates(LINE, "name: all, limit: 3/h"))
async def test_a_limit_that_refuses_goes_first_and_nobody_waits_for_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    found = [await timed(peer) for _ in range(4)]
    assert [status for status, _ in found] == [200, 200, 200, 429]
    assert found[3][1] < 0.1
    assert stage.orders.show.limits()[0]["refused"] == 0


# ---- what is said on every answer ------------------------------------------------------------------------------------


@scene(orders=rates("name: told, limit: 3/m, per: caller, headers: always", "name: silent, limit: 2/h, per: endpoint"))
async def test_what_is_left_is_told_where_it_is_wanted(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET)
    answer = await peer.answer()
    assert answer.get("ratelimit") == b'"told";r=2;t=20'
    assert answer.get("ratelimit-policy") == b'"told";q=3;w=60'
    await peer.say(GET)
    assert (await peer.answer()).get("ratelimit") == b'"told";r=1;t=40'


# ---- by claim --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"", b"Expect: 100-continue\r\n"], ids=["express", "general"])
@scene(orders=rates("name: each, limit: 2/h, per: claim sub"))
async def test_each_claim_has_its_own_and_all_broken_tokens_share_one(stage: Stage, prefix: bytes) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    ann, ben = (get(more=prefix + TOKEN % each) for each in (ANN, BEN))
    assert await asked(peer, ann, ann, ann, ben, ben, ben) == [200, 200, 429, 200, 200, 429]
    broken = (b"", b"Authorization: Bearer x.y.z\r\n", b"Authorization: Basic eA==\r\n")
    assert await asked(peer, *[get(more=prefix + each) for each in broken]) == [200, 200, 429]
    assert "ann" not in str([hop.error for hop in stage.orders.books.hops])
    assert "ann" not in str(stage.orders.show.limits())


# ---- together with others --------------------------------------------------------------------------------------------

SHARED = "    redis: {url: 'redis://127.0.0.1:1'%s}\n" + rates("name: all, limit: 4/h, per: caller, shared: redis")


class Oracle:
    """Redis as a test wants it."""

    problem = ""

    def __init__(self, answer: Callable[[Question], Answered | Away], takes: float = 0.0) -> None:
        self.answer, self.takes = answer, takes
        self.asked: list[Question] = []

    async def ask(self, port: Port, wire: Wire, question: Question) -> Answered | Away:
        self.asked.append(question)
        if self.takes:
            await stay(port, wire, port.now + self.takes)
        return self.answer(question)


def asks(stage: Stage, answer: Callable[[Question], Answered | Away], takes: float = 0.0) -> Oracle:
    oracle = Oracle(answer, takes)
    for _, side in stage.orders._inbound:
        assert side._intake is not None
        assert side._intake._holding is not None
        side._intake._holding._asker = oracle
    return oracle


@scene(orders=SHARED % "")
async def test_together_they_are_held_and_who_is_over_costs_the_others_nothing(stage: Stage) -> None:
    """Somebody else has had two of the four."""
    stage.app(apps.always(apps.OK))
    left = [900.0 * 3, 900.0 * 4]
    oracle = asks(stage, lambda _: Answered(True, (left.pop(0),)) if left else Answered(False, (3600.0,)))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 6) == [200, 200, 429, 429, 429, 429]
    assert len(oracle.asked) == 2  # then it was known here
    assert stage.orders.books.hops[2].flag == "RL"


@scene(orders=SHARED % "")
async def test_away_is_the_same_limit_alone_and_never_none(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    asks(stage, lambda _: Away("slow"))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 6) == [200, 200, 200, 200, 429, 429]
    held = stage.orders.books.hops[0].held
    assert held is not None
    assert held.alone == "Redis does not answer: slow"
    asks(stage, lambda _: Away("slow")).problem = "it is gone"
    assert await asked(peer, GET) == [429]
    held = stage.orders.books.hops[-1].held
    assert held is not None
    assert held.alone == "Redis does not answer: it is gone"


@scene(orders=SHARED % ", when_away: refuse")
async def test_away_may_be_a_refusal_that_takes_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    asks(stage, lambda _: Away("slow"))
    peer = await stage.peer()
    await peer.say(GET)
    answer = await peer.answer()
    assert (answer.status, answer.get("retry-after")) == (503, b"1")
    error = stage.orders.books.hop.error
    assert isinstance(error, LimiterAway)
    assert (stage.orders.books.hop.flag, error.name) == ("RLSE", "limiter_away")
    asks(stage, lambda _: Answered(True, (900.0,)))
    assert await asked(peer, *[GET] * 5) == [200, 200, 200, 200, 429]


@scene(orders=SHARED % "")
async def test_what_is_not_ours_in_redis_is_held_here(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    asks(stage, lambda _: Answered(True, (None,)))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 5) == [200, 200, 200, 200, 429]


@scene(orders=SHARED % "")
async def test_who_leaves_while_redis_is_asked_has_taken_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    asks(stage, lambda _: Away("slow"), takes=1.0)
    leaving = await stage.peer()
    await leaving.say(GET)
    await stage.sleep(0.1)
    leaving.wire.abort()
    await stage.sleep(1.5)
    assert isinstance(stage.orders.books.hop.error, DownstreamGone)
    asks(stage, lambda _: Away("slow"))
    assert await asked(await stage.peer(), *[GET] * 5) == [200, 200, 200, 200, 429]


@scene(orders=SHARED % "", web=SHARED % "")
async def test_a_key_says_nothing_and_is_as_long_as_all_others(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    oracle = asks(stage, lambda _: Answered(True, (1.0,)))
    await asked(await stage.peer(WEB), GET)
    (key,) = oracle.asked[0].keys
    assert key.startswith(b"mesh:{")
    assert b"}:all:" in key
    assert b"web" not in key
    assert len(key) == len(b"mesh:{}:all:") + 16 + 40


@scene(orders=SHARED % "" + "\n    access_log: {mode: errors}")
async def test_plain_requests_ask_on_the_express_and_a_refusal_is_said_in_the_general_way(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    left = [900.0 * number for number in (1, 2, 3)]
    oracle = asks(stage, lambda _: Answered(True, (left.pop(0),)) if left else Answered(False, (3600.0,)))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 6) == [200, 200, 200, 429, 429, 429]
    assert len(oracle.asked) == 4  # the fourth was refused, and its refusal known when the general way asked again
    assert stage.orders.books.by_express == 2 or not lane.ENABLED
    assert len(stage.apps) == 1  # and the connection to the application was given back


@scene(orders=SHARED % "" + "\n    access_log: {mode: errors}")
async def test_on_the_express_away_is_the_same_limit_alone(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    asks(stage, lambda _: Away("slow"))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 6) == [200, 200, 200, 200, 429, 429]
    assert stage.orders.books.by_express == 3 or not lane.ENABLED


@scene(orders=SHARED % "" + "\n    access_log: {mode: errors}")
async def test_who_leaves_while_the_express_asks_has_taken_nothing_and_leaks_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    asks(stage, lambda _: Answered(True, (900.0,)))
    leaving = await stage.peer()
    assert await asked(leaving, GET) == [200]
    asks(stage, lambda _: Away("slow"), takes=1.0)
    await leaving.say(GET)
    await stage.sleep(0.1)
    leaving.wire.abort()
    await stage.sleep(1.5)
    assert isinstance(stage.orders.books.hops[-1].error, DownstreamGone)
    asks(stage, lambda _: Away("slow"))
    assert await asked(await stage.peer(), *[GET] * 4) == [200, 200, 200, 429]
