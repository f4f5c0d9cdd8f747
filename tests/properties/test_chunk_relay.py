"""A chunked body that is passed on is the body that the strict reading reads, wherever the network cuts it."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import HopError
from sidecar.http.chunk_relay import ChunkRelay
from sidecar.http.h1 import H1Client
from sidecar.http.headers import without_reserved
from sidecar.http.message import NEED_DATA, Data, End, RequestHead, ResponseHead
from tests.properties.test_h1 import pieces

FRAGMENTS = [
    b"5\r\nhello\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"\r\n", b"X: y\r\n", b"mesh-x: y\r\n",
    b"X_Forwarded-Client-Cert: y\r\n", b" folded\r\n", b"5;a=b\r\nhello\r\n", b"5 ;a\r\nhello\r\n", b"Host: h\r\n",
    b"00A\r\n0123456789\r\n",
    b"fffffffffffffff\r\n", b"0000000000000005\r\nhello\r\n", b"5\r\nhello", b"5\nhello\n", b"-1\r\n", b"0x0\r\n\r\n",
    b"5\r\nhello\r\r\n", b"\r", b"\n", b"z", b"3\r\n\r\n\r\r\n", b"Content-Length: 3\r\n", b"A: \x00\r\n", b"A\r\n",
]  # fmt: skip
STREAMS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join),
    st.lists(st.sampled_from(FRAGMENTS[:3]), max_size=6).map(lambda found: b"".join(found) + b"0\r\nX: y\r\n\r\nrest"),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6)), max_size=8).map(b"".join),
)
CUTS = st.lists(st.integers(1, 9), max_size=40)
LIMIT_BYTES, LIMIT_LINES = 60, 3


def strictly(stream: list[bytes]) -> tuple[bytes, End | str | None, bytes]:
    """Body, end and leftovers of a chunked answer: an End, the kind of error, or None where it is not over."""
    codec = H1Client(LIMIT_BYTES, LIMIT_LINES)
    codec.begin(RequestHead(b"GET", b"/", [(b"host", b"h")]))
    codec.send_end()
    codec.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert isinstance(codec.next_event(), ResponseHead)
    body, waiting = b"", [piece for piece in stream if piece]
    try:
        while True:
            event = codec.next_event()
            if isinstance(event, Data):
                body += event.data
            elif event is NEED_DATA:
                if not waiting:
                    return body, None, b""
                codec.receive(waiting.pop(0))
            else:
                assert isinstance(event, End)
                return body, event, codec.trailing() + b"".join(waiting)
    except HopError:
        return body, "refused", b""


@settings(max_examples=600, deadline=None)
@given(STREAMS, CUTS)
@example(b"5\r\nhello\r\n0\r\nX: y\r\nmesh-a: b\r\n\r\nz", [7, 1, 1, 1, 1])
@example(b"0\r\nHost: y\r\n\r\n", [])
@example(b"0\r\nContent-Length: 3\r\n", [])
@example(b"0\r\ntransfer-encoding: y\r\n\r\n", [4])
@example(b"0\r\n" + b"X: y\r\n" * 4 + b"\r\n", [])
def test_what_is_passed_on_is_what_the_strict_reading_reads(data: bytes, cuts: list[int]) -> None:
    body, end, left = strictly([data])
    relay = ChunkRelay(LIMIT_BYTES, LIMIT_LINES)
    out: list[bytes] = []
    used = 0
    try:
        for piece in pieces(data, cuts):
            position = relay.pass_on(b"??" + piece, out, 2)
            used += position - 2
            if relay.done:
                break
    except HopError:  # it may know sooner: a forbidden trailer is refused with its line, not with the end of them all
        assert end == "refused" or (end is None and strictly([data, b"\r\n\r\n"])[1] == "refused")
        return
    again, ended, rest = strictly([b"".join(out)])
    assert relay.payload == len(again)
    if isinstance(end, End):
        assert relay.done
        assert data[used:] == left
        assert (again, rest) == (body, b"")
        assert ended == End(without_reserved(end.trailers))
    else:
        assert end is None, "the strict reading refuses it"
        assert not relay.done
        assert ended is None
        assert again == body


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), CUTS)
def test_a_plain_body_travels_on_to_the_byte(chunks: list[bytes], cuts: list[int]) -> None:
    body = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    relay = ChunkRelay(1000, 10)
    out: list[bytes] = []
    assert relay.pass_on(body + b"more", out) == len(body)
    assert out == [body]
    assert relay.done
    assert relay.payload == sum(map(len, chunks))


def test_an_odd_line_travels_on_in_its_plain_form() -> None:
    relay = ChunkRelay(1000, 10)
    out: list[bytes] = []
    body = b'00a;x="y"\r\n0123456789\r\n5\r\nhello\r\n0;z\r\nA:  b\r\nMesh-X: y\r\nmesh_y: z\r\n\r\n'
    assert relay.pass_on(body, out) == len(body)
    assert b"".join(out) == b"a\r\n0123456789\r\n5\r\nhello\r\n0\r\nA:  b\r\n\r\n"
