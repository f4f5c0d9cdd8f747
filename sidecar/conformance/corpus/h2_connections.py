"""HTTP/2: what must work, tunnels (RFC 9113 8.5, RFC 8441), and frames between and around requests."""

from __future__ import annotations

import struct

from sidecar.conformance.case import GET, HOST, POST, SMUGGLED, Reading, Wanted, one, posted, size_of
from sidecar.conformance.h2case import Fields, H2Case, Head, Octets, Piece, Raw, case, data, fields, posted_in
from sidecar.http.h2.codes import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, Kind
from sidecar.http.h2.compression import FieldWriter

_FIRST = one(Wanted())
_UNKNOWN, _PRIORITY_UPDATE = 0xEE, 0x10  # types of frames: of nobody, and of RFC 9218 section 7.1
_BLOCK = FieldWriter().write(fields(authority=b"x"))  # as long as the real one or shorter, whatever the host is


def _settings(*values: tuple[int, int]) -> Raw:
    return Raw(Kind.SETTINGS, 0, 0, b"".join(struct.pack("!HL", key, value) for key, value in values))


def _cut_everywhere() -> tuple[Piece, ...]:
    """A stream for each byte after which a block can be cut."""
    return tuple(Head(fields(), stream=2 * cut - 1, cuts=(cut,)) for cut in range(1, 6))


def _control(
    name: str, section: str, why: str, *pieces: Piece, accept: tuple[Reading, ...] = _FIRST
) -> H2Case:
    return case(f"control/{name}", section, why, *pieces, accept=accept, must_pass=True)


