"""GOAWAY in both directions: no request is lost, and which ones were never begun is beyond doubt."""

from __future__ import annotations

import pytest

from sidecar.errors import DownstreamGone, Retry, UpstreamRefused
from sidecar.http.h2 import Code, H2Client, H2Server, Leaving, Pong
from sidecar.http.message import Data, End, RequestHead, ResponseHead
from tests.kit.h2_wire import (
    GET,
    GOAWAY,
    HELLO,
    OK,
    PING,
    POST,
    Bench,
    a_client,
    a_server,
    data,
    events_of,
    exchange,
    frame,
    headers,
    word,
)

GET_HEAD = RequestHead(b"GET", b"/", [(b"host", b"orders")])
LAST = 2**31 - 1


def goaways(bench: Bench) -> list[tuple[int, int]]:
    return [
        (found.last_stream_id, found.error_code)
        for found in bench.look().frames
        if type(found).__name__ == "GoAwayFrame"
    ]


def test_a_server_leaves_in_two_steps_and_serves_what_was_on_its_way() -> None:
    bench = a_server()
    (first,) = bench.say(headers(1, GET)).opened
    bench.codec.begin_shutdown()
    bench.codec.begin_shutdown()
    assert goaways(bench) == [(LAST, Code.NO_ERROR)]
    (second,) = bench.say(headers(3, GET)).opened  # sent before they heard of it
    assert not bench.codec.finished
    bench.codec.receive(frame(PING, 1, 0, b"farewell"), 0.0)
    assert goaways(bench) == [(3, Code.NO_ERROR)]
    seen = bench.say(headers(5, POST, end=False), data(5, b"x"))  # after our last word
    assert (seen.opened, seen.frames) == ([], [])
    for stream in (first, second):
        stream.send_head(ResponseHead(200, []), end=True)
    assert len(bench.answers(bench.look())) == 2
    assert bench.codec.finished


def test_a_server_that_gets_no_answer_leaves_all_the_same() -> None:
    bench = a_server()
    bench.codec.begin_shutdown()
    bench.codec.finish_shutdown()
    assert goaways(bench) == [(LAST, Code.NO_ERROR), (0, Code.NO_ERROR)]
    assert bench.codec.finished
    assert bench.codec.error is None


def test_nobody_loses_a_request_when_both_ends_are_ours() -> None:
    client, server = H2Client(), H2Server()
    exchange(client, server)
    mine = [client.open(GET_HEAD, scheme=b"https") for _ in range(3)]
    in_flight = client.to_send(0.0)
    server.begin_shutdown()
    client.receive(server.to_send(0.0), 0.0)
    assert client.going_away
    assert client.room == 0
    assert [stream.error for stream in mine] == [None] * 3
    server.receive(in_flight, 0.0)
    for stream in list(server.streams.values()):
        stream.send_head(ResponseHead(204, []), end=True)
    exchange(client, server)
    assert all(stream.clean for stream in mine)
    assert (client.finished, server.finished) == (True, True)


def test_streams_beyond_the_last_were_provably_not_begun() -> None:
    bench = a_client()
    streams = [bench.codec.open(GET_HEAD, scheme=b"https") for _ in range(3)]
    bench.look()
    bench.codec.receive(frame(GOAWAY, 0, 0, word(3) + word(Code.ENHANCE_YOUR_CALM) + b"too_many_pings"), 0.0)
    events = []
    while (event := bench.codec.next_event()) is not None:
        events.append(event)
    assert Leaving(3, Code.ENHANCE_YOUR_CALM) in events
    assert bench.look().frames == []
    with pytest.raises(UpstreamRefused) as found:
        streams[2].next_event()
    assert found.value.retry is Retry.YES
    bench.say(headers(1, OK, end=False), data(1, b"x", end=True), headers(3, OK))
    assert events_of(streams[0])[1:] == [Data(b"x"), End()]
    assert streams[1].clean
    assert bench.codec.finished
    assert bench.codec.room == 0


def test_two_goaways_as_a_graceful_server_says_them() -> None:
    bench = a_client()
    streams = [bench.codec.open(GET_HEAD, scheme=b"https") for _ in range(2)]
    bench.say(frame(GOAWAY, 0, 0, word(LAST) + word(0)))
    assert [stream.error for stream in streams] == [None, None]
    bench.say(frame(GOAWAY, 0, 0, word(1) + word(0)))
    assert streams[0].error is None
    assert isinstance(streams[1].error, UpstreamRefused)
    bench.say(headers(3, OK))  # it answers all the same: ignored
    assert bench.codec.error is None


def test_a_client_that_leaves_gets_its_answers() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, GET), frame(GOAWAY, 0, 0, word(0) + word(0))).opened
    stream.send_head(ResponseHead(200, []), end=True)
    assert len(bench.answers(bench.look())) == 1
    assert bench.codec.error is None


def test_our_client_says_that_it_leaves() -> None:
    bench = a_client()
    stream = bench.codec.open(GET_HEAD, scheme=b"https")
    bench.codec.leave()
    assert goaways(bench) == [(0, Code.NO_ERROR)]
    assert not bench.codec.finished
    bench.say(headers(1, OK))
    assert stream.clean
    assert bench.codec.finished


def test_a_ping_of_ours_comes_back() -> None:
    bench = a_client()
    bench.codec.ping(b"are you?")
    (ping,) = bench.look().frames
    assert ping.opaque_data == b"are you?"
    bench.codec.receive(frame(PING, 1, 0, b"are you?"), 0.0)
    assert bench.codec.next_event() == Pong(b"are you?")


def test_a_failed_connection_says_which_requests_it_had_begun() -> None:
    bench = a_server()
    bench.say(headers(1, GET), headers(7, GET))
    seen = bench.say(frame(PING, 0, 0, b"short"))
    assert seen.goaway is not None
    assert seen.goaway.last_stream_id == 7
    assert seen.goaway.additional_data == b""  # reasons never leave


def test_what_we_have_said_we_do_not_serve_stays_unserved_when_the_connection_fails() -> None:
    """RFC 9113 section 6.8: it may have been asked elsewhere since."""
    bench = a_server()
    bench.say(headers(1, GET))
    bench.codec.finish_shutdown()
    bench.say(headers(3, GET), headers(5, GET))
    seen = bench.say(frame(PING, 0, 0, b"short"))
    assert seen.goaway is not None
    assert (seen.goaway.error_code, seen.goaway.last_stream_id) == (Code.FRAME_SIZE_ERROR, 1)


def test_nothing_is_sent_on_a_connection_that_has_failed() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, GET)).opened
    bench.say(frame(PING, 0, 0, b"short"))
    stream.send_head(ResponseHead(200, []), end=True)
    stream.reset(Code.CANCEL)
    stream.finish()
    bench.codec.begin_shutdown()
    bench.codec.finish_shutdown()
    bench.codec.check_time(1e9)
    assert bench.say(HELLO).frames == []


def test_a_client_that_goes_without_a_word() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, GET)).opened
    bench.say(b"")
    assert isinstance(stream.error, DownstreamGone)
    assert bench.say(headers(3, GET)).opened == []
