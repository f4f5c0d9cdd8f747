"""The rules of RFC 9113 and RFC 7541 one by one, in the order of their sections: every type of frame, right and wrong.

With the rest of the corpus they cover the sections that h2spec goes through, the usual test suite of HTTP/2 servers:
its generic part, HTTP/2 sections 3 to 8 and HPACK sections 2 to 6. Where the RFC demands an error, `DEMANDS` says which
one; the judgement asks only whether the origin was spared.
"""

from __future__ import annotations

import struct

from sidecar.conformance.case import POST, Reading, Wanted, one, posted
from sidecar.conformance.h2case import H2Case, Head, Octets, Piece, Raw, case, data, fields
from sidecar.http.h2 import Code
from sidecar.http.h2.codes import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, Kind
from sidecar.http.h2.compression import FieldWriter

_FIRST = one(Wanted())
_GET, _OPEN = Head(fields()), Head(fields(method=POST), end=False)
_END = data()
_NEXT = Head(fields(), stream=3)
_BLOCK = FieldWriter().write(fields(authority=b"x"))
_WORD = struct.Struct("!L")
_LAST = 0x7FFFFFFF
_Demand = tuple[str, frozenset[Code]]
DEMANDS: dict[str, _Demand] = {}  # case → "stream" or "connection", and the codes that it may end with
_PROTOCOL, _SIZE, _CLOSED = Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR, Code.STREAM_CLOSED
_FLOW, _COMPRESSION = Code.FLOW_CONTROL_ERROR, Code.COMPRESSION_ERROR


def _good(name: str, section: str, why: str, *pieces: Piece, accept: tuple[Reading, ...] = _FIRST) -> H2Case:
    """What must work."""
    return case(f"protocol/{name}", section, why, *pieces, accept=accept, must_pass=True)


def _bad(
    name: str, section: str, why: str, *pieces: Piece, ends: str, codes: tuple[Code, ...] = (_PROTOCOL,),
    accept: tuple[Reading, ...] = (),
) -> H2Case:  # fmt: skip
    """What must end a stream or the connection; `accept`: what came before may have been served."""
    made = case(f"protocol/{name}", section, why, *pieces, accept=accept)
    DEMANDS[made.name] = (ends, frozenset(codes))
    return made


def _block(block: bytes, *, first: bytes = _BLOCK) -> Raw:
    return Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, first + block)


def _settings(*values: tuple[int, int]) -> Raw:
    return Raw(Kind.SETTINGS, 0, 0, b"".join(struct.pack("!HL", key, value) for key, value in values))


def _goaway(code: int) -> Raw:
    return Raw(Kind.GOAWAY, 0, 0, struct.pack("!LL", 0, code))


_BOTH = (Head(fields()), Head(fields(), stream=3))
_TWO = ((Wanted(), Wanted()),)

