"""Whoever is revoked has no open connection a moment later, in either direction and whatever was on it (D10)."""

from __future__ import annotations

import pytest

from sidecar.proxy.lane import ENABLED
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_line import ORDERS_GET, answer_ok, h2_app, h2_call, h2_peer
from tests.kit.h2_wire import headers
from tests.kit.hops import MALLORY, ORDERS, WEB
from tests.kit.play import Stage, scene
from tests.memory.test_bound import ASK, TCP_APP, chat, echo

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"


def revoke_caller(stage: Stage) -> None:
    stage.gates[ORDERS].revoke(WEB)
    stage.orders.evict()


def revoke_called(stage: Stage) -> None:
    stage.gates[WEB].revoke(ORDERS)
    stage.web.evict()


async def never(line: Line) -> None:
    await line.request()
    await line.wire.read()


async def begin(line: Line) -> None:
    await line.request()
    await line.say(CHUNKED)
    await line.wire.read()


def ended_early(stage: Stage, direction: str) -> bool:
    books = (stage.orders if direction == "inbound" else stage.web).books
    early = f'mesh_connections_ended_early_total{{direction="{direction}",reason="revoked"}} 1'
    return early in books.metrics.render().decode()


# ---- callers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("express", [True, False])
def test_an_idle_caller_is_gone_at_once_and_no_hop_is_invented(express: bool) -> None:
    @scene()
    async def story(stage: Stage) -> None:
        stage.app(apps.always(apps.OK))
        peer = await stage.peer()
        request = GET if express else GET.replace(b"Host", b"Expect: 100-continue\r\nHost")
        await peer.say(GET)
        await peer.answer()
        if not express:
            await peer.say(request)
            await peer.answer()
        hops = len(stage.orders.books.hops)
        revoke_caller(stage)
        assert await peer.is_reset()
        assert stage.now == 0.0
        assert len(stage.orders.books.hops) == hops
        assert 'mesh_revoked_connections_total{direction="inbound"} 1' in stage.orders.books.metrics.render().decode()

    story()


@pytest.mark.parametrize("app", [never, begin], ids=["before its answer", "in its answer"])
@pytest.mark.parametrize("way", ["plain", "general"])
def test_a_caller_in_the_middle_of_a_request_gets_no_more(app: object, way: str) -> None:
    @scene()
    async def story(stage: Stage) -> None:
        stage.app(app)  # type: ignore[arg-type]
        peer = await stage.peer()
        await peer.say(GET if way == "plain" else ASK)
        if app is begin:
            await peer.until(b"begun\r\n")
        await stage.quiet()
        revoke_caller(stage)
        assert await peer.is_reset()
        await stage.quiet()
        assert stage.now == 0.0
        hop = stage.orders.books.hop
        assert hop.error is not None
        assert (hop.flag, hop.error.name, hop.error.midway) == ("ID", "identity_refused", "revoked")
        assert ended_early(stage, "inbound")

    story()


@scene()
async def test_one_that_has_said_nothing_yet(stage: Stage) -> None:
    peer = await stage.peer()
    await stage.quiet()
    revoke_caller(stage)
    assert await peer.is_reset()
    assert stage.now == 0.0


@scene(protocol="auto")
async def test_one_whose_protocol_is_not_known_yet(stage: Stage) -> None:
    peer = await stage.peer()
    await peer.say(b"G")
    await stage.quiet()
    revoke_caller(stage)
    assert await peer.is_reset()
    assert stage.now == 0.0


@scene()
async def test_one_in_the_middle_of_a_request_head(stage: Stage) -> None:
    peer = await stage.peer()
    await peer.say(GET[:20])
    await stage.quiet()
    revoke_caller(stage)
    assert await peer.is_reset()
    assert stage.now == 0.0
    assert not stage.orders.books.hops


@pytest.mark.parametrize("kind", ["raw", "upgrade"])
@pytest.mark.parametrize("who", ["the caller", "the called"])
def test_a_tunnel(kind: str, who: str) -> None:
    @scene()
    async def story(stage: Stage) -> None:
        stage.app(chat)
        stage.app(echo, TCP_APP)
        line = await stage.call(9002 if kind == "raw" else 9001)
        if kind == "upgrade":
            await line.say(ASK)
            assert (await line.answer()).status == 101
        await line.say(b"ping")
        assert await line.hear(4) == b"ping"
        (revoke_caller if who == "the caller" else revoke_called)(stage)
        assert await line.is_reset()
        assert stage.now == 0.0
        proxy = stage.orders if who == "the caller" else stage.web
        hop = proxy.books.hop
        assert (hop.flag, hop.error and hop.error.midway) == ("ID", "revoked")

    story()


@scene(http=", app_http: http2")
async def test_the_streams_of_an_http2_connection(stage: Stage) -> None:
    async def silent(*_: object) -> None:
        return

    stage.app(h2_app(silent))
    web = await h2_peer(stage, headers(1, ORDERS_GET), headers(3, ORDERS_GET))
    await stage.quiet()
    revoke_caller(stage)
    assert await web.line.is_reset()
    await stage.quiet()
    assert stage.now == 0.0
    assert stage.orders.books.flags == ["ID", "ID"]


