"""Strict reading of HTTP/1: what a proxy in front of a policy must refuse, and what both roles say."""

from __future__ import annotations

import pytest

from sidecar.errors import (
    DownstreamGone,
    HeadTooLarge,
    HopError,
    HostMismatch,
    ProtocolViolation,
    UnsupportedFeature,
    UpstreamClosed,
    UpstreamProtocolViolation,
)
from sidecar.http.h1 import H1Client, H1Server
from sidecar.http.message import CLOSED, NEED_DATA, Data, End, HttpEvent, RequestHead, ResponseHead, quoted

LINE = b"GET / HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def server(data: bytes = b"", *, eof: bool = False) -> H1Server:
    codec = H1Server(32 * 1024, 100)
    if data:
        codec.receive(data)
    if eof:
        codec.receive(b"")
    return codec


def events(codec: H1Server | H1Client) -> list[HttpEvent]:
    """Everything until the codec has no more to say."""
    found: list[HttpEvent] = []
    while True:
        event = codec.next_event()
        if event is NEED_DATA or event is CLOSED:
            return found
        found.append(event)
        if isinstance(event, End):
            return found


def body(found: list[HttpEvent]) -> bytes:
    return b"".join(event.data for event in found if isinstance(event, Data))


# ---- requests that are refused ---------------------------------------------------------------------------------------

REFUSED_HEADS: dict[str, tuple[bytes, type[HopError]]] = {
    "bare LF at the end of lines": (b"GET / HTTP/1.1\nHost: a\n\n", ProtocolViolation),
    "bare LF within": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", ProtocolViolation),
    "bare CR in a value": (LINE + HOST + b"X: a\rb\r\n\r\n", ProtocolViolation),
    "CR before CRLF": (LINE + HOST + b"X: a\r\r\n\r\n", ProtocolViolation),
    "folding": (LINE + HOST + b"X: a\r\n b\r\n\r\n", ProtocolViolation),
    "folding with a tab": (LINE + HOST + b"X: a\r\n\tb\r\n\r\n", ProtocolViolation),
    "a blank before the first field": (LINE + b" Host: a\r\n\r\n", ProtocolViolation),
    "a blank before the colon": (LINE + b"Host : a\r\n\r\n", ProtocolViolation),
    "a tab before the colon": (LINE + b"Host\t: a\r\n\r\n", ProtocolViolation),
    "a blank within a name": (LINE + HOST + b"X Y: z\r\n\r\n", ProtocolViolation),
    "no colon": (LINE + HOST + b"X\r\n\r\n", ProtocolViolation),
    "no name": (LINE + HOST + b": x\r\n\r\n", ProtocolViolation),
    "a non-ASCII name": (LINE + HOST + b"X\xe4: y\r\n\r\n", ProtocolViolation),
    "NUL in a name": (LINE + HOST + b"X\0: y\r\n\r\n", ProtocolViolation),
    **{
        f"control character {n:#04x} in a value": (LINE + HOST + b"X: a" + bytes([n]) + b"b\r\n\r\n", ProtocolViolation)
        for n in (*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F)
    },
    "Content-Length list": (LINE + HOST + b"Content-Length: 5, 5\r\n\r\nhello", ProtocolViolation),
    "Content-Length twice": (LINE + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", ProtocolViolation),
    "Content-Length two ways": (LINE + HOST + b"Content-Length: 5\r\ncontent-length: 6\r\n\r\n", ProtocolViolation),
    **{
        f"Content-Length {value!r}": (LINE + HOST + b"Content-Length: " + value + b"\r\n\r\n", ProtocolViolation)
        for value in (b"", b"+5", b"-5", b"0x5", b"5.0", b"5 5", b"1_0", b"5;", b"\xb2", b"9" * 19, b"five")
    },
    "both framings": (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n", ProtocolViolation),
    "both framings, the other way round": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ProtocolViolation,
    ),
    "both framings, zero length": (CHUNKED[:-2] + b"Content-Length: 0\r\n\r\n", ProtocolViolation),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ProtocolViolation),
    "Transfer-Encoding twice": (CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", ProtocolViolation),
    **{
        f"Transfer-Encoding {value!r}": (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + value + b"\r\n\r\n", UnsupportedFeature,
        )
        for value in (b"", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity", b"xchunked",
                      b"chunked;q=1", b"\"chunked\"")
    },
    "empty members around chunked": (CHUNKED.replace(b" chunked", b",chunked,"), ProtocolViolation),
    "a look-alike of a framing field": (LINE + HOST + b"Content_Length: 5\r\n\r\n", ProtocolViolation),
    "another look-alike": (LINE + HOST + b"Transfer_Encoding: chunked\r\n\r\n", ProtocolViolation),
    "no Host": (LINE + b"X: y\r\n\r\n", HostMismatch),
    "two Hosts": (LINE + HOST + HOST + b"\r\n", ProtocolViolation),
    "two Content-Types": (LINE + HOST + b"Content-Type: a\r\nContent-Type: b\r\n\r\n", ProtocolViolation),
    "two Authorizations": (LINE + HOST + b"Authorization: a\r\nAuthorization: b\r\n\r\n", ProtocolViolation),
    "an unknown expectation": (LINE + HOST + b"Expect: 200-ok\r\n\r\n", UnsupportedFeature),
    **{
        f"request line {line!r}": (line + b"\r\nHost: a\r\n\r\n", ProtocolViolation)
        for line in (b"GET /", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"GET / HTTP/11",
                     b"GET / http/1.1",
                     b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET /  HTTP/1.1", b"GET\t/ HTTP/1.1", b" GET / HTTP/1.1",
                     b"GET /a b HTTP/1.1", b"GET /\xe4 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\0 HTTP/1.1",
                     b"G\xc3T / HTTP/1.1", b"G(T / HTTP/1.1", b"GET HTTP/1.1", b"/ HTTP/1.1")
    },
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", ProtocolViolation),
    "TLS, its first byte": (b"\x16", ProtocolViolation),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ProtocolViolation),
    "something binary": (b"\x00\x00\x00\x08", ProtocolViolation),
    "two empty lines before": (b"\r\n\r\n" + LINE + HOST + b"\r\n", ProtocolViolation),
    "101 lines": (LINE + HOST + b"X: y\r\n" * 100 + b"\r\n", HeadTooLarge),
    "a head over 32 KiB": (LINE + HOST + b"X: " + b"y" * 33_000 + b"\r\n\r\n", HeadTooLarge),
    "a head over 32 KiB without an end": (LINE + b"X: " + b"y" * 33_000, HeadTooLarge),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_HEADS)
