"""What a contract does to requests and answers on their way: refused, cut, repaired fields, and nothing leaks."""

from __future__ import annotations

import json

import pytest

from sidecar.errors import AnswerBroken, ContractBroken, OperationGone
from sidecar.telemetry import outcome
from tests.kit import apps
from tests.kit.contracts import CONTRACT, ORDER, answer, ask, contract, get, post, under
from tests.kit.h1_line import Request
from tests.kit.h2_line import h2_peer
from tests.kit.h2_wire import headers
from tests.kit.play import Stage, scene


def checked(stage: Stage) -> list[str]:
    return [f"{hop.flag} {hop.operation}" for hop in stage.orders.books.hops]


REFUSED = [
    (b'{"sku":"tea"', 400), (b"\xff", 400), (b'{"sku":"tea","sku":"cup"}', 400), (b'{"sku":"tea","count":NaN}', 400),
    (b'{"sku":"\\ud800"}', 400), (b'{"sku":"tea","count":1e999}', 400), (b'{"sku":"tea","admin":true}', 400),
    (b'{"sku":["tea"]}', 400), (b'{"count":1}', 400), (b'{"sku":"Tea"}', 400), (b'{"sku":"tea","count":"1"}', 400),
    (b'{"sku":' + b"[" * 500 + b"]" * 500 + b"}", 400), (b'{"sku":"tea","count":true}', 400),
    (b"[" + b"1," * 400_000 + b"1]", 400), (b"9" * 5000, 400), (b" " * ((1 << 20) + 1), 413),
]  # fmt: skip


@pytest.mark.parametrize("chunked", [False, True])
@scene(**under())
async def test_a_body_outside_the_contract_never_reaches_the_application(stage: Stage, chunked: bool) -> None:
    requests: list[Request] = []
    stage.app(apps.keeping(requests, answer({"id": 1}, b"201 Created")))
    for body, status in REFUSED:
        peer = await stage.peer()
        request = post(body)
        if chunked:
            request = post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), more=b"Transfer-Encoding: chunked\r\n")
        refused = await ask(peer, request)
        assert refused.status == status, body[:40]
        assert b"sku" not in refused.body
        assert b"admin" not in refused.body
        peer.close()
    assert requests == []
    assert {hop.flag for hop in stage.orders.books.hops} == {"SV"}


@scene(**under())
async def test_a_good_body_arrives_as_it_was_sent(stage: Stage) -> None:
    requests: list[Request] = []
    stage.app(apps.keeping(requests, answer({"id": 1}, b"201 Created")))
    peer = await stage.peer()
    body = b'{"sku" : "tea", "count": 2}'
    assert (await ask(peer, post(body))).status == 201
    chunks = b"%x\r\n%b\r\n5\r\n%b\r\n0\r\n\r\n" % (len(body) - 5, body[:-5], body[-5:])
    assert (await ask(peer, post(chunks, more=b"Transfer-Encoding: chunked\r\n"))).status == 201
    assert [request.body for request in requests] == [body, body]
    assert checked(stage) == ["- placeOrder"] * 2


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(b'{"sku":"tea"}', b"text/plain"), 415),
        (post(b'{"sku":"tea"}', b""), 415),
        (post(b'{"sku":"tea"}', b"application/json; charset=utf-16"), 415),
        (post(b'{"sku":"tea"}', b"multipart/form-data; boundary=x"), 415),
        (post(b"\x1f\x8b" + b"0" * 100, more=b"Content-Encoding: gzip\r\n"), 415),
        (post(b""), 400),
        (get("/orders/x"), 400), (get("/orders/0"), 400), (get("/orders/99999999999999999999"), 400),
        (get("/orders/7?tag=abcdefghijk"), 400), (get("/orders/7?sneaky=1"), 400), (get("/orders/7?tag=%zz"), 400),
        (get("/nowhere"), 404), (get("/orders", b""), 404),
        (b"DELETE /orders/7 HTTP/1.1\r\nHost: orders\r\n\r\n", 404),
        (get("/gone"), 410),
    ],
)  # fmt: skip
@scene(**under())
async def test_what_is_refused_by_its_head(stage: Stage, request_: bytes, status: int) -> None:
    requests: list[Request] = []
    stage.app(apps.keeping(requests))
    refused = await ask(await stage.peer(), request_)
    assert refused.status == status
    assert requests == []
    hop = stage.orders.books.hop
    assert hop.flag == "SV"
    assert isinstance(hop.error, OperationGone) == (status == 410)


