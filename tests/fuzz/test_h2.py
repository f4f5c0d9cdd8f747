"""Fuzzer over frames of HTTP/2: whatever comes, there is one outcome, it is the same however it is cut, and small."""

from __future__ import annotations

import struct
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection as Oracle
from h2.events import RequestReceived
from hypothesis import example
from hypothesis import strategies as st

from sidecar.errors import HopError
from sidecar.http.h2 import Failed, H2Client, H2Limits, H2Server, H2Stream, Opened
from sidecar.http.message import CLOSED, NEED_DATA, Data, RequestHead, ResponseHead
from tests.fuzz.depth import fuzz
from tests.kit.h2_wire import (
    CONTINUATION,
    END_HEADERS,
    GET,
    GREETING,
    HEADERS,
    HELLO,
    OK,
    POST,
    WEBSOCKET,
    Fields,
    data,
    frame,
    frames_of,
    headers,
    literal,
    settings,
    word,
)

LIMITS = H2Limits(stream_window=3000, connection_window=70_000, streams=4, continuations=3)
IDS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 7, 2, 9, 2**31 - 1, 1 << 31])
FLAGS = st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x25, 0x2D, 0xFF]) | st.integers(0, 255)
FIELDS: list[Fields] = [
    GET, POST, WEBSOCKET, OK, (), [(b"a", b"b")], [*POST, (b"content-length", b"5")], [(b"x", b"y\n")],
    [*GET, (b"connection", b"close")], [(b":status", b"103")], [(b"grpc-status", b"0")],
]  # fmt: skip
PAYLOADS = [
    b"", b"hello", bytes(4), word(1), word(2**31 - 1), word(8), bytes(5), bytes(8), struct.pack("!HL", 4, 0),
    struct.pack("!HL", 4, 2**31), struct.pack("!HL", 1, 0), struct.pack("!HL", 5, 16_384), b"\xff" * 20, bytes(1000),
    literal(GET), literal(POST), b"\x82\x86\x84\x41\x01h", b"\x3f\xe1\x1f", b"\x20", b"\x00\x01a\x01b",
]  # fmt: skip


def pieces() -> st.SearchStrategy[list[bytes]]:
    any_frame = st.builds(frame, st.integers(0, 11), FLAGS, IDS, st.sampled_from(PAYLOADS) | st.binary(max_size=12))
    lying = st.builds(
        lambda kind, payload, size: frame(kind, 4, 1, payload, size=size),
        st.integers(0, 9), st.sampled_from(PAYLOADS), st.sampled_from([0, 3, 8, 16_384, 16_385, 1 << 23]),
    )  # fmt: skip
    heads = st.builds(lambda at, fields, end: headers(at, fields, end=end), IDS, st.sampled_from(FIELDS), st.booleans())
    blocks = st.builds(
        lambda at, fields, end: headers(at, fields, flags=0) + frame(CONTINUATION, end, at),
        IDS, st.sampled_from(FIELDS), st.sampled_from([0, END_HEADERS]),
    )  # fmt: skip
    bodies = st.builds(
        lambda at, size, end, padding: data(at, bytes(size), end=end, padding=padding),
        IDS, st.sampled_from([0, 1, 5, 2900, 3001]), st.booleans(), st.none() | st.sampled_from([0, 1, 200]),
    )  # fmt: skip
    right = st.sampled_from([
        headers(1, GET), headers(3, POST, end=False), data(3, b"hello", end=True), headers(5, GET), settings((3, 9)),
    ])  # fmt: skip
    return st.lists(st.one_of(right, right, heads, heads, bodies, blocks, any_frame, any_frame, lying), max_size=12)


