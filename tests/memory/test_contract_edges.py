"""Ways past a contract that somebody may try, or an application takes by mistake: each ends in a refusal."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from sidecar.contract.judge import MAX_HELD, Contract
from sidecar.errors import AnswerBroken, Overload
from sidecar.runtime.build import Proxy
from tests.kit import apps
from tests.kit.contracts import CONTRACT, ORDER, answer, ask, contract, get, post, under
from tests.kit.h1_line import Line, Request
from tests.kit.h2_line import h2_peer
from tests.kit.h2_wire import data, headers
from tests.kit.play import Stage, scene

MEBIBYTE = 1 << 20
GOOD = b'{"sku":"tea"}'
EDGES = """
openapi: 3.1.0
info: {title: edges, version: "1"}
paths:
  /any:
    post:
      operationId: any
      requestBody: {content: {'*/*': {schema: {type: object, additionalProperties: false}}}}
      responses: {'2XX': {description: any, content: {'*/*': {schema: {type: object}}}}}
  /text:
    get:
      operationId: text
      responses: {'200': {description: any, content: {'*/*': {schema: {type: string}}}}}
  /user:
    put:
      operationId: putUser
      requestBody: {required: true, content: {application/json: {schema: {$ref: '#/components/schemas/User'}}}}
      responses: {'200': {description: it, content: {application/json: {schema: {$ref: '#/components/schemas/User'}}}}}
  /mixed:
    get:
      operationId: mixed
      responses:
        '200':
          description: a union
          content:
            application/json:
              schema:
                allOf: [{type: object, properties: {id: {type: integer}}}]
                anyOf: [{required: [a]}, {required: [b]}]
                properties: {a: {type: object}, b: {type: array, items: {type: object}}}
        default: {description: wrong, content: {application/json: {schema: {type: object}}}}
  /empty:
    get: {operationId: empty, responses: {'200': {description: nothing}}}
components:
  schemas:
    User:
      type: object
      required: [id, name, password]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string}
        password: {type: string, writeOnly: true}
"""
EDGE_GRANTS = """    grants:
      web: {operations: [mixed], fields: [id, a.x, 'b[].x', title]}
