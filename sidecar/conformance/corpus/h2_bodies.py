"""HTTP/2 bodies: lengths that lie, chunks where there are none, trailers that are more than trailers (RFC 9113 8.1)."""

from __future__ import annotations

from sidecar.conformance.case import POST, SMUGGLED, SPOOF, Wanted, one, posted, size_of
from sidecar.conformance.h2case import H2Case, Head, case, data, fields, posted_in

_CHUNKED = b"0\r\n\r\n" + SMUGGLED
_HELLO_CHUNK = b"5\r\nhello\r\n0\r\n\r\n"


_LENGTHS: tuple[tuple[str, bytes, tuple[bytes, ...], str], ...] = (
    ("zero", b"0", (SMUGGLED,), "A length of 0, and a body that is a request (H2.CL)."),
    ("short", b"5", (b"hello" + SMUGGLED,), "The length ends before the request in the body (H2.CL)."),
    ("short-frames", b"5", (b"hello", SMUGGLED), "The same in two frames: the first one fits."),
    ("short-by-one", b"4", (b"hello",), "One byte too short."),
    ("long", b"60", (b"hello",), "The next request on HTTP/1 would be eaten."),
    ("long-by-one", b"6", (b"hello",), "One byte too long."),
    ("long-empty", b"5", (b"",), "A length, and an empty body."),
    ("huge", b"99999999999999999999", (b"hello",), "More than 64 bits."),
    ("wrap", b"18446744073709551621", (b"hello",), "5 modulo 2**64."),
    ("minus", b"-5", (b"hello",), "A negative length."),
    ("plus", b"+5", (b"hello",), "A sign."),
    ("hex", b"0x5", (b"hello",), "Hexadecimal."),
    ("list", b"5, 5", (b"hello",), "A list of equal lengths."),
    ("list-differ", b"5, 0", (b"hello",), "A list of two lengths."),
    ("empty", b"", (b"hello",), "An empty length."),
    ("word", b"five", (b"hello",), "No number."),
    ("point", b"5.0", (b"hello",), "No whole number."),
    ("underscore", b"0_5", (b"hello",), "A number to Python only."),
    ("space-in", b"5 0", (b"hello",), "Two numbers."),
    ("comma", b"5,", (b"hello",), "A list with nothing in it."),
    ("unicode", "５".encode(), (b"hello",), "A digit in another script."),
)  # fmt: skip

_FORBIDDEN: tuple[tuple[str, bytes, bytes], ...] = (
    ("content-length", b"content-length", b"5"), ("transfer-encoding", b"transfer-encoding", b"chunked"),
    ("host", b"host", b"evil.example"), ("authorization", b"authorization", b"Basic YTph"),
    ("cookie", b"cookie", b"a=spoofed"), ("te", b"te", b"trailers"), ("connection", b"connection", b"close"),
    ("trailer", b"trailer", b"x-a"), ("content-type", b"content-type", b"text/html"), ("expect", b"expect", b"a"),
    ("x-forwarded-for", b"x-forwarded-for", SPOOF), ("content-encoding", b"content-encoding", b"gzip"),
)  # fmt: skip
_BAD_TRAILERS: tuple[tuple[str, tuple[bytes, bytes], str], ...] = (
    ("path", (b":path", b"/smuggled"), "A pseudo-header in trailers."),
    ("method", (b":method", b"DELETE"), "The same: another method."),
    ("status", (b":status", b"200"), "A response's pseudo-header."),
    ("upper", (b"X-A", b"1"), "A name in upper case."),
    ("crlf", (b"x-a", b"1\r\nx-line: spoofed"), "A CRLF in a trailer."),
    ("request", (b"x-a", b"1\r\n\r\n" + SMUGGLED), "A request behind the last trailer."),
    ("nul", (b"x-a", b"1\x00"), "A NUL in a trailer."),
    ("name-crlf", (b"x-a: 1\r\n\r\nGET /smuggled HTTP/1.1\r\nx", b"1"), "A request in a trailer's name."),
    ("name-space", (b"x a", b"1"), "A space in a trailer's name."),
    ("name-empty", (b"", b"1"), "A trailer without a name."),
)  # fmt: skip
_OPEN = Head(fields(method=POST), end=False)
_HELLO = data(b"hello", end=False)