def run(stream: bytes, cuts: list[int], *, client: bool) -> tuple[object, ...]:
    """Show a connection these bytes, cut like this, and serve it like a simple application; what came of it."""
    codec: H2Server | H2Client = H2Client(LIMITS) if client else H2Server(LIMITS)
    served: dict[H2Stream, list[object]] = {}
    if isinstance(codec, H2Client):
        for _ in range(2):
            served[codec.open(RequestHead(b"POST", b"/", [(b"host", b"h")], body=True), scheme=b"https")] = []
    frames_of(codec.to_send(0.0))
    failures, sent = 0, b""
    for cut in (*cuts, len(stream)):
        codec.receive(stream[:cut], 0.0) if stream[:cut] else None
        stream = stream[cut:]
    while (event := codec.next_event()) is not None:
        failures += isinstance(event, Failed)
        if isinstance(event, Opened):
            served[event.stream] = []
    assert failures == (codec.error is not None)
    assert sum(at.buffered for at in codec.streams.values()) <= LIMITS.connection_window
    for at, found in served.items():
        assert at.buffered <= LIMITS.stream_window
        with suppress(HopError):
            while (item := at.next_event()) not in (NEED_DATA, CLOSED):
                found.append(item)
        found.append(type(at.error))
        if not client:
            at.send_head(ResponseHead(200, []))
            at.send_data(b"answer")
            at.send_end()
    while sent_now := codec.to_send(0.0):
        sent += sent_now
    shapes = [type(one).__name__ for one in frames_of(sent)]
    assert shapes.count("GoAwayFrame") <= 1
    assert codec._windows.room >= 0
    bodies = [
        (at.id, b"".join(item.data for item in found if isinstance(item, Data)), str(at.error), at.clean)
        for at, found in served.items()
    ]
    return str(codec.error), sorted(bodies), len(sent)


@fuzz(pieces(), st.lists(st.integers(1, 40), max_size=30), st.booleans(), brief=400, long=60_000)
@example([headers(1, GET), data(1, b"late")], [1] * 60, False)
@example([headers(1, OK, end=False), data(1, b"x"), headers(1, OK)], [10], True)
def test_one_outcome_however_it_is_cut(found: list[bytes], cuts: list[int], client: bool) -> None:
    """No bytes make the connection raise, fail twice, send half a frame or hold more than its windows; and the outcome
    is the same in one read as in many.
    """
    stream = (GREETING if client else HELLO) + b"".join(found)
    whole = run(stream, [], client=client)
    assert run(stream, cuts, client=client) == whole
    assert whole[2] <= 200 * (len(found) + 1)  # type: ignore[operator]  # what it sends is in proportion to what it gets


NAMES = [b"a", b"A", b"x-y", b"te", b"cookie", b"host", b"content-length", b"connection", b":path", b":x", b"", b"a b"]
VALUES = [b"", b"b", b" b", b"b ", b"b\n", b"b\r", b"\0", b"trailers", b"0", b"5", b"/", b"orders", b"\xff", b"a;b"]


@fuzz(
    st.sampled_from([list(GET), list(POST), list(WEBSOCKET)]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3),
    st.integers(0, 4), st.booleans(), brief=400, long=60_000,
)  # fmt: skip
def test_what_we_accept_the_library_accepts_too(
    begin: list[tuple[bytes, bytes]], more: list[tuple[bytes, bytes]], left_out: int, end: bool
) -> None:
    """Every head that our reading lets pass is one that h2 would let pass with all of its own checks."""
    fields = begin[:left_out] + begin[left_out + 1 :] + more
    codec = H2Server()
    codec.receive(HELLO + headers(1, fields, end=end), 0.0)
    event = codec.next_event()
    assert isinstance(event, Opened)
    if event.stream.error is not None or [name for name, _ in fields].count(b"cookie") > 1:
        return  # several crumbs it joins with blanks at the ends, and then refuses those
    oracle = Oracle(H2Configuration(client_side=False, header_encoding=None))
    seen = oracle.receive_data(HELLO + headers(1, fields, end=end))
    (request,) = [found for found in seen if isinstance(found, RequestReceived)]
    head = event.stream.next_event()
    assert isinstance(head, RequestHead)
    theirs = dict(request.headers)
    assert head.target == theirs[b":path"]
    assert head.protocol == theirs.get(b":protocol", b"")


@fuzz(st.binary(max_size=120), st.lists(st.binary(max_size=60), max_size=3), brief=300, long=60_000)
def test_any_header_block_is_read_or_ends_the_connection(block: bytes, later: list[bytes]) -> None:
    """Random HPACK raises nothing and leaves either a connection that goes on, or one that has said GOAWAY."""
    codec = H2Server()
    codec.receive(HELLO, 0.0)
    for at, found in enumerate((block, *later)):
        codec.receive(frame(HEADERS, END_HEADERS | 1, 2 * at + 1, found), 0.0)
    while codec.next_event() is not None:
        pass
    shapes = [type(one).__name__ for one in frames_of(codec.to_send(0.0))]
    assert ("GoAwayFrame" in shapes) is (codec.error is not None)
