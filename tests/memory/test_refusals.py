"""What a refused caller sees (D7), what happens to its connection, and the limits of D13."""

from __future__ import annotations

import json

import pytest

from sidecar import errors
from tests.kit import apps
from tests.kit.h1_line import Request
from tests.kit.hops import MALLORY, ORDERS, WEB
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
ROUTES = """, routes: [
      {path: /upload, max_body: 10B, content_types: [text/plain]},
      {path: /big, max_body: 1MiB}]"""


@scene()
async def test_a_refused_peer_gets_a_title_a_status_and_an_id_and_nothing_more(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    mallory = await stage.peer(MALLORY)
    await mallory.say(GET)
    answer = await mallory.answer()
    hop = stage.orders.books.hop
    assert answer.status == 403
    assert answer.headers == [
        (b"content-type", b"application/problem+json"),
        (b"mesh-decision-id", hop.decision_id.encode()),
        (b"content-length", str(len(answer.body)).encode()),
    ]
    assert json.loads(answer.body) == {"title": "Forbidden", "status": 403, "decision": hop.decision_id}
    assert (hop.flag, hop.attempts, stage.apps) == ("PD", 0, [])


@scene()
async def test_our_own_application_is_told_why(stage: Stage) -> None:
    answer = await stage.ask(b"GET http://nobody/ HTTP/1.1\r\nHost: nobody\r\n\r\n", port=9000)
    hop = stage.web.books.hop
    status = answer.get("proxy-status") or b""
    assert (
        status
        == f'mesh; error=http_request_denied; details="PD undeclared_upstream decision={hop.decision_id}"'.encode()
    )


@scene(orders="    deny: [{name: not-today, from: [web], path: [/closed]}]")
async def test_the_peers_refusal_reaches_the_application_with_its_id_and_without_its_reason(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    answer = await stage.ask(b"GET /closed HTTP/1.1\r\nHost: orders\r\n\r\n")
    refused = stage.orders.books.hop
    assert answer.status == 403
    assert answer.get("mesh-decision-id") == refused.decision_id.encode()
    assert answer.get("proxy-status") == (
        f'mesh; received-status=403; details="refused by the peer, decision={refused.decision_id}"'.encode()
    )
    assert b"not-today" not in answer.body
    assert refused.rule == "not-today"
    assert stage.web.books.hop.decision_id == refused.decision_id  # so `mesh explain` finds both


@scene()
async def test_a_refusal_does_not_cost_the_connection(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    mallory = await stage.peer(MALLORY)
    for _ in range(3):
        await mallory.say(GET)
        assert (await mallory.answer()).status == 403
    assert len(stage.orders.tasks) == 1


@scene()
async def test_a_small_refused_body_is_read_so_that_the_connection_lives(stage: Stage) -> None:
    mallory = await stage.peer(MALLORY)
    post = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 60000\r\n\r\n"
    for _ in range(2):
        await mallory.say(post)
        await mallory.say(bytes(60000))
        answer = await mallory.answer()
        assert (answer.status, answer.get("connection")) == (403, None)
    assert len(stage.orders.tasks) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 70000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    ],
)
@scene()
async def test_a_body_that_is_not_read_ends_the_connection_and_says_so(stage: Stage, head: bytes) -> None:
    mallory = await stage.peer(MALLORY)
    await mallory.say(head)
    answer = await mallory.answer()
    assert (answer.status, answer.get("connection")) == (403, b"close")
    await mallory.say(b"z" * 60000)  # who sends all the same does not destroy the answer that is under way
    assert await mallory.is_closed()


@scene()
async def test_the_answer_to_a_refused_head_has_no_body(stage: Stage) -> None:
    mallory = await stage.peer(MALLORY)
    for _ in range(2):
        await mallory.say(GET.replace(b"GET", b"HEAD"))
        answer = await mallory.answer("HEAD")
        assert answer.status == 403
        assert int(answer.get("content-length") or b"0") > 0


@scene()
async def test_a_refused_upgrade_is_an_ordinary_refusal(stage: Stage) -> None:
    mallory = await stage.peer(MALLORY)
    for _ in range(2):
        await mallory.say(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await mallory.answer()).status == 403


@scene(http=ROUTES)
async def test_a_body_over_its_routes_limit_is_refused_by_its_length(stage: Stage) -> None:
    stage.app(apps.echo())
    peer = await stage.peer()
    head = b"POST /upload HTTP/1.1\r\nHost: orders\r\nContent-Type: Text/Plain; charset=x\r\nContent-Length: "
    await peer.say(head + b"10\r\n\r\n0123456789")
    assert (await peer.answer()).body == b"0123456789"
    await peer.say(head + b"11\r\n\r\n01234567890")
    answer = await peer.answer()
    assert (answer.status, answer.get("connection")) == (413, None)
    assert stage.orders.books.hops[-1].flag == "SV"


@scene(http=ROUTES)
async def test_a_chunked_body_is_counted_before_a_byte_too_many_goes_on(stage: Stage) -> None:
    stage.app(apps.silent)
    peer = await stage.peer()
    await peer.say(
        b"POST /upload HTTP/1.1\r\nHost: orders\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(2):
        await peer.say(b"5\r\n01234\r\n")
        await stage.quiet()
    await peer.say(b"1\r\nX\r\n")
    answer = await peer.answer()
    assert answer.status == 413
    await stage.quiet()
    app = stage.apps[0]
    assert b"X\r\n" not in app.pending
    assert app.wire.closed


@scene(http=ROUTES)
async def test_a_body_that_grows_too_long_after_the_answer_began_breaks_the_connection(stage: Stage) -> None:
    async def early(line):  # type: ignore[no-untyped-def]
        await line.request_head()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await line.hear_all()

    stage.app(early)
    peer = await stage.peer()
    await peer.say(
        b"POST /upload HTTP/1.1\r\nHost: orders\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    await peer.answer_head()
    await peer.say(b"b\r\n01234567890\r\n")
    assert await peer.is_reset()
    assert stage.orders.books.hop.flag == "SV"


@pytest.mark.parametrize("kind", [b"", b"Content-Type: application/json\r\n", b"Content-Type: text/plainer\r\n"])
@scene(http=ROUTES)
async def test_a_content_type_that_its_route_does_not_list_is_refused(stage: Stage, kind: bytes) -> None:
    stage.app(apps.echo())
    peer = await stage.peer()
    await peer.say(b"POST /upload HTTP/1.1\r\nHost: orders\r\n" + kind + b"Content-Length: 2\r\n\r\nhi")
    assert (await peer.answer()).status == 415
    await peer.say(b"GET /upload HTTP/1.1\r\nHost: orders\r\n\r\n")  # no body, no type
    assert (await peer.answer()).status == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"X: y\r\n" * 99, 200),
        (b"X: y\r\n" * 100, 431),
        (b"X: " + b"y" * 32_000 + b"\r\n", 200),
        (b"X: " + b"y" * 33_000 + b"\r\n", 431),
        (b"X: " + b"y" * 200_000, 431),
    ],
)
@scene()
async def test_a_head_has_at_most_100_lines_and_32_kib(stage: Stage, fields: bytes, status: int) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(b"GET / HTTP/1.1\r\nHost: orders\r\n" + fields + b"\r\n")
    answer = await peer.answer()
    assert answer.status == status
    if status == 431:
        assert await peer.is_closed()
        assert type(stage.orders.books.hop.error) is errors.HeadTooLarge


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\xc8\x01", 400),
        (b"\x00\x01\x02\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: orders\r\nHost: orders\r\n\r\n", 400),
        (b"GET /a/../b HTTP/1.1\r\nHost: orders\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: orders\r\nExpect: magic\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: orders\r\n\r\n", 403),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 403),
    ],
)
@scene()
async def test_what_cannot_be_read_is_answered_and_recorded(stage: Stage, data: bytes, status: int) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(data)
    answer = await peer.answer()
    assert answer.status == status
    assert stage.orders.books.hop.status == status
    assert stage.apps == []


