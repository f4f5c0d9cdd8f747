"""Bodies and windows: nothing is lost, nothing piles up, and a slow reader slows its own stream only."""

from __future__ import annotations

import pytest

from sidecar.errors import DownstreamGone, UpstreamClosed, UpstreamRefused, UpstreamReset
from sidecar.http.h2 import Code, H2Client, H2Limits, H2Server, H2Stream
from sidecar.http.message import CLOSED, NEED_DATA, Data, End, RequestHead, ResponseHead
from tests.kit.h2_wire import (
    CONTINUATION,
    GET,
    HEADERS,
    OK,
    POST,
    RST_STREAM,
    WINDOW_UPDATE,
    Bench,
    a_client,
    a_server,
    data,
    events_of,
    exchange,
    frame,
    headers,
    settings,
    word,
)

WINDOW = 1 << 20
GET_HEAD = RequestHead(b"GET", b"/", [(b"host", b"orders")])
POST_HEAD = RequestHead(b"POST", b"/", [(b"host", b"orders")], body=True)


def a_pair(**limits: int) -> tuple[H2Client, H2Server]:
    client, server = H2Client(), H2Server(H2Limits(**limits))
    exchange(client, server)
    return client, server


def asked(client: H2Client, server: H2Server, head: RequestHead = GET_HEAD) -> tuple[H2Stream, H2Stream]:
    """A request on its way: our end of it, and its other one."""
    mine = client.open(head, scheme=b"https")
    (theirs,) = [stream for stream in exchange(client, server) if stream is not mine]
    assert isinstance(theirs.next_event(), RequestHead)
    return mine, theirs


def test_a_whole_exchange() -> None:
    client, server = a_pair()
    head = RequestHead(b"POST", b"/a?b", [(b"host", b"orders"), (b"content-length", b"5")], body=True, length=5)
    mine, theirs = asked(client, server, head)
    mine.send_data(b"hello")
    mine.send_end()
    exchange(client, server)
    assert events_of(theirs) == [Data(b"hello"), End()]
    theirs.send_head(ResponseHead(103, [(b"link", b"x")]))
    theirs.send_head(ResponseHead(200, [(b"content-type", b"text/plain")]))
    theirs.send_data(b"answer")
    theirs.send_end([(b"grpc-status", b"0")])
    exchange(client, server)
    assert events_of(mine) == [
        ResponseHead(103, [(b"link", b"x")], b"", b"2"),
        ResponseHead(200, [(b"content-type", b"text/plain")], b"", b"2"),
        Data(b"answer"),
        End([(b"grpc-status", b"0")]),
    ]
    assert mine.next_event() is CLOSED
    assert mine.clean
    assert theirs.clean
    assert (client.streams, server.streams) == ({}, {})


def sent_data(bench: Bench) -> int:
    return sum(len(found.data) for found in bench.look().frames if type(found).__name__ == "DataFrame")


def test_the_window_comes_back_only_as_the_far_side_drains() -> None:
    client, server = a_pair()
    mine, theirs = asked(client, server, POST_HEAD)
    mine.send_data(bytes(3 * WINDOW))
    exchange(client, server)
    assert theirs.buffered == WINDOW
    assert mine.unsent == 2 * WINDOW
    exchange(client, server)
    assert theirs.buffered == WINDOW
    taken = 0
    while taken < 3 * WINDOW:
        event = theirs.next_event()
        if event is NEED_DATA:
            exchange(client, server)
            continue
        assert isinstance(event, Data)
        assert len(event.data) <= 65_536
        taken += len(event.data)
        assert theirs.buffered <= WINDOW
    assert (taken, mine.unsent) == (3 * WINDOW, 0)


