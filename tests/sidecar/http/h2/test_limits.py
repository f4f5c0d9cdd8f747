"""Floods, bombs and stalls: each has a name and an end, and honest use in any amount meets none of them."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hyperframe.frame import GoAwayFrame

from sidecar.errors import AbusivePeer, DownstreamGone
from sidecar.http.h2 import Abuse, Code, Dismissed, H2Limits, H2Server
from sidecar.http.h2.limits import RATES, Budgets, Rate
from sidecar.http.message import Data, ResponseHead
from tests.kit.h2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GET,
    HEADERS,
    OK,
    PING,
    POST,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Bench,
    a_client,
    a_server,
    data,
    events_of,
    frame,
    headers,
    integer,
    literal,
    settings,
    word,
)


def resets() -> Iterator[bytes]:
    for stream in count(1, 2):
        yield headers(stream, GET) + frame(RST_STREAM, 0, stream, word(8))


def made_resets() -> Iterator[bytes]:
    """CVE-2025-8671: requests that we must reset ourselves."""
    for stream in count(1, 2):
        yield headers(stream, POST, end=False) + frame(WINDOW_UPDATE, 0, stream, word(0))


def malformed() -> Iterator[bytes]:
    for stream in count(1, 2):
        yield headers(stream, (*GET, (b"connection", b"close")))


def late_resets() -> Iterator[bytes]:
    yield headers(1, GET) + frame(RST_STREAM, 0, 1, word(8))
    while True:
        yield frame(RST_STREAM, 0, 1, word(8))


def excess() -> Iterator[bytes]:
    for stream in count(1, 2):
        yield headers(stream, POST, end=False)


def again(piece: bytes) -> Callable[[], Iterator[bytes]]:
    def made() -> Iterator[bytes]:
        while True:
            yield piece

    return made


def after(first: bytes, piece: bytes) -> Callable[[], Iterator[bytes]]:
    def made() -> Iterator[bytes]:
        yield first
        while True:
            yield piece

    return made


OPEN = headers(1, POST, end=False)
FLOODS = [
    ("rapid reset", Abuse.RAPID_RESET, resets),
    ("made to reset", Abuse.RAPID_RESET, made_resets),
    ("malformed heads", Abuse.RAPID_RESET, malformed),
    ("resets of nothing", Abuse.RAPID_RESET, late_resets),
    ("streams over the limit", Abuse.EXCESS_STREAMS, excess),
    ("PING", Abuse.PING_FLOOD, again(frame(PING, 0, 0, bytes(8)))),
    ("SETTINGS", Abuse.SETTINGS_FLOOD, again(settings())),
    ("SETTINGS of many", Abuse.SETTINGS_FLOOD, again(settings(*((4, n) for n in range(2000))))),
    ("ACKs of nothing", Abuse.SETTINGS_FLOOD, again(frame(SETTINGS, ACK, 0))),
    ("PRIORITY", Abuse.PRIORITY_FLOOD, again(frame(PRIORITY, 0, 3, struct.pack("!LB", 1, 15)))),
    ("WINDOW_UPDATE of the connection", Abuse.WINDOW_UPDATE_FLOOD, again(frame(WINDOW_UPDATE, 0, 0, word(1)))),
    ("WINDOW_UPDATE of a stream", Abuse.WINDOW_UPDATE_FLOOD, after(OPEN, frame(WINDOW_UPDATE, 0, 1, word(1)))),
    ("empty DATA", Abuse.EMPTY_FRAME_FLOOD, after(OPEN, data(1, b""))),
    ("padding only", Abuse.EMPTY_FRAME_FLOOD, after(OPEN, data(1, b"", padding=255))),
    ("empty CONTINUATION", Abuse.CONTINUATION_FLOOD, after(headers(1, GET, flags=0), frame(CONTINUATION, 0, 1))),
    ("unknown frames", Abuse.UNKNOWN_FRAME_FLOOD, again(frame(77, 0, 0, b"x"))),
]  # fmt: skip


@pytest.mark.parametrize(("what", "abuse", "flood"), FLOODS, ids=[row[0] for row in FLOODS])
def test_a_flood_ends_its_connection_by_name(what: str, abuse: Abuse, flood: Callable[[], Iterator[bytes]]) -> None:
    bench = a_server()
    for sent, piece in enumerate(flood()):
        seen = bench.say(piece)
        for stream in seen.opened:
            stream.head = None
        if seen.goaway is not None:
            break
        assert sent < 1300, "no end of it"
    assert seen.code == Code.ENHANCE_YOUR_CALM
    assert bench.codec.abuse is abuse
    assert isinstance(bench.codec.error, AbusivePeer)
    assert bench.codec.error.reason == abuse.value
    assert not bench.codec.streams


@pytest.mark.parametrize("abuse", RATES)
def test_a_budget_fills_with_time(abuse: Abuse) -> None:
    rate = RATES[abuse]
    budgets = Budgets(RATES, 0.0)
    assert all(budgets.take(abuse, 0.0) for _ in range(int(rate.burst)))
    assert not budgets.take(abuse, 0.0)
    assert not budgets.take(abuse, 0.5 / rate.per_second)
    assert budgets.take(abuse, 3.0 / rate.per_second)
    assert sum(budgets.take(abuse, 1e6) for _ in range(10_000)) == rate.burst  # and never over its burst


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budgets = Budgets({Abuse.PING_FLOOD: Rate(1, 1)}, 10.0)
    assert budgets.take(Abuse.PING_FLOOD, 10.0)
    assert not budgets.take(Abuse.PING_FLOOD, 5.0)


def test_half_of_all_requests_may_be_cancelled_for_ever() -> None:
    bench = a_server(streams_per_connection=1 << 30)
    for stream in range(1, 3201, 4):
        (served,) = bench.say(headers(stream, GET)).opened
        served.send_head(ResponseHead(204, []), end=True)
        seen = bench.say(headers(stream + 2, GET), frame(RST_STREAM, 0, stream + 2, word(8)))
        assert seen.goaway is None
        assert isinstance(seen.opened[0].error, DownstreamGone)


def cancel_all(bench: Bench, *, calls: int, age: float, seconds: float) -> float:
    """So many calls at a time, all of which are cancelled at that age, again and again; when we had enough of it."""
    first = bench.codec.highest + 2 if bench.codec.highest else 1
    began = bench.now
    while bench.now - began < seconds:
        streams = range(first, first + 2 * calls, 2)
        bench.say(b"".join(headers(stream, GET) for stream in streams))
        bench.now += age
        seen = bench.say(b"".join(frame(RST_STREAM, 0, stream, word(8)) for stream in streams))
        if seen.goaway is not None:
            break
        first += 2 * calls
    return bench.now - began


@pytest.mark.parametrize(
    ("calls", "age", "seconds"),
    [(100, 1.0, 60), (80, 5.0, 300), (100, 0.3, 1.8), (16, 0.25, 60)],
    ids=["a second, for ever", "five seconds, for ever", "300 ms, a while", "narrow, for ever"],
)
def test_deadlines_that_pass_while_an_application_has_stopped_are_no_flood(
    calls: int, age: float, seconds: float
) -> None:
    bench = a_server(streams_per_connection=1 << 30)
    assert cancel_all(bench, calls=calls, age=age, seconds=seconds) >= seconds
    assert bench.codec.error is None


def test_four_hundred_calls_with_one_deadline_may_be_cancelled_at_once() -> None:
    bench = a_server(streams=400, streams_per_connection=1 << 30)
    assert cancel_all(bench, calls=400, age=0.25, seconds=0.5) >= 0.5
    assert bench.codec.error is None


@pytest.mark.parametrize("age", [0.25, 0.26, 0.5])
def test_who_cancels_a_little_later_is_sent_away_and_what_is_under_way_goes_on(age: float) -> None:
    bench = a_server(streams_per_connection=1 << 30)
    (served,) = bench.say(headers(1, GET)).opened
    took = cancel_all(bench, calls=99, age=age, seconds=60)
    assert 1.5 <= took < 8
    assert (bench.codec.error, bench.codec.finished) == (None, False)
    (told,) = [event for event in bench.events if isinstance(event, Dismissed)]
    assert isinstance(told.error, AbusivePeer)
    assert told.error.reason == "reset_flood"
    late = bench.codec.highest + 2
    assert bench.say(headers(late, GET)).opened == []  # they know that it is not served
    served.send_head(ResponseHead(204, []), end=True)
    assert [stream for stream, _ in bench.answers(bench.look())] == [1]
    assert bench.codec.finished


def test_who_is_sent_away_for_it_is_told_so_once_and_by_its_code() -> None:
    bench = a_server(streams_per_connection=1 << 30)
    goaways = []
    for first in range(1, 3000, 200):
        streams = range(first, first + 200, 2)
        bench.say(b"".join(headers(stream, GET) for stream in streams))
        bench.now += 0.26
        seen = bench.say(b"".join(frame(RST_STREAM, 0, stream, word(8)) for stream in streams))
        goaways += [(found.error_code, found.last_stream_id) for found in seen.frames if type(found) is GoAwayFrame]
    assert goaways[0][0] == Code.ENHANCE_YOUR_CALM
    assert goaways[0][1] < 3000
    assert [code for code, _ in goaways] in ([Code.ENHANCE_YOUR_CALM], [Code.ENHANCE_YOUR_CALM] * 2)  # going on: excess


def test_a_long_answer_read_in_small_bites_is_no_flood() -> None:
    """2 MiB, of which each 4 KiB is confirmed for stream and connection, with a PING each, as gRPC does."""
    bench = a_server()
    (stream,) = bench.say(headers(1, GET)).opened
    stream.send_head(ResponseHead(200, []))
    taken = 0
    while taken < 2 << 20:
        if not stream.unsent:
            stream.send_data(bytes(65_536))
        seen = bench.look()
        for found in seen.frames:
            body = getattr(found, "data", b"") if type(found).__name__ == "DataFrame" else b""
            for _ in range(0, len(body), 4096):
                bench.say(frame(WINDOW_UPDATE, 0, 1, word(4096)), frame(WINDOW_UPDATE, 0, 0, word(4096)))
            if body:
                bench.say(frame(PING, 0, 0, bytes(8)))
            taken += len(body)
        assert bench.codec.error is None


def test_a_conversation_of_small_messages_is_no_flood() -> None:
    """grpcio gives back the room of each message, on stream and connection, as soon as it has read it."""
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False)).opened
    stream.send_head(ResponseHead(200, []))
    for _ in range(5000):
        stream.send_data(b"\0\0\0\0\2hi")
        bench.look()
        bench.say(frame(WINDOW_UPDATE, 0, 1, word(7)), frame(WINDOW_UPDATE, 0, 0, word(7)))
        assert bench.codec.error is None


def test_a_header_block_may_take_seventeen_frames_and_no_more() -> None:
    pieces = [frame(CONTINUATION, 0, 1, literal([(b"a", b"b")]))] * 15
    seen = a_server().say(headers(1, GET, flags=0), *pieces, frame(CONTINUATION, END_HEADERS, 1))
    assert len(seen.opened) == 1
    seen = a_server().say(headers(1, GET, flags=0), *pieces, *pieces[:2])
    assert seen.code == Code.ENHANCE_YOUR_CALM


def test_a_header_block_is_never_collected_beyond_twice_the_limit() -> None:
    bench = a_server()
    piece = bytes(16_384)
    seen = bench.say(headers(1, GET, flags=0), *[frame(CONTINUATION, 0, 1, piece)] * 4)
    assert (seen.code, bench.codec.abuse) == (Code.ENHANCE_YOUR_CALM, Abuse.CONTINUATION_FLOOD)


def bomb() -> bytes:
    """One entry of 4 KB in the table, then named a thousand times: 1 KB that means 4 MB."""
    return b"\x40" + integer(1) + b"a" + integer(4000) + b"b" * 4000 + b"\xbe" * 1000


def test_a_small_block_that_means_a_huge_list_is_a_bomb() -> None:
    bench = a_server()
    tracemalloc.start()
    seen = bench.say(frame(HEADERS, END_HEADERS, 1, bomb()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (seen.code, bench.codec.abuse) == (Code.ENHANCE_YOUR_CALM, Abuse.HPACK_BOMB)
    assert peak < 1 << 20


def test_a_bomb_of_empty_fields_is_one_too() -> None:
    """Nothing but `:` with nothing in it, 32 bytes each in the accounts of HPACK."""
    bench = a_server()
    assert bench.say(frame(HEADERS, END_HEADERS, 1, b"\x84" * 3000)).code == Code.ENHANCE_YOUR_CALM


def test_an_endless_number_in_hpack_costs_nothing() -> None:
    seen = a_server().say(frame(HEADERS, END_HEADERS, 1, b"\xff" + b"\x80" * 16_000))
    assert seen.code == Code.COMPRESSION_ERROR


def test_our_table_does_not_grow_at_the_peers_wish() -> None:
    bench = a_server()
    bench.say(settings((1, 0xFFFFFFFF)))
    for stream in range(1, 801, 2):
        (served,) = bench.say(headers(stream, GET)).opened
        served.send_head(ResponseHead(200, [(b"x-%d" % stream, b"y" * 200)]), end=True)
        bench.answers(bench.look())  # its decoder has 4 KiB
    assert bench.codec._engine.fields._size <= 4096


def test_a_smaller_table_is_kept_to() -> None:
    bench = a_server()
    bench.decoder.max_allowed_table_size = 0
    bench.decoder.header_table_size = 4096
    bench.say(settings((1, 0)))
    for stream in (1, 3, 5):
        (served,) = bench.say(headers(stream, GET)).opened
        served.send_head(ResponseHead(200, [(b"x-a", b"b")]), end=True)
        assert bench.answers(bench.look()) == [(stream, {b":status": b"200", b"x-a": b"b"})]


def test_unknown_settings_are_not_collected() -> None:
    bench = a_server(rates={})

    def say_all() -> None:
        for base in range(0x100, 0xFFFF, 2000):
            bench.say(settings(*((key, 1) for key in range(base, min(base + 2000, 0xFFFF)))))

    say_all()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        say_all()
        assert tracemalloc.get_traced_memory()[0] - before < 65_000  # one byte for each would be as much
    finally:
        tracemalloc.stop()


def test_streams_over_the_limit_are_refused_and_the_others_go_on() -> None:
    bench = a_server(streams=2)
    seen = bench.say(*(headers(stream, POST, end=False) for stream in (1, 3, 5, 7)))
    assert seen.resets == {5: Code.REFUSED_STREAM, 7: Code.REFUSED_STREAM}
    assert [stream.id for stream in seen.opened] == [1, 3]
    assert bench.codec.refused == 2
    assert bench.say(data(5, b"on its way", end=True)).frames == []
    seen.opened[0].send_head(ResponseHead(200, []), end=True)
    seen.opened[0].finish()
    assert [stream.id for stream in bench.say(headers(9, GET)).opened] == [9]


def test_the_table_of_hpack_survives_a_refused_stream() -> None:
    """What a refused stream, a late one and a malformed one put into the table is there for the next."""
    bench = a_server(streams=1)
    add = b"\x40" + integer(1) + b"k" + integer(1) + b"v"
    bench.say(headers(1, POST, end=False), frame(HEADERS, END_HEADERS, 3, add))
    bench.codec.streams[1].reset(Code.CANCEL)
    bench.say(frame(HEADERS, END_HEADERS | 1, 1, b"\x40" + integer(1) + b"l" + integer(1) + b"w"))  # late trailers
    (stream,) = bench.say(frame(HEADERS, END_HEADERS | 1, 5, literal(GET) + b"\xbe\xbf")).opened
    assert stream.next_event().headers[1:] == [(b"l", b"w"), (b"k", b"v")]


def test_a_connection_ends_politely_after_its_last_stream() -> None:
    bench = a_server(streams_per_connection=3)
    seen = bench.say(headers(1, GET), headers(3, GET))
    assert seen.goaway is None
    seen = bench.say(headers(5, GET))
    assert seen.goaway is not None
    assert (seen.goaway.error_code, seen.goaway.last_stream_id) == (Code.NO_ERROR, 2**31 - 1)
    assert len(bench.say(headers(7, GET)).opened) == 1  # it was on its way


def test_an_answer_that_nobody_takes_ends_its_stream_only() -> None:
    bench = a_server(stall_seconds=30)
    bench.say(settings((4, 10)))
    stalled, other = bench.say(headers(1, GET), headers(3, GET)).opened
    for stream in (stalled, other):
        stream.send_head(ResponseHead(200, []))
    stalled.send_data(bytes(100))
    bench.look()
    assert bench.codec.deadline() == 30
    bench.now = 20.0
    bench.say(frame(WINDOW_UPDATE, 0, 1, word(1)))  # a drip does not count
    bench.codec.check_time(29.9)
    assert stalled.error is None
    bench.codec.check_time(30.0)
    assert isinstance(stalled.error, AbusivePeer)
    assert stalled.error.reason == "zero_window"
    assert bench.look().resets == {1: Code.CANCEL}
    other.send_data(b"x")
    other.send_end()
    assert bench.look().resets == {}
    assert other.clean


def test_a_head_must_come_whole_within_its_time() -> None:
    bench = a_server()
    bench.now = 5.0
    bench.say(headers(1, GET, flags=0))
    assert bench.codec.deadline() == 15.0
    bench.say(frame(CONTINUATION, END_HEADERS, 1))
    assert bench.codec.deadline() is None
    bench.say(headers(3, GET, flags=0))
    bench.codec.check_time(15.0)
    assert bench.look().code == Code.ENHANCE_YOUR_CALM
    assert bench.codec.abuse is Abuse.SLOW_HEAD


def test_a_body_of_tiny_frames_is_no_heap_of_tiny_objects() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False)).opened
    tracemalloc.start()
    piece = frame(DATA, 0, 1, b"x") * 1000
    for _ in range(5):
        bench.codec.receive(piece, 0.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stream.buffered == 5_000
    assert held < 10 * 5_000
    assert events_of(stream)[1:] == [Data(b"x" * 5_000)]


def test_what_a_connection_remembers_is_bounded() -> None:
    """Thousands of streams, each ended in one of the ways there are, leave nothing behind."""
    bench = a_server(streams_per_connection=1 << 30, rates={})

    def run(first: int, last: int) -> None:
        for stream in range(first, last, 6):
            served, _ = bench.say(headers(stream, GET), headers(stream + 2, GET)).opened
            served.send_head(ResponseHead(204, []), end=True)
            bench.say(frame(RST_STREAM, 0, stream + 2, word(8)), headers(stream + 4, ()))

    run(1, 601)
    tracemalloc.start()
    run(607, 3007)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 150_000
    assert not bench.codec.streams


def test_an_upstream_that_floods_is_ended_too() -> None:
    bench = a_client()
    for _ in range(200):
        if bench.say(frame(PING, 0, 0, bytes(8))).goaway is not None:
            break
    assert bench.codec.abuse is Abuse.PING_FLOOD
    assert bench.codec.room == 0


def test_limits_are_what_the_decisions_say() -> None:
    limits = H2Limits()
    assert (limits.head_bytes, limits.head_lines) == (32 * 1024, 100)
    assert (limits.stream_window, limits.connection_window, limits.streams) == (1 << 20, 4 << 20, 100)
    assert Bench(H2Server(H2Limits(streams=7)), greet=False).codec.limits.streams == 7
    assert a_client().say(headers(1, OK)).code == Code.PROTOCOL_ERROR  # nothing was asked
