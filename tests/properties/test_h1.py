"""Wherever the network cuts a stream, the codecs say the same; whatever they are fed, they raise only our errors."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import HopError
from sidecar.http.chunks import ChunkGuard
from sidecar.http.h1 import H1Client, H1Server
from sidecar.http.message import CLOSED, NEED_DATA, SWITCHED, Data, End, HttpEvent, RequestHead, ResponseHead

FRAGMENTS = [
    b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"HEAD / HTTP/1.1\r\n", b"Host: a\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"X: y\r\n", b" folded\r\n", b"\r\n", b"\n",
    b"\r", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"5;a=b\r\n", b"fffffffffffffff\r\n", b"X : y\r\n",
    b"\x16\x03",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n", b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 101 S\r\n", b"HTTP/1.1 304 N\r\n", b"\x00", b"\xff", b"z",
]  # fmt: skip
STREAMS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(b"".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)), max_size=14).map(b"".join),
    st.binary(max_size=200),
)
CUTS = st.lists(st.integers(1, 12), max_size=60)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    for cut in cuts:
        if at >= len(data):
            break
        found.append(data[at : at + cut])
        at += cut
    return [*found, data[at:]] if at < len(data) else found


def said(events: list[HttpEvent | str]) -> list[object]:
    """What was said, with neighbouring pieces of a body put together."""
    found: list[object] = []
    for event in events:
        if isinstance(event, Data) and found and isinstance(found[-1], bytes):
            found[-1] += event.data
        else:
            found.append(event.data if isinstance(event, Data) else event)
    return found


def serve(stream: list[bytes]) -> list[object]:
    """Read requests, answering each, until the stream ends or is refused."""
    codec = H1Server(200, 10)
    found: list[HttpEvent | str] = []
    waiting = [*stream, b""]
    try:
        while True:
            event = codec.next_event()
            if event is NEED_DATA:
                if not waiting:
                    return said([*found, "stuck"])
                codec.receive(waiting.pop(0))
                continue
            found.append(event)
            if event is CLOSED or event is SWITCHED:
                return said(found)
            if isinstance(event, End):
                codec.send_head(ResponseHead(200, [(b"content-length", b"0")]))
                codec.send_end()
                if not codec.reusable:
                    return said([*found, "close"])
                codec.next_exchange()
    except HopError as error:
        return said([*found, type(error).__name__])


def call(stream: list[bytes], method: bytes) -> list[object]:
    """Read the answer to one request."""
    codec = H1Client(200, 10)
    codec.begin(RequestHead(method, b"/", [(b"host", b"a"), (b"connection", b"upgrade"), (b"upgrade", b"x")]))
    codec.send_end()
    found: list[HttpEvent | str] = []
    waiting = [*stream, b""]
    try:
        while True:
            event = codec.next_event()
            if event is NEED_DATA:
                if not waiting:
                    return said([*found, "stuck"])
                codec.receive(waiting.pop(0))
                continue
            found.append(event)
            if event is CLOSED or event is SWITCHED or isinstance(event, End):
                return said(found)
    except HopError as error:
        return said([*found, type(error).__name__])


def one_kind(found: list[object]) -> list[object]:
    """Which of our errors a hopeless head ends in may depend on what has come of it; that it ends there may not."""
    if found and isinstance(found[-1], str) and found[-1] not in ("close", "stuck"):
        return [*found[:-1], "refused"]
    return found


@given(STREAMS, CUTS)
@example(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [2])
@example(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [1, 1])
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nz", [70, 1, 1])
@example(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 168 + b"\r\n\r\n", [199, 1, 1, 1])
def test_any_split_of_a_stream_of_requests_says_the_same(data: bytes, cuts: list[int]) -> None:
    assert one_kind(serve(pieces(data, cuts))) == one_kind(serve([data] if data else []))


@given(STREAMS, CUTS, st.sampled_from([b"GET", b"HEAD"]))
def test_any_split_of_an_answer_says_the_same(data: bytes, cuts: list[int], method: bytes) -> None:
    assert one_kind(call(pieces(data, cuts), method)) == one_kind(call([data] if data else [], method))


@given(st.binary(max_size=300), CUTS)
def test_random_bytes_raise_only_our_errors(data: bytes, cuts: list[int]) -> None:
    serve(pieces(data, cuts))
    serve(pieces(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data, cuts))
    call(pieces(data, cuts), b"GET")
    call(pieces(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data, cuts), b"GET")


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.binary(max_size=20), CUTS)
def test_a_well_formed_chunked_body_is_always_let_through_whole(
    chunks: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX: y\r\n\r\n" + rest
    guard = ChunkGuard(1000, 10)
    assert [guard.check(piece) for piece in pieces(body, cuts)] == [len(piece) for piece in pieces(body, cuts)]
    assert guard.error is None


@given(STREAMS)
def test_two_strict_readers_agree_where_a_chunked_request_ends(data: bytes) -> None:
    """Whatever is taken as a body and its end, a second strict reader takes alike."""
    found = serve([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data])
    if len(found) > 1 and any(isinstance(event, End) for event in found):
        body = found[1] if isinstance(found[1], bytes) else b""
        assert dechunk(data) == body


def dechunk(data: bytes) -> bytes:
    """A second reader: as short as can be, and unforgiving."""
    body = b""
    while True:
        line, crlf, data = data.partition(b"\r\n")
        assert crlf
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return body
        body, tail, data = body + data[:size], data[size : size + 2], data[size + 2 :]
        assert tail == b"\r\n"
