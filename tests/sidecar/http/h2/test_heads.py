"""Heads of HTTP/2: one reading or none, the right code on the right stream, and the next request unharmed."""

from __future__ import annotations

import pytest

from sidecar.errors import (
    HeadTooLarge,
    HopError,
    HostMismatch,
    ProtocolViolation,
    UnsupportedFeature,
    UpstreamProtocolViolation,
)
from sidecar.http.h2 import Code
from sidecar.http.message import End, RequestHead, ResponseHead
from tests.kit.h2_wire import (
    CONNECT,
    CONTINUATION,
    END_HEADERS,
    GET,
    HEADERS,
    OK,
    POST,
    WEBSOCKET,
    Fields,
    a_client,
    a_server,
    events_of,
    frame,
    headers,
)

LONG = b"x" * 20_000


def with_(*more: tuple[bytes, bytes], fields: Fields = GET) -> Fields:
    return (*fields, *more)


def without(*names: bytes, fields: Fields = GET) -> Fields:
    return tuple(field for field in fields if field[0] not in names)


def changed(name: bytes, value: bytes, fields: Fields = GET) -> Fields:
    return tuple((n, value if n == name else v) for n, v in fields)


MALFORMED = [
    ("CR in a value", with_((b"a", b"b\rc"))),
    ("LF in a value", with_((b"a", b"b\nc"))),
    ("CRLF and a field in a value", with_((b"a", b"b\r\nhost: evil"))),
    ("NUL in a value", with_((b"a", b"b\0c"))),
    ("DEL in a value", with_((b"a", b"\x7f"))),
    ("a blank before a value", with_((b"a", b" b"))),
    ("a tab after a value", with_((b"a", b"b\t"))),
    ("an upper-case name", with_((b"Accept", b"b"))),
    ("an empty name", with_((b"", b"b"))),
    ("a blank in a name", with_((b"a b", b"c"))),
    ("a line feed in a name", with_((b"a\nb", b"c"))),
    ("a colon in a name", with_((b"a:b", b"c"))),
    ("a byte over 127 in a name", with_((b"\xe4", b"c"))),
    ("no :method", without(b":method")),
    ("no :scheme", without(b":scheme")),
    ("no :path", without(b":path")),
    ("an empty :path", changed(b":path", b"")),
    ("a :path without slash", changed(b":path", b"x")),
    ("an absolute URL as :path", changed(b":path", b"https://evil/x")),
    ("a blank in :path", changed(b":path", b"/a b")),
    ("a byte over 127 in :path", changed(b":path", b"/\xe4")),
    ("an asterisk without OPTIONS", changed(b":path", b"*")),
    ("a line feed in :path", changed(b":path", b"/ HTTP/1.1\r\nhost: evil\r\n\r\n")),
    ("a :method that is no token", changed(b":method", b"GET /x")),
    ("an empty :method", changed(b":method", b"")),
    ("a :scheme that is none", changed(b":scheme", b"http ")),
    ("a URL in :scheme", changed(b":scheme", b"http://evil/?")),
    (":method twice", with_((b":method", b"GET"))),
    (":path twice", with_((b":path", b"/y"))),
    (":authority twice", with_((b":authority", b"orders"))),
    ("a late :path", (*without(b":path"), (b"a", b"b"), (b":path", b"/x"))),
    ("a pseudo-header behind a cookie", (*without(b":path"), (b"cookie", b"b"), (b":path", b"/x"))),
    ("an unknown pseudo-header", (*GET, (b":magic", b"1"))),
    ("a response's pseudo-header", (*GET, (b":status", b"200"))),
    ("connection", with_((b"connection", b"close"))),
    ("keep-alive", with_((b"keep-alive", b"5"))),
    ("proxy-connection", with_((b"proxy-connection", b"close"))),
    ("transfer-encoding", with_((b"transfer-encoding", b"chunked"))),
    ("upgrade", with_((b"upgrade", b"websocket"))),
    ("http2-settings", with_((b"http2-settings", b"AAA"))),
    ("te of another kind", with_((b"te", b"trailers, gzip"))),
    ("te twice", with_((b"te", b"trailers"), (b"te", b"trailers"))),
    ("content-length twice", with_((b"content-length", b"0"), (b"content-length", b"0"))),
    ("content-length of two numbers", with_((b"content-length", b"0, 0"))),
    ("content-length with a sign", with_((b"content-length", b"+0"))),
    ("content-length without a body", with_((b"content-length", b"5"))),
    ("content_length", with_((b"content_length", b"0"))),
    ("transfer_encoding", with_((b"transfer_encoding", b"chunked"))),
    ("authorization twice", with_((b"authorization", b"a"), (b"authorization", b"b"))),
    ("host that differs from :authority", with_((b"host", b"evil"))),
    ("host twice beside :authority", with_((b"host", b"orders"), (b"host", b"orders"))),
    ("CONNECT with :path", (*CONNECT, (b":path", b"/x"))),
    ("CONNECT with :scheme", (*CONNECT, (b":scheme", b"https"))),
    ("CONNECT without :authority", ((b":method", b"CONNECT"),)),
    ("CONNECT with a length", with_((b"content-length", b"5"), fields=CONNECT)),
    (":protocol without CONNECT", (*GET, (b":protocol", b"websocket"))),
    ("a WebSocket that is over at once", WEBSOCKET),
]
ANSWERED: list[tuple[str, Fields, type[HopError]]] = [
    ("no host at all", without(b":authority"), HostMismatch),
    ("101 fields", with_(*[(b"a%d" % i, b"") for i in range(101)]), HeadTooLarge),
    ("more than 32 KiB", with_((b"a", LONG), (b"b", LONG)), HeadTooLarge),
    ("an expectation that nobody knows", with_((b"expect", b"magic"), fields=POST), UnsupportedFeature),
    ("another :scheme", changed(b":scheme", b"file"), UnsupportedFeature),
    ("another protocol over CONNECT", changed(b":protocol", b"connect-udp", WEBSOCKET), UnsupportedFeature),
]


