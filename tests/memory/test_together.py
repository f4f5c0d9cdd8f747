"""Routes, faults, deadlines, retries, limits and quotas together: what each of them takes is given back, once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sidecar.errors import DownstreamGone, HopError, QuotaUnknown, RateLimited, Throttled
from sidecar.net.port import Signal, WireBroken
from sidecar.proxy.charging import PromptDesk
from sidecar.traffic.quota import Order, Quota
from tests.kit import apps
from tests.kit.h1_line import HungUp, Line, Request
from tests.kit.h2_line import h2_peer
from tests.kit.h2_wire import headers
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
OTHER = "127.0.0.1:8081"
CALL = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/shop.Orders/Get"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip
PAGE = [(b":method", b"GET"), *CALL[1:3], (b":path", b"/slow/2")]
LATE = [*PAGE, (b"mesh-deadline", b"150m")]
BOTH = pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"], ids=["express", "general"])


class Stuck(PromptDesk):
    """A desk whose store says nothing."""

    def ask(self, order: Order) -> None:
        pass

    def signal(self, order: Order) -> Any:
        return Signal()


def stuck(stage: Stage, *, now: bool) -> None:
    """Let the store of quotas say nothing from now on, or answer again."""
    desk: Any = Stuck() if now else PromptDesk()
    for name in ("ask", "signal"):
        setattr(stage.orders._desk, name, getattr(desk, name))


def get(path: str = "/", more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (path.encode(), more)


def to_each(stage: Stage) -> list[float]:
    """How many requests a split has sent to either application."""
    counter = stage.orders.books.metrics.counter("mesh_split_requests_total")
    return [counter.cell(("http", "/**", address)).value for address in ("127.0.0.1:8080", OTHER)]


async def asked(line: Line, *requests: bytes) -> list[int]:
    found: list[int] = []
    for request in requests:
        await line.say(request)
        found.append((await line.answer()).status)
    return found


# ---- the express and the general way ---------------------------------------------------------------------------------


@scene()
async def test_a_request_that_fails_has_nothing_of_the_one_before_it(stage: Stage) -> None:
    """The express uses one hop for all: the first byte of an answer that never came is not that of the last one."""
    hangs: list[Request] = []

    async def serve(line: Line) -> None:
        while True:
            request = await line.request()
            if request.target == b"/hang":
                hangs.append(request)
                await stage.sleep(2.0)
                return
            await line.say(apps.OK)

    stage.app(serve)
    await stage.sleep(1.0)
    peer = await stage.peer()
    assert await asked(peer, get("/1"), get("/2"), get("/3"), get("/hang")) == [200, 200, 200, 503]
    assert hangs
    hop = stage.orders.books.hops[-1]
    assert (hop.first_byte, hop.status, hop.endpoint) == (0.0, 503, "127.0.0.1:8080")


@BOTH
@scene(
    http=", routes: [{path: /**, split: [{app: '127.0.0.1:8080', weight: 50}, {app: '127.0.0.1:8081', weight: 50}]}]"
)
async def test_a_request_that_is_too_late_is_sent_one_way_of_a_split_and_not_two(stage: Stage, more: bytes) -> None:
    for address in ("127.0.0.1:8080", OTHER):
        stage.app(apps.always(apps.OK), address)
    peer = await stage.peer()
    assert set(await asked(peer, *[get(more=more + b"mesh-deadline: 0m\r\n")] * 20)) == {504}
    assert sum(to_each(stage)) == 20


@scene(http=", routes: [{path: /beta, app: '127.0.0.1:8081'}]")
async def test_an_old_caller_who_names_no_host_is_given_that_of_the_application_of_its_route(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    stage.app(apps.keeping(seen), OTHER)
    for path in (b"/alpha", b"/beta"):
        peer = await stage.peer()
        await peer.say(b"GET %b HTTP/1.0\r\n\r\n" % path)
        assert (await peer.answer()).status == 200
    assert [request.get("host") for request in seen] == [b"127.0.0.1:8080", b"127.0.0.1:8081"]


# ---- a rate before a quota -------------------------------------------------------------------------------------------

FEW = "    rates: [{name: few, limit: 2/h, per: caller%s}]\n    quotas: [{name: daily, limit: 300/d}]"


@pytest.mark.parametrize("over", ["", ", over: delay"], ids=["refuse", "delay"])
def test_whoever_a_quota_refuses_has_taken_nothing_from_its_rate(over: str) -> None:
    stage = Stage(orders=FEW % over)

    async def script() -> None:
        stage.app(apps.always(apps.OK))
        peer = await stage.peer()
        stuck(stage, now=True)
        assert await asked(peer, GET, GET, GET) == [503, 503, 503]
        assert {type(hop.error) for hop in stage.orders.books.hops} == {QuotaUnknown}
        assert stage.orders.show.limits()[0]["limit"] == "few"

    stage.run(script())
    assert all(tat <= stage.now for limit in stage.orders._generation.rates for tat in limit.rate._young.values())


@pytest.mark.parametrize("version", ["1", "2"])
@scene(orders=FEW % "")
async def test_whoever_leaves_while_its_quota_is_looked_up_is_not_waited_for(stage: Stage, version: str) -> None:
    stage.app(apps.always(apps.OK))
    stuck(stage, now=True)
    if version == "2":
        peer = (await h2_peer(stage, headers(1, CALL))).line
    else:
        peer = await stage.peer()
        await peer.say(GET)
    await stage.sleep(0.5)
    peer.wire.abort()
    await stage.sleep(0.2)
    hop = stage.orders.books.hop
    assert isinstance(hop.error, DownstreamGone)
    assert hop.ended - hop.started < 0.7


# ---- all of it -------------------------------------------------------------------------------------------------------

RATES = """\
    rates:
      - {name: turns, limit: 20/s, burst: 4, per: caller, over: delay, delay: 1s, strikes: 50, block: 1s}
      - {name: all, limit: %d/s}
    quotas: [{name: daily, limit: %d/d}]"""
ROUTES = (
    ", routes: [{path: /slow/**, fault: {delay: 300ms, delay_share: 0.5, status: 418, abort_share: 0.3}}, "
    "{path: /**, split: [{app: '127.0.0.1:8080', weight: %d}, {app: '127.0.0.1:8081', weight: 50}]}]"
)
UPSTREAM = (
    ", affinity: header x-user, timeouts: {total: 3s, per_try: 500ms}, retries: {resends: 2, statuses: [502]}, "
    "routes: [{name: often, path: /often, retries: {resends: 3, statuses: [500, 502]}}, "
    "{name: moved, path: /old/**, rewrite: {prefix: /old, to: /new}}]"
)


class Storm:
    """Callers of all kinds, who do what they like, of whom some leave."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.dice = Random(seed)
        self.spent = 0

    async def app(self, line: Line) -> None:
        """Answers, fails, hesitates, or hangs up."""
        while True:
            try:
                await line.request()
            except AssertionError:  # a call of gRPC, which this one does not speak: it hangs up
                return
            what = self.dice.random()
            if what < 0.04:
                return
            if what < 0.12:
                await self.stage.sleep(self.dice.random() * 2)
            if what < 0.25:
                status = self.dice.choice((500, 502, 503))
                await line.say(b"HTTP/1.1 %d Bad\r\nContent-Length: 0\r\n\r\n" % status)
            else:
                await line.say(apps.OK)

    def request(self) -> bytes:
        """One of any kind."""
        dice = self.dice
        path = dice.choice(("/", "/often", "/old/1", "/slow/1", "/slow/2"))
        method = dice.choice((b"GET", b"GET", b"POST"))
        more = b"X-User: %d\r\n" % dice.randrange(3)
        more += dice.choice((b"", b"", b"Expect: 100-continue\r\n", b"mesh-deadline: 200m\r\n"))
        body = b"hello" if method == b"POST" else b""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        return b"%b %b HTTP/1.1\r\nHost: orders\r\n%b%b\r\n%b" % (method, path.encode(), more, length, body)

    async def caller(self) -> None:
        """A few requests on one connection."""
        stage, dice = self.stage, self.dice
        kind = dice.choice(("web", "web", "peer", "h2"))
        call = await h2_peer(stage) if kind == "h2" else None
        line = call.line if call is not None else await (stage.call() if kind == "web" else stage.peer())
        try:
            await stage.sleep(dice.random() * 2)
            if call is not None:
                for stream in (1, 3, 5):
                    await call.say(headers(stream, dice.choice((CALL, PAGE, LATE))))
                    if dice.random() < 0.7:
                        await call.answer(stream)
            else:
                for _ in range(6):
                    await line.say(self.request())
                    if dice.random() < 0.15:
                        await stage.sleep(dice.random() * 0.3)
                        break
                    await line.answer()
        except (WireBroken, HungUp):
            pass
        line.wire.abort() if dice.random() < 0.4 else line.close()

    async def play(self) -> None:
        """All of them, while the configuration changes."""
        stage = self.stage
        for address in ("127.0.0.1:8080", OTHER):
            stage.app(self.app, address)
        callers = [stage.port.spawn(self.caller()) for _ in range(12)]
        for number in range(4):
            await stage.sleep(0.5)
            stage.reload(orders=RATES % (40 + number, 900 + number), http=ROUTES % (1 + number))
            stage.sweep()
        for caller in callers:
            if not caller.happened:
                await stage.port.wait(caller)
        stage.orders.drain()
        await stage.sleep(5.0)