@pytest.mark.parametrize(
    "body",
    [b"z\r\n", b"-1\r\n", b"5\r\nhello world", b"5;a=\x01\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\nhello\r\n",
     b"0\r\nTransfer-Encoding: x\r\n\r\n", b"0\r\nX: y\n\r\n", b"f" * 17 + b"\r\n"],
)  # fmt: skip
@scene()
async def test_a_body_that_cannot_be_read_cancels_the_upstream(stage: Stage, body: bytes) -> None:
    stage.app(apps.silent)
    peer = await stage.peer()
    await peer.say(b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (await peer.answer()).status == 400
    assert await peer.is_closed()
    await stage.quiet()
    assert stage.orders.books.hop.flag == "DPE"
    assert all(app.wire.closed for app in stage.apps)


# ---- identity ------------------------------------------------------------------------------------------------------


@scene()
async def test_an_alert_in_place_of_the_first_byte_is_never_taken_for_a_stale_connection(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    stage.gates[ORDERS].refuses[WEB] = "unknown_ca"
    answer = await stage.ask(GET)
    hop = stage.web.books.hop
    assert (answer.status, hop.flag, hop.attempts) == (503, "ID", 1)
    assert getattr(hop.error, "reason", "") == "alert_unknown_ca"
    assert len(stage.orders.tasks) == 1
    assert stage.orders.books.hops == []
    assert stage.orders.books.handshakes[0].reason == "unknown_ca"


@scene()
async def test_an_upstream_with_another_identity_gets_nothing(stage: Stage) -> None:
    stage.gates[ORDERS].identity = MALLORY
    answer = await stage.ask(GET)
    assert (answer.status, stage.web.books.hop.flag) == (503, "ID")
    assert b"tls_certificate_error" in (answer.get("proxy-status") or b"")
    assert stage.orders.books.hops == []


@scene()
async def test_without_an_identity_of_our_own_nothing_leaves(stage: Stage) -> None:
    stage.gates[WEB].ready = False
    answer = await stage.ask(GET)
    assert (answer.status, stage.web.books.hop.flag) == (503, "ID")
    assert stage.orders.tasks == []


@scene()
async def test_a_connection_ends_with_its_callers_certificate(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    stage.gates[WEB].not_after = stage.port.wall() + 5.0
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    stage.port.clock.jump(10.0)
    await peer.say(GET)
    answer = await peer.answer()
    assert (answer.status, answer.get("connection")) == (403, b"close")
    assert stage.orders.books.flags == ["-", "ID"]
    assert len(seen) == 1


@scene()
async def test_a_new_identity_means_new_connections_and_no_failure(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    for generation in range(3):
        await web.say(GET)
        assert (await web.answer()).status == 200
        stage.gates[WEB].renew(stage.port.wall() + 86400.0)
        stage.web.renew()
        assert len(stage.orders.tasks) == generation + 1
    assert stage.web.books.flags == ["-"] * 3


@scene()
async def test_a_request_under_way_keeps_its_connection_when_the_identity_changes(stage: Stage) -> None:
    async def slow(line):  # type: ignore[no-untyped-def]
        await line.request()
        await stage.sleep(1.0)
        await line.say(apps.OK)

    stage.app(slow)
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(0.5)
    stage.gates[WEB].renew(stage.port.wall() + 86400.0)
    stage.web.renew()
    assert (await web.answer()).status == 200
    await stage.quiet()
    (place,) = stage.web.upstreams[0].places.values()
    assert place.pool.open == 0  # it did not go back
