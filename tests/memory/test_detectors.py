"""Detectors in the whole proxy: who is held, what it is told, when it is let go, and that nobody else is touched."""

from __future__ import annotations

import pytest

from sidecar.errors import CallerBlocked
from sidecar.proxy import lane
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
BLOCK = "    detectors: {stuffing: {refusals: 5, action: block, for: 60s}}"
THROTTLE = "    detectors: {stuffing: {refusals: 5, action: throttle, rate: 1/s, for: 60s}}"
RECORD = "    detectors: {stuffing: {refusals: 5}}"
IDS = "    detectors: {enumeration: {ids: 50, sequential: 10, action: block, for: 30s}}"


def get(path: str = "/login", more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (path.encode(), more)


async def asked(line: Line, *requests: bytes) -> list[int]:
    """The statuses of these requests, one after the other on one connection."""
    found: list[int] = []
    for request in requests:
        await line.say(request)
        found.append((await line.answer()).status)
    return found


def held(stage: Stage) -> list[str]:
    """Who is held, at this moment."""
    detectors = stage.orders.detectors
    assert detectors is not None
    return [hold.who[0] for hold in detectors.holds.in_force(stage.orders.port.now)]


@pytest.mark.parametrize("prefix", [b"", b"Expect: 100-continue\r\n"], ids=["express", "general"])
@scene(orders=BLOCK)
async def test_who_tries_passwords_is_blocked_for_a_time(stage: Stage, prefix: bytes) -> None:
    stage.app(apps.always(REFUSED))
    peer = await stage.peer()
    assert await asked(peer, *[get(more=prefix)] * 7) == [401] * 5 + [429] * 2
    assert held(stage) == [WEB.text]
    assert isinstance(stage.orders.books.hops[-1].error, CallerBlocked)
    assert stage.orders.books.flags[-1] == "TH"
    await peer.say(get(more=prefix))
    answer = await peer.answer()
    assert 1 <= int(answer.get("retry-after") or b"") <= 60
    await stage.sleep(61.0)
    assert await asked(peer, get(more=prefix)) == [401]
    assert held(stage) == []


@scene(orders=BLOCK, may="[web, mallory]")
async def test_nobody_else_is_touched(stage: Stage) -> None:
    stage.app(apps.always(REFUSED))
    peer, other = await stage.peer(), await stage.peer(MALLORY)
    assert await asked(other, *[get()] * 8) == [401] * 5 + [429] * 3
    assert await asked(peer, *[get()] * 4) == [401] * 4
    assert held(stage) == [MALLORY.text]


@scene(orders=THROTTLE)
async def test_who_is_throttled_has_its_rate(stage: Stage) -> None:
    stage.app(apps.always(REFUSED))
    peer = await stage.peer()
    assert await asked(peer, *[get()] * 8) == [401] * 6 + [429] * 2
    await stage.sleep(1.0)
    assert await asked(peer, *[get()] * 2) == [401, 429]


@scene(orders=RECORD)
async def test_record_holds_nobody(stage: Stage) -> None:
    stage.app(apps.always(REFUSED))
    peer = await stage.peer()
    assert await asked(peer, *[get()] * 9) == [401] * 9
    assert stage.orders.detectors is not None
    (found,) = stage.orders.detectors.found
    assert (found.detector, found.who, found.action) == ("stuffing", (WEB.text, ""), "record")
    assert stage.orders.books.metrics.counter("mesh_detections_total")
    assert b'mesh_detections_total{source="' + WEB.text.encode() in stage.orders.books.metrics.render()
    if lane.ENABLED:  # what only looks, leaves a plain request plain
        assert stage.orders.books.by_express == 8


@scene(orders=IDS)
async def test_who_walks_along_the_objects_is_blocked(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    found = await asked(peer, *[get(f"/orders/{number}") for number in range(700, 714)])
    assert found == [200] * 10 + [429] * 4 or found == [200] * 11 + [429] * 3
    assert held(stage) == [WEB.text]


@scene(orders=IDS)
async def test_pages_and_the_same_objects_again_are_no_walk(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    paths = [f"/orders/{number}" for number in (17, 4711, 17, 4711, 99001)] * 8
    pages = [f"/orders?page={number}" for number in range(30)]
    assert set(await asked(peer, *map(get, [*paths, *pages]))) == {200}
    assert held(stage) == []


@scene(orders=BLOCK)
async def test_an_operator_lets_a_caller_go(stage: Stage) -> None:
    stage.app(apps.always(REFUSED))
    peer = await stage.peer()
    assert await asked(peer, *[get()] * 6) == [401] * 5 + [429]
    assert stage.orders.detectors is not None
    (lifted,) = stage.orders.detectors.lift(WEB.text, None, stage.orders.port.now)
    assert (lifted.detector, lifted.refused) == ("stuffing", 1)
    assert await asked(peer, *[get()] * 6) == [401] * 5 + [429]


@scene(orders=BLOCK)
async def test_a_reload_forgets_all_where_detectors_have_changed_and_nothing_else(stage: Stage) -> None:
    stage.app(apps.always(REFUSED))
    peer = await stage.peer()
    assert await asked(peer, *[get()] * 6) == [401] * 5 + [429]
    stage.reload(orders=BLOCK + "\n    owner: somebody")
    assert await asked(peer, get()) == [429]
    stage.reload(orders=BLOCK.replace("60s", "70s"))
    assert await asked(peer, *[get()] * 6) == [401] * 5 + [429]
    stage.reload(orders="")
    assert await asked(peer, *[get()] * 8) == [401] * 8
