"""What of retries the first tests of attempts do not say: gRPC's statuses, what servers ask for, ceilings, flags."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.h2_line import ORDERS_POST, H2Line, answer_ok, h2_app, h2_call
from tests.kit.h2_wire import data, headers
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
AGAIN = ", retries: {statuses: [503]}, breaker: off"
CALL = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"))
KEYED = (*CALL, (b"idempotency-key", b"a"))


class Failing:
    """A server of gRPC that fails its first calls with nothing but a status."""

    def __init__(self, times: int, status: bytes = b"14", *more: tuple[bytes, bytes]) -> None:
        self.calls = 0
        self._times = times
        self._fields = ((b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", status), *more)

    async def __call__(self, line: H2Line, stream: int) -> None:
        """Answer a call."""
        self.calls += 1
        if self.calls > self._times:
            await answer_ok(line, stream)
        else:
            await line.say(headers(stream, self._fields))


@pytest.mark.parametrize(("fields", "times", "calls", "status"), [
    (KEYED, 1, 2, None), (KEYED, 2, 3, None), (KEYED, 3, 3, b"14"), (CALL, 1, 1, b"14"),
])  # fmt: skip
@scene(upstream=", retries: {grpc_statuses: [unavailable]}, breaker: off")
async def test_a_status_of_grpc_is_tried_again_where_that_is_wanted_and_harmless(
    stage: Stage, fields: tuple[tuple[bytes, bytes], ...], times: int, calls: int, status: bytes | None
) -> None:
    server = Failing(times)
    stage.app(h2_app(server))
    web = await h2_call(stage, headers(1, fields, end=False) + data(1, b"\0\0\0\0\0", end=True))
    assert (await web.answer(1)).headers.get(b"grpc-status") == status
    assert server.calls == calls


@scene(upstream=", retries: {statuses: [503]}, breaker: off")
async def test_a_status_of_grpc_that_is_not_listed_is_an_answer(stage: Stage) -> None:
    server = Failing(1)
    stage.app(h2_app(server))
    web = await h2_call(stage, headers(1, KEYED, end=False) + data(1, b"", end=True))
    assert (await web.answer(1)).headers[b"grpc-status"] == b"14"
    assert server.calls == 1


@pytest.mark.parametrize(("said", "calls", "least"), [
    (b"2000", 2, 2.0), (b"0", 2, 0.0), (b"-1", 1, 0.0), (b"soon", 1, 0.0), (b"4294967296000", 1, 0.0),
    (b"3155760000000", 1, 0.0),
])  # fmt: skip
@scene(upstream=", retries: {grpc_statuses: [unavailable]}, breaker: off")
async def test_the_push_back_of_a_server_of_grpc_is_kept(stage: Stage, said: bytes, calls: int, least: float) -> None:
    server = Failing(1, b"14", (b"grpc-retry-pushback-ms", said))
    stage.app(h2_app(server))
    web = await h2_call(stage, headers(1, KEYED, end=False) + data(1, b"", end=True))
    await web.answer(1)
    assert server.calls == calls
    assert least <= stage.now <= least * 1.5 + 0.1
    if calls == 1:
        assert "asks for more time" in stage.web.books.hop.tried[-1]


@pytest.mark.parametrize(("said", "tries", "least"), [
    (b"2", 2, 2.0), (b"0", 2, 0.0), (b"3155760000", 1, 0.0), (b"99999999999999999999", 1, 0.0), (b"-5", 2, 0.0),
    (b"soon", 2, 0.0), (b"Thu, 01 Jan 1970 00:00:00 GMT", 2, 0.0), (b"Fri, 31 Dec 2126 23:59:59 GMT", 1, 0.0),
    (b"Fri, 99 Foo 2126 23:59:59 GMT", 2, 0.0), (b"9" * 5000, 2, 0.0),
])  # fmt: skip
@scene(upstream=AGAIN)
async def test_retry_after_of_a_century_of_yesterday_and_of_nonsense(
    stage: Stage, said: bytes, tries: int, least: float
) -> None:
    """What cannot be read says nothing: then the usual wait."""
    seen: list[Request] = []

    def reply(request: Request) -> bytes:
        seen.append(request)
        return apps.OK if len(seen) > 1 else BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: " + said + b"\r\n\r\n")

    stage.app(apps.replying(reply))
    answer = await stage.ask(GET)
    assert (answer.status, len(seen)) == (200 if tries == 2 else 503, tries)
    assert least <= stage.now <= least * 1.5 + 0.1


@scene(upstream=AGAIN)
async def test_who_has_failed_as_often_as_may_be_says_so(stage: Stage) -> None:
    """URX, beside what the last try met (S24)."""
    stage.app(apps.always(BUSY))
    assert (await stage.ask(GET)).status == 503
    hop = stage.web.books.hop
    assert (hop.flag, hop.attempts) == ("URX", 3)
    assert hop.tried[-1] == "not tried again: as often as retries.resends lets it"


@scene(upstream=', endpoints: ["10.0.0.9:17443"]')
async def test_the_same_beside_the_reason_of_the_last(stage: Stage) -> None:
    assert (await stage.ask(GET)).status == 503
    assert (stage.web.books.hop.flag, stage.web.books.hop.attempts) == ("UF,URX", 3)


@scene(upstream=AGAIN, web_limits=", retries: 3")
async def test_only_so_many_retries_are_under_way(stage: Stage) -> None:
    """Those that wait for their turn count: what the server asks for would else keep any number here."""
    seen: list[Request] = []

    def reply(request: Request) -> bytes:
        seen.append(request)
        if request.target == b"/":
            return apps.OK
        return BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 4\r\n\r\n")

    stage.app(apps.replying(reply))
    for _ in range(40):
        assert (await stage.ask(GET)).status == 200  # there is a budget for more
    lines = [await stage.call() for _ in range(12)]
    for line in lines:
        await line.say(GET.replace(b"/", b"/bad", 1))
    await stage.sleep(1.0)
    refused = [hop for hop in stage.web.books.hops if hop.target == "/bad"]
    assert len(refused) == 9
    assert {hop.tried[-1] for hop in refused} == {
        "not tried again: as many retries as may be are under way (limits.retries)"
    }
    for line in lines:
        assert (await line.answer()).status == 503
    await stage.sleep(20.0)
    assert stage.web.upstreams[0].destination.ceilings.retries.count == 0


@scene(web_limits=", pending: 60s")
async def test_only_so_many_wait_for_a_place(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond, the refusal is immediate: a destination that hangs takes no more of our memory."""
    monkeypatch.setattr("sidecar.net.pool.MOST_WAITING", 3)

    async def hangs(line: Line) -> None:
        await line.request()
        await stage.sleep(100.0)

    stage.app(hangs)
    lines = [await stage.call() for _ in range(10)]
    for line in lines:
        await line.say(GET)
    await stage.quiet()
    await stage.sleep(0.1)
    assert [hop.flag for hop in stage.web.books.hops] == ["UO"] * 3
    assert "3 requests wait for a place in the pool of 4 (limits.pool)" in str(stage.web.books.hops[0].error)
