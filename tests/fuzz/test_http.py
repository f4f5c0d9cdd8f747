"""Fuzzers of the HTTP/1 reading, on both sides of the sidecar, and of what it writes on."""

from __future__ import annotations

import posixpath
from contextlib import suppress
from urllib.parse import unquote

from hypothesis import example
from hypothesis import strategies as st

from sidecar.errors import HopError
from sidecar.http.canonical import canonical_target
from sidecar.http.h1 import H1Client, H1Server
from sidecar.http.message import CLOSED, NEED_DATA, SWITCHED, Data, End, RequestHead, ResponseHead
from sidecar.proxy.forwarding import outgoing_headers
from tests.fuzz.depth import fuzz
from tests.fuzz.readers import Careless, Message, Pedantic, Unreadable

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"
FIELDS = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length:5 ",
    b"content-length: 0x5", b"Content_Length: 9", b"Content-Length : 5", b"Content-Length\t: 5",
    b"X: Content-Length: 5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: xchunked", b"Transfer_Encoding: chunked",
    b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked\x00", b" Transfer-Encoding: chunked",
    b"Connection: close", b"Connection: keep-alive, content-length", b"Connection: Transfer-Encoding", b"X: y\rZ: w",
    b"X: y\nTransfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Trailer: x", b"TE: trailers", b"Host: h", b"X: \xff", b":", b"", b"\x00: x",
    b"Content-Length: 99999999999999999999",
]  # fmt: skip
BODIES = [
    b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 3\r\n\r\n", b"0\r\n X: folded\r\n\r\n", b"ffffffffffffffff\r\n",
    b"5;\"\r\n\"\r\nhello\r\n0\r\n\r\n", b"0\r\n\rX: y\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\n\r\n", HIDDEN, b"\r\n",
    b"\r",
]  # fmt: skip
LINES = [
    b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"GET / HTTP/1.0", b"HEAD /x HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"GET http://h/ HTTP/1.1", b"GET  / HTTP/1.1", b"GET /\tHTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/2.0",
    b"get / HTTP/1.1", b"GET / http/1.1", b"GET /a b HTTP/1.1", b"G\x00T / HTTP/1.1", b"CONNECT h:1 HTTP/1.1",
]  # fmt: skip
STATUS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 O",
    b"HTTP/1.1 101 Switch", b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/1.1 2000 OK", b"HTTP/2 200 OK",
    b"HTTP/1.1 099 X",
]  # fmt: skip


def messages(lines: list[bytes]) -> st.SearchStrategy[bytes]:
    """Messages that are nearly right, and some that are nothing of the kind."""
    head = st.tuples(
        st.sampled_from(lines),
        st.lists(st.sampled_from(FIELDS) | st.just(b"Host: h"), max_size=4).map(lambda found: [b"Host: h", *found]),
        st.sampled_from([b"\r\n"] * 6 + [b"\n"]),
    ).map(lambda parts: parts[2].join([parts[0], *parts[1], b"", b""]))
    body = st.lists(st.sampled_from(BODIES) | st.binary(max_size=6), max_size=3).map(b"".join)
    whole = st.tuples(head, body).map(b"".join)
    right = st.builds(well_formed, st.sampled_from(lines[:3]), st.binary(max_size=20), st.sampled_from((0, 1, 3, 7)))
    nearly = st.builds(spoilt, right, st.integers(0, 120), st.sampled_from(SPOILERS), st.integers(0, 2))
    series = st.lists(st.one_of(right, right, nearly, whole), min_size=1, max_size=3).map(b"".join)
    return st.one_of(series, nearly, whole, st.binary(max_size=80))


SPOILERS = [
    b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b";", b"0", b"5", b"a", b",", b'"', b"\x0b", b"\xff",
]  # fmt: skip


def well_formed(line: bytes, body: bytes, chunk: int) -> bytes:
    """A message without any doubt: a length, or (from HTTP/1.1 on) chunks of so many bytes and a trailer."""
    if not chunk or b"HTTP/1.0" in line:
        return b"%b\r\nHost: h\r\nContent-Length: %d\r\nX: y\r\n\r\n%b" % (line, len(body), body)
    pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"%b\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nX: y\r\n\r\n" % (line, chunks)


def spoilt(message: bytes, at: int, spoiler: bytes, instead_of: int) -> bytes:
    """The message with a byte or two too many, too few, or other ones."""
    return message[:at] + spoiler + message[at + instead_of :]


def read_requests(stream: bytes) -> list[tuple[RequestHead, bytes, bytes]]:
    """What our server side reads of a stream: heads, bodies, and the bytes in which it writes each on."""
    codec = H1Server(2048, 20)
    codec.receive(stream)
    found: list[tuple[RequestHead, bytes, bytes]] = []
    try:
        while isinstance(head := codec.next_event(), RequestHead):
            client = H1Client(2048, 20)
            headers = outgoing_headers(head)
            if all(name != b"host" for name, _ in headers):  # HTTP/1.0; both sides of the proxy put one in
                headers.insert(0, (b"host", b"h"))
            onward = RequestHead(head.method, head.target, headers, b"1.1", body=head.body)
            written = client.begin(onward)
            body = b""
            while isinstance(event := codec.next_event(), Data):
                body += event.data
                written += client.send_data(event.data)
            if not isinstance(event, End):
                break
            found.append((head, body, written + client.send_end(event.trailers)))
            if not codec.they_are_done or head.method == b"CONNECT":
                break
            codec.send_head(ResponseHead(200, [(b"content-length", b"0")]))
            codec.send_end()
            if not codec.reusable:
                break
            codec.next_exchange()
    except HopError:
        pass
    return found