"""


def edges(mode: str = "enforce", grants: bool = False, **more: str) -> dict[str, str]:
    return under(mode, grants=grants) | {"contract": EDGES, "orders": EDGE_GRANTS if grants else ""} | more


def raw(method: bytes, path: bytes, kind: bytes, body: bytes) -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: orders\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (method, path, kind, len(body)) + body


# ---- bodies that are not what they are called ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "x-gzip", "identity\r\nContent-Encoding: gzip", "gzip, br"]
)
@scene(**under())
async def test_encoded_bodies_are_neither_taken_nor_asked_for(stage: Stage, coding: str) -> None:
    requests: list[Request] = []
    bomb = gzip.compress(b" " * (8 << 20)) if "gzip" in coding else zlib.compress(b" " * (8 << 20))
    field = b"Content-Encoding: %b\r\n" % coding.encode()
    stage.app(apps.keeping(requests, answer(bomb, b"200 OK", field)))
    peer = await stage.peer()
    assert (await ask(peer, post(bomb, more=field))).status == 415
    assert (await ask(await stage.peer(), post(GOOD, more=field))).status == 415
    assert requests == []
    found = await ask(await stage.peer(), get("/orders/7", b"Accept-Encoding: gzip, deflate, br, *;q=0.1\r\n"))
    assert (found.status, found.get("content-encoding")) == (502, None)
    assert requests[0].all("accept-encoding") == [b"identity"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (b"application/json", 400), (b"application/merge-patch+json", 400), (b"text/plain", 415), (b"", 415),
        (b"application/octet-stream", 415), (b"multipart/form-data; boundary=x", 415), (b"text/json", 415),
        (b"application/x-www-form-urlencoded", 415), (b"application/json, text/plain", 415),
        (b"application/json; charset=utf-8; charset=utf-16", 415),
        (b'application/json; x="; charset=utf-8"; charset=utf-7', 415),
    ],
)  # fmt: skip
@scene(**edges())
async def test_a_range_of_types_with_a_schema_lets_nobody_lie_about_json(
    stage: Stage, kind: bytes, status: int
) -> None:  # fmt: skip
    requests: list[Request] = []
    stage.app(apps.keeping(requests))
    assert (await ask(await stage.peer(), raw(b"POST", b"/any", kind, b'{"admin":true}'))).status == status
    assert requests == []


@scene(**edges())
async def test_a_range_of_types_without_a_schema_or_of_text_is_not_looked_into(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"))
    assert (await ask(await stage.peer(), get("/text"))).body == b"ok"


@pytest.mark.parametrize("told", [
    b"Content-Type: application/json\r\nContent-Type: text/html\r\n", b"", b"Content-Type: text/html\r\n",
    b"Content-Type: application/json\r\nContent-Encoding: identity\r\nContent-Encoding: br\r\n",
    b"Content-Type: application/json; charset=utf-16\r\n", b"Content-Type: application/grpc\r\n",
])  # fmt: skip
@scene(**edges())
async def test_an_answer_whose_content_type_lies(stage: Stage, told: bytes) -> None:
    stage.app(apps.once(b"HTTP/1.1 200 OK\r\n%bContent-Length: 10\r\n\r\n" % told + b'{"a":"bc"}'))
    refused = await ask(await stage.peer(), raw(b"POST", b"/any", b"application/json", b"{}"))
    assert refused.status == 502
    assert stage.orders.books.hop.flag in ("SV", "UPE")  # two types are refused by whoever reads the head


@pytest.mark.parametrize("told", [b"200 OK\r\nContent-Type: application/json\r\nContent-Length: 0", b"204 No Content"])
@scene(**under())
async def test_an_answer_without_the_body_that_the_contract_has(stage: Stage, told: bytes) -> None:
    stage.app(apps.always(b"HTTP/1.1 %b\r\n\r\n" % told))
    assert (await ask(await stage.peer(), get("/orders/7"))).status == 502


@scene(**edges())
async def test_an_answer_with_a_body_that_the_contract_does_not_have(stage: Stage) -> None:
    stage.app(apps.once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n"))
    refused = await ask(await stage.peer(), get("/empty"))
    assert refused.status == 502
    assert b"secret" not in refused.body


# ---- streams, and other protocols ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [
    b"text/event-stream", b"text/event-stream; charset=utf-8", b"application/x-ndjson", b"application/grpc+proto",
])  # fmt: skip
@pytest.mark.parametrize("path", ["/orders/7", "/text"])
@scene()
async def test_a_stream_is_refused_at_its_head_and_not_held_for_ever(stage: Stage, kind: bytes, path: str) -> None:
    stage.reload(**(edges() if path == "/text" else under()))

    async def streaming(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\ndata: secret\n\n" % kind)
        await line.hear_all()

    stage.app(streaming)
    peer = await stage.peer()
    before = stage.port.now
    refused = await ask(peer, get(path))
    assert (refused.status, stage.orders.books.hop.flag) == (502, "SV")
    assert stage.port.now - before < 1
    assert b"secret" not in refused.body


@scene(**under())
async def test_an_undocumented_error_that_never_ends_goes_on_as_its_status(stage: Stage) -> None:
    async def failing(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nX-A: b\r\n\r\nsecret")
        await line.hear_all()

    stage.app(failing)
    found = await ask(await stage.peer(), get("/orders/7"))
    assert (found.status, found.body, found.get("x-a")) == (500, b"", b"b")


@scene(**under())
async def test_no_other_protocol_is_switched_to(stage: Stage) -> None:
    requests: list[Request] = []
    stage.app(apps.replying(lambda request: requests.append(request) or apps.agreed(request)))
    socket = b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" \
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"  # fmt: skip
    assert (await ask(await stage.peer(), get("/orders/7", socket))).status == 400
    assert (await ask(await stage.peer(), get("/orders/7", b"Connection: upgrade\r\nUpgrade: foo\r\n"))).status == 400
    peer = await h2_peer(stage, headers(1, [
        (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":authority", b"orders"),
        (b":path", b"/orders/7"), (b"sec-websocket-version", b"13"),
    ], end=False))  # fmt: skip
    assert (await peer.answer(1)).status in (400, 404)
    peer.line.close()
    assert requests == []


@scene(**under())
async def test_grpc_is_refused_as_what_the_contract_does_not_have(stage: Stage) -> None:
    peer = await h2_peer(stage, headers(1, [
        (b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"orders"), (b":path", b"/orders"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"),
    ], end=False), data(1, b"\0\0\0\0\0", end=True))  # fmt: skip
    found = await peer.answer(1)
    assert (found.status, found.headers.get(b"grpc-status", b"0") != b"0") == (200, True)
    assert stage.orders.books.hop.flag == "SV"
    peer.line.close()


# ---- sizes -----------------------------------------------------------------------------------------------------------


@scene(**under())
async def test_a_large_body_by_http_2_without_a_length(stage: Stage) -> None:
    requests: list[Request] = []
    stage.app(apps.keeping(requests))
    fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"orders"), (b":path", b"/orders"),
              (b"content-type", b"application/json")]  # fmt: skip
    peer = await h2_peer(stage, headers(1, fields, end=False))
    await stage.sleep(0.1)
    for _ in range(MEBIBYTE // 16384 + 1):
        await peer.say(data(1, b" " * 16384))
        await stage.sleep(0.01)
    assert (await peer.answer(1)).status == 413
    peer.line.close()
    assert requests == []


@scene(**under())
async def test_a_large_answer_is_never_half_sent(stage: Stage) -> None:
    async def slowly(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(65):
            await line.say(b"4000\r\n" + b"0123456789abcdef" * 1024 + b"\r\n")
        await line.hear_all()

    stage.app(slowly)
    refused = await ask(await stage.peer(), get("/orders/7"))
    assert (refused.status, len(refused.body) < 200) == (502, True)


@scene(**under())
async def test_bodies_that_wait_to_be_checked_are_bounded_together(stage: Stage) -> None:
    replies = {b"GET": answer(ORDER), b"POST": answer({"id": 1}, b"201 Created")}
    stage.app(apps.replying(lambda request: replies[request.method]))
    held = contract_of(stage.orders)
    peer = await stage.peer()
    held.held = MAX_HELD - 5
    assert (await ask(peer, post(GOOD))).status == 503
    assert (await ask(await stage.peer(), get("/orders/7"))).status == 503
    assert all(isinstance(hop.error, Overload) for hop in stage.orders.books.hops)
    assert held.held == MAX_HELD - 5
    held.held = 0
    other = await stage.peer()
    await other.say(post(GOOD)[:-1])
    await stage.sleep(0.1)
    assert held.held == len(GOOD) - 1
    assert (await ask(other, GOOD[-1:])).status == 201
    assert held.held == 0


def contract_of(proxy: Proxy) -> Contract:
    """The contract that is in force."""
    found = next(side.contract for spec, side in proxy._inbound if spec.name == "http")
    assert found is not None
    return found


# ---- directions ------------------------------------------------------------------------------------------------------


@scene(**edges())
async def test_what_is_for_answers_alone_is_not_sent_and_what_is_for_requests_alone_never_comes(stage: Stage) -> None:
    replies = iter([{"id": 1, "name": "Ann"}, {"id": 1, "name": "Ann", "password": "secret"}, {"name": "Ann"}])
    stage.app(apps.replying(lambda _: answer(next(replies))))

    async def put(value: object) -> int:
        request = raw(b"PUT", b"/user", b"application/json", json.dumps(value).encode())
        return (await ask(await stage.peer(), request)).status

    assert await put({"id": 1, "name": "Ann", "password": "x"}) == 400
    assert await put({"name": "Ann"}) == 400
    assert [await put({"name": "Ann", "password": "x"}) for _ in range(3)] == [200, 502, 502]


# ---- grants ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "status", "seen"),
    [
        ({"id": 1, "a": {"x": 1, "new": 2}, "new": 3}, b"200 OK", {"id": 1, "a": {"x": 1}}),
        ({"b": [{"x": 1, "new": [2]}, {"new": 3}, {"x": {"new": 4}}]}, b"200 OK", {"b": [{"x": 1}, {}, {}]}),
        ({"id": 1, "a": {"x": [{"new": 1}]}}, b"200 OK", {"id": 1, "a": {}}),
        ({"title": "no", "new": "stack", "id": 5}, b"409 Conflict", {"title": "no", "id": 5}),
        ({"new": 1}, b"503 Unavailable", {}),
    ],
)  # fmt: skip
@scene(**edges(grants=True))
async def test_a_field_that_is_added_anywhere_reaches_nobody(
    stage: Stage, value: object, status: bytes, seen: object
) -> None:  # fmt: skip
    stage.app(apps.always(answer(value, status)))
    found = await ask(await stage.peer(), get("/mixed"))
    assert (found.status, json.loads(found.body)) == (int(status[:3]), seen)


@pytest.mark.parametrize("status", [b"500 Oops", b"418 Teapot"])
@scene(**under(grants=True))
async def test_nothing_of_an_error_that_the_contract_does_not_have_goes_on(stage: Stage, status: bytes) -> None:
    told = b'ETag: "1"\r\nContent-Digest: sha-256=:x:\r\nContent-Language: de\r\n'
    stage.app(apps.always(answer({"secret": 1}, status, told)))
    found = await ask(await stage.peer(), get("/orders/7"))
    assert (found.status, found.body, found.get("content-length")) == (int(status[:3]), b"", b"0")
    assert [found.get(name) for name in ("etag", "content-digest", "content-language", "content-type")] == [None] * 4


# ---- what a change does to the header --------------------------------------------------------------------------------


@scene(**under(grants=True))
async def test_validators_of_the_whole_are_not_asked_of_a_cut_answer(stage: Stage) -> None:
    requests: list[Request] = []
    stage.app(apps.keeping(requests, b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 99\r\n\r\n'))
    asked = b'If-None-Match: "1"\r\nIf-Modified-Since: x\r\nA-IM: gzip\r\nIf-Match: "2"\r\nTE: trailers\r\n'
    found = await ask(await stage.peer(), get("/orders/7", asked))
    assert (found.status, found.get("etag"), found.get("content-length")) == (304, None, None)
    (seen,) = requests
    assert [seen.get(name) for name in ("if-none-match", "if-modified-since", "a-im", "te")] == [None] * 4
    assert seen.get("if-match") == b'"2"'


@scene(**under())
async def test_what_is_not_cut_keeps_what_is_said_of_its_bytes(stage: Stage) -> None:
    told = b'ETag: "1"\r\nContent-Digest: sha-256=:x:\r\nAccept-Ranges: none\r\n'
    replies = iter([
        answer(ORDER, b"200 OK", told), b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
        b'8\r\n{"id":7}\r\n0\r\nx-sum: 1\r\n\r\n',
    ])  # fmt: skip
    stage.app(apps.replying(lambda _: next(replies)))
    peer = await stage.peer()
    found = await ask(peer, get("/orders/7"))
    assert found.body == json.dumps(ORDER).encode()
    kept = [found.get(name) for name in ("etag", "content-digest", "accept-ranges")]
    assert kept == [b'"1"', b"sha-256=:x:", b"none"]
    found = await ask(peer, get("/orders/7", b'If-None-Match: "1"\r\n'))
    assert (found.status, found.get("etag")) == (304, b'"1"')
    found = await ask(peer, get("/orders/7"))
    assert (found.body, found.trailers) == (b'{"id":7}', [(b"x-sum", b"1")])


@scene(contract=CONTRACT, http=contract())
async def test_what_ends_is_said_once_whatever_the_application_says(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 204 No Content\r\nDeprecation: true\r\nSunset: never\r\n\r\n"))
    found = await ask(await stage.peer(), get("/old"))
    assert (found.all("deprecation"), len(found.all("sunset"))) == ([b"@1735689600"], 1)


# ---- shadow ----------------------------------------------------------------------------------------------------------


@scene(**under("shadow"))
async def test_shadow_holds_nothing_that_it_could_not_judge(stage: Stage) -> None:
    told = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nzz"

    async def early(line: Line) -> None:
        await line.request_head()
        await line.say(told)
        await line.hear_all()

    stage.app(early)
    peer = await stage.peer()
    chunked = b"Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n"
    await peer.say(b"POST /orders HTTP/1.1\r\nHost: orders\r\n%b\r\n5\r\n\0\0\0\0\0\r\n" % chunked)
    assert (await peer.answer()).body == b"zz"  # and its request has not ended
    peer.close()
    await stage.sleep(0.1)
    assert [each.rule for each in stage.orders.books.hop.shadow] == ["contract:request"]


# ---- a contract that changes under load ------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
@scene(**under())
async def test_no_answer_is_judged_by_another_contract_than_its_request(stage: Stage, first: bool) -> None:
    other = CONTRACT.replace("id: {type: integer}", "id: {type: string}")
    release = []

    async def waiting(line: Line) -> None:
        await line.request()
        while not release:
            await stage.sleep(0.05)
        await line.say(answer({"id": 7}))

    stage.app(waiting)
    peer = await stage.peer()
    if not first:
        stage.reload(contract=other)
    await peer.say(get("/orders/7"))
    await stage.sleep(0.2)
    stage.reload(contract=other if first else CONTRACT)
    release.append(True)
    assert (await peer.answer()).status == (200 if first else 502)
    hop = stage.orders.books.hop
    assert isinstance(hop.error, AnswerBroken) != first
