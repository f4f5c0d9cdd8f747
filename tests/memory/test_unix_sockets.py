"""The application, or a plaintext upstream, on a Unix socket: the whole hop in memory. And listeners on one."""

from __future__ import annotations

import pytest

from sidecar.http.h2.codes import PREFACE
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.h2_wire import GET as H2_GET
from tests.kit.h2_wire import HELLO, POST, headers
from tests.kit.play import Stage, scene

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


# ---- a listener on a socket ------------------------------------------------------------------------------------------

LOCAL = "unix:/run/orders.sock"
GRPC = (b"content-type", b"application/grpc")
LOCAL_GET = [(name, b"localhost" if name == b":authority" else value) for name, value in H2_GET]


async def on_the_socket(stage: Stage, said: bytes) -> Line:
    line = await stage.call(0, LOCAL)
    await line.say(said)
    return line


@pytest.mark.parametrize(("host", "status"), [
    ("orders", 200), ("localhost", 200), ("localhost:8080", 200), ("127.0.0.1", 200), ("evil.example", 403),
])  # fmt: skip
@scene(local=LOCAL)
async def test_who_asks_on_a_socket_may_call_it_localhost(stage: Stage, host: str, status: int) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    line = await on_the_socket(stage, f"GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await line.answer()).status == status
    assert {each.get("host") for each in seen} <= {b"orders"}
    hop = stage.web.books.hop
    assert (hop.source, hop.port) == (None, 0)


@scene(local=LOCAL)
async def test_http_2_by_prior_knowledge_on_a_socket(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    line = await on_the_socket(stage, HELLO + headers(1, LOCAL_GET, end=True))
    await stage.quiet()
    assert stage.web.books.hop.version == "2"
    assert stage.web.books.hop.status == 200
    line.close()


@scene(app=SOCKET)
async def test_grpc_asks_an_application_on_a_socket_by_prior_knowledge(stage: Stage) -> None:
    heard: list[bytes] = []

    async def serve(line: Line) -> None:
        heard.append(await line.hear(len(PREFACE)))

    stage.app(serve, SOCKET)
    web = await stage.call()
    fields = [(name, b"orders" if name == b":authority" else value) for name, value in POST]
    fields += [GRPC, (b"te", b"trailers")]
    await web.say(HELLO + headers(1, fields, end=True))
    await stage.sleep(1)
    assert heard == [PREFACE]
    assert stage.orders.books.hop.endpoint == SOCKET
