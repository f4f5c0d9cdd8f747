"""Our two roles against h2 itself, with all of its checks on: another implementation at the other end."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, TrailersReceived

from sidecar.http.h2 import H2Client, H2Server, Opened
from sidecar.http.message import Data, End, RequestHead, ResponseHead
from tests.kit.h2_wire import events_of

FIELDS = [
    (":method", "POST"), (":scheme", "https"), (":authority", "orders"), (":path", "/a?b=c"), ("x-a", "b" * 50),
    ("cookie", "a=1; b=2"), ("authorization", "Bearer x"), ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip
BODY = bytes(range(256)) * 1000


def test_a_client_of_theirs() -> None:
    theirs = H2Connection(H2Configuration(client_side=True, header_encoding=None, split_outbound_cookies=True))
    ours = H2Server()
    theirs.initiate_connection()
    for count in range(3):
        stream_id = theirs.get_next_available_stream_id()
        theirs.send_headers(stream_id, FIELDS)
        sent, seen, trailers = 0, b"", None
        stream, read = None, b""
        for _ in range(200):
            left = len(BODY) - sent
            room = min(theirs.local_flow_control_window(stream_id) - 3, 16_000, left) if left else 0
            if room > 0:
                sent += room
                piece, last = BODY[sent - room : sent], sent == len(BODY)
                theirs.send_data(stream_id, piece, end_stream=last, pad_length=count or None)
            if data := theirs.data_to_send():
                ours.receive(data, 0.0)
            while (event := ours.next_event()) is not None:
                if isinstance(event, Opened):
                    stream = event.stream
                    head = stream.next_event()
                    assert isinstance(head, RequestHead)
                    assert head.headers == [(b"host", b"orders"), *[(n.encode(), v.encode()) for n, v in FIELDS[4:]]]
                    stream.send_head(ResponseHead(200, [(b"content-type", b"application/grpc")]))
            assert stream is not None
            if stream.on_books or stream.they_are_done:
                for item in events_of(stream):
                    if isinstance(item, Data):
                        read += item.data
                        stream.send_data(item.data)
                    elif isinstance(item, End):
                        stream.send_end([(b"grpc-status", b"0")])
            if data := ours.to_send(0.0):
                for found in theirs.receive_data(data):
                    if isinstance(found, DataReceived):
                        seen += found.data
                        theirs.acknowledge_received_data(found.flow_controlled_length, stream_id)
                    elif isinstance(found, ResponseReceived):
                        assert dict(found.headers)[b":status"] == b"200"
                    elif isinstance(found, TrailersReceived):
                        trailers = list(found.headers)
            if trailers:
                break
        assert (read, seen, trailers) == (BODY, BODY, [(b"grpc-status", b"0")])
        assert stream.clean
    assert ours.error is None


def test_a_server_of_theirs() -> None:
    theirs = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    ours = H2Client()
    theirs.initiate_connection()
    for count in range(3):
        headers = [(b"host", b"orders"), (b"authorization", b"x"), (b"x-count", b"%d" % count)]
        stream = ours.open(RequestHead(b"POST", b"/p%d" % count, headers, body=True), scheme=b"https")
        stream.send_data(BODY)
        stream.send_end([(b"x-trailer", b"y")])
        received, answered, found = b"", False, []
        for _ in range(200):
            if data := ours.to_send(0.0):
                for event in theirs.receive_data(data):
                    if isinstance(event, RequestReceived):
                        fields = dict(event.headers)
                        assert (fields[b":path"], fields[b"x-count"]) == (b"/p%d" % count, b"%d" % count)
                    elif isinstance(event, DataReceived):
                        received += event.data
                        theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, StreamEnded) and not answered:
                        answered = True
                        theirs.send_headers(event.stream_id, [(":status", "103"), ("link", "x")])
                        theirs.send_headers(event.stream_id, [(":status", "200"), ("x-long", "z" * 100)])
                        theirs.send_data(event.stream_id, b"answer", pad_length=9)
                        theirs.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            if data := theirs.data_to_send():
                ours.receive(data, 0.0)
            found += events_of(stream)
            if found and isinstance(found[-1], End):
                break
        assert received == BODY
        statuses = [event.status for event in found if isinstance(event, ResponseHead)]
        assert (statuses, found[2:]) == ([103, 200], [Data(b"answer"), End([(b"grpc-status", b"0")])])
        assert stream.clean
    assert ours.error is None