_CONTROLS: tuple[H2Case, ...] = (
    _control("get", "RFC 9113 8.8", "A plain GET.", Head(fields())),
    _control("query", "RFC 9113 8.3.1", "A query.", Head(fields(path=b"/c?a=b&c=%20")),
             accept=one(Wanted(target=b"/c?a=b&c=%20"))),
    _control("host", "RFC 9113 8.3.1", "host beside an :authority that says the same.",
             Head(fields((b"host", HOST))), accept=one(Wanted(host=HOST))),
    _control("https", "RFC 9113 8.3.1", "The other scheme, as a gateway behind TLS may say.",
             Head(fields(scheme=b"https"))),
    _control("head", "RFC 9110 9.3.2", "A HEAD.", Head(fields(method=b"HEAD")), accept=one(Wanted(b"HEAD"))),
    _control("options", "RFC 9110 9.3.7", "An OPTIONS.", Head(fields(method=b"OPTIONS")),
             accept=one(Wanted(b"OPTIONS"))),
    _control("delete", "RFC 9110 9.3.5", "A DELETE.", Head(fields(method=b"DELETE")), accept=one(Wanted(b"DELETE"))),
    _control("post", "RFC 9113 8.1", "A body with its length.",
             *posted_in(b"hello", more=((b"content-length", b"5"),)), accept=posted()),
    _control("post-no-length", "RFC 9113 8.1", "A body without a length.", *posted_in(b"hello"), accept=posted()),
    _control("post-bytes", "RFC 9113 6.1", "A body of one byte a frame.",
             *posted_in(*(bytes((byte,)) for byte in b"hello")), accept=posted()),
    _control("post-late-end", "RFC 9113 6.1", "The end in an empty frame.", *posted_in(b"hello", b""),
             accept=posted()),
    _control("post-empty", "RFC 9113 8.1", "No body, and nothing said about it.", Head(fields(method=POST)),
             accept=one(Wanted(POST))),
    _control("post-zero", "RFC 9110 8.6", "A length of 0.", Head(fields((b"content-length", b"0"), method=POST)),
             accept=one(Wanted(POST))),
    _control("padding", "RFC 9113 6.1", "A padded head and a padded body.",
             Head(fields((b"content-length", b"5"), method=POST), end=False, padding=200),
             data(b"hello", padding=255), accept=posted()),
    _control("padding-only", "RFC 9113 6.1", "A frame of nothing but padding.",
             Head(fields(method=POST), end=False), data(end=False, padding=9), data(b"hello"), accept=posted()),
    _control("trailers", "RFC 9113 8.1", "Trailers.",
             Head(fields((b"te", b"trailers"), method=POST), end=False), data(b"hello", end=False),
             Head(((b"x-checksum", b"1"),)), accept=posted()),
    _control("cookies", "RFC 9113 8.2.3", "Cookie crumbs are one line in HTTP/1.",
             Head(fields((b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"x-a", b"1"), (b"cookie", b"e=f"))),
             accept=one(Wanted(fields=((b"cookie", b"a=b; c=d; e=f"),)))),
    _control("te-trailers", "RFC 9113 8.2.2", "te may say trailers.", Head(fields((b"te", b"trailers")))),
    _control("expect", "RFC 9110 10.1.1", "A body that is sent without waiting for the 100.",
             Head(fields((b"expect", b"100-continue"), (b"content-length", b"5"), method=POST), end=False),
             data(b"hello"), accept=posted()),
    _control("early-hints", "RFC 9113 8.1", "The origin says 103 before its answer.",
             Head(fields(path=b"/early")), accept=one(Wanted(target=b"/early"))),
    _control("value-high", "RFC 9110 5.5", "Bytes above ASCII in a value.", Head(fields((b"x-a", b"\xe4\xf6\xfc"))),
             accept=one(Wanted(fields=((b"x-a", b"\xe4\xf6\xfc"),)))),
    _control("value-empty", "RFC 9110 5.5", "An empty value.", Head(fields((b"x-a", b"")))),
    _control("value-blank-inside", "RFC 9110 5.5", "Blanks and a tab inside of a value.",
             Head(fields((b"x-a", b"a \t b"))), accept=one(Wanted(fields=((b"x-a", b"a \t b"),)))),
    _control("priority-field", "RFC 9218 5", "A priority, which is advice.", Head(fields((b"priority", b"u=1, i")))),
    _control("priority-nonsense", "RFC 9218 5", "Advice that nobody can read is no error.",
             Head(fields((b"priority", b"u=99, ((")))),
    _control("priority-update", "RFC 9218 7.1", "PRIORITY_UPDATE before and behind the request.",
             Raw(_PRIORITY_UPDATE, 0, 0, struct.pack("!L", 1) + b"u=0"), Head(fields()),
             Raw(_PRIORITY_UPDATE, 0, 0, struct.pack("!L", 1) + b"u=7, i")),
    _control("priority-frame", "RFC 9113 5.3.2", "PRIORITY on an idle stream, and inside of HEADERS.",
             Raw(Kind.PRIORITY, 0, 3, struct.pack("!LB", 0, 15)), Head(fields(), priority=True)),
    _control("unknown-frames", "RFC 9113 5.5", "Frames of an unknown type are ignored.",
             Raw(_UNKNOWN, 0xFF, 0, b"anything"), Head(fields(), end=False), Raw(_UNKNOWN, 0, 1, b""), data()),
    _control("unknown-settings", "RFC 9113 6.5.2", "So are unknown settings.",
             _settings((0xFFFF, 7), (0x0A0A, 0)), Head(fields())),
    _control("unknown-flags", "RFC 9113 4.1", "So are flags that a type does not have.",
             Raw(Kind.PING, 0xFE, 0, b"12345678"), Head(fields())),
    _control("continuation", "RFC 9113 6.10", "A block cut after each of its first bytes.", *_cut_everywhere(),
             accept=((Wanted(),) * 5,)),
    _control("continuation-empty", "RFC 9113 6.10", "An empty CONTINUATION at the end.",
             Head(fields(), cuts=(3, 3))),
    _control("table-size", "RFC 7541 6.3", "The table of our peer may be as small as it likes.",
             _settings((1, 0)), Head(fields())),
    _control("twenty", "RFC 9113 5.1.2", "Twenty requests at once.",
             *(Head(fields(), stream=2 * number + 1) for number in range(20)), accept=((Wanted(),) * 20,)),
)  # fmt: skip