@pytest.mark.parametrize("seed", range(25))
def test_the_books_balance_whatever_is_mixed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(orders=RATES % (40, 900), http=ROUTES % 1, upstream=UPSTREAM + ", breaker: off" * (seed % 2))
    stage.attend()
    storm, spend = Storm(stage, seed), Quota.spend

    def counted(self: Quota, *args: Any) -> Any:
        storm.spent += 1
        return spend(self, *args)

    monkeypatch.setattr(Quota, "spend", counted)
    stage.run(storm.play())
    for limit in stage.orders._generation.rates:
        if limit.throttle is not None:
            assert (limit.throttle.waiting, limit.throttle._waiting) == (0, {})
    hops = stage.orders.books.hops
    for hop in [*hops, *stage.web.books.hops]:
        assert hop.first_byte == 0.0 or hop.ended >= hop.first_byte >= hop.started, hop
        assert hop.error is not None or hop.status
        waited = hop.held is not None and hop.held.delayed > 0 and hop.error is None
        assert ("TH" in hop.flag) == (waited or isinstance(hop.error, Throttled)), hop
        assert ("DI" in hop.flag) == bool(hop.delayed), hop
    let_in = [hop for hop in hops if not isinstance(hop.error, RateLimited | QuotaUnknown)]
    sent = [hop for hop in hops if hop.attempts]
    assert len(sent) <= storm.spent <= len(let_in)
    assert sum(isinstance(hop.error, HopError) for hop in hops) < len(hops)