@scene()
async def test_an_idle_http2_connection(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await h2_peer(stage, headers(1, ORDERS_GET))
    assert (await web.answer(1)).status == 200
    revoke_caller(stage)
    assert await web.line.is_reset()
    assert stage.now == 0.0
    assert stage.orders.books.flags == ["-"]


@scene()
async def test_a_caller_that_reads_nothing_cannot_keep_its_connection(stage: Stage) -> None:
    async def flood(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))

    stage.app(flood)
    peer = await stage.peer()
    await peer.say(GET)
    await stage.quiet()
    revoke_caller(stage)
    await stage.quiet()
    assert stage.now == 0.0
    assert stage.orders.connections == 0
    assert stage.orders.books.hop.flag == "ID"
    peer.close()


@scene()
async def test_the_revoked_get_no_new_connection(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    revoke_caller(stage)
    peer = await stage.peer()
    assert await peer.is_closed()
    assert stage.orders.books.handshakes[-1].reason == "revoked"
    answer = await stage.ask(GET)  # by their own sidecar: it was shown the door in place of an answer
    assert answer.status == 503


# ---- upstreams ---------------------------------------------------------------------------------------------------


@scene()
async def test_connections_to_an_upstream_that_rest_in_the_pool_are_closed(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(GET)).status == 200
    pool = next(iter(stage.web.upstreams[0].places.values())).pool
    assert pool.open == 1
    revoke_called(stage)
    assert pool.open == 0
    answer = await stage.ask(GET)
    assert answer.status == 503
    hop = stage.web.books.hops[-1]
    assert hop.error is not None
    assert (hop.flag, hop.error.name, getattr(hop.error, "reason", "")) == ("ID", "peer_identity", "revoked")


@pytest.mark.parametrize("app", [never, begin], ids=["before its answer", "in its answer"])
@pytest.mark.parametrize("connect", [False, True], ids=["", "in a CONNECT"])
def test_a_request_to_an_upstream_that_is_revoked_meanwhile_fails_and_is_not_sent_again(
    app: object, connect: bool
) -> None:
    @scene()
    async def story(stage: Stage) -> None:
        stage.app(app)  # type: ignore[arg-type]
        line = await stage.call(9000 if connect else 9001)
        if connect:
            await line.say(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n")
            await line.until(b"\r\n\r\n")
        await line.say(GET)
        if app is begin:
            await line.until(b"begun\r\n")
        await stage.quiet()
        revoke_called(stage)
        if app is begin:
            assert await line.is_reset()
        else:
            answer = await line.answer()
            assert (answer.status, b"ID peer_identity" in (answer.get("proxy-status") or b"")) == (503, True)
        assert stage.now == 0.0
        hop = stage.web.books.hop
        assert hop.error is not None
        assert (hop.flag, hop.error.midway, hop.attempts) == ("ID", "revoked", 1)
        line.close()

    story()


@scene(http=", app_http: http2")
async def test_a_trunk_to_a_revoked_upstream_ends_with_all_its_streams(stage: Stage) -> None:
    async def silent(*_: object) -> None:
        return

    stage.app(h2_app(silent))
    web = await h2_call(stage, headers(1, ORDERS_GET), headers(3, ORDERS_GET))
    await stage.quiet()
    revoke_called(stage)
    assert (await web.answer(1)).status == 503
    assert (await web.answer(3)).status == 503
    assert stage.now == 0.0
    assert stage.web.books.flags == ["ID", "ID"]
    assert next(iter(stage.web.upstreams[0].places.values())).trunks.open == 0


@scene(http=", app_http: http2")
async def test_an_idle_trunk_to_a_revoked_upstream_is_closed(stage: Stage) -> None:
    stage.app(h2_app(answer_ok))
    web = await h2_call(stage, headers(1, ORDERS_GET))
    assert (await web.answer(1)).status == 200
    assert next(iter(stage.web.upstreams[0].places.values())).trunks.open == 1
    revoke_called(stage)
    await stage.quiet()
    assert next(iter(stage.web.upstreams[0].places.values())).trunks.open == 0
    assert stage.now == 0.0


# ---- everybody else ----------------------------------------------------------------------------------------------


@scene()
async def test_nobody_else_notices_and_nobody_else_is_judged_again(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    gate = stage.gates[ORDERS]
    gate.revoke(MALLORY)
    stage.orders.evict()
    judged: list[object] = []
    gate.judge_again = lambda *args: judged.append(args)  # type: ignore[method-assign]
    for _ in range(3):
        await peer.say(GET)
        assert (await peer.answer()).status == 200
    assert not judged
    assert stage.orders.books.by_express >= 2 or not ENABLED
    assert len(stage.orders.tasks) == 1


@scene()
async def test_the_identity_that_is_no_longer_revoked_is_let_in_again(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    revoke_caller(stage)
    assert (await stage.ask(GET)).status == 503
    stage.gates[ORDERS].revoked.clear()
    assert (await stage.ask(GET)).status == 200