def test_a_request_that_can_be_read_in_two_ways_is_not_read_at_all(case: str) -> None:
    data, kind = REFUSED_HEADS[case]
    with pytest.raises(kind) as refused:
        server(data).next_event()
    assert type(refused.value) is kind
    assert refused.value.detail


@pytest.mark.parametrize("case", REFUSED_HEADS)
def test_after_a_refusal_an_answer_can_still_be_made(case: str) -> None:
    codec = server(REFUSED_HEADS[case][0])
    with pytest.raises(HopError):
        codec.next_event()
    codec.refuse_next()
    head = ResponseHead(400, [(b"content-length", b"2"), (b"connection", b"close")])
    assert codec.send_head(head).startswith(b"HTTP/1.1 400 \r\n")
    assert codec.send_data(b"no") + codec.send_end() == b"no"
    assert not codec.reusable


REFUSED_BODIES: dict[str, bytes] = {
    **{
        f"chunk size {line!r}": line + b"\r\nhello\r\n0\r\n\r\n"
        for line in (b"", b"x", b"-5", b"+5", b"0x5", b"5 ", b" 5", b"\t5", b"5_0", b"5,5", b"5\x00", b"5\r", b"0" * 16,
                     b"f" * 17, b"5;\x01", b"5;a=\x7f", b"5;a\rb", b"5 ;a=b", b"5;a=", b"5;", b"5;=b", b'5;a="b',
                     b"5;a=b c", b"5;" + b"a" * 2000)
    },
    "a bare LF after a size": b"5\nhello\r\n0\r\n\r\n",
    "a bare LF after a chunk": b"5\r\nhello\n0\r\n\r\n",
    "a chunk longer than its size": b"5\r\nhello!\r\n0\r\n\r\n",
    "a chunk shorter than its size": b"5\r\nhell\r\n0\r\n\r\n",
    "a bare LF after a trailer": b"0\r\nX: y\n\r\n",
    "a bare LF at the end of trailers": b"0\r\nX: y\r\n\n",
    "a bare LF at once": b"0\r\n\n",
    "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a blank before a trailer's colon": b"0\r\nX : y\r\n\r\n",
    "a control character in a trailer": b"0\r\nX: \x07\r\n\r\n",
    "a bare CR in a trailer": b"0\r\nX: a\rb\r\n\r\n",
    **{
        f"the trailer {name.decode()}": b"0\r\n" + name + b": x\r\n\r\n"
        for name in (b"Content-Length", b"Transfer-Encoding", b"Host", b"Authorization", b"Content-Type", b"Trailer",
                     b"Connection", b"TE", b"Expect", b"Cookie", b"Set-Cookie", b"Cache-Control", b"Content-Range",
                     b"X-Forwarded-Client-Cert", b"X-Forwarded-For", b"Proxy-Authorization", b"Upgrade")
    },
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_BODIES)
@pytest.mark.parametrize("cut", [1, 10_000])
def test_a_body_whose_end_is_in_doubt_is_refused(case: str, cut: int) -> None:
    codec = server(CHUNKED)
    codec.next_event()
    data = REFUSED_BODIES[case]

    def feed() -> None:
        for start in range(0, len(data), cut):
            codec.receive(data[start : start + cut])
            assert not any(isinstance(event, End) for event in events(codec))

    with pytest.raises(ProtocolViolation):
        feed()


