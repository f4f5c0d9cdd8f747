"""Bad input over a real connection: the right code in the right scope, a reason on record, the next caller unharmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sidecar.conformance.origin import Origin
from sidecar.http.h2 import Code
from tests.kit.doors import Doors
from tests.kit.h2_socket_line import Line
from tests.kit.h2_wire import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GET,
    HEADERS,
    HELLO,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data,
    frame,
    headers,
    literal,
    settings,
    word,
)
from tests.kit.processes import eventually

APP = (*GET[:2], (b":authority", b"app"), (b":path", b"/x"))
TO_APP = ((b":method", b"POST"), *APP[1:])
OPEN = headers(3, TO_APP, end=False)


def _plus(*more: tuple[bytes, bytes]) -> bytes:
    return headers(3, (*APP, *more))


def _as(name: bytes, value: bytes) -> bytes:
    return headers(3, [(field, value if field == name else old) for field, old in APP])


def _without(name: bytes) -> bytes:
    return headers(3, [field for field in APP if field[0] != name])


# What ends stream 3: with a reset of this code, or (as a status) with an answer; and what must stand in the reason.
ONE_STREAM: Sequence[tuple[str, bytes, int, str]] = (
    ("CR in a value", _plus((b"x-a", b"a\rb")), Code.PROTOCOL_ERROR, "control character"),
    ("LF in a value", _plus((b"x-a", b"a\nb")), Code.PROTOCOL_ERROR, "control character"),
    ("NUL in a value", _plus((b"x-a", b"a\x00b")), Code.PROTOCOL_ERROR, "control character"),
    ("CRLF in :path", _as(b":path", b"/a\r\nb: c"), Code.PROTOCOL_ERROR, ":path"),
    ("upper case", _plus((b"X-A", b"a")), Code.PROTOCOL_ERROR, "upper case"),
    ("a colon in a name", _plus((b"x:a", b"a")), Code.PROTOCOL_ERROR, "no token"),
    ("an empty name", _plus((b"", b"a")), Code.PROTOCOL_ERROR, "no token"),
    ("no :method", _without(b":method"), Code.PROTOCOL_ERROR, "method"),
    ("no :scheme", _without(b":scheme"), Code.PROTOCOL_ERROR, ":scheme"),
    ("no :path", _without(b":path"), Code.PROTOCOL_ERROR, ":path"),
    ("no :authority, no host", _without(b":authority"), 400, "neither :authority nor host"),
    ("an unknown pseudo-header", headers(3, ((b":a", b"b"), *APP)), Code.PROTOCOL_ERROR, ":a"),
    (":status in a request", headers(3, ((b":status", b"200"), *APP)), Code.PROTOCOL_ERROR, ":status"),
    ("a repeated pseudo-header", headers(3, (APP[3], *APP)), Code.PROTOCOL_ERROR, "repeated"),
    ("a late pseudo-header", headers(3, (*APP[:3], (b"a", b"b"), APP[3])), Code.PROTOCOL_ERROR, "after a field"),
    ("connection", _plus((b"connection", b"close")), Code.PROTOCOL_ERROR, "connection"),
    ("transfer-encoding", _plus((b"transfer-encoding", b"chunked")), Code.PROTOCOL_ERROR, "transfer-encoding"),
    ("upgrade", _plus((b"upgrade", b"h2c")), Code.PROTOCOL_ERROR, "upgrade"),
    ("keep-alive", _plus((b"keep-alive", b"1")), Code.PROTOCOL_ERROR, "keep-alive"),
    ("proxy-connection", _plus((b"proxy-connection", b"a")), Code.PROTOCOL_ERROR, "proxy-connection"),
    ("te other than trailers", _plus((b"te", b"gzip")), Code.PROTOCOL_ERROR, "te"),
    ("host differs", _plus((b"host", b"evil")), Code.PROTOCOL_ERROR, "differs from :authority"),
    ("host twice", _plus((b"host", b"app"), (b"host", b"app")), Code.PROTOCOL_ERROR, "repeated"),
    ("a length without a body", _plus((b"content-length", b"5")), Code.PROTOCOL_ERROR, "content-length of 5"),
    ("a length that is no number", _plus((b"content-length", b"+5")), Code.PROTOCOL_ERROR, "content-length"),
    ("a body longer than its length", headers(3, (*TO_APP, (b"content-length", b"2")), end=False) + data(3, b"abc"),
     Code.PROTOCOL_ERROR, "content-length of 2"),
    ("a body shorter than its length",
     headers(3, (*TO_APP, (b"content-length", b"4")), end=False) + data(3, b"abc", end=True),
     Code.PROTOCOL_ERROR, "content-length of 4"),
    ("a pseudo-header in trailers", OPEN + data(3, b"a") + headers(3, [(b":path", b"/")]), Code.PROTOCOL_ERROR,
     "in trailers"),
    ("a trailer that is not allowed", OPEN + data(3, b"a") + headers(3, [(b"content-length", b"1")]),
     Code.PROTOCOL_ERROR, "content-length"),
    ("trailers that end nothing", OPEN + data(3, b"a") + headers(3, [(b"a", b"b")], end=False), Code.PROTOCOL_ERROR,
     "do not end the stream"),
    ("more window than there may be", OPEN + frame(WINDOW_UPDATE, 0, 3, word((1 << 31) - 1)), Code.FLOW_CONTROL_ERROR,
     "window"),
    ("a window of nothing", OPEN + frame(WINDOW_UPDATE, 0, 3, word(0)), Code.PROTOCOL_ERROR, "WINDOW_UPDATE of 0"),
    ("a short PRIORITY", OPEN + frame(PRIORITY, 0, 3, bytes(4)), Code.FRAME_SIZE_ERROR, "PRIORITY"),
    ("a fragment", _as(b":path", b"/a#b"), 400, ""),
    ("dots in a path", _as(b":path", b"/a/../b"), 400, "segment"),
    ("two hundred fields", _plus(*((b"a", b"b"),) * 200), 431, "200 fields"),
    ("an unknown expectation", _plus((b"expect", b"a")), 417, "Expect"),
    ("a tunnel of another protocol",
     headers(3, ((b":method", b"CONNECT"), (b":protocol", b"h2c"), *APP[1:]), end=False), 501, "h2c"),
    ("a plain CONNECT", headers(3, ((b":method", b"CONNECT"), (b":authority", b"app:80")), end=False), 403, "no rule"),
)  # fmt: skip
# What ends the connection, with this code; while stream 3 is open, or with no stream at all.
CONNECTION: Sequence[tuple[str, bytes, int, str]] = (
    ("DATA on an idle stream", data(9, b"a"), Code.PROTOCOL_ERROR, "idle"),
    ("HEADERS on a closed stream", headers(1, APP), Code.STREAM_CLOSED, "has ended"),
    ("DATA on a closed stream", data(1, b"a"), Code.STREAM_CLOSED, "has ended"),
    ("HEADERS on stream 0", headers(0, APP), Code.PROTOCOL_ERROR, "stream 0"),
    ("HEADERS on an even stream", headers(4, APP), Code.PROTOCOL_ERROR, "not a client's"),
    ("a frame that is too large", data(3, b"a" * 16_385), Code.FRAME_SIZE_ERROR, "16385 bytes"),
    ("a reset of an idle stream", frame(RST_STREAM, 0, 9, word(8)), Code.PROTOCOL_ERROR, "idle"),
    ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, word((1 << 31) - 1)), Code.FLOW_CONTROL_ERROR, "window"),
    ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, word(0)), Code.PROTOCOL_ERROR, "WINDOW_UPDATE of 0"),
    ("INITIAL_WINDOW_SIZE out of range", settings((4, 1 << 31)), Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE"),
    ("MAX_FRAME_SIZE out of range", settings((5, 1)), Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE"),
    ("ENABLE_PUSH out of range", settings((2, 7)), Code.PROTOCOL_ERROR, "ENABLE_PUSH"),
    ("a SETTINGS frame of a broken size", frame(SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR, "SETTINGS"),
    ("an ACK with something in it", frame(SETTINGS, ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR, "SETTINGS"),
    ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 3, word(2)), Code.PROTOCOL_ERROR, "PUSH_PROMISE"),
    ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 3), Code.PROTOCOL_ERROR, "CONTINUATION"),
    ("a short PING", frame(PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR, "PING"),
    ("no HPACK", frame(1, END_HEADERS, 5, b"\x80"), Code.COMPRESSION_ERROR, "index 0"),
    ("another frame within a block", headers(5, APP, flags=0) + data(3, b""), Code.PROTOCOL_ERROR, "header block"),
)  # fmt: skip
IGNORED: Sequence[tuple[str, bytes]] = (
    ("unknown frames", frame(0xEE, 0xFF, 0, b"a") + frame(0xEE, 0, 3, b"") + frame(0xEE, 0, 99)),
    ("unknown settings", settings((0xFFFF, 9), (0x0A0A, 1))),
    ("PRIORITY on an idle stream", frame(PRIORITY, 0, 7, bytes(5))),
    ("PRIORITY_UPDATE", frame(0x10, 0, 0, word(3) + b"u=9, nonsense(")),
    ("frames on a stream that was reset", _plus((b"X-A", b"a")) + data(3, b"late") + frame(RST_STREAM, 0, 3, word(8))),
)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with Origin() as origin, Doors(tmp_path_factory.mktemp("bad"), origin.address[1]) as both:
        yield both
        both.assert_well()


def dial(doors: Doors, hello: bytes = HELLO, *, mute: bool = False) -> Line:
    return Line(doors.over_http2("inbound").connect(), hello, mute=mute)


def told(doors: Doors, before: int, why: str) -> list[dict[str, str]]:
    """The lines of the access log since then that say so; lines of others may be written late."""
    return [line for line in doors.app.access_log()[before:] if why in line["detail"]]


def recorded(doors: Doors, before: int, why: str) -> dict[str, str]:
    """The line of the access log since then that says so, and that `mesh explain` would tell the same."""
    eventually(f"the log says {why!r}", lambda: told(doors, before, why) != [])
    line = told(doors, before, why)[-1]
    code, decision = doors.app.admin("GET", f"/decisions/{line['decision_id']}")
    assert code == 200, decision
    assert line["detail"] in str(decision)
    return line


@pytest.mark.parametrize(("what", "pieces", "code", "why"), ONE_STREAM, ids=[row[0] for row in ONE_STREAM])
def test_what_ends_one_stream(doors: Doors, what: str, pieces: bytes, code: int, why: str) -> None:
    before = len(doors.app.access_log())
    with dial(doors) as line:
        line.say(headers(1, APP), pieces)
        assert line.status(1) == 200
        if code >= 100:
            assert line.status(3) == code
        else:
            assert line.reset(3) == code
            assert line.status(3) == 0
        line.say(headers(5, APP))
        assert line.status(5) == 200
        assert line.goaway is None
    recorded(doors, before, why)
    assert len(told(doors, before, why)) == 1


@pytest.mark.parametrize(("what", "pieces", "code", "why"), CONNECTION, ids=[row[0] for row in CONNECTION])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_what_ends_the_connection(
    doors: Doors, what: str, pieces: bytes, code: int, why: str, busy: bool
) -> None:
    with dial(doors) as line, dial(doors) as other:
        line.say(headers(1, APP))
        assert line.status(1) == 200
        before = len(doors.app.access_log())
        line.say(OPEN if busy else b"", pieces)
        assert line.last_word() == code
        other.say(headers(1, APP))
        assert other.status(1) == 200
    found = recorded(doors, before, why)
    assert (found["version"], found["flags"]) == ("2", "DPE")


@pytest.mark.parametrize(("what", "pieces"), IGNORED, ids=[row[0] for row in IGNORED])
def test_what_is_ignored(doors: Doors, what: str, pieces: bytes) -> None:
    with dial(doors) as line:
        line.say(pieces, headers(5, APP), frame(PING, 0, 0, b"12345678"))
        assert line.status(5) == 200
        line.until(lambda: line.pongs == 1)
        assert line.goaway is None


@pytest.mark.parametrize("early", [PREFACE[:5], PREFACE[:20], PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 30])
def test_half_a_preface_and_none_at_all(doors: Doors, early: bytes) -> None:
    """What agreed on h2 and does not speak it is ended; who leaves within its preface is not missed."""
    before = len(doors.app.access_log())
    with dial(doors, early, mute=True) as line:
        if not PREFACE.startswith(early):
            assert line.last_word() == Code.PROTOCOL_ERROR
            recorded(doors, before, "does not begin as HTTP/2 does")
    with dial(doors) as line:
        line.say(headers(1, APP))
        assert line.status(1) == 200


SLOW = {
    "half a preface": PREFACE[:10],
    "no SETTINGS": PREFACE,
    "half a header block": HELLO + headers(1, APP, flags=0),
    "nothing at all": b"",
}


@pytest.mark.parametrize("what", SLOW)
def test_who_falls_silent_within_a_head_is_ended_by_the_clock(tmp_path: Path, what: str) -> None:
    with Origin() as origin, Doors(tmp_path, origin.address[1], timeouts=", request_head: 1s") as doors:
        with dial(doors, SLOW[what], mute=True) as line:
            assert line.last_word() == Code.ENHANCE_YOUR_CALM
        recorded(doors, 0, "not whole within 1 s")


def test_a_deadline_that_has_passed_is_a_status_of_grpc(doors: Doors) -> None:
    call = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    before = len(doors.app.access_log())
    with dial(doors) as line:
        line.say(headers(1, (*TO_APP, *call, (b"grpc-timeout", b"0m")), end=False))
        assert line.status(1) == 200
        assert line.heads[1][0][b"grpc-status"] == b"4"  # DEADLINE_EXCEEDED
        line.say(headers(3, (*TO_APP, *call, (b"grpc-timeout", b"soon")), end=False))
        assert line.status(3) == 200
        assert line.heads[3][0][b"grpc-status"] == b"13"  # INTERNAL, as for whatever cannot be read
        line.say(headers(5, APP))
        assert line.status(5) == 200
    eventually("both are in the log", lambda: len(doors.app.access_log()) >= before + 2)


def test_a_1xx_of_the_application_comes_before_its_answer(doors: Doors) -> None:
    with dial(doors) as line:
        line.say(headers(1, (*APP[:3], (b":path", b"/early"))))
        assert line.status(1) == 200
        assert [head[b":status"] for head in line.heads[1]] == [b"103", b"200"]
        assert line.heads[1][0][b"link"] == b"</help>; rel=help"


def test_padding_and_a_block_cut_at_every_byte_change_nothing(doors: Doors) -> None:
    block = literal((*APP, (b"x-a", b"b")))
    with dial(doors) as line:
        for cut in range(len(block) + 1):
            stream = 2 * cut + 1
            line.say(frame(HEADERS, END_STREAM, stream, block[:cut]))
            line.say(frame(CONTINUATION, END_HEADERS, stream, block[cut:]))
            assert line.status(stream) == 200
        line.say(headers(999, TO_APP, end=False), data(999, b"", padding=255), data(999, b"hello", end=True, padding=9))
        assert line.status(999) == 200


def test_a_gone_caller_leaves_nothing_behind(doors: Doors) -> None:
    with dial(doors) as line:
        line.say(OPEN, data(3, b"half"))
        line.say(literal(POST)[:7])  # and half a frame
    eventually("nothing in flight", lambda: doors.app.admin("GET", "/status")[1]["in_flight"] == 0)
