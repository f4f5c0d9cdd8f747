"""The application, or a plaintext upstream, on a Unix socket: the whole hop in memory."""

from __future__ import annotations

from tests.kit import apps
from tests.kit.play import Request, Stage, scene

SOCKET = "unix:/run/app.sock"
GET = b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"


@scene(app=SOCKET)
async def test_the_application_listens_on_a_socket(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen), SOCKET)
    web = await stage.call()
    for _ in range(3):
        await web.say(GET)
        assert (await web.answer()).body == b"ok"
    assert len(stage.apps) == 1, "its connections are pooled as others are"
    assert {each.get("host") for each in seen} == {b"orders"}
    assert [hop.endpoint for hop in stage.orders.books.hops] == [SOCKET] * 3


@scene(app=SOCKET)
async def test_who_names_no_host_asks_for_localhost(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen), SOCKET)
    peer = await stage.peer()
    await peer.say(b"GET /a HTTP/1.0\r\n\r\n")
    assert (await peer.answer()).status == 200
    assert seen[0].get("host") == b"localhost"


@scene(app=SOCKET)
async def test_a_socket_that_is_not_there_is_an_upstream_that_is_down(stage: Stage) -> None:
    answer = await stage.ask(GET)
    assert answer.status == 503
    hop = stage.orders.books.hop
    assert (hop.flag, hop.endpoint) == ("UF", SOCKET)
    assert hop.error is not None
    assert hop.error.detail == "unix:/run/app.sock: Connection refused"


@scene(app=SOCKET)
async def test_it_may_come_later(stage: Stage) -> None:
    assert (await stage.ask(GET)).status == 503
    stage.app(apps.always(apps.OK), SOCKET)
    assert (await stage.ask(GET)).status == 200