@scene(**under())
async def test_parameters_inside_the_contract_pass(stage: Stage) -> None:
    stage.app(apps.always(answer(ORDER)))
    peer = await stage.peer()
    assert (await ask(peer, get("/orders/7?tag=a&tag=b+c"))).status == 200
    assert (await ask(peer, get("/orders/7"))).body == json.dumps(ORDER).encode()  # without grants nothing is cut


BROKEN = [
    answer(b'{"id":"secret-seven"}'), answer(b'{"secret":1}'), answer(b'{"id":7,"id":"secret"}'), answer(b"secret"),
    answer(b'{"id":7}', b"206 Partial Content", b"Content-Range: bytes 0-7/99\r\n"),
    answer(b'{"id":7}', b"200 OK", b"Content-Encoding: gzip\r\n"), answer(b'{"id":7}', b"202 Accepted"),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\nsecret",
    answer(b'{"id":7,"x":"' + b"secret" * 200_000 + b'"}'),
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * (1 << 20) + b" {}",
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
@scene(**under())
async def test_nothing_of_an_answer_outside_the_contract_leaks(stage: Stage, broken: bytes) -> None:
    stage.app(apps.once(broken))
    refused = await ask(await stage.peer(), get("/orders/7"))
    assert refused.status == 502
    assert b"secret" not in refused.body
    hop = stage.orders.books.hop
    assert isinstance(hop.error, AnswerBroken)
    assert (hop.flag, outcome.verdict(hop)) == ("SV", "permit"), "the request was let in"


@scene(**under("shadow"))
async def test_in_shadow_everything_passes_and_is_counted(stage: Stage) -> None:
    stage.app(apps.always(answer(b'{"secret":1}', b"200 OK", b'ETag: "1"\r\n')))
    peer = await stage.peer()
    found = await ask(peer, get("/orders/7?sneaky=1"))
    assert (found.status, found.body, found.get("etag")) == (200, b'{"secret":1}', b'"1"')
    big = b" " * (1 << 20) + b'{"sku":"Tea"}'
    assert (await ask(peer, post(big))).status == 200
    assert (await ask(peer, get("/nowhere"))).status == 200
    first, second, third = stage.orders.books.hops
    assert [each.rule for each in first.shadow] == ["contract:request", "contract:answer"]
    assert [each.rule for each in second.shadow] == ["contract:request", "contract:answer"]
    assert [each.rule for each in third.shadow] == ["contract:request"]
    assert second.received_bytes == len(big)


# ---- grants ----------------------------------------------------------------------------------------------------------


@scene(**under(grants=True))
async def test_a_caller_sees_the_fields_it_was_granted_and_no_new_one(stage: Stage) -> None:
    requests: list[Request] = []
    told = b'ETag: "1"\r\nContent-Digest: sha-256=:x:\r\nAccept-Ranges: bytes\r\nRepr-Digest: sha-256=:x:\r\nX-A: b\r\n'
    stage.app(apps.keeping(requests, answer(ORDER, b"200 OK", told)))
    asked = b'Accept-Encoding: gzip\r\nRange: bytes=0-3\r\nIf-Range: "1"\r\nIf-None-Match: "1"\r\n'
    found = await ask(await stage.peer(), get("/orders/7", asked))
    assert json.loads(found.body) == {"id": 7, "customer": {"name": "Ann"}}
    assert found.get("content-length") == b"%d" % len(found.body)
    for name in ("etag", "content-digest", "repr-digest", "content-range"):
        assert found.get(name) is None
    assert (found.get("accept-ranges"), found.get("x-a")) == (b"none", b"b")
    (seen,) = requests
    assert [seen.get(name) for name in ("range", "if-range", "if-none-match")] == [None] * 3
    assert seen.get("accept-encoding") == b"identity"


@scene(**under(grants=True))
async def test_an_operation_without_a_grant_is_refused_although_a_granted_path_would_match(stage: Stage) -> None:
    stage.app(apps.always(answer([ORDER])))
    assert (await ask(await stage.peer(), get("/orders/mine"))).status == 403
    assert stage.orders.books.hop.operation == "myOrders"


@scene(**under(grants=True))
async def test_the_rule_of_a_grant_has_its_name(stage: Stage) -> None:
    stage.app(apps.always(answer(ORDER)))
    assert (await ask(await stage.peer(), get("/orders/7"))).status == 200
    assert stage.orders.books.hop.rule == "grant:web:getOrder"


@scene(**under(grants=True))
async def test_head_and_errors_and_trailers_of_a_cut_answer(stage: Stage) -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\nETag: "1"\r\n\r\n'
    replies = {
        b"HEAD": head,
        b"GET": b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nsecret",
        b"POST": b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        b'Trailer: content-digest\r\n\r\na\r\n{"id":7,"z\r\n4\r\n":1}\r\n0\r\ncontent-digest: x\r\n\r\n',
    }
    stage.app(apps.replying(lambda request: replies[request.method]))
    peer = await stage.peer()
    found = await ask(peer, b"HEAD /orders/7 HTTP/1.1\r\nHost: orders\r\n\r\n", "HEAD")
    assert (found.status, found.get("content-length"), found.get("etag")) == (200, None, None)
    found = await ask(peer, get("/orders/7"))
    assert (found.status, found.body) == (500, b"")
    found = await ask(peer, post(b'{"sku":"tea"}'))
    assert (found.status, found.body, found.get("content-length")) == (201, b'{"id":7}', b"8")
    assert found.get("trailer") is None


@scene(**under())
async def test_what_ends_says_so_and_then_has_ended(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 204 No Content\r\n\r\n"))
    found = await ask(await stage.peer(), get("/old"))
    assert found.status == 204
    assert found.get("deprecation") == b"@1735689600"
    assert found.get("sunset") == b"Thu, 01 Jan 2099 00:00:00 GMT"


@scene(**under(more=", after_sunset: [web]"))
async def test_a_caller_on_the_list_may_take_longer(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert (await ask(await stage.peer(), get("/gone"))).status == 204


@scene(**under(grants=True))
async def test_by_http_2_as_by_http_1(stage: Stage) -> None:
    stage.app(apps.always(answer(ORDER)))
    peer = await h2_peer(stage, headers(1, ask_by_h2(b"/orders/7")), headers(3, ask_by_h2(b"/orders/x")))
    found = await peer.answer(1)
    assert json.loads(found.body) == {"id": 7, "customer": {"name": "Ann"}}
    assert (await peer.answer(3)).status == 400
    peer.line.close()


def ask_by_h2(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"orders"), (b":path", path)]


@scene(**under())
async def test_a_request_keeps_the_contract_that_it_began_with(stage: Stage) -> None:
    stage.app(apps.always(answer({"id": 1}, b"201 Created")))
    peer, other = await stage.peer(), await stage.peer()
    body = b'{"sku":"tea"}'
    await peer.say(post(body)[: -len(body)])
    await stage.sleep(0.1)
    stage.reload(contract=CONTRACT.replace("required: [sku]", "required: [sku, count]"))
    assert (await ask(other, post(body))).status == 400
    assert (await ask(peer, body)).status == 201
    assert isinstance(stage.orders.books.hops[0].error, ContractBroken)
    assert (await ask(peer, post(body))).status == 400


@scene()
async def test_a_contract_that_comes_with_a_reload_holds_those_who_are_there_already(stage: Stage) -> None:
    stage.app(apps.always(answer(ORDER)))
    peer = await stage.peer()
    for _ in range(3):  # by the express
        assert (await ask(peer, get("/orders/x"))).status == 200
    stage.reload(**under())
    assert (await ask(peer, get("/orders/x"))).status == 400
    stage.reload(http=contract("off"), contract=CONTRACT)
    assert (await ask(peer, get("/orders/x"))).status == 200