def test_trailers_have_limits_of_their_own() -> None:
    for trailers in (b"X: y\r\n" * 101, b"X: " + b"y" * 33_000 + b"\r\n", b"X: " + b"y" * 33_000):
        codec = server(CHUNKED + b"0\r\n" + trailers + b"\r\n")
        with pytest.raises(HeadTooLarge):
            events(codec)


# ---- requests that are taken -----------------------------------------------------------------------------------------


def test_values_lose_the_blanks_around_them_and_nothing_else() -> None:
    codec = server(LINE + HOST + b"X:  a \t b\t \r\nY:\r\nZ:\xe4\r\nA!#$%&'*+-.^_`|~9: x\r\n\r\n")
    head = codec.next_event()
    assert isinstance(head, RequestHead)
    assert head.headers[1:] == [(b"x", b"a \t b"), (b"y", b""), (b"z", b"\xe4"), (b"a!#$%&'*+-.^_`|~9", b"x")]


@pytest.mark.parametrize(
    ("framing", "rest", "length", "has_body"),
    [
        (b"", b"", None, False),
        (b"Content-Length: 0\r\n", b"", 0, False),
        (b"Content-Length: 005\r\n", b"hello", 5, True),
        (b"Transfer-Encoding: Chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", None, True),
        (b"Transfer-Encoding: chunked\r\n", b'3;a=b;c="d\\"e";f\r\nhel\r\n00002\r\nlo\r\n0;x\r\n\r\n', None, True),
    ],
)
def test_framing(framing: bytes, rest: bytes, length: int | None, has_body: bool) -> None:
    codec = server(b"POST / HTTP/1.1\r\n" + HOST + framing + b"\r\n" + rest)
    head = codec.next_event()
    assert isinstance(head, RequestHead)
    assert (head.length, head.body) == (length, has_body)
    found = events(codec)
    assert (body(found), found[-1]) == (b"hello" if has_body else b"", End([]))
    assert codec.they_are_done


@pytest.mark.parametrize(
    ("version", "framing", "expects"),
    [(b"1.1", b"Content-Length: 5\r\n", True), (b"1.1", b"", False), (b"1.0", b"Content-Length: 5\r\n", False)],
)
def test_an_expectation_means_something_only_where_a_body_follows(
    version: bytes, framing: bytes, expects: bool
) -> None:
    head = server(b"POST / HTTP/" + version + b"\r\n" + HOST + framing + b"Expect: 100-Continue\r\n\r\n").next_event()
    assert isinstance(head, RequestHead)
    assert head.expects_continue is expects


def test_exactly_the_limits_are_within_them() -> None:
    assert isinstance(server(LINE + HOST + b"X: y\r\n" * 99 + b"\r\n").next_event(), RequestHead)
    size = 32 * 1024 - len(LINE + HOST + b"X: ")
    whole = LINE + HOST + b"X: " + b"y" * size + b"\r\n\r\n"
    for cut in (1, 2, 3, 4, 5):
        codec = server(whole[:-cut])
        assert codec.next_event() is NEED_DATA
        codec.receive(whole[-cut:])
        assert isinstance(codec.next_event(), RequestHead)


def test_what_follows_a_message_is_kept_for_the_next() -> None:
    codec = server(LINE + HOST + b"\r\n" + b"\r\nGET /next HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /las")
    assert [type(event) for event in events(codec)] == [RequestHead, End]
    codec.send_head(ResponseHead(204, []))
    codec.send_end()
    assert codec.reusable
    codec.next_exchange()
    assert not codec.idle
    head = codec.next_event()
    assert isinstance(head, RequestHead)
    assert head.target == b"/next"
    assert codec.next_event() == End([])
    assert codec.trailing() == b"GET /las"


def test_the_end_of_the_stream() -> None:
    assert server(eof=True).next_event() is CLOSED
    for data in (b"G", LINE, LINE + HOST):
        with pytest.raises(DownstreamGone):
            server(data, eof=True).next_event()
    for rest in (b"", b"5\r\nhel", b"5\r\nhello\r\n", b"0\r\n", b"0\r\nX: y\r\n"):
        codec = server(CHUNKED + rest, eof=True)
        with pytest.raises(DownstreamGone):
            events(codec)


# ---- responses -------------------------------------------------------------------------------------------------------


def client(data: bytes, method: bytes = b"GET", *, eof: bool = False) -> H1Client:
    codec = H1Client(32 * 1024, 100)
    codec.begin(RequestHead(method, b"/", [(b"host", b"a")]))
    codec.send_end()
    codec.receive(data)
    if eof:
        codec.receive(b"")
    return codec


