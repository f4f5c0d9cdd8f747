"""Frames that break the rules: the right code in the right scope, and whatever came before them still stands."""

from __future__ import annotations

import struct

import pytest

from sidecar.errors import AbusivePeer, ProtocolViolation, UpstreamProtocolViolation
from sidecar.http.h2 import Code, H2Client, H2Server
from sidecar.http.message import Data, End, RequestHead, ResponseHead
from tests.kit import h2_wire
from tests.kit.h2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    GREETING,
    HEADERS,
    HELLO,
    OK,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Bench,
    a_client,
    a_server,
    data,
    events_of,
    frame,
    headers,
    literal,
    settings,
    word,
)

ENDED = headers(1, GET)  # stream 1: their message is whole
OPEN = headers(1, POST, end=False)  # stream 1: its body is due
RESET = frame(RST_STREAM, 0, 1, word(8))
WHOLE_CONNECTION = [
    ("DATA on stream 0", [data(0, b"x")], Code.PROTOCOL_ERROR),
    ("DATA on an idle stream", [data(5, b"x")], Code.PROTOCOL_ERROR),
    ("DATA on a server's stream", [data(2, b"x")], Code.PROTOCOL_ERROR),
    ("HEADERS on stream 0", [headers(0, GET)], Code.PROTOCOL_ERROR),
    ("HEADERS on a server's stream", [headers(2, GET)], Code.PROTOCOL_ERROR),
    ("HEADERS on a stream that was skipped", [headers(5, GET), headers(3, GET)], Code.PROTOCOL_ERROR),
    ("HEADERS on a stream that was skipped at first", [headers(5, GET), headers(7, GET), headers(1, GET)],
     Code.PROTOCOL_ERROR),
    ("HEADERS on a stream that was skipped by one that was refused",
     [*(headers(n, POST, end=False) for n in range(1, 201, 2)), headers(205, GET), headers(203, GET)],
     Code.PROTOCOL_ERROR),
    ("PRIORITY on stream 0", [frame(PRIORITY, 0, 0, bytes(5))], Code.PROTOCOL_ERROR),
    ("a short PRIORITY on an idle stream", [frame(PRIORITY, 0, 9, bytes(4))], Code.FRAME_SIZE_ERROR),
    ("RST_STREAM on stream 0", [frame(RST_STREAM, 0, 0, word(8))], Code.PROTOCOL_ERROR),
    ("RST_STREAM on an idle stream", [frame(RST_STREAM, 0, 7, word(8))], Code.PROTOCOL_ERROR),
    ("a short RST_STREAM", [OPEN, frame(RST_STREAM, 0, 1, b"abc")], Code.FRAME_SIZE_ERROR),
    ("SETTINGS on a stream", [OPEN, frame(SETTINGS, 0, 1)], Code.PROTOCOL_ERROR),
    ("SETTINGS of a broken size", [frame(SETTINGS, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR),
    ("an ACK with settings in it", [frame(SETTINGS, ACK, 0, bytes(6))], Code.FRAME_SIZE_ERROR),
    ("ENABLE_PUSH of 2", [settings((2, 2))], Code.PROTOCOL_ERROR),
    ("INITIAL_WINDOW_SIZE over 2^31 - 1", [settings((4, 1 << 31))], Code.FLOW_CONTROL_ERROR),
    ("... and a right one behind it", [settings((4, 1 << 31), (4, 1))], Code.FLOW_CONTROL_ERROR),
    ("MAX_FRAME_SIZE too small", [settings((5, 16_383))], Code.PROTOCOL_ERROR),
    ("MAX_FRAME_SIZE too large", [settings((5, 1 << 24))], Code.PROTOCOL_ERROR),
    ("ENABLE_CONNECT_PROTOCOL of 2", [settings((8, 2))], Code.PROTOCOL_ERROR),
    ("ENABLE_CONNECT_PROTOCOL taken back", [settings((8, 1)), settings((8, 0))], Code.PROTOCOL_ERROR),
    ("a window of a stream that INITIAL_WINDOW_SIZE makes too large",
     [OPEN, frame(WINDOW_UPDATE, 0, 1, word((1 << 31) - 1 - 65_535)), settings((4, 70_000))], Code.FLOW_CONTROL_ERROR),
    ("PUSH_PROMISE", [OPEN, frame(PUSH_PROMISE, END_HEADERS, 1, word(2) + literal(GET))], Code.PROTOCOL_ERROR),
    ("PING on a stream", [OPEN, frame(PING, 0, 1, bytes(8))], Code.PROTOCOL_ERROR),
    ("PING of 7 bytes", [frame(PING, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR),
    ("GOAWAY on a stream", [OPEN, frame(GOAWAY, 0, 1, bytes(8))], Code.PROTOCOL_ERROR),
    ("a short GOAWAY", [frame(GOAWAY, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR),
    ("WINDOW_UPDATE of 3 bytes", [frame(WINDOW_UPDATE, 0, 0, bytes(3))], Code.FRAME_SIZE_ERROR),
    ("WINDOW_UPDATE of 0 for the connection", [frame(WINDOW_UPDATE, 0, 0, word(0))], Code.PROTOCOL_ERROR),
    ("WINDOW_UPDATE on an idle stream", [frame(WINDOW_UPDATE, 0, 3, word(1))], Code.PROTOCOL_ERROR),
    ("too much window for the connection", [frame(WINDOW_UPDATE, 0, 0, word((1 << 31) - 1))], Code.FLOW_CONTROL_ERROR),
    ("CONTINUATION without HEADERS", [frame(CONTINUATION, END_HEADERS, 1)], Code.PROTOCOL_ERROR),
    ("PING within a header block", [headers(1, GET, flags=0), frame(PING, 0, 0, bytes(8))], Code.PROTOCOL_ERROR),
    ("an unknown frame within a header block", [headers(1, GET, flags=0), frame(77, 0, 1)], Code.PROTOCOL_ERROR),
    ("CONTINUATION of another stream", [headers(1, GET, flags=0), frame(CONTINUATION, 4, 3)], Code.PROTOCOL_ERROR),
    ("a frame over 16 KiB, seen by its header alone", [frame(DATA, 0, 1, size=16_385)], Code.FRAME_SIZE_ERROR),
    ("padding over the end of DATA", [OPEN, frame(DATA, PADDED, 1, b"\x05abcd")], Code.PROTOCOL_ERROR),
    ("padded DATA of no byte", [OPEN, frame(DATA, PADDED, 1)], Code.FRAME_SIZE_ERROR),
    ("padding over the end of HEADERS",
     [frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff" + literal(GET))], Code.PROTOCOL_ERROR),
    ("HEADERS too short for their priority",
     [frame(HEADERS, WITH_PRIORITY | END_HEADERS, 1, b"abc")], Code.FRAME_SIZE_ERROR),
    ("a header block that is no HPACK", [frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\x7f")],
     Code.COMPRESSION_ERROR),
    ("index 0 of HPACK", [frame(HEADERS, END_HEADERS, 1, b"\x80")], Code.COMPRESSION_ERROR),
    ("an HPACK table over its size", [frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f")], Code.COMPRESSION_ERROR),
    ("three updates of the HPACK table", [frame(HEADERS, END_HEADERS, 1, b"\x20\x20\x20\x82")], Code.COMPRESSION_ERROR),
    ("an update of the HPACK table after a field", [frame(HEADERS, END_HEADERS, 1, b"\x82\x20")],
     Code.COMPRESSION_ERROR),
    ("a broken Huffman string", [frame(HEADERS, END_HEADERS, 1, b"\x00\x81\xff\x00")], Code.COMPRESSION_ERROR),
    ("a header block that is too short", [frame(HEADERS, END_HEADERS, 1, b"\x00\x05ab")], Code.COMPRESSION_ERROR),
]  # fmt: skip
ONE_STREAM = [
    ("DATA after the end", [ENDED, data(1, b"x")], Code.STREAM_CLOSED),
    ("HEADERS after the end", [ENDED, headers(1, [(b"a", b"b")])], Code.STREAM_CLOSED),
    ("WINDOW_UPDATE of 0", [OPEN, frame(WINDOW_UPDATE, 0, 1, word(0))], Code.PROTOCOL_ERROR),
    ("too much window", [OPEN, frame(WINDOW_UPDATE, 0, 1, word((1 << 31) - 1))], Code.FLOW_CONTROL_ERROR),
    ("a short PRIORITY", [OPEN, frame(PRIORITY, 0, 1, bytes(4))], Code.FRAME_SIZE_ERROR),
    ("more than content-length", [headers(1, (*POST, (b"content-length", b"2")), end=False), data(1, b"abc")],
     Code.PROTOCOL_ERROR),
    ("less than content-length",
     [headers(1, (*POST, (b"content-length", b"4")), end=False), data(1, b"abc", end=True)], Code.PROTOCOL_ERROR),
    ("less than content-length, and trailers",
     [headers(1, (*POST, (b"content-length", b"4")), end=False), data(1, b"abc"), headers(1, [(b"a", b"b")])],
     Code.PROTOCOL_ERROR),
]  # fmt: skip
NO_ERROR = [
    ("an unknown frame", [frame(77, 0xFF, 0, b"anything")]),
    ("an unknown frame on an idle stream", [frame(77, 0, 99, b"")]),
    ("an unknown setting", [settings((0x1234, 5), (0xFFFF, 0))]),
    ("no RFC 7540 priorities (RFC 9218)", [settings((9, 1))]),
    ("PRIORITY", [frame(PRIORITY, 0, 3, struct.pack("!LB", 1, 15))]),
    ("PRIORITY of an idle stream, depending on itself", [frame(PRIORITY, 0, 99, struct.pack("!LB", 99, 15))]),
    ("PRIORITY_UPDATE (RFC 9218)", [frame(0x10, 0, 0, word(1) + b"u=7, i")]),
    ("PRIORITY_UPDATE of nonsense", [frame(0x10, 0, 5, b"\xff")]),
    ("ALTSVC and ORIGIN", [frame(0xA, 0, 0, b"\0\0x"), frame(0xC, 0, 0, b"x")]),
    ("flags that nobody defined", [frame(PING, 0xFE, 0, bytes(8))]),
    ("the reserved bit of a stream", [frame(PING, 0, 1 << 31, bytes(8))]),
    ("RST_STREAM on a stream that has ended", [ENDED, RESET, RESET]),
    ("WINDOW_UPDATE on a stream that has ended", [ENDED, RESET, frame(WINDOW_UPDATE, 0, 1, word(9))]),
    ("one ACK too many", [frame(SETTINGS, ACK, 0), frame(SETTINGS, ACK, 0)]),
    ("an empty piece of DATA", [OPEN, data(1, b"")]),
    ("nothing but padding", [OPEN, data(1, b"", padding=200)]),
]  # fmt: skip
NEXT = 101


@pytest.mark.parametrize(("what", "pieces", "code"), WHOLE_CONNECTION, ids=[row[0] for row in WHOLE_CONNECTION])
def test_what_ends_the_connection(what: str, pieces: list[bytes], code: Code) -> None:
    bench = a_server()
    seen = bench.say(*pieces)
    assert seen.code == code
    assert seen.goaway is not None
    assert seen.goaway.last_stream_id == bench.codec.highest
    assert isinstance(bench.codec.error, ProtocolViolation)
    assert str(bench.codec.error)
    for stream in seen.opened:
        if stream.error is None:
            assert stream.they_are_done, "a stream that hangs on for ever"
    assert bench.say(headers(NEXT, GET)).frames == []  # nothing more is read


@pytest.mark.parametrize(("what", "pieces", "code"), ONE_STREAM, ids=[row[0] for row in ONE_STREAM])
def test_what_ends_one_stream(what: str, pieces: list[bytes], code: Code) -> None:
    bench = a_server()
    seen = bench.say(*pieces, headers(NEXT, GET))
    assert seen.resets == {1: code}
    assert (seen.goaway, bench.codec.error) == (None, None)
    hit, served = seen.opened
    assert isinstance(hit.error, ProtocolViolation)
    assert isinstance(served.next_event(), RequestHead)
    late = bench.say(data(1, b"late"), frame(WINDOW_UPDATE, 0, 1, word(5)), frame(RST_STREAM, 0, 1, word(8)))
    assert late.frames == []  # it may have been on its way
    assert bench.say(headers(1, [(b"a", b"b")])).frames == []


@pytest.mark.parametrize(("what", "pieces"), NO_ERROR, ids=[row[0] for row in NO_ERROR])
def test_what_is_no_error(what: str, pieces: list[bytes]) -> None:
    bench = a_server()
    seen = bench.say(*pieces, headers(NEXT, GET))
    assert (seen.resets, seen.goaway, bench.codec.error) == ({}, None, None)
    assert isinstance(seen.opened[-1].next_event(), RequestHead)


def test_frames_on_a_stream_that_came_to_its_end() -> None:
    for piece in (data(1, b"x"), headers(1, [(b"a", b"b")])):
        bench = a_server()
        (stream,) = bench.say(ENDED).opened
        stream.send_head(ResponseHead(204, []), end=True)
        bench.look()
        assert bench.say(piece).code == Code.STREAM_CLOSED


def test_frames_on_a_stream_that_they_have_reset() -> None:
    bench = a_server()
    assert bench.say(OPEN, frame(RST_STREAM, 0, 1, word(8)), data(1, b"x")).code == Code.STREAM_CLOSED


@pytest.mark.parametrize("first", [frame(PING, 0, 0, bytes(8)), headers(1, GET), frame(SETTINGS, ACK, 0)])
def test_the_first_frame_must_be_settings(first: bytes) -> None:
    assert Bench(H2Server(), greet=False).say(PREFACE + first).code == Code.PROTOCOL_ERROR
    client = Bench(H2Client(), greet=False)
    assert client.say(first).code == Code.PROTOCOL_ERROR
    assert isinstance(client.codec.error, UpstreamProtocolViolation)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nXX", b"PRI * HTTP/1"]
)
def test_what_is_not_the_preface_is_refused_at_its_first_wrong_byte(nonsense: bytes) -> None:
    bench = Bench(H2Server(), greet=False)
    assert bench.say(*(nonsense[at : at + 1] for at in range(len(nonsense)))).code == Code.PROTOCOL_ERROR


def test_half_a_preface_is_given_its_time_and_no_more() -> None:
    bench = Bench(H2Server(), greet=False)
    assert bench.say(HELLO[:10]).code is None
    assert bench.codec.deadline() == 10.0
    bench.codec.check_time(9.9)
    assert bench.look().code is None
    bench.codec.check_time(10.0)
    assert bench.look().code == Code.ENHANCE_YOUR_CALM
    assert isinstance(bench.codec.error, AbusivePeer)
    assert bench.codec.error.reason == "slow_head"


def test_a_request_comes_the_same_however_it_is_cut() -> None:
    whole = HELLO + b"".join([
        headers(1, POST, end=False, flags=0), frame(CONTINUATION, 0, 1),
        frame(CONTINUATION, END_HEADERS, 1, literal([(b"a", b"b")])),
        data(1, b"hello", padding=7), data(1, b" world", padding=0), headers(1, [(b"c", b"d")]),
    ])  # fmt: skip
    for step in (1, 2, 7, 9, 10, len(whole)):
        bench = Bench(H2Server(), greet=False)
        seen = bench.say(*(whole[at : at + step] for at in range(0, len(whole), step)))
        head, *rest = events_of(seen.opened[0])
        assert isinstance(head, RequestHead)
        assert head.headers == [(b"host", b"orders"), (b"a", b"b")]
        assert rest == [Data(b"hello world"), End([(b"c", b"d")])]


def test_padding_and_priority_of_headers_are_taken_off() -> None:
    payload = b"\x03" + struct.pack("!LB", 1, 5) + literal(GET) + bytes(3)  # a stream that depends on itself
    bench = a_server()
    (stream,) = bench.say(frame(HEADERS, PADDED | WITH_PRIORITY | END_HEADERS | END_STREAM, 1, payload)).opened
    assert isinstance(stream.next_event(), RequestHead)


def test_what_came_before_a_fatal_frame_has_come() -> None:
    """One read, a good request and then nonsense: the request's hop knows why it failed."""
    bench = a_server()
    seen = bench.say(headers(1, GET) + frame(PING, 0, 0, bytes(3)))
    assert seen.code == Code.FRAME_SIZE_ERROR
    assert isinstance(seen.opened[0].error, ProtocolViolation)


CLIENT_SIDE = [
    ("HEADERS on an idle stream", [headers(3, OK)], Code.PROTOCOL_ERROR),
    ("HEADERS on a server's stream", [headers(2, OK)], Code.PROTOCOL_ERROR),
    ("a push, which we have forbidden", [frame(PUSH_PROMISE, END_HEADERS, 1, word(2))], Code.PROTOCOL_ERROR),
    ("ENABLE_PUSH of 1", [settings((2, 1))], Code.PROTOCOL_ERROR),
    ("DATA on an idle stream", [data(3, b"x")], Code.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("what", "pieces", "code"), CLIENT_SIDE, ids=[row[0] for row in CLIENT_SIDE])
def test_what_an_upstream_must_not_do(what: str, pieces: list[bytes], code: Code) -> None:
    bench = a_client()
    stream = bench.codec.open(RequestHead(b"GET", b"/", [(b"host", b"orders")]), scheme=b"https")
    bench.look()
    assert bench.say(*pieces).code == code
    with pytest.raises(UpstreamProtocolViolation):
        stream.next_event()


CLIENT_STREAM = [
    ("DATA before the head", [data(1, b"x")], Code.PROTOCOL_ERROR),
    ("DATA after the end", [headers(1, OK), data(1, b"x")], Code.STREAM_CLOSED),
    ("HEADERS after the end", [headers(1, OK), headers(1, OK)], Code.STREAM_CLOSED),
    ("trailers that end nothing", [headers(1, OK, end=False), headers(1, [(b"a", b"b")], end=False)],
     Code.PROTOCOL_ERROR),
    ("a 1xx that ends the stream", [headers(1, [(b":status", b"103")])], Code.PROTOCOL_ERROR),
    ("a body that is too long",
     [headers(1, (*OK, (b"content-length", b"1")), end=False), data(1, b"xy")], Code.PROTOCOL_ERROR),
    ("a body that is too short",
     [headers(1, (*OK, (b"content-length", b"3")), end=False), data(1, b"xy", end=True)], Code.PROTOCOL_ERROR),
    ("a body in a 204", [headers(1, ((b":status", b"204"),), end=False), data(1, b"x")], Code.PROTOCOL_ERROR),
    ("33 informational answers", [headers(1, [(b":status", b"103")], end=False)] * 33, Code.ENHANCE_YOUR_CALM),
]  # fmt: skip


@pytest.mark.parametrize(("what", "pieces", "code"), CLIENT_STREAM, ids=[row[0] for row in CLIENT_STREAM])
def test_what_ends_one_exchange_with_an_upstream(what: str, pieces: list[bytes], code: Code) -> None:
    bench = a_client()
    post = RequestHead(b"POST", b"/", [(b"host", b"orders")], body=True)
    stream, other = bench.codec.open(post, scheme=b"https"), bench.codec.open(post, scheme=b"https")
    bench.look()
    seen = bench.say(*pieces, headers(3, OK))
    assert (seen.resets, seen.goaway) == ({1: code}, None)
    with pytest.raises(UpstreamProtocolViolation):
        events_of(stream)
    assert isinstance(other.next_event(), ResponseHead)


def test_the_greeting_is_what_we_promise() -> None:
    first, window = h2_wire.frames_of(Bench(H2Server(), greet=False).greeting)
    assert first.settings == {3: 100, 4: 1 << 20, 5: 16_384, 6: 32 * 1024, 8: 1}
    assert (window.stream_id, window.window_increment) == (0, (4 << 20) - 65_535)
    greeting = Bench(H2Client(), greet=False).greeting
    assert greeting.startswith(PREFACE)
    assert h2_wire.frames_of(greeting)[0].settings == {2: 0, 4: 1 << 20, 5: 16_384, 6: 32 * 1024}


def test_settings_and_pings_are_acknowledged() -> None:
    bench = a_server()
    seen = bench.say(settings((4, 5)), frame(PING, 0, 0, b"12345678"))
    assert seen.acks == 1
    (pong,) = [found for found in seen.frames if type(found).__name__ == "PingFrame"]
    assert pong.opaque_data == b"12345678"
    assert "ACK" in pong.flags
    assert a_client().say(GREETING).acks == 1