def test_a_slow_reader_slows_its_own_stream_only() -> None:
    client, server = a_pair()
    slow, _ = asked(client, server, POST_HEAD)
    slow.send_data(bytes(2 * WINDOW))
    exchange(client, server)
    for _ in range(20):
        mine, theirs = asked(client, server, POST_HEAD)
        mine.send_data(bytes(WINDOW // 2))
        mine.send_end()
        exchange(client, server)
        assert sum(len(event.data) for event in events_of(theirs) if isinstance(event, Data)) == WINDOW // 2
        theirs.send_head(ResponseHead(204, []), end=True)
        exchange(client, server)
        assert mine.clean


def test_streams_together_are_bounded_by_the_connection() -> None:
    client, server = a_pair()
    pairs = [asked(client, server, POST_HEAD) for _ in range(10)]
    for mine, _ in pairs:
        mine.send_data(bytes(WINDOW))
    exchange(client, server)
    assert sum(theirs.buffered for _, theirs in pairs) == 4 * WINDOW
    assert server.error is None
    done = 0
    while done < 10 * WINDOW:
        for _, theirs in pairs:
            done += sum(len(event.data) for event in events_of(theirs) if isinstance(event, Data))
        exchange(client, server)
    assert all(not mine.unsent for mine, _ in pairs)


@pytest.mark.parametrize("how", ["reset by them", "reset by us", "finished"])
def test_what_nobody_reads_any_more_gives_its_room_back(how: str) -> None:
    """Ten times a full window on a stream that ends unread: the connection's own window has only four of them."""
    client, server = a_pair()
    for _ in range(10):
        mine, theirs = asked(client, server, POST_HEAD)
        mine.send_data(bytes(WINDOW))
        exchange(client, server)
        assert theirs.buffered == WINDOW
        if how == "reset by them":
            mine.reset(Code.CANCEL)
        elif how == "reset by us":
            theirs.reset(Code.CANCEL)
        else:
            theirs.send_head(ResponseHead(200, []), end=True)
            theirs.finish()
        exchange(client, server)
    assert (client.error, server.error) == (None, None)


@pytest.mark.parametrize("slow", [False, True], ids=["answered at once", "answer held up"])
def test_a_whole_request_that_nobody_has_read_gives_its_room_back(slow: bool) -> None:
    """As one that is refused by its head; its answer may have to wait for room."""
    client, server = a_pair()
    for _ in range(10):
        mine, theirs = asked(client, server, POST_HEAD)
        mine.send_data(bytes(WINDOW))
        mine.send_end()
        if not slow:
            exchange(client, server)
        theirs.send_head(ResponseHead(403, []))
        theirs.send_data(bytes(WINDOW if slow else 3))
        theirs.send_end()
        theirs.finish()
        exchange(client, server)
        assert not theirs.buffered
        while not mine.clean:
            mine.next_event()
            exchange(client, server)
        mine.finish()
        exchange(client, server)
    assert (client.streams, server.streams) == ({}, {})
    assert server._windows.room > 3 * WINDOW
    assert client._windows.room > 3 * WINDOW


def test_a_whole_answer_that_nobody_has_read_gives_its_room_back() -> None:
    """Its caller has left meanwhile; others share the connection."""
    client, server = a_pair()
    for _ in range(10):
        mine, theirs = asked(client, server)
        theirs.send_head(ResponseHead(200, []))
        theirs.send_data(bytes(WINDOW))
        theirs.send_end()
        exchange(client, server)
        assert mine.clean
        assert mine.buffered == WINDOW
        mine.finish()
        exchange(client, server)
    assert (client.streams, server.streams) == ({}, {})
    assert client._windows.room > 3 * WINDOW


def test_data_on_its_way_to_a_stream_that_we_have_reset_gives_its_room_back() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False)).opened
    stream.reset(Code.CANCEL)
    bench.look()
    given = 0
    for _ in range(400):
        seen = bench.say(data(1, bytes(16_384)))
        given += sum(found.window_increment for found in seen.frames if type(found).__name__ == "WindowUpdateFrame")
        assert seen.goaway is None
    assert 0 <= 400 * 16_384 - given < WINDOW


def test_padding_counts_and_its_room_comes_back_at_once() -> None:
    """A padded byte takes 257 bytes of window, of which 256 are nobody's to drain."""
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False)).opened
    given = {0: 0, 1: 0}
    for _ in range(6000):
        for found in bench.say(data(1, b"x", padding=255)).frames:
            given[found.stream_id] += found.window_increment
    assert stream.buffered == 6000
    assert given[1] >= 6000 * 256 - WINDOW // 2
    assert bench.codec.error is None


def test_more_data_than_the_window_is_refused_on_its_stream() -> None:
    bench = a_server(stream_window=100_000)
    bench.say(headers(1, POST, end=False), headers(3, POST, end=False))
    for _ in range(6):
        assert bench.say(data(1, bytes(16_384))).frames == []
    seen = bench.say(data(1, bytes(16_384)), data(3, b"x"))
    assert (seen.resets, seen.goaway) == ({1: Code.FLOW_CONTROL_ERROR}, None)


def test_more_data_than_the_connections_window_ends_the_connection() -> None:
    bench = a_server(stream_window=1 << 20, connection_window=100_000)
    bench.say(headers(1, POST, end=False), headers(3, POST, end=False))
    pieces = [data(1, bytes(16_384)), data(3, bytes(16_384))] * 4
    assert bench.say(*pieces).code == Code.FLOW_CONTROL_ERROR