CASES: tuple[H2Case, ...] = (
    *(case(f"lengths/{name}", "RFC 9113 8.1.1", why, *posted_in(*bodies, more=((b"content-length", value),)))
      for name, value, bodies, why in _LENGTHS),
    case("lengths/without-body", "RFC 9113 8.1.1", "A length, and a stream that ends with its head.",
         Head(fields((b"content-length", b"5"), method=POST))),
    case("lengths/get-without-body", "RFC 9113 8.1.1", "The same on a GET: the next request would be its body.",
         Head(fields((b"content-length", size_of(SMUGGLED))))),
    case("lengths/twice-same", "RFC 9110 8.6", "Two lengths, even equal ones: refused, or one of them.",
         *posted_in(b"hello", more=((b"content-length", b"5"), (b"content-length", b"5"))),
         accept=posted(once=(b"content-length",))),
    case("lengths/twice-differ", "RFC 9110 8.6", "Two lengths.",
         *posted_in(b"hello", more=((b"content-length", b"5"), (b"content-length", b"0")))),
    case("lengths/twice-zero-first", "RFC 9110 8.6", "The same, the other way round.",
         *posted_in(SMUGGLED, more=((b"content-length", b"0"), (b"content-length", size_of(SMUGGLED))))),
    case("lengths/short-then-trailers", "RFC 9113 8.1.1", "Trailers come before the length is reached.",
         Head(fields((b"content-length", b"9"), method=POST), end=False), _HELLO, Head(((b"x-a", b"1"),))),
    case("lengths/padding-does-not-count", "RFC 9113 6.1", "With its padding the body would be long enough.",
         Head(fields((b"content-length", b"15"), method=POST), end=False), data(b"hello", padding=9)),
    case("lengths/head", "RFC 9113 8.1.1", "A HEAD with a length and a body that is a request.",
         Head(fields((b"content-length", size_of(SMUGGLED)), method=b"HEAD"), end=False), data(SMUGGLED),
         accept=one(Wanted(b"HEAD", body=SMUGGLED))),
    case("lengths/get", "RFC 9110 9.3.1", "A GET whose body is a request.",
         Head(fields((b"content-length", size_of(SMUGGLED))), end=False), data(SMUGGLED),
         accept=one(Wanted(body=SMUGGLED))),
    case("lengths/get-no-length", "RFC 9110 9.3.1", "The same without a length.",
         Head(fields(), end=False), data(SMUGGLED), accept=one(Wanted(body=SMUGGLED))),
    case("lengths/delete-no-length", "RFC 9110 9.3.5", "A DELETE whose body is a request.",
         Head(fields(method=b"DELETE"), end=False), data(SMUGGLED), accept=one(Wanted(b"DELETE", body=SMUGGLED))),
    case("lengths/options-no-length", "RFC 9110 9.3.7", "The same for OPTIONS.",
         Head(fields(method=b"OPTIONS"), end=False), data(SMUGGLED),
         accept=one(Wanted(b"OPTIONS", body=SMUGGLED))),
    # Transfer-Encoding (H2.TE)
    case("chunks/coding", "RFC 9113 8.2.2", "Chunks in DATA: the origin would see the end and a request (H2.TE).",
         *posted_in(_CHUNKED, more=((b"transfer-encoding", b"chunked"),))),
    case("chunks/coding-and-length", "RFC 9113 8.2.2", "The same beside a length that is right.",
         *posted_in(_CHUNKED, more=((b"content-length", size_of(_CHUNKED)), (b"transfer-encoding", b"chunked")))),
    case("chunks/coding-identity", "RFC 9113 8.2.2", "A coding that changes nothing.",
         *posted_in(b"hello", more=((b"transfer-encoding", b"identity"),))),
    case("chunks/coding-empty", "RFC 9113 8.2.2", "An empty one.",
         *posted_in(b"hello", more=((b"transfer-encoding", b""),))),
    *(case(f"chunks/coding-name-{name}", "RFC 9113 8.2.1", "A name that some read as Transfer-Encoding.",
           *posted_in(_CHUNKED, more=((field, b"chunked"),)))
      for name, field in (
          ("upper", b"Transfer-Encoding"), ("space", b"transfer-encoding "), ("tab", b"transfer-encoding\t"),
          ("nul", b"transfer-encoding\x00"), ("colon", b"transfer-encoding:"), ("cr", b"transfer-encoding\r"),
          ("first-space", b" transfer-encoding"), ("vt", b"transfer-encoding\x0b"),
      )),
    case("chunks/hidden-in-value", "RFC 9113 8.2.1", "The coding hides behind a CRLF in another field.",
         *posted_in(_CHUNKED, more=((b"x-a", b"b\r\ntransfer-encoding: chunked"),))),
    case("chunks/hidden-in-path", "RFC 9113 8.2.1", "It hides in the path.",
         Head(fields(method=POST, path=b"/c HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y"), end=False),
         data(_CHUNKED)),
    case("chunks/hidden-in-method", "RFC 9110 9.1", "It hides in the method.",
         Head(fields(method=b"POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y"), end=False), data(_CHUNKED)),
    case("chunks/body-only", "RFC 9113 8.1", "A body that looks like chunks is a body.",
         *posted_in(_HELLO_CHUNK), accept=posted(_HELLO_CHUNK), must_pass=True),
    case("chunks/body-request", "RFC 9113 8.1", "A body that looks like a request is a body.",
         *posted_in(_CHUNKED), accept=posted(_CHUNKED), must_pass=True),
    case("chunks/body-frames", "RFC 9113 8.1", "The same, cut where chunks would be.",
         *posted_in(b"0\r\n", b"\r\n", SMUGGLED), accept=posted(_CHUNKED), must_pass=True),
    # trailers
    *(case(f"trailers/{name}", "RFC 9110 6.5.1", f"{field.decode()} as a trailer: dropped, or refused.",
           _OPEN, _HELLO, Head(((field, value),)), accept=posted(without=() if name == "host" else (field,))
           if name not in ("content-length", "transfer-encoding", "host") else posted())
      for name, field, value in _FORBIDDEN),
    *(case(f"trailers/bad-{name}", "RFC 9113 8.1", why, _OPEN, _HELLO, Head((field,)))
      for name, field, why in _BAD_TRAILERS),
    case("trailers/reserved", "D21", "A name of the mesh as a trailer.", _OPEN, _HELLO,
         Head(((b"mesh-via", SPOOF), (b"x_forwarded_client_cert", SPOOF))), accept=posted(), ours=True),
    case("trailers/open", "RFC 9113 8.1", "Trailers that do not end the stream.",
         _OPEN, _HELLO, Head(((b"x-a", b"1"),), end=False), data(SMUGGLED)),
    case("trailers/second-head", "RFC 9113 8.1", "A second request on the same stream.",
         _OPEN, _HELLO, Head(fields(path=b"/smuggled"))),
    case("trailers/head-after-end", "RFC 9113 5.1", "A second request on a stream that has ended.",
         Head(fields()), Head(fields(path=b"/smuggled")), accept=one(Wanted())),
    case("trailers/data-after-end", "RFC 9113 5.1", "A body behind the end of the request.",
         Head(fields(method=POST)), data(SMUGGLED), accept=one(Wanted(POST))),
    case("trailers/after-length", "RFC 9112 7.1.2", "A length and trailers: HTTP/1 has no place for the latter.",
         Head(fields((b"content-length", b"5"), method=POST), end=False), _HELLO, Head(((b"x-trailer", b"1"),)),
         accept=posted()),
)  # fmt: skip