@pytest.mark.parametrize(("what", "fields"), MALFORMED, ids=[what for what, _ in MALFORMED])
def test_a_malformed_request_resets_its_stream_and_nothing_else(what: str, fields: Fields) -> None:
    bench = a_server()
    seen = bench.say(headers(1, fields), headers(3, GET))
    assert seen.resets == {1: Code.PROTOCOL_ERROR}
    assert seen.goaway is None
    refused, served = seen.opened
    assert isinstance(refused.error, ProtocolViolation)
    assert str(refused.error)
    with pytest.raises(ProtocolViolation):
        refused.next_event()
    refused.send_head(ResponseHead(400, []), end=True)  # too late, and no harm
    assert bench.look().frames == []
    assert isinstance(served.next_event(), RequestHead)


@pytest.mark.parametrize(("what", "fields", "error"), ANSWERED, ids=[what for what, _, _ in ANSWERED])
def test_what_is_only_refused_can_still_be_answered(what: str, fields: Fields, error: type[HopError]) -> None:
    bench = a_server()
    seen = bench.say(*split(headers(1, fields, end=False)), headers(3, GET))
    assert (seen.resets, seen.goaway) == ({}, None)
    refused, served = seen.opened
    with pytest.raises(error):
        refused.next_event()
    refused.send_head(ResponseHead(431, [(b"content-length", b"0")]), end=True)
    refused.finish()
    seen = bench.look()
    assert bench.answers(seen) == [(1, {b":status": b"431", b"content-length": b"0"})]
    assert seen.resets == {1: Code.NO_ERROR}  # the rest of the request is not wanted
    assert isinstance(served.next_event(), RequestHead)


def split(head: bytes) -> list[bytes]:
    """HEADERS as they must come: in frames of at most 16 KiB."""
    block, flags, stream = head[9:], head[4], int.from_bytes(head[5:9], "big")
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)] or [b""]
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    made = []
    for at, (kind, piece) in enumerate(zip(kinds, pieces, strict=True)):
        last = END_HEADERS if at == len(pieces) - 1 else 0
        made.append(frame(kind, (flags & ~END_HEADERS if kind == HEADERS else 0) | last, stream, piece))
    return made


def the_head(fields: Fields, *, end: bool = True) -> RequestHead:
    (stream,) = a_server().say(headers(1, fields, end=end)).opened
    head = stream.next_event()
    assert isinstance(head, RequestHead)
    return head


def test_a_request_reads_as_http_1_would_have_brought_it() -> None:
    head = the_head(
        (*GET, (b"accept", b"*/*"), (b"cookie", b"a=1"), (b"x-b", b"\xe4 c"), (b"cookie", b"b=2"), (b"te", b"trailers"))
    )
    assert (head.method, head.target, head.version, head.body, head.length) == (b"GET", b"/x", b"2", False, None)
    assert head.headers == [
        (b"host", b"orders"), (b"accept", b"*/*"), (b"cookie", b"a=1; b=2"), (b"x-b", b"\xe4 c"), (b"te", b"trailers"),
    ]  # fmt: skip


def test_empty_crumbs_leave_no_blanks_behind() -> None:
    head = the_head(with_((b"cookie", b""), (b"cookie", b"a=1"), (b"cookie", b""), (b"cookie", b"b=2")))
    assert head.headers[1:] == [(b"cookie", b"a=1; b=2")]


def test_the_host_is_authority_or_host_and_never_two() -> None:
    assert the_head(with_((b"host", b"ORDERS"))).headers == [(b"host", b"orders")]
    assert the_head((*without(b":authority"), (b"host", b"orders:1"))).headers == [(b"host", b"orders:1")]


