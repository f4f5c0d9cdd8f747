"""From one version to another: whatever comes in by HTTP/2 leaves by HTTP/1 in one reading only, and back again."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import HopError, UpstreamProtocolViolation
from sidecar.hop import Headers
from sidecar.http.canonical import canonical_target, request_host
from sidecar.http.h1 import H1Client, H1Server
from sidecar.http.h2 import H2Client, H2Server
from sidecar.http.h2.codes import StreamFault
from sidecar.http.h2.heads import read_request, read_response
from sidecar.http.headers import end_to_end
from sidecar.http.message import NEED_DATA, Data, End, RequestHead, ResponseHead
from sidecar.http.versions import (
    accept_of,
    agreed,
    answer_to_key,
    check_accept,
    fits_extended_connect,
    h1_request,
    is_websocket,
    reason_of,
    request_fields,
    response_fields,
)
from tests.fuzz.readers import Careless, Message, Pedantic
from tests.kit.h2_wire import GET, POST, WEBSOCKET, events_of, exchange

NONCE = bytes(range(16))
KEY = b"AAECAwQFBgcICQoLDA0ODw=="


def size_of(fields: Headers) -> int:
    """What a list counts (RFC 9113 section 6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def read(fields: Headers, *, end: bool = True) -> RequestHead:
    return read_request(fields, size_of(fields), end=end, head_bytes=32_768, head_lines=100, extended=True)


def test_the_fields_of_a_request() -> None:
    head = RequestHead(
        b"POST", b"/a?b",
        [(b"host", b"orders"), (b"connection", b"x-hop"), (b"keep-alive", b"5"), (b"transfer-encoding", b"chunked"),
         (b"te", b"deflate"), (b"te", b"trailers"), (b"cookie", b"a=1; b=2"), (b"x", b"y")],
    )  # fmt: skip
    assert request_fields(head, b"https") == [
        (b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"orders"), (b":path", b"/a?b"),
        (b"cookie", b"a=1; b=2"), (b"x", b"y"), (b"te", b"trailers"),
    ]  # fmt: skip


def test_the_fields_of_connect() -> None:
    head = RequestHead(b"CONNECT", b"orders:443", [(b"host", b"orders:443")])
    assert request_fields(head, b"https") == [(b":method", b"CONNECT"), (b":authority", b"orders:443")]


def test_a_response_loses_what_belongs_to_a_connection() -> None:
    head = ResponseHead(200, [(b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"x", b"y")], b"OK")
    assert response_fields(head) == [(b":status", b"200"), (b"x", b"y")]


FRAMINGS = [
    ("no body", GET, True, []),
    ("an empty POST says so", POST, True, [(b"content-length", b"0")]),
    ("a body of known length", (*POST, (b"content-length", b"5")), False, [(b"content-length", b"5")]),
    ("a body of unknown length", POST, False, [(b"transfer-encoding", b"chunked")]),
    ("a GET with a body", GET, False, [(b"transfer-encoding", b"chunked")]),
]


@pytest.mark.parametrize(("what", "fields", "end", "framing"), FRAMINGS, ids=[row[0] for row in FRAMINGS])
def test_framing_is_made_anew(what: str, fields: Headers, end: bool, framing: Headers) -> None:
    assert h1_request(read(list(fields), end=end)).headers == [(b"host", b"orders"), *framing]


def test_reasons_come_back() -> None:
    assert (reason_of(404), reason_of(299)) == (b"Not Found", b"")


# ---- WebSocket ------------------------------------------------------------------------------------------------------


UPGRADE = RequestHead(
    b"GET", b"/chat",
    [(b"host", b"orders"), (b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"),
     (b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13"), (b"origin", b"https://a")],
)  # fmt: skip


def test_the_example_of_rfc_6455() -> None:
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_websocket_of_http_1_becomes_an_extended_connect() -> None:
    assert request_fields(UPGRADE, b"https") == [
        (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":authority", b"orders"),
        (b":path", b"/chat"), (b"sec-websocket-version", b"13"), (b"origin", b"https://a"),
    ]  # fmt: skip
    answer = agreed(ResponseHead(200, [(b"sec-websocket-protocol", b"x")], b"", b"2"))
    assert answer.status == 101
    assert answer.headers == [
        (b"sec-websocket-protocol", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"websocket"),
    ]  # fmt: skip


def test_an_extended_connect_becomes_a_websocket_of_http_1_with_a_key_of_our_own() -> None:
    head = h1_request(read([*WEBSOCKET, (b"origin", b"https://a")], end=False), NONCE)
    assert (head.method, head.target, head.body) == (b"GET", b"/x", False)
    assert head.headers == [
        (b"host", b"orders"), (b"sec-websocket-version", b"13"), (b"origin", b"https://a"),
        (b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", base64.b64encode(NONCE)),
    ]  # fmt: skip
    good = ResponseHead(101, [(b"upgrade", b"websocket"), (b"sec-websocket-accept", accept_of(KEY))])
    check_accept(head, good)
    assert response_fields(good) == [(b":status", b"200")]
    with pytest.raises(UpstreamProtocolViolation):
        check_accept(head, ResponseHead(101, [(b"sec-websocket-accept", b"another")]))


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket, h2c", b"chat"])
def test_other_upgrades_do_not_travel(upgrade: bytes) -> None:
    head = RequestHead(b"GET", b"/", [(b"host", b"h"), (b"connection", b"upgrade"), (b"upgrade", upgrade)])
    assert not is_websocket(head)
    assert request_fields(head, b"https")[4:] == []


def test_a_websocket_over_two_connections_of_ours() -> None:
    client, server = H2Client(), H2Server()
    exchange(client, server)
    assert client.speaks_connect
    mine = client.open(UPGRADE, scheme=b"https")
    (theirs,) = [stream for stream in exchange(client, server) if stream is not mine]
    head = theirs.next_event()
    assert isinstance(head, RequestHead)
    assert is_websocket(head)
    theirs.send_head(ResponseHead(101, [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]))
    theirs.send_data(b"\x81\x02hi")
    mine.send_data(b"\x81\x82....")
    exchange(client, server)
    answer, frame = events_of(mine)
    assert isinstance(answer, ResponseHead)
    assert (answer.status, frame) == (101, Data(b"\x81\x02hi"))
    assert events_of(theirs) == [Data(b"\x81\x82....")]
    mine.send_end()
    theirs.send_end()
    exchange(client, server)
    assert (events_of(mine), events_of(theirs)) == ([End()], [End()])
    assert mine.clean


def test_a_tunnel_over_two_connections_of_ours() -> None:
    client, server = H2Client(), H2Server()
    exchange(client, server)
    mine = client.open(RequestHead(b"CONNECT", b"orders:443", [(b"host", b"orders:443")]), scheme=b"https")
    (theirs,) = [stream for stream in exchange(client, server) if stream is not mine]
    assert isinstance(theirs.next_event(), RequestHead)
    theirs.send_head(ResponseHead(200, []))
    mine.send_data(b"to")
    theirs.send_data(b"fro")
    exchange(client, server)
    assert events_of(mine)[1:] == [Data(b"fro")]
    assert events_of(theirs) == [Data(b"to")]


# ---- one reading ----------------------------------------------------------------------------------------------------


NASTY = [
    (b"content-length", b"5"), (b"content-length", b"0"), (b"content-length", b"+5"), (b"content-length", b"5, 5"),
    (b"Content-Length", b"5"), (b"content_length", b"9"), (b"transfer-encoding", b"chunked"), (b"te", b"trailers"),
    (b"connection", b"close"), (b"x", b"y\r\nTransfer-Encoding: chunked"), (b"x", b"y\r\n\r\nGET /hidden HTTP/1.1"),
    (b"x\r\ny", b"z"), (b"x: y", b"z"), (b"x ", b"z"), (b"x", b" y"), (b"x", b"y\0"), (b"host", b"evil"),
    (b"host", b"h"), (b"expect", b"100-continue"), (b"cookie", b"a"), (b"cookie", b"b"), (b"upgrade", b"h2c"),
    (b"x", b"\xff"), (b"", b""),
    (b"x", b"plain"), (b"x-y", b""), (b"accept", b"a, b"), (b"http2-settings", b"A"), (b"trailer", b"x"),
]  # fmt: skip
PATHS = [
    b"/", b"/a?b", b"*", b"/a b", b"/ HTTP/1.1\r\nx: y", b"http://evil/", b"", b"/%2e%2e", b"//", b"/a#b", b"/\xff",
]  # fmt: skip
METHODS = [b"GET", b"POST", b"OPTIONS", b"CONNECT", b"GET / HTTP/1.1\r\n", b"get", b"", b"G:T", b"HEAD"]
AUTHORITIES = [b"h", b"h:80", b"h\r\nx: y", b"", b"evil@h", b"h h", b"[::1]:5", b"h/x"]


def fields() -> st.SearchStrategy[Headers]:
    pseudo = st.tuples(
        st.sampled_from(METHODS).map(lambda v: (b":method", v)),
        st.sampled_from([b"https", b"http", b"x"]).map(lambda v: (b":scheme", v)),
        st.sampled_from(AUTHORITIES).map(lambda v: (b":authority", v)),
        st.sampled_from(PATHS).map(lambda v: (b":path", v)),
    ).map(list)
    right = st.sampled_from([list(GET), list(POST)])
    more = st.lists(st.sampled_from(NASTY), max_size=5)
    return st.tuples(st.one_of(pseudo, right, right), more).map(lambda parts: [*parts[0], *parts[1]])


@settings(deadline=None)
@given(fields(), st.booleans(), st.binary(max_size=8))
@example([*POST, (b"content-length", b"5")], False, b"hello")
def test_a_request_leaves_by_http_1_in_one_reading(given_fields: Headers, end: bool, body: bytes) -> None:
    """A careless server, a pedantic one and we ourselves read the bytes that we write for it alike."""
    try:
        head = read(given_fields, end=end)
        target = canonical_target(head.target, head.method.decode())
        host = request_host(target, [value for name, value in head.headers if name == b"host"], "2")
    except (StreamFault, HopError):
        return
    if head.method == b"CONNECT" or (head.length is not None and head.length != len(body)):
        return
    onward = h1_request(head, NONCE)
    client = H1Client(65_536, 200)
    written = client.begin(onward)
    if head.body:
        written += client.send_data(body) if body else b""
    else:
        body = b""
    written += client.send_end()
    line = head.method + b" " + head.target + b" HTTP/1.1"
    assert Careless().request(written) == Message(line, body, len(written))
    assert Pedantic().request(written) == Message(line, body, len(written))
    again = H1Server(65_536, 200)
    again.receive(written)
    seen = again.next_event()
    assert isinstance(seen, RequestHead)
    assert (seen.method, seen.target) == (head.method, head.target)
    hosts = [value for name, value in seen.headers if name == b"host"]
    assert request_host(canonical_target(seen.target, seen.method.decode()), hosts, "1.1") == host
    mine = [field for field in head.headers if field[0] not in (b"te", b"expect")]
    assert [field for field in seen.headers if field in mine] == mine
    found = b""
    while isinstance(event := again.next_event(), Data):
        found += event.data
    assert (found, isinstance(event, End)) == (body, True)


@settings(deadline=None)
@given(fields(), st.booleans())
def test_a_request_goes_on_by_http_2_as_it_came(given_fields: Headers, end: bool) -> None:
    with suppress(StreamFault):
        head = read(given_fields, end=end)
        again = read(request_fields(head, b"https"), end=end)
        assert (again.method, again.target, again.length, again.body) == (
            head.method, head.target, head.length, head.body
        )  # fmt: skip
        assert sorted(again.headers) == sorted(head.headers)


@settings(deadline=None)
@given(st.lists(st.sampled_from(NASTY), max_size=4), st.sampled_from([200, 204, 304, 404]), st.binary(max_size=9))
def test_an_answer_leaves_by_http_1_in_one_reading(more: Headers, status: int, body: bytes) -> None:
    try:
        fields = [(b":status", b"%d" % status), *more]
        head = read_response(fields, size_of(fields), end=False, head_bytes=32_768, head_lines=100)
    except StreamFault:
        return
    length = next((int(value) for name, value in head.headers if name == b"content-length"), None)
    if status in (204, 304):
        body = b""
    elif length is not None and length != len(body):
        return
    server = H1Server(65_536, 200)
    server.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    request = server.next_event()
    assert isinstance(request, RequestHead)
    server.next_event()
    answer = ResponseHead(head.status, end_to_end(head.headers), reason_of(head.status))
    if status == 204:
        answer.headers = [field for field in answer.headers if field[0] != b"content-length"]
    written = server.send_head(answer) + (server.send_data(body) if body else b"") + server.send_end()
    assert Careless().response(written, to_head=False) == Pedantic().response(written, to_head=False)
    assert Careless().response(written, to_head=False).body == body
    client = H1Client(65_536, 200)
    client.begin(RequestHead(b"GET", b"/", [(b"host", b"h")]))
    client.send_end()
    client.receive(written)
    seen = client.next_event()
    assert isinstance(seen, ResponseHead)
    assert seen.status == status
    while isinstance(event := client.next_event(), Data):
        pass
    assert event is not NEED_DATA


# ---- which WebSockets travel by HTTP/2 -------------------------------------------------------------------------------

ASKED: Headers = [(b"host", b"orders"), (b"connection", b"upgrade"), (b"upgrade", b"websocket")]
GOOD_KEY: Headers = [(b"sec-websocket-key", KEY)]


@pytest.mark.parametrize(
    ("changes", "headers", "fits"),
    [
        ({}, GOOD_KEY, True),
        ({}, [], False),
        ({}, GOOD_KEY * 2, False),
        ({}, [(b"sec-websocket-key", b"k")], False),
        ({}, [(b"sec-websocket-key", KEY[:-3] + b"x==")], False),  # bits behind the 16 bytes
        ({}, [*GOOD_KEY, (b"upgrade", b"other")], False),
        ({"method": b"POST"}, GOOD_KEY, False),
        ({"version": b"1.0"}, GOOD_KEY, False),
        ({"body": True, "length": 2}, GOOD_KEY, False),
        ({"length": 0}, GOOD_KEY, False),
        ({"version": b"2", "protocol": b"websocket"}, [], True),
    ],
)
def test_what_extended_connect_can_say_as_it_came(changes: dict[str, Any], headers: Headers, fits: bool) -> None:
    head = RequestHead(**({"method": b"GET", "target": b"/", "headers": ASKED + headers} | changes))
    assert fits_extended_connect(head) is fits


def test_the_key_of_an_http_1_caller_is_answered_here() -> None:
    """By HTTP/2 nobody does; what an upstream says there by mistake is left out."""
    assert answer_to_key(RequestHead(b"GET", b"/", ASKED + GOOD_KEY)) == [(b"sec-websocket-accept", accept_of(KEY))]
    assert answer_to_key(RequestHead(b"GET", b"/", ASKED)) == []
    told = agreed(ResponseHead(200, [(b"sec-websocket-accept", b"x"), (b"sec-websocket-protocol", b"chat")]))
    assert told.status == 101
    assert [name for name, _ in told.headers] == [b"sec-websocket-protocol", b"connection", b"upgrade"]
