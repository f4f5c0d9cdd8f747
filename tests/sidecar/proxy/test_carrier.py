"""A stream looks like a connection of its own, and whoever reads it never sleeps over something that has come."""

from __future__ import annotations

import pytest

from sidecar.errors import DownstreamGone, ProtocolViolation
from sidecar.http.h2 import H2Server
from sidecar.http.message import NEED_DATA, Data, RequestHead
from sidecar.net.memory import MemoryPort
from sidecar.net.port import PeerGone
from sidecar.proxy.carrier import Carrier
from sidecar.proxy.streams import ServedStream
from tests.kit.h2_wire import POST, RST_STREAM, Bench, a_server, data, frame, headers, word


def a_stream() -> tuple[Bench, ServedStream]:
    """A request whose head has been read; its body is still to come."""
    bench = a_server()
    (stream,) = bench.say(headers(1, POST, end=False)).opened
    assert isinstance(bench.codec, H2Server)
    carrier = Carrier(MemoryPort(), None, bench.codec, idle=1.0, on_event=lambda event: None)  # type: ignore[arg-type]
    end = ServedStream(carrier, stream)
    assert isinstance(end.next_event(), RequestHead)
    assert end.next_event() is NEED_DATA
    return bench, end


def waits(end: ServedStream, beside: ServedStream | None = None) -> bool:
    """Whether a reader would wait now."""
    reading = end.read_shared(beside)  # type: ignore[arg-type]
    try:
        reading.send(None)
    except StopIteration:
        return False
    reading.close()
    return True


def test_what_came_while_the_reader_was_writing_is_not_waited_for() -> None:
    bench, end = a_stream()
    assert waits(end)
    bench.say(data(1, b"a"))
    assert not waits(end)
    event = end.next_event()
    assert isinstance(event, Data)
    assert event.data == b"a"
    assert waits(end)


def test_an_error_is_not_waited_for_either() -> None:
    bench, end = a_stream()
    bench.say(frame(RST_STREAM, 0, 1, word(8)))
    assert not waits(end)
    with pytest.raises(DownstreamGone):
        end.next_event()


def test_who_watches_another_stream_hears_that_it_has_gone_first() -> None:
    _, watched = a_stream()
    bench, end = a_stream()
    bench.say(data(1, b"a"))
    watched.stream.fail(ProtocolViolation("x"))
    watched.stirred()
    with pytest.raises(PeerGone):
        waits(end, watched)