def test_bodies_lengths_and_expectations() -> None:
    head = the_head(with_((b"content-length", b"5"), (b"expect", b"100-Continue"), fields=POST), end=False)
    assert (head.body, head.length, head.expects_continue) == (True, 5, True)
    head = the_head(with_((b"expect", b"100-continue"), fields=POST))
    assert (head.body, head.length, head.expects_continue) == (False, None, False)


def test_options_for_everything() -> None:
    assert the_head(changed(b":path", b"*", changed(b":method", b"OPTIONS"))).target == b"*"


def test_connect_is_a_tunnel_without_a_body() -> None:
    head = the_head(CONNECT, end=False)
    assert (head.method, head.target, head.headers) == (b"CONNECT", b"orders:443", [(b"host", b"orders:443")])
    assert not head.body


def test_a_websocket_reads_as_the_get_that_it_stands_for() -> None:
    head = the_head(WEBSOCKET, end=False)
    assert (head.method, head.target, head.protocol, head.body) == (b"GET", b"/x", b"websocket", False)
    assert head.headers == [
        (b"host", b"orders"), (b"sec-websocket-version", b"13"),
        (b"connection", b"upgrade"), (b"upgrade", b"websocket"),
    ]  # fmt: skip


BAD_ANSWERS: list[tuple[str, Fields]] = [
    ("no status", ()),
    ("a status of two digits", ((b":status", b"20"),)),
    ("a status that is no number", ((b":status", b"2x0"),)),
    ("a status below 100", ((b":status", b"099"),)),
    ("status 101", ((b":status", b"101"),)),
    ("two statuses", (*OK, *OK)),
    ("a request's pseudo-header", (*OK, (b":path", b"/"))),
    ("a late status", ((b"a", b"b"), *OK)),
    ("connection", (*OK, (b"connection", b"close"))),
    ("transfer-encoding", (*OK, (b"transfer-encoding", b"chunked"))),
    ("an upper-case name", (*OK, (b"A", b"b"))),
    ("LF in a value", (*OK, (b"a", b"b\nc"))),
    ("content-length twice", (*OK, (b"content-length", b"1"), (b"content-length", b"2"))),
    ("content-length of letters", (*OK, (b"content-length", b"x"))),
    ("content-length and nothing", (*OK, (b"content-length", b"1"))),
    ("too large", (*OK, (b"a", LONG), (b"b", LONG))),
]


@pytest.mark.parametrize(("what", "fields"), BAD_ANSWERS, ids=[what for what, _ in BAD_ANSWERS])
def test_a_malformed_response_ends_its_stream_and_nothing_else(what: str, fields: Fields) -> None:
    bench = a_client()
    get = RequestHead(b"GET", b"/", [(b"host", b"orders")])
    first, second = bench.codec.open(get, scheme=b"https"), bench.codec.open(get, scheme=b"https")
    bench.look()
    seen = bench.say(*split(headers(1, fields)), headers(3, OK))
    assert seen.resets == {1: Code.PROTOCOL_ERROR}
    assert seen.goaway is None
    with pytest.raises(UpstreamProtocolViolation):
        first.next_event()
    assert events_of(second) == [ResponseHead(200, [], b"", b"2"), End()]


TRAILERS: list[tuple[str, Fields]] = [
    ("a pseudo-header", ((b":status", b"200"),)),
    ("content-length", ((b"content-length", b"0"),)),
    ("transfer-encoding", ((b"transfer-encoding", b"chunked"),)),
    ("host", ((b"host", b"evil"),)),
    ("authorization", ((b"authorization", b"x"),)),
    ("cookie", ((b"cookie", b"x"),)),
    ("upper case", ((b"X", b"y"),)),
    ("LF", ((b"x", b"y\n"),)),
    ("101 of them", tuple((b"a%d" % i, b"") for i in range(101))),
]


@pytest.mark.parametrize(("what", "fields"), TRAILERS, ids=[what for what, _ in TRAILERS])
def test_trailers_that_are_not_allowed(what: str, fields: Fields) -> None:
    bench = a_server()
    seen = bench.say(headers(1, POST, end=False), headers(1, fields), headers(3, GET))
    (stream, served) = seen.opened
    if what != "101 of them":
        assert seen.resets == {1: Code.PROTOCOL_ERROR}
    with pytest.raises(HopError):
        stream.next_event()
    assert isinstance(served.next_event(), RequestHead)


def test_trailers_are_read() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False), headers(1, [(b"grpc-status", b"0")])).opened
    assert events_of(stream)[1:] == [End([(b"grpc-status", b"0")])]


def test_trailers_that_end_nothing_are_malformed() -> None:
    seen = a_server().say(headers(1, POST, end=False), headers(1, [(b"a", b"b")], end=False))
    assert (seen.resets, seen.goaway) == ({1: Code.PROTOCOL_ERROR}, None)