def test_streams_take_turns() -> None:
    client, server = a_pair()
    pairs = [asked(client, server) for _ in range(3)]
    for _, theirs in pairs:
        theirs.send_head(ResponseHead(200, []))
        theirs.send_data(bytes(65_536))
        theirs.send_end()
    client.receive(server.to_send(0.0, 1), 0.0)  # heads first, then a frame each
    received = []
    while sent := server.to_send(0.0, 1):
        received.append(len(sent))
        client.receive(sent, 0.0)
        buffered = [mine.buffered for mine, _ in pairs]
        assert max(buffered) - min(buffered) <= 16_384
    assert len(received) >= 12
    assert [len(events_of(mine)) for mine, _ in pairs] == [3, 3, 3]


def test_no_more_than_asked_for_is_framed() -> None:
    client, server = a_pair()
    _, theirs = asked(client, server)
    theirs.send_head(ResponseHead(200, []))
    theirs.send_data(bytes(65_535))
    assert len(server.to_send(0.0, 20_000)) < 20_000 + 16_384 + 200
    assert server.wants_write
    assert theirs.unsent > 20_000


def test_small_and_negative_windows() -> None:
    bench = a_server()
    bench.say(settings((4, 10)))
    (stream,) = bench.say(headers(1, GET)).opened
    stream.send_head(ResponseHead(200, []))
    stream.send_data(b"x" * 30)
    stream.send_end()
    assert sent_data(bench) == 10
    bench.say(settings((4, 0)))  # the window is -10 now
    bench.codec.receive(frame(WINDOW_UPDATE, 0, 1, word(12)), 0.0)
    assert sent_data(bench) == 2
    bench.codec.receive(frame(WINDOW_UPDATE, 0, 1, word(100)), 0.0)
    assert sent_data(bench) == 18
    assert stream.clean


def test_an_end_needs_no_window() -> None:
    bench = a_server()
    bench.say(settings((4, 0)))
    for stream_id, trailers in ((1, []), (3, [(b"a", b"b")])):
        (stream,) = bench.say(headers(stream_id, GET)).opened
        stream.send_head(ResponseHead(200, []))
        stream.send_end(trailers)
        bench.look()
        assert stream.clean


def test_whoever_sends_learns_when_all_is_on_its_way() -> None:
    client, server = a_pair()
    _, theirs = asked(client, server)
    theirs.send_head(ResponseHead(200, []))
    theirs.send_data(bytes(100_000))
    assert theirs.unsent == 100_000
    assert theirs in exchange(client, server)
    assert theirs.unsent == 0
    theirs.send_data(bytes(2 * WINDOW))
    assert theirs not in exchange(client, server)
    assert theirs.unsent == WINDOW + 100_000


def test_the_caller_leaves() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False), data(1, b"x")).opened
    stream.send_head(ResponseHead(200, []))
    stream.send_data(bytes(100_000))
    bench.look()
    bench.say(frame(RST_STREAM, 0, 1, word(Code.CANCEL)))
    with pytest.raises(DownstreamGone, match="CANCEL"):
        stream.next_event()
    assert stream.unsent == 0
    stream.send_data(b"more")  # nobody is there, and no harm
    stream.send_end()
    stream.finish()
    assert bench.look().frames == []


def test_an_answer_before_the_end_of_its_request() -> None:
    """RFC 9113 section 8.1: a whole answer, then a reset with NO_ERROR; the answer must not be lost for it."""
    client, server = a_pair()
    mine, theirs = asked(client, server, POST_HEAD)
    mine.send_data(bytes(2 * WINDOW))
    exchange(client, server)
    theirs.send_head(ResponseHead(413, [(b"content-length", b"5")]))
    theirs.send_data(b"large")
    theirs.send_end()
    while server.wants_write:
        client.receive(server.to_send(0.0), 0.0)
    theirs.finish()
    exchange(client, server)
    assert events_of(mine)[1:] == [Data(b"large"), End()]
    assert mine.error is None
    assert (mine.unsent, client.streams, server.streams) == (0, {}, {})
    mine.send_data(b"more")
    assert not client.wants_write
    assert (client.error, server.error) == (None, None)


@pytest.mark.parametrize("how", ["reset", "goaway", "failure", "end"])
def test_a_whole_answer_is_not_lost_by_what_comes_behind_it(how: str) -> None:
    bench = a_client()
    stream = bench.codec.open(POST_HEAD, scheme=b"https")  # whose request still goes on
    bench.look()
    behind = {
        "reset": frame(RST_STREAM, 0, 1, word(Code.CANCEL)),
        "goaway": frame(7, 0, 0, word(0) + word(0)),
        "failure": frame(WINDOW_UPDATE, 0, 0, word(0)),
        "end": b"",
    }
    bench.say(headers(1, OK, end=False), data(1, b"answer", end=True), behind[how])
    assert events_of(stream) == [ResponseHead(200, [], b"", b"2"), Data(b"answer"), End()]
    stream.send_data(b"more")
    assert stream.unsent == 0