_STREAMS: tuple[H2Case, ...] = (
    _bad("preface-wrong", "RFC 9113 3.4", "The preface again, where a frame should be: 5 MB of an unknown type.",
         Octets(PREFACE), ends="connection", codes=(_SIZE, _PROTOCOL)),
    _good("flags-undefined", "RFC 9113 4.1", "Flags that HEADERS does not have.",
          Head(fields(), end=False), Raw(Kind.DATA, END_STREAM | 0xF6 & ~PADDED, 1)),
    _good("data-largest", "RFC 9113 4.2", "A frame of 2**14 bytes.", _OPEN, data(b"x" * 16_384),
          accept=posted(b"x" * 16_384)),
    _bad("data-too-large", "RFC 9113 4.2", "A frame of one byte more.", _OPEN, data(b"x" * 16_385),
         ends="connection", codes=(_SIZE,)),
    _bad("head-too-large", "RFC 9113 4.2", "HEADERS of one byte more.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, bytes(16_385)), ends="connection", codes=(_SIZE,)),
    _bad("block-priority-within", "RFC 9113 4.3", "PRIORITY within a header block.",
         Raw(Kind.HEADERS, END_STREAM, 1, _BLOCK), Raw(Kind.PRIORITY, 0, 1, bytes(5)), ends="connection"),
    _bad("block-head-within", "RFC 9113 4.3", "HEADERS of another stream within a header block.",
         Raw(Kind.HEADERS, END_STREAM, 1, _BLOCK), _NEXT, ends="connection"),
    _bad("idle-window-update", "RFC 9113 5.1", "WINDOW_UPDATE on an idle stream.",
         Raw(Kind.WINDOW_UPDATE, 0, 5, _WORD.pack(1)), ends="connection"),
    _bad("idle-continuation", "RFC 9113 5.1", "CONTINUATION on an idle stream.",
         Raw(Kind.CONTINUATION, END_HEADERS, 5, _BLOCK), ends="connection"),
    _good("ended-window-update", "RFC 9113 5.1", "WINDOW_UPDATE on a stream whose sender has ended.",
          _GET, Raw(Kind.WINDOW_UPDATE, 0, 1, _WORD.pack(1))),
    _good("ended-priority", "RFC 9113 5.1", "PRIORITY on such a stream.",
          _GET, Raw(Kind.PRIORITY, 0, 1, bytes(4) + b"\x0f")),
    _bad("ended-continuation", "RFC 9113 5.1", "CONTINUATION on such a stream.",
         _GET, Raw(Kind.CONTINUATION, END_HEADERS, 1), ends="connection", codes=(_PROTOCOL, _CLOSED), accept=_FIRST),
    _bad("reset-head", "RFC 9113 5.1", "HEADERS on a stream that its sender has reset.", _OPEN,
         Raw(Kind.RST_STREAM, 0, 1, _WORD.pack(8)), Head(((b"x-a", b"1"),)), ends="connection", codes=(_CLOSED,)),
    _bad("reset-continuation", "RFC 9113 5.1", "CONTINUATION on such a stream.", _OPEN,
         Raw(Kind.RST_STREAM, 0, 1, _WORD.pack(8)), Raw(Kind.CONTINUATION, END_HEADERS, 1), ends="connection",
         codes=(_PROTOCOL, _CLOSED)),
    _bad("skipped", "RFC 9113 5.1.1", "A stream that was skipped.", Head(fields(), stream=5), _NEXT,
         ends="connection", accept=_FIRST),
    case("protocol/priority-self", "RFC 9113 5.3",
         "PRIORITY that depends on itself: ignored, or an error as it once was.",
         Raw(Kind.PRIORITY, 0, 1, _WORD.pack(1) + b"\x0f"), Head(fields(), priority=True), accept=_FIRST),
    _bad("error-closes", "RFC 9113 5.4.1", "Behind an error of the connection nothing is served.",
         Raw(Kind.PING, 0, 0, bytes(7)), _GET, ends="connection", codes=(_SIZE,)),
    _bad("unknown-within", "RFC 9113 5.5", "A frame of an unknown type within a header block.",
         Raw(Kind.HEADERS, END_STREAM, 1, _BLOCK), Raw(0xEE, 0, 1), Raw(Kind.CONTINUATION, END_HEADERS, 1),
         ends="connection"),
)  # fmt: skip

_FRAMES: tuple[H2Case, ...] = (
    _good("priority-two", "RFC 9113 6.3", "PRIORITY on two idle streams, exclusive and not.",
          Raw(Kind.PRIORITY, 0, 3, _WORD.pack(1 << 31) + b"\xff"), Raw(Kind.PRIORITY, 0, 5, bytes(5)), _GET),
    _bad("priority-zero", "RFC 9113 6.3", "PRIORITY on the connection itself.", Raw(Kind.PRIORITY, 0, 0, bytes(5)),
         ends="connection"),
    _bad("priority-long", "RFC 9113 6.3", "PRIORITY of six bytes on a request.", _OPEN,
         Raw(Kind.PRIORITY, 0, 1, bytes(6)), ends="stream", codes=(_SIZE,)),
    _bad("reset-zero", "RFC 9113 6.4", "RST_STREAM on the connection itself.",
         Raw(Kind.RST_STREAM, 0, 0, _WORD.pack(8)), ends="connection"),
    _bad("reset-short", "RFC 9113 6.4", "RST_STREAM of three bytes.", _OPEN, Raw(Kind.RST_STREAM, 0, 1, bytes(3)),
         ends="connection", codes=(_SIZE,)),
    case("protocol/reset-other", "RFC 9113 6.4", "A reset of one stream leaves the next one alone.",
         _OPEN, Raw(Kind.RST_STREAM, 0, 1, _WORD.pack(8)), _NEXT, accept=_FIRST),
    _bad("settings-stream", "RFC 9113 6.5", "SETTINGS on a stream.", _OPEN, Raw(Kind.SETTINGS, 0, 1),
         ends="connection"),
    _bad("settings-frame-large", "RFC 9113 6.5.2", "Frames of 2**24 bytes.", _settings((5, 1 << 24)),
         ends="connection"),
    _good("settings-twice", "RFC 9113 6.5.3", "The last value of a setting counts.",
          _settings((4, 1), (4, 1 << 20)), _GET),
    _good("settings-again", "RFC 9113 6.5", "SETTINGS between two requests, and an acknowledgement of nothing.",
          _GET, _settings((4, 1 << 20)), Raw(Kind.SETTINGS, ACK, 0), _NEXT, accept=_TWO),
    _bad("push", "RFC 9113 6.6", "PUSH_PROMISE on the connection itself.",
         Raw(Kind.PUSH_PROMISE, END_HEADERS, 0, _WORD.pack(2) + _BLOCK), ends="connection"),
    _good("ping", "RFC 9113 6.7", "A PING, and the answer to one that nobody has sent.",
          Raw(Kind.PING, 0, 0, b"12345678"), Raw(Kind.PING, ACK, 0, b"nobody's"), _GET),
    _bad("ping-stream", "RFC 9113 6.7", "PING on a stream.", _OPEN, Raw(Kind.PING, 0, 1, bytes(8)),
         ends="connection"),
    _bad("ping-long", "RFC 9113 6.7", "PING of nine bytes.", Raw(Kind.PING, 0, 0, bytes(9)), ends="connection",
         codes=(_SIZE,)),
    _good("goaway", "RFC 9113 6.8", "Who leaves gets the answer to what it has asked.", _GET, _goaway(0)),
    _good("goaway-unknown", "RFC 9113 7", "An error code that nobody knows.", _GET, _goaway(0xFFFF)),
    case("protocol/reset-unknown", "RFC 9113 7", "The same in RST_STREAM.", _OPEN,
         Raw(Kind.RST_STREAM, 0, 1, _WORD.pack(0xFFFF)), _NEXT, accept=_FIRST),
    _bad("goaway-stream", "RFC 9113 6.8", "GOAWAY on a stream.", _OPEN, Raw(Kind.GOAWAY, 0, 1, bytes(8)),
         ends="connection"),
    _bad("goaway-short", "RFC 9113 6.8", "GOAWAY of seven bytes.", Raw(Kind.GOAWAY, 0, 0, bytes(7)),
         ends="connection", codes=(_SIZE,)),
    _good("window-update", "RFC 9113 6.9", "More room, on both; the first bit is reserved.",
          Raw(Kind.WINDOW_UPDATE, 0, 0, _WORD.pack(1)), _OPEN, Raw(Kind.WINDOW_UPDATE, 0, 1, _WORD.pack(1 << 31 | 1)),
          _END, accept=one(Wanted(POST))),
    _bad("window-zero-stream", "RFC 9113 6.9", "No more room, on a stream.", _OPEN,
         Raw(Kind.WINDOW_UPDATE, 0, 1, bytes(4)), ends="stream"),
    _bad("window-short", "RFC 9113 6.9", "WINDOW_UPDATE of three bytes.", Raw(Kind.WINDOW_UPDATE, 0, 0, bytes(3)),
         ends="connection", codes=(_SIZE,)),
    _good("window-one", "RFC 9113 6.9.1", "Answers that come a byte at a time, and then at once.",
          _settings((4, 1)), _GET, Raw(Kind.WINDOW_UPDATE, 0, 1, _WORD.pack(1000))),
    _good("window-negative", "RFC 9113 6.9.2", "A window that becomes smaller than what was used of it.",
          _settings((4, 3)), _GET, _settings((4, 0)), Raw(Kind.WINDOW_UPDATE, 0, 1, _WORD.pack(1000))),
    _bad("window-initial", "RFC 9113 6.9.2", "SETTINGS that make a stream's window too large.", _OPEN,
         Raw(Kind.WINDOW_UPDATE, 0, 1, _WORD.pack(_LAST - (1 << 20))), _settings((4, 2 << 20)), ends="connection",
         codes=(_FLOW,)),
    _bad("continuation-zero", "RFC 9113 6.10", "CONTINUATION on the connection itself.",
         Raw(Kind.HEADERS, END_STREAM, 1, _BLOCK), Raw(Kind.CONTINUATION, END_HEADERS, 0), ends="connection"),
    _bad("continuation-after-end", "RFC 9113 6.10", "CONTINUATION behind a CONTINUATION that ended its block.",
         Raw(Kind.HEADERS, 0, 1, _BLOCK[:2]), Raw(Kind.CONTINUATION, END_HEADERS, 1, _BLOCK[2:]),
         Raw(Kind.CONTINUATION, END_HEADERS, 1), ends="connection"),
    _bad("continuation-after-data", "RFC 9113 6.10", "CONTINUATION behind DATA.", _OPEN, data(b"x", end=False),
         Raw(Kind.CONTINUATION, END_HEADERS, 1), ends="connection"),
    _bad("push-to-server", "RFC 9113 8.4", "A client that pushes.",
         Raw(Kind.PUSH_PROMISE, END_HEADERS, 1, _WORD.pack(2) + _BLOCK), ends="connection"),
)  # fmt: skip

_A = b"\x01a"  # a string, not coded
_HPACK: tuple[H2Case, ...] = (
    _good("hpack-kinds", "RFC 7541 6.2", "Literals: into the table, beside it, and never into any; by index and name.",
          Head(fields((b"x-a", b"1"), (b"x-a", b"1"), (b"authorization", b"Basic YTpi"), (b"etag", b'"1"')))),
    _good("hpack-again", "RFC 7541 6.1", "The second request is all indices.", *_BOTH, accept=_TWO),
    _bad("hpack-name-high", "RFC 7541 2.3.3", "A name by an entry that is not there.", _block(b"\x7f\x80\x01" + _A),
         ends="connection", codes=(_COMPRESSION,)),
    _bad("hpack-table-late", "RFC 7541 4.2", "The table changes its size at the end of a block.", _block(b"\x20"),
         ends="connection", codes=(_COMPRESSION,)),
    _bad("hpack-table-thrice", "RFC 7541 4.2", "It changes three times.", _block(_BLOCK, first=b"\x20\x20\x20"),
         ends="connection", codes=(_COMPRESSION,)),
    _bad("hpack-number", "RFC 7541 5.1", "A length of 2**35.", _block(b"\x00\x7f\xff\xff\xff\xff\x7f" + _A),
         ends="connection", codes=(_COMPRESSION,)),
    _bad("hpack-padding-long", "RFC 7541 5.2", "More than seven bits of padding.", _block(b"\x00\x82\x1f\xff" + _A),
         ends="connection", codes=(_COMPRESSION,)),
    _bad("hpack-padding-zeros", "RFC 7541 5.2", "Padding of zeros.", _block(b"\x00\x81\x18" + _A),
         ends="connection", codes=(_COMPRESSION,)),
    _bad("hpack-end-within", "RFC 7541 5.2", "The end of string behind a letter.",
         _block(b"\x00\x85\x1f\xff\xff\xff\xff" + _A), ends="connection", codes=(_COMPRESSION,)),
)  # fmt: skip

CASES = (*_STREAMS, *_FRAMES, *_HPACK)