OK = b"HTTP/1.1 200 OK\r\n"
REFUSED_RESPONSES: dict[str, bytes] = {
    **{
        f"status line {line!r}": line + b"\r\nContent-Length: 0\r\n\r\n"
        for line in (b"HTTP/2 200", b"HTTP/1.2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1  200 OK",
                     b"HTTP/1.1 200OK", b"ICY 200 OK", b"HTTP/1.1 200 \x00", b"200 OK", b"")
    },
    "both framings": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "a list of lengths": OK + b"Content-Length: 1, 1\r\n\r\n",
    "a coding beside chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "an empty coding": OK + b"Transfer-Encoding:\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "folding": OK + b"X: a\r\n b\r\n\r\n",
    "control characters": OK + b"X: \x00\r\n\r\n",
    "a bad chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a forbidden trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    "too many lines": OK + b"X: y\r\n" * 101 + b"\r\n",
    "a head without an end": OK + b"X: " + b"y" * 33_000,
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_RESPONSES)
def test_a_response_that_can_be_read_in_two_ways_is_the_upstreams_fault(case: str) -> None:
    with pytest.raises(UpstreamProtocolViolation):
        events(client(REFUSED_RESPONSES[case]))


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 20", OK + b"Content-Length: 5\r\n\r\nhell"])
def test_an_upstream_that_closes_too_early_is_told_apart(data: bytes) -> None:
    with pytest.raises(UpstreamClosed):
        events(client(data, eof=True))


@pytest.mark.parametrize(
    ("method", "data", "content", "clean"),
    [
        (b"GET", OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
        (b"GET", OK + b"Content-Length: 2\r\n\r\nokX", b"ok", False),
        (b"GET", OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", b"ok", False),
        (b"GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", True),
        (b"HEAD", OK + b"Content-Length: 2\r\n\r\n", b"", True),
        (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n", b"", True),
        (b"HEAD", OK + b"Content-Length: 2\r\n\r\nok", b"", False),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", b"", True),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b"", True),
        (b"GET", b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", b"", True),
    ],
)
def test_responses(method: bytes, data: bytes, content: bytes, clean: bool) -> None:
    for pieces in ([data], [data[n : n + 1] for n in range(len(data))]):
        codec = client(b"".join(pieces[:1]), method)
        found: list[HttpEvent] = []
        for piece in [b"", *pieces[1:]]:
            if piece:
                codec.receive(piece)
            if not found or not isinstance(found[-1], End):
                found += events(codec)
        assert body(found) == content
        assert found[-1] == End([])
        assert codec.clean is clean


def test_a_response_without_a_length_ends_with_the_stream_and_so_does_the_connection() -> None:
    codec = client(OK + b"\r\nas long as it is")
    found = events(codec)
    codec.receive(b"")
    found += events(codec)
    assert (body(found), found[-1]) == (b"as long as it is", End([]))
    assert not codec.clean


def test_trailers_are_sent_only_where_the_framing_has_room_for_them() -> None:
    trailers = [(b"x", b"y")]
    for method, status, headers, expected in (
        (b"GET", 200, [], b"0\r\nx: y\r\n\r\n"),
        (b"GET", 200, [(b"content-length", b"0")], b""),
        (b"HEAD", 200, [], b""),
        (b"GET", 304, [], b""),
    ):
        codec = server(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        events(codec)
        codec.send_head(ResponseHead(status, headers))
        assert codec.send_end(trailers) == expected
        assert codec.reusable


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "'plain'"),
        (b"a\tb\r\n\x00\x1b[31m\x7f\xff", r"'a\tb\r\n\x00\x1b[31m\x7f\xff'"),
        (b"it's", r"'it\'s'"),
        (b"back\\x01", r"'back\\x01'"),
    ],
)
def test_bytes_in_messages_are_clean_text(data: bytes, text: str) -> None:
    assert quoted(data) == text
    assert quoted(data).isascii()
    assert quoted(data).isprintable()


@pytest.mark.parametrize(
    "raw",
    [
        LINE + HOST + b"Content-Length: +5\r\n\r\n",
        LINE + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
        LINE + HOST + b"Expect: much\r\n\r\n",
        LINE + HOST + b"X: \x01\r\n\r\n",
        LINE + HOST + b"b ad: 1\r\n\r\n",
        b"GET  /\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"0\r\nno trailer\r\n\r\n",
    ],
)
def test_no_refusal_shows_how_python_writes_bytes(raw: bytes) -> None:
    with pytest.raises(HopError) as refused:
        events(server(raw))
    assert "b'" not in str(refused.value)
    assert 'b"' not in str(refused.value)
    assert str(refused.value).isprintable()