def test_one_hundred_continue() -> None:
    bench = a_server()
    (stream,) = bench.say(headers(1, (*POST, (b"expect", b"100-continue")), end=False)).opened
    assert stream.wants_continue
    stream.send_head(ResponseHead(100, []))
    assert bench.answers(bench.look()) == [(1, {b":status": b"100"})]
    bench.say(data(1, b"x"))
    assert not stream.wants_continue


@pytest.mark.parametrize(("status", "method"), [(200, b"HEAD"), (304, b"GET"), (204, b"GET")])
def test_answers_without_a_body_may_state_a_length(status: int, method: bytes) -> None:
    client, server = a_pair()
    mine, theirs = asked(client, server, RequestHead(method, b"/", [(b"host", b"h")]))
    theirs.send_head(ResponseHead(status, [(b"content-length", b"17")]), end=True)
    exchange(client, server)
    assert events_of(mine)[1:] == [End()]


def test_a_large_head_travels_in_continuations() -> None:
    client, _ = a_pair()
    fields = [(b"x-%d" % at, b"\xff" * 2900) for at in range(10)]
    mine = client.open(RequestHead(b"GET", b"/", [(b"host", b"h"), *fields]), scheme=b"https")
    kinds = [kind for kind in _kinds(client.to_send(0.0)) if kind in (HEADERS, CONTINUATION)]
    assert kinds[:2] == [HEADERS, CONTINUATION]
    assert mine.we_are_done


def _kinds(sent: bytes) -> list[int]:
    found, at = [], 0
    while at < len(sent):
        found.append(sent[at + 3])
        at += 9 + int.from_bytes(sent[at : at + 3], "big")
    return found


def test_secrets_never_enter_the_table() -> None:
    client, server = a_pair()
    fields = [(b"host", b"h"), (b"authorization", b"Bearer x"), (b"cookie", b"short=1"), (b"x-a", b"plain")]
    for _ in range(2):
        client.open(RequestHead(b"GET", b"/", fields), scheme=b"https")
        exchange(client, server)
    names = {name for name, _ in client._engine.fields._entries}
    assert b"x-a" in names
    assert not names & {b"authorization", b"cookie"}


def test_a_field_that_must_never_be_indexed_stays_so() -> None:
    """RFC 7541 section 6.2.3: an intermediary keeps the mark."""
    bench = a_server()
    (stream,) = bench.say(headers(1, (*GET, (b"x-secret", b"v")))).opened  # `literal` marks every field
    head = stream.next_event()
    assert isinstance(head, RequestHead)
    client = a_client()
    client.codec.open(head, scheme=b"https")
    client.look()
    names = {name for name, _ in client.codec._engine.fields._entries}
    assert b"x-secret" not in names


# ---- the end of the other side --------------------------------------------------------------------------------------


def test_a_connection_that_closes_in_the_middle() -> None:
    client, server = a_pair()
    mine, theirs = asked(client, server, POST_HEAD)
    server.receive(b"", 0.0)
    client.receive(b"", 0.0)
    with pytest.raises(DownstreamGone):
        theirs.next_event()
    with pytest.raises(UpstreamClosed):
        mine.next_event()
    assert client.room == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [(Code.REFUSED_STREAM, UpstreamRefused), (Code.CANCEL, UpstreamReset), (0xBEEF, UpstreamReset)],
)
def test_resets_by_an_upstream(code: int, kind: type[Exception]) -> None:
    bench = a_client()
    stream = bench.codec.open(GET_HEAD, scheme=b"https")
    bench.look()
    bench.say(frame(RST_STREAM, 0, 1, word(code)))
    with pytest.raises(kind) as found:
        stream.next_event()
    assert type(found.value) is kind
    assert bench.codec.room == 100


def test_a_refusal_after_the_head_is_none() -> None:
    bench = a_client()
    stream = bench.codec.open(GET_HEAD, scheme=b"https")
    bench.say(headers(1, OK, end=False), frame(RST_STREAM, 0, 1, word(Code.REFUSED_STREAM)))
    assert type(stream.error) is UpstreamReset


def test_how_many_streams_an_upstream_takes() -> None:
    bench = a_client()
    assert bench.codec.room == 100
    bench.say(settings((3, 2)))
    bench.codec.open(GET_HEAD, scheme=b"https")
    assert bench.codec.room == 1
    bench.say(settings((3, 0)))
    assert bench.codec.room == 0
    assert Bench(H2Client(H2Limits(streams_per_connection=3))).codec.room == 3
