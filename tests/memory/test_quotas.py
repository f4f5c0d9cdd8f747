"""Quotas: who has used up a day or a month, what everybody is told, and that nobody else pays for it."""

from __future__ import annotations

import re

import pytest

from sidecar.errors import QuotaSpent, QuotaUnknown
from sidecar.net.memory import EPOCH
from sidecar.proxy import lane
from sidecar.proxy.charging import PromptDesk
from sidecar.traffic.quota import Order
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_line import h2_call
from tests.kit.h2_wire import headers
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
CALL = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/shop.Orders/Get"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip
TO_MIDNIGHT = 86_400 - EPOCH % 86_400


def get(path: str = "/", more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (path.encode(), more)


def quotas(*limits: str, rates: str = "") -> str:
    said = "    quotas:\n" + "\n".join(f"      - {{{limit}}}" for limit in limits)
    return said + (f"\n    rates: [{{{rates}}}]" if rates else "")


async def asked(line: Line, *requests: bytes) -> list[int]:
    found: list[int] = []
    for request in requests:
        await line.say(request)
        found.append((await line.answer()).status)
    return found


@pytest.mark.parametrize("prefix", [b"", b"Expect: 100-continue\r\n"], ids=["express", "general"])
@scene(orders=quotas("name: daily, limit: 3/d"))
async def test_a_caller_has_so_many_in_a_day_and_then_waits_for_the_next(stage: Stage, prefix: bytes) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    request = get(more=prefix)
    left = []
    for _ in range(3):
        await peer.say(request)
        answer = await peer.answer()
        assert answer.status == 200
        assert answer.get("ratelimit-policy") == b'"daily";q=3;w=86400'
        told = re.fullmatch(rb'"daily";r=(\d);t=(\d+)', answer.get("ratelimit") or b"")
        assert told is not None
        assert abs(int(told[2]) - TO_MIDNIGHT) <= 2
        left.append(int(told[1]))
    assert left == [2, 1, 0]
    await peer.say(request)
    refused = await peer.answer()
    assert (refused.status, refused.get("ratelimit")) == (429, b'"daily";r=0;t=%d' % (TO_MIDNIGHT - round(stage.now)))
    assert abs(int(refused.get("retry-after") or 0) - TO_MIDNIGHT) <= 2
    error = stage.orders.books.hops[-1].error
    assert isinstance(error, QuotaSpent)
    assert (error.limit, error.per, error.flag) == ("daily", "caller", "RL")
    assert "daily (mesh.yaml:" in error.detail or "daily (" in error.detail


@scene(orders=quotas("name: daily, limit: 300/d"))
async def test_plain_requests_stay_on_the_express(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 301) == [200] * 300 + [429]
    assert stage.orders.books.by_express >= 298 or not lane.ENABLED


@scene(orders=quotas("name: few, limit: 2/d"), may="'**'")
async def test_each_caller_has_its_own(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web, other = await stage.peer(WEB), await stage.peer(MALLORY)
    assert await asked(web, GET, GET, GET) == [200, 200, 429]
    assert await asked(other, GET, GET, GET) == [200, 200, 429]


@scene(orders=quotas("name: all, limit: 3/h, per: listener"), may="'**'")
async def test_a_listener_has_one_for_all(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert await asked(await stage.peer(WEB), GET, GET) == [200, 200]
    assert await asked(await stage.peer(MALLORY), GET, GET) == [200, 429]


@scene(orders=quotas("name: key, limit: 2/d, per: header X-Api-Key", "name: narrow, limit: 1/d, path: /a"))
async def test_each_value_of_a_header_has_its_own_and_is_kept_as_a_digest_alone(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    for value in (b"", b"X-Api-Key: secret\r\n", b"X-Api-Key: other\r\n"):
        assert await asked(peer, *[get(more=value)] * 3) == [200, 200, 429]
    assert await asked(peer, get("/a", b"X-Api-Key: third\r\n"), get("/a", b"X-Api-Key: third\r\n")) == [200, 429]
    desk = stage.orders._desk
    assert desk.quotas is not None
    assert "secret" not in str(list(desk.quotas.by_name["key"].leases))


@scene(orders=quotas("name: daily, limit: 2/d", rates="name: slow, limit: 1/s"))
async def test_who_is_refused_by_a_rate_takes_nothing_from_a_quota_and_the_other_way_round(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, *[GET] * 5) == [200, 429, 429, 429, 429]
    await stage.sleep(1.0)
    assert await asked(peer, GET) == [200]
    await stage.sleep(1.0)
    for _ in range(3):
        await peer.say(GET)
        assert b"daily" in ((await peer.answer()).get("ratelimit") or b"")  # the rate has not been touched
    errors = [type(hop.error).__name__ for hop in stage.orders.books.hops if hop.error is not None]
    assert errors == ["RateLimited"] * 4 + ["QuotaSpent"] * 3


@scene(orders=quotas("name: daily, limit: 2/d"), may="web, path: /open")
async def test_who_may_not_takes_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, *[get("/shut")] * 5, *[get("/open")] * 3) == [403] * 5 + [200, 200, 429]


@scene(orders=quotas("name: daily, limit: 3/d"))
async def test_what_the_express_has_sent_is_not_taken_again(stage: Stage) -> None:
    answers = iter([apps.OK, b"HTTP/1.1 103 Early Hints\r\n\r\n" + apps.OK, apps.OK, apps.OK])
    stage.app(apps.replying(lambda request: next(answers)))
    assert await asked(await stage.peer(), GET, GET, GET, GET) == [200, 200, 200, 429]


@scene(orders=quotas("name: calls, limit: 1/month, per: caller"))
async def test_a_call_is_told_in_the_words_of_grpc_and_no_longer_than_a_day(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(GET)).status == 200
    web = await h2_call(stage, headers(1, CALL))
    told: dict[bytes, bytes] = dict((await web.answer(1)).headers)
    assert (told[b"grpc-status"], told[b"grpc-retry-pushback-ms"]) == (b"8", b"86400000")
    assert told[b"retry-after"] == b"86400"
    assert told[b"ratelimit"].startswith(b'"calls";r=0;t=')
    assert stage.orders.books.hops[-1].grpc_status == "RESOURCE_EXHAUSTED"


async def greeting(line: Line) -> None:
    """An application that says something, and hangs up."""
    await line.say(b"hello")
    await line.finish()


@scene(orders=quotas("name: ways, limit: 2/d"))
async def test_raw_connections_count_one_each(stage: Stage) -> None:
    stage.app(greeting, "127.0.0.1:5432")
    assert [await (await stage.peer(port=17444)).hear_all() for _ in range(3)] == [b"hello", b"hello", b""]
    assert stage.orders.books.flags.count("RL") == 1


@scene(orders=quotas("name: daily, limit: 5/d"))
async def test_a_reload_keeps_the_count_and_another_limit_acts_at_once(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, GET, GET, GET) == [200] * 3
    stage.reload(orders=quotas("name: daily, limit: 4/d, port: http"))
    assert await asked(peer, GET, GET) == [200, 429]
    stage.reload(orders=quotas("name: daily, limit: 6/d"))
    assert await asked(peer, GET, GET, GET) == [200, 200, 429]
    stage.reload(orders=quotas("name: daily, limit: 2/d"))
    assert await asked(peer, GET) == [429]
    stage.reload(orders=quotas("name: renamed, limit: 2/d"))
    assert await asked(peer, GET, GET, GET) == [200, 200, 429]


@scene(orders=quotas("name: daily, limit: 2/d, time_zone: Asia/Kathmandu"))
async def test_a_new_day_is_one_of_the_zone(stage: Stage) -> None:
    """Midnight of Kathmandu is 18:15 UTC."""
    stage.app(apps.always(apps.OK))
    assert await asked(await stage.peer(), GET, GET, GET) == [200, 200, 429]
    seconds = (18 * 3600 + 15 * 60 - EPOCH % 86_400) % 86_400
    await stage.sleep(seconds - 30 - stage.now)
    assert await asked(await stage.peer(), GET) == [429]
    await stage.sleep(31)
    assert await asked(await stage.peer(), GET, GET, GET) == [200, 200, 429]


class Away(PromptDesk):
    """A desk whose store is away from now on."""

    def ask(self, order: Order) -> None:
        if order.lease.order is order:
            order.quota.fail(order)


@scene(orders=quotas("name: daily, limit: 300/d"), may="'**'")
async def test_without_its_store_who_is_known_goes_on_to_the_limit_and_others_are_refused(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web, other = await stage.peer(WEB), await stage.peer(MALLORY)
    assert await asked(web, *[GET] * 10) == [200] * 10
    stage.orders._desk.ask = Away().ask  # type: ignore[method-assign]
    assert await asked(web, *[GET] * 291) == [200] * 290 + [429]
    assert await asked(other, GET) == [503]
    error = stage.orders.books.hops[-1].error
    assert isinstance(error, QuotaUnknown)
    assert error.flag == "RL"


class Silent(PromptDesk):
    """A desk whose disk hangs."""

    def ask(self, order: Order) -> None:
        pass

    def signal(self, order: Order) -> None:
        from sidecar.net.port import Signal

        return Signal()  # type: ignore[return-value]


@scene(orders=quotas("name: daily, limit: 300/d"))
async def test_a_disk_that_hangs_holds_a_request_for_two_seconds_at_most(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    silent = Silent()
    stage.orders._desk.ask = silent.ask  # type: ignore[method-assign]
    stage.orders._desk.signal = silent.signal  # type: ignore[method-assign]
    peer = await stage.peer()
    began = stage.now
    assert await asked(peer, GET) == [503]
    assert 1.9 <= stage.now - began <= 2.3
