"""The plain readers against the strict reading: never more, never otherwise.

For any bytes: what a plain reader takes, `h1` takes too, with the same method, target, fields, host, framing and
persistence, and what is spliced to be sent on reads, to that same strict reading, like what `h1` would have written.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.plain import JudgedReader, OpaqueReader
from sidecar.http.plain_stencil import StencilReader
from tests.kit.plain import BYTES, LINES, check_answers, check_bytes, spoilt

NAMES = [
    b"Host", b"host", b"Content-Length", b"content-length", b"CONTENT-TYPE", b"Content-Type", b"Connection", b"X-Y",
    b"Transfer-Encoding", b"TE", b"Idempotency-Key", b"Keep-Alive", b"mesh-via", b"Mesh-Via", b"mesh_via", b"mesh-x",
    b"mesh-deadline", b"Mesh-Deadline", b"mesh-timeout",
    b"Proxy-Connection", b"Proxy-Authorization", b"Upgrade", b"Expect", b"content_length", b"X-Forwarded-Client-Cert",
    b"x_forwarded-client_cert", b"Authorization", b"Accept", b"User-Agent", b"sec-fetch-site", b"Trailer", b"A", b"Te",
    b"HTTP2-Settings", b"Cookie", b"content-encoding", b"Set-Cookie", b"Via", b"", b" X", b"X ", b"\xffx", b"x:",
]  # fmt: skip
VALUES = [
    b"h", b"H:80", b"[::1]:1", b"h:0", b"0x7f.1", b"5", b"0", b"00", b"+5", b"5, 5", b"5 ", b"", b" ", b"close",
    b"keep-alive", b"Close", b"close, x-y", b"upgrade", b"chunked", b"Chunked", b"gzip, chunked", b"a1b2", b"a1,b2",
    b"a1, b2", b"A1",
    b"5S", b"250m", b"-1S", b"123456789S", b",", b"text/plain; charset=x", b"cross-site", b"same-origin",
    b"100-continue", b"trailers",
    b"\tx\t", b"\xe4", b"a\x00b", b"a\rb", b"a\nb", b"a\x7f", b"999999999999999999", b"9999999999999999999",
]  # fmt: skip
FIRST = [
    b"GET / HTTP/1.1", b"POST /a/b?c=d HTTP/1.1", b"PUT /a%20b HTTP/1.1", b"GET /a//b HTTP/1.1", b"GET /. HTTP/1.1",
    b"GET /.well-known/x HTTP/1.1", b"HEAD /a/ HTTP/1.1", b"DELETE /a;b HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"GET http://h/a HTTP/1.1", b"GET http://H:80/ HTTP/1.1", b"GET http://h HTTP/1.1", b"GET /#x HTTP/1.1",
    b"GET /%2e%2e/ HTTP/1.1", b"GET /%c3%a4 HTTP/1.1", b"GET /%ff HTTP/1.1", b"GET /a?b=%zz HTTP/1.1",
    b"GET / HTTP/1.0", b"CONNECT h:1 HTTP/1.1", b"TRACE / HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1",
    b"GET /\xe4 HTTP/1.1", b"GET /\\ HTTP/1.1", b"PATCH /a\"b HTTP/1.1", b"GET /a??b HTTP/1.1",
]  # fmt: skip
STATUS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Go", b"HTTP/1.1 101 Switch", b"HTTP/1.1 599 x\ty", b"HTTP/1.1 600 x", b"HTTP/1.1 200 \xe4",
]  # fmt: skip
LINE = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([b": ", b": ", b": ", b":", b":  ", b" : ", b":\t"]),
              st.sampled_from(VALUES)).map(b"".join),
    st.sampled_from([b"Host: h", b"Content-Length: 5", b"X: y", b"mesh-via: a1", b"Connection: keep-alive"]),
)  # fmt: skip


def heads(first_lines: list[bytes]) -> st.SearchStrategy[bytes]:
    """Heads that are plain, and heads that nearly are."""
    lines = st.lists(LINE, max_size=5).flatmap(lambda found: st.permutations([b"Host: h", *found]))
    return st.builds(lambda first, rest: b"\r\n".join([first, *rest, b"", b""]), st.sampled_from(first_lines), lines)


SPOILT = (st.integers(0, 400), st.integers(0, 7), st.integers(0, 3), st.integers(0, 255))


@settings(max_examples=250, deadline=None)
@given(heads(FIRST), st.sampled_from([b"", b"hello", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"]))
def test_a_plain_request_is_what_the_strict_reading_reads(head: bytes, rest: bytes) -> None:
    check_bytes(head + rest)
    check_bytes(rest + head, len(rest))


@settings(max_examples=250, deadline=None)
@given(heads(FIRST), *SPOILT)
def test_a_spoilt_request_is_never_read_otherwise(head: bytes, at: int, bit: int, how: int, byte: int) -> None:
    check_bytes(spoilt(head, at, bit, how, byte))


@settings(max_examples=250, deadline=None)
@given(heads(STATUS), st.booleans(), *SPOILT)
def test_a_plain_answer_is_what_the_strict_reading_reads(
    head: bytes, to_head: bool, at: int, bit: int, how: int, byte: int
) -> None:
    answer = head.replace(b"Host: h\r\n", b"")
    for data in (head, answer, spoilt(answer, at, bit, how, byte)):
        check_answers(data, to_head=to_head)


STEADY = st.lists(
    st.sampled_from([
        b"X-Id: %d", b"Authorization: b %d", b"Accept: */*", b"Content-Length: 5", b"mesh-via: a1", b"X-Y: z", b"A: %d",
        b"Connection: keep-alive", b"Traceparent: 00-%d", b"Idempotency-Key: %d", b"TE: x", b"Content-Type: %d",
        b"sec-fetch-site: %d", b"Transfer-Encoding: chunked", b"Content-Length: %d", b"mesh-via: %d",
        b"mesh-deadline: 5S", b"mesh-deadline: %dm",
    ]),
    max_size=6, unique=True,
)  # fmt: skip
TARGETS = st.sampled_from([b"/a/%d", b"/a/%d", b"/a?b=%d", b"/%%41/%d", b"/../%d", b"/%d;x", b"http://h/%d"])
CHANGES = st.lists(st.tuples(TARGETS, st.one_of(st.none(), st.tuples(*SPOILT))), min_size=2, max_size=6)


@settings(max_examples=250, deadline=None)
@given(STEADY, st.integers(0, 6), CHANGES, st.booleans())
def test_a_stencil_reads_like_its_reader(
    lines: list[bytes], turn: int, changes: list[tuple[bytes, tuple[int, int, int, int] | None]], first: bool
) -> None:
    """Heads of one kind, each with numbers of its own and perhaps spoilt, read by one who has learned from them."""
    lines.insert(0 if first else turn, b"Host: h")
    for reader in (JudgedReader(BYTES, LINES), OpaqueReader(BYTES, LINES)):
        learned = StencilReader(reader)
        for number, (target, change) in enumerate([(b"/a", None), (b"/b/%d", None), *changes], 5):
            head = b"\r\n".join([b"POST " + target + b" HTTP/1.1", *lines, b"", b""])
            head = head.replace(b"%d", b"%d" % (number * 7)).replace(b"%%", b"%")
            data = b"old" + (head if change is None else spoilt(head, *change)) + b"rest"
            assert learned.read(data, 3) == reader.read(data, 3)