@fuzz(messages(LINES), brief=900, long=50_000)
@example(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n" + HIDDEN)
@example(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent_Length: 9\r\n\r\nhello")
def test_what_goes_on_is_one_request_to_every_reader(stream: bytes) -> None:
    """Each request that we accept is written on as bytes in which a careless and a pedantic server see that very
    request, whole, and nothing after it.
    """
    for head, body, written in read_requests(stream):
        if head.method == b"CONNECT":
            continue  # refused before it goes anywhere: see sidecar.proxy
        wanted = Message(head.method + b" " + head.target + b" HTTP/1.1", body, len(written))
        assert Careless().request(written) == wanted
        assert Pedantic().request(written) == wanted


@fuzz(messages(LINES), brief=900, long=50_000)
def test_a_careless_proxy_before_us_sees_the_same_requests(stream: bytes) -> None:
    """The requests that we accept on a connection are those that a careless reader of the same bytes sees, in number,
    order, first line and body, so nobody before us can be made to smuggle.
    """
    at = 0
    for head, body, _ in read_requests(stream):
        seen = Careless().request(stream, at)
        assert seen.body == body
        assert seen.line == b"%b %b HTTP/%b" % (head.method, head.target, head.version)
        at = seen.end


@fuzz(messages(STATUS), st.booleans(), st.lists(st.integers(1, 30), max_size=6), brief=900, long=50_000)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", False, [])
def test_an_answer_is_read_one_way_and_leftovers_poison_the_connection(
    stream: bytes, to_head: bool, cuts: list[int]
) -> None:
    """An answer that we accept whole has the body that a careless and a pedantic client would see, and a connection
    with anything after it is never used again.
    """
    codec = H1Client(2048, 20)
    codec.begin(RequestHead(b"HEAD" if to_head else b"GET", b"/", [(b"host", b"h")]))
    codec.send_end()
    waiting, rest = [], stream
    for cut in cuts:
        waiting.append(rest[:cut])
        rest = rest[cut:]
    waiting = [piece for piece in (*waiting, rest) if piece] + [b""]
    body, status, ended = b"", 0, False
    try:
        while not ended:
            event = codec.next_event()
            if isinstance(event, ResponseHead):
                status = event.status
            elif isinstance(event, Data):
                body += event.data
            elif isinstance(event, End):
                ended = True
            elif event in (CLOSED, SWITCHED) or not waiting:
                return
            else:
                assert event is NEED_DATA
                codec.receive(waiting.pop(0))
    except HopError:
        return
    assert status >= 200
    framed = Careless().response(stream, to_head=to_head)
    assert framed.body == body
    with suppress(Unreadable):  # it takes no chunk extensions, which we read and do not write on
        assert Pedantic().response(stream, to_head=to_head).body == body
    if codec.clean:
        assert len(stream) - sum(map(len, waiting)) <= framed.end, "bytes after the answer"


SPELLINGS = [
    "/", "//", "admin", "Admin", "%61dmin", "%2561dmin", "..", ".", "%2e%2e", "%2E.", ";x", ";", "%2f", "%5c", "\\",
    "%00", "public", "?", "#", "%c0%ae", "%ef%bc%8f", "%", "..%2f", "x", "http://h", "@",
]  # fmt: skip


PATHS = st.lists(st.sampled_from(SPELLINGS), max_size=7).map(lambda parts: "/" + "".join(parts))


@fuzz(PATHS, brief=2000, long=133_000)
@example("/public/..;/admin")
@example("/%2561dmin")
def test_no_spelling_of_a_path_leads_around_a_rule(path: str) -> None:
    """A path that we accept as not being under /admin is not under /admin either for a server that decodes it once or
    twice, drops parameters, merges slashes, turns backslashes and resolves dots, in any order.
    """
    try:
        target = canonical_target(path.encode(), "GET")
    except HopError:
        return
    if target.segments[:1] == ("admin",):
        return
    forwarded = target.origin_form.decode().partition("?")[0]
    for decode in (lambda text: text, unquote, lambda text: unquote(unquote(text))):
        for clean in (lambda text: text, lambda text: "/".join(part.partition(";")[0] for part in text.split("/"))):
            for order in ((decode, clean), (clean, decode)):
                seen = forwarded
                for step in order:
                    seen = step(seen)
                resolved = posixpath.normpath("/" + seen.replace("\\", "/").lstrip("/"))
                assert resolved != "/admin", path
                assert not resolved.startswith("/admin/"), path