_WEBSOCKET: Fields = ((b"sec-websocket-version", b"13"), (b"origin", b"http://" + HOST))


def _connect(
    *more: tuple[bytes, bytes], protocol: bytes = b"websocket", without: tuple[bytes, ...] = (), end: bool = False,
    method: bytes = b"CONNECT",
) -> Head:  # fmt: skip
    found = ((b":protocol", protocol), *fields(*_WEBSOCKET, *more, method=method))
    return Head(tuple(field for field in found if field[0] not in without), end=end)


_TUNNEL = one(Wanted(GET))  # the upgrade alone: what follows is the socket's, once the origin has agreed
_TUNNELS: tuple[H2Case, ...] = (
    case("tunnels/connect", "RFC 9113 8.5", "CONNECT is for those who asked for a forward proxy.",
         Head(((b":method", b"CONNECT"), (b":authority", HOST)), end=False)),
    case("tunnels/connect-other", "RFC 9113 8.5", "CONNECT to somebody else.",
         Head(((b":method", b"CONNECT"), (b":authority", b"evil.example:80")), end=False)),
    case("tunnels/connect-path", "RFC 9113 8.5", "CONNECT has neither :scheme nor :path.",
         Head(fields(method=b"CONNECT"), end=False), data(SMUGGLED, end=False)),
    case("tunnels/connect-request", "RFC 9113 8.5", "A CONNECT whose authority is a request line.",
         Head(((b":method", b"CONNECT"), (b":authority", HOST + b" HTTP/1.1\r\n\r\nGET /smuggled")), end=False)),
    case("tunnels/websocket-request-inside", "RFC 8441 5", "The origin does not agree: what follows is no request.",
         _connect(), data(SMUGGLED, end=False), accept=_TUNNEL),
    case("tunnels/websocket-length", "RFC 9113 8.5", "A length on a tunnel, and a request behind it.",
         _connect((b"content-length", b"0")), data(SMUGGLED, end=False), accept=_TUNNEL),
    case("tunnels/websocket-length-whole", "RFC 9113 8.5", "A length over all of it.",
         _connect((b"content-length", size_of(SMUGGLED))), data(SMUGGLED, end=False), accept=_TUNNEL),
    case("tunnels/websocket-coding", "RFC 9113 8.2.2", "Transfer-Encoding on a tunnel.",
         _connect((b"transfer-encoding", b"chunked")), data(b"0\r\n\r\n" + SMUGGLED, end=False)),
    case("tunnels/websocket-upgrade", "RFC 8441 5", "The upgrade of HTTP/1 beside that of HTTP/2.",
         _connect((b"connection", b"upgrade"), (b"upgrade", b"h2c")), data(SMUGGLED, end=False)),
    case("tunnels/websocket-post", "RFC 8441 4", ":protocol with another method than CONNECT.",
         _connect(method=POST), data(SMUGGLED)),
    case("tunnels/websocket-ended", "RFC 8441 5", "A tunnel that ends with its head.", _connect(end=True),
         accept=_TUNNEL),
    case("tunnels/websocket-trailers", "RFC 9113 8.5", "Trailers in a tunnel.", _connect(), Head(((b"x-a", b"1"),)),
         accept=_TUNNEL),
    *(case(f"tunnels/websocket-without-{name[1:]}", "RFC 8441 4", f"An extended CONNECT without {name}.",
           _connect(without=(name.encode(),)), data(SMUGGLED, end=False))
      for name in (":scheme", ":path", ":authority")),
    *(case(f"tunnels/protocol-{name}", "RFC 8441 4", "Another protocol, which no rule knows how to judge.",
           _connect(protocol=protocol), data(SMUGGLED, end=False))
      for name, protocol in (
          ("h2c", b"h2c"), ("tls", b"TLS/1.0"), ("http", b"HTTP/1.1"), ("udp", b"connect-udp"), ("empty", b""),
          ("list", b"websocket, h2c"), ("crlf", b"websocket\r\nx-line: spoofed"), ("upper", b"h2c\x00websocket"),
      )),
)  # fmt: skip

_LONG = (b"x-long", b"a" * 70_000)
_OPEN = Head(fields(method=POST), end=False)
_FRAMES: tuple[H2Case, ...] = (
    case("frames/data-idle", "RFC 9113 5.1", "DATA on a stream that nobody has opened.", data(SMUGGLED, stream=5)),
    case("frames/data-zero", "RFC 9113 6.1", "DATA on the connection itself.", data(SMUGGLED, stream=0)),
    case("frames/data-even", "RFC 9113 5.1.1", "DATA on a stream of the server.", data(SMUGGLED, stream=2)),
    case("frames/head-zero", "RFC 9113 6.2", "A request on the connection itself.", Head(fields(), stream=0)),
    case("frames/head-even", "RFC 9113 5.1.1", "A request on a stream of the server.", Head(fields(), stream=2)),
    case("frames/head-lower", "RFC 9113 5.1.1", "A stream below the last one.",
         Head(fields(), stream=5), Head(fields(path=b"/smuggled"), stream=3), accept=_FIRST),
    case("frames/continuation-alone", "RFC 9113 6.10", "CONTINUATION without HEADERS.",
         Raw(Kind.CONTINUATION, END_HEADERS, 1, _BLOCK)),
    case("frames/continuation-empty-first", "RFC 9113 6.10", "HEADERS with nothing in it, and the block behind it.",
         Head(fields(), cuts=(0,)), accept=_FIRST),
    case("frames/continuation-other-stream", "RFC 9113 6.10", "A block that goes on on another stream.",
         Raw(Kind.HEADERS, END_STREAM, 1, _BLOCK[:2]), Raw(Kind.CONTINUATION, END_HEADERS, 3, _BLOCK[2:])),
    case("frames/continuation-data-between", "RFC 9113 6.10", "DATA within a block.",
         Raw(Kind.HEADERS, 0, 1, _BLOCK[:2]), data(SMUGGLED), Raw(Kind.CONTINUATION, END_HEADERS, 1, _BLOCK[2:])),
    case("frames/continuation-each-byte", "RFC 9113 6.10", "A CONTINUATION for each byte: a flood, or a good request.",
         Head(fields(), cuts=tuple(range(1, len(_BLOCK)))), accept=_FIRST),
    case("frames/continuation-never-ends", "RFC 9113 6.10", "A block without an end (CVE-2024-27316).",
         Raw(Kind.HEADERS, 0, 1, _BLOCK), *(Raw(Kind.CONTINUATION, 0, 1, b"\x00\x01a\x01b") for _ in range(500))),
    case("frames/block-half", "RFC 7541 5.2", "A block that ends within a string.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, _BLOCK[:-2])),
    case("frames/block-index-zero", "RFC 7541 6.1", "Index 0 names nothing.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\x80")),
    case("frames/block-index-high", "RFC 7541 2.3.3", "An entry that is not there.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\x80\x01")),
    case("frames/block-table-large", "RFC 7541 6.3", "A table that is larger than was allowed.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xe1\xff\x03" + _BLOCK)),
    case("frames/block-huffman-end", "RFC 7541 5.2", "The end of string within a string.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x84\xff\xff\xff\xff\x01a")),
    case("frames/block-number-long", "RFC 7541 5.1", "A number that does not end.",
         Raw(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" + b"\x80" * 20 + b"\x01")),
    case("frames/head-long", "D13", "A field of 70,000 bytes.", Head(fields(_LONG), cuts=(16_000, 32_000, 48_000,
         64_000)), accept=one(Wanted(fields=(_LONG,)))),
    case("frames/head-bomb", "RFC 9113 10.5.1", "A small block that means 4 MB of fields (CVE-2016-6581).",
         Head((*fields(), *(((b"x-bomb", b"b" * 3900),) * 1000)))),
    case("frames/head-lines", "RFC 9113 10.5.1", "Two thousand fields.",
         Head(fields(*((b"a", b"") for _ in range(2000))))),
    case("frames/data-padding-too-much", "RFC 9113 6.1", "More padding than there is frame.",
         _OPEN, Raw(Kind.DATA, PADDED | END_STREAM, 1, b"\x40hello")),
    case("frames/head-padding-too-much", "RFC 9113 6.2", "The same in HEADERS.",
         Raw(Kind.HEADERS, PADDED | END_STREAM | END_HEADERS, 1, b"\xff" + _BLOCK)),
    case("frames/push", "RFC 9113 8.4", "A client that pushes.",
         Raw(Kind.PUSH_PROMISE, END_HEADERS, 1, struct.pack("!L", 2) + _BLOCK)),
    case("frames/settings-window", "RFC 9113 6.5.2", "A window of more than 2**31 - 1.", _settings((4, 1 << 31))),
    case("frames/settings-frame", "RFC 9113 6.5.2", "Frames of one byte.", _settings((5, 1))),
    case("frames/settings-push", "RFC 9113 6.5.2", "ENABLE_PUSH of 2.", _settings((2, 2))),
    case("frames/settings-length", "RFC 9113 6.5", "A setting that is cut off.", Raw(Kind.SETTINGS, 0, 0, bytes(5))),
    case("frames/settings-ack-long", "RFC 9113 6.5", "An acknowledgement with something in it.",
         Raw(Kind.SETTINGS, ACK, 0, bytes(6))),
    case("frames/settings-stream", "RFC 9113 6.5", "SETTINGS on a stream.", Raw(Kind.SETTINGS, 0, 1)),
    case("frames/too-large", "RFC 9113 4.2", "A frame that is larger than was allowed.",
         _OPEN, data(b"a" * 16_385)),
    case("frames/window-zero", "RFC 9113 6.9", "A window update of nothing.", Raw(Kind.WINDOW_UPDATE, 0, 0, bytes(4))),
    case("frames/window-zero-stream", "RFC 9113 6.9", "The same on a stream.",
         _OPEN, Raw(Kind.WINDOW_UPDATE, 0, 1, bytes(4)), data(SMUGGLED)),
    case("frames/window-overflow", "RFC 9113 6.9.1", "A window of more than 2**31 - 1.",
         Raw(Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")),
    case("frames/window-overflow-stream", "RFC 9113 6.9.1", "The same on a stream.",
         _OPEN, Raw(Kind.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), data(SMUGGLED)),
    case("frames/reset-then-data", "RFC 9113 5.1", "DATA on a stream that its sender has reset.",
         _OPEN, Raw(Kind.RST_STREAM, 0, 1, struct.pack("!L", 8)), data(SMUGGLED)),
    case("frames/reset-idle", "RFC 9113 6.4", "A reset of a stream that nobody has opened.",
         Raw(Kind.RST_STREAM, 0, 7, struct.pack("!L", 8))),
    case("frames/ping-short", "RFC 9113 6.7", "A PING of seven bytes.", Raw(Kind.PING, 0, 0, bytes(7))),
    case("frames/priority-short", "RFC 9113 6.3", "A PRIORITY of four bytes on a request.",
         _OPEN, Raw(Kind.PRIORITY, 0, 1, bytes(4)), data(SMUGGLED)),
    case("frames/half-a-body", "RFC 9113 8.1.1", "A body that never comes whole is no request.",
         Head(fields((b"content-length", b"9"), method=POST), end=False), data(b"hello", end=False)),
    case("frames/second-preface", "RFC 9113 3.4", "The preface again: no frame.",
         Octets(PREFACE), Head(fields(path=b"/smuggled"))),
    case("frames/http1", "RFC 9113 3.4", "A request of HTTP/1 behind the preface: a frame of 4.6 MB.",
         Octets(SMUGGLED)),
)  # fmt: skip

CASES = (*_CONTROLS, *_TUNNELS, *_FRAMES)
