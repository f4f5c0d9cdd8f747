"""Chunk sizes, extensions, ends and trailers of every bad kind (RFC 9112 section 7.1, RFC 9110 section 6.5)."""

from __future__ import annotations

from sidecar.conformance.case import NOTHING, SMUGGLED, Case, Reading, chunked, posted

_SIZES: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("plus", b"+5", NOTHING, "A sign, which number readers of most languages take."),
    ("minus", b"-5", NOTHING, "A negative size."),
    ("0x", b"0x5", NOTHING, "The prefix that strtol() takes: 5 to some, 0 to others."),
    ("underscore", b"0_5", NOTHING, "Python's int() takes underscores."),
    ("space-before", b" 5", NOTHING, "A blank that strtol() skips."),
    ("tab-before", b"\t5", NOTHING, "A tab that strtol() skips."),
    ("space-after", b"5 ", NOTHING, "A blank without an extension after it."),
    ("space-inside", b"5 5", NOTHING, "Two sizes, or one."),
    ("letter-after", b"5g", NOTHING, "What is no digit ends the number for some servers only."),
    ("empty", b"", NOTHING, "No size: zero to some."),
    ("decimal", b"5.0", NOTHING, "A decimal point."),
    ("comma", b"5,5", NOTHING, "A list."),
    ("nul", b"5\x00", NOTHING, "A NUL ends the number for C code only."),
    ("vt", b"\x0b5", NOTHING, "A vertical tab, which isspace() takes for a blank."),
    ("cr", b"5\r", NOTHING, "CR CR LF."),
    ("full-width", "５".encode(), NOTHING, "A digit to Unicode, not to HTTP."),
    ("overflow-64", b"10000000000000005", NOTHING, "5 modulo 2**64."),
    ("overflow-32", b"100000005", NOTHING, "5 modulo 2**32: a promise of 4 GiB, nothing less."),
    ("max-64", b"FFFFFFFFFFFFFFFF", NOTHING, "-1 as a signed number."),
    ("zeros-300", b"0" * 300 + b"5", posted(), "Leading zeros without end: 5, or a refusal."),
    ("h", b"5h", NOTHING, "A suffix of other notations."),
    ("quoted", b'"5"', NOTHING, "Quotes."),
)

_EXTENSIONS: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("no-name", b"5;", NOTHING, "A semicolon with nothing after it."),
    ("no-name-value", b"5;=x", NOTHING, "A value without a name."),
    ("nul", b"5;a\x00", NOTHING, "A NUL in an extension."),
    ("bel", b"5;a=\x07", NOTHING, "A control character in an extension."),
    ("bare-cr", b"5;a=b\rc", NOTHING, "A bare CR ends the line for some servers (gunicorn, CVE-2025-53643's kind)."),
    ("bare-lf", b"5;a=b\nc", NOTHING, "A bare LF ends the line for some servers."),
    ("lf-only", b"5;\n", NOTHING, "TERM.EXT: the extension ends at LF for one server, at CRLF for the other."),
    ("quoted-open", b'5;a="b', NOTHING, "A quote that never closes."),
    ("quoted-crlf", b'5;a="b\r\nhello\r\n0\r\n\r\n"', NOTHING, "A line end inside quotes."),
    ("space-in-name", b"5;a b", NOTHING, "Two names, or one."),
    ("spaces-around", b"5 ; a = b", posted(), "Blanks around `;` and `=` are bad but legal (RFC 9112 7.1.1)."),
    ("huge", b"5;a=" + b"b" * 70_000, NOTHING, "An extension of 70 kB serves no purpose but exhaustion."),
)

_SMUGGLE_IN_CHUNKS: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("size-line-lf", b"5\nhello\r\n0\r\n\r\n", NOTHING, "A size line that ends with a bare LF."),
    ("size-line-cr", b"5\rhello\r\n0\r\n\r\n", NOTHING, "A size line that ends with a bare CR."),
    ("data-lf", b"5\r\nhello\n0\r\n\r\n", NOTHING, "Chunk data followed by a bare LF."),
    ("data-no-end", b"5\r\nhello0\r\n\r\n", NOTHING, "Chunk data followed by nothing."),
    ("data-two-other-bytes", b"5\r\nhelloXX0\r\n\r\n", NOTHING, "Two bytes in the place of CRLF, unread by some."),
    ("data-longer", b"5\r\nhello world\r\n0\r\n\r\n", NOTHING, "More data than the size says."),
    ("data-shorter", b"8\r\nhello\r\n0\r\n\r\n", NOTHING, "Less data than the size says."),
    ("data-cr-cr-lf", b"5\r\nhello\r\r\n0\r\n\r\n", NOTHING, "CR CR LF after the data."),
    ("last-lf", b"5\r\nhello\r\n0\n\n", NOTHING, "The last chunk ends with bare LFs."),
    ("last-mixed", b"5\r\nhello\r\n0\r\n\n", NOTHING, "CRLF, then a bare LF."),
    ("last-minus-zero", b"5\r\nhello\r\n-0\r\n\r\n", NOTHING, "Minus zero."),
    ("last-0x0", b"5\r\nhello\r\n0x0\r\n\r\n", NOTHING, "Hexadecimal zero with a prefix."),
    ("last-missing", b"5\r\nhello\r\n", NOTHING, "A body without its last chunk is never a whole request."),
    ("last-no-empty-line", b"5\r\nhello\r\n0\r\n", NOTHING, "The empty line after the last chunk never comes."),
    ("last-then-request", b"0\r\n" + SMUGGLED, NOTHING, "A request line in the place of trailers."),
    ("term-ext", b"2;\nxx\r\n4c\r\n0\r\n\r\n" + SMUGGLED, NOTHING, "TERM.EXT with a request behind it."),
    ("spill", b"5\r\nhello\r\r\n0\r\n\r\n" + SMUGGLED, NOTHING, "One byte of spill, then a second request."),
)

_TRAILERS: tuple[tuple[str, bytes, bytes, bool], ...] = (  # name, line, field that must not arrive, ours
    ("content-length", b"Content-Length: 50", b"content-length", False),
    ("transfer-encoding", b"Transfer-Encoding: identity", b"transfer-encoding", False),
    ("host", b"Host: spoofed", b"", False),
    ("authorization", b"Authorization: spoofed", b"authorization", False),
    ("cookie", b"Cookie: spoofed", b"cookie", False),
    ("content-type", b"Content-Type: spoofed", b"content-type", False),
    ("content-encoding", b"Content-Encoding: spoofed", b"content-encoding", False),
    ("expect", b"Expect: 100-continue", b"expect", False),
    ("connection", b"Connection: close", b"", False),
    ("upgrade", b"Upgrade: spoofed", b"upgrade", False),
    ("te", b"TE: spoofed", b"te", False),
    ("x-forwarded-for", b"X-Forwarded-For: spoofed", b"", False),
    ("xfcc", b"X-Forwarded-Client-Cert: spoofed", b"", True),
    ("xfcc-underscore", b"X_Forwarded_Client_Cert: spoofed", b"", True),
    ("mesh", b"Mesh-Via: spoofed", b"", True),
    ("mesh-underscore", b"mesh_via: spoofed", b"", True),
)

_TRAILER_LINES: tuple[tuple[str, bytes, str], ...] = (
    ("folded", b"X-A: 1\r\n 2", "A folded trailer."),
    ("lf", b"X-A: 1\nX-B: 2", "A bare LF between trailers."),
    ("cr", b"X-A: 1\rX-B: 2", "A bare CR between trailers."),
    ("nul", b"X-A: \x00", "A NUL in a trailer."),
    ("del", b"X-A: \x7f", "A DEL in a trailer."),
    ("space-colon", b"X-A : 1", "A space before the colon."),
    ("no-colon", b"nonsense", "A line without a colon."),
    ("no-name", b": 1", "A line without a name."),
    ("huge", b"X-A: " + b"x" * 200_000, "A trailer of 200 kB."),
    ("many", b"\r\n".join(b"X-%d: 1" % number for number in range(2000)), "Two thousand trailers."),
)

CASES = (
    *(
        Case(f"chunks/size-{name}", "RFC 9112 7.1", why, chunked(size + b"\r\nhello\r\n0\r\n\r\n"), accept)
        for name, size, accept, why in _SIZES
    ),
    *(
        Case(f"chunks/extension-{name}", "RFC 9112 7.1.1", why, chunked(size + b"\r\nhello\r\n0\r\n\r\n"), accept)
        for name, size, accept, why in _EXTENSIONS
    ),
    *(
        Case(f"chunks/{name}", "RFC 9112 7.1", why, chunked(body), accept)
        for name, body, accept, why in _SMUGGLE_IN_CHUNKS
    ),
    *(
        Case(
            f"chunks/trailer-{name}",
            "D21" if ours else "RFC 9110 6.5.1",
            f"{line.partition(b':')[0].decode()} after the body would change what has already been judged.",
            chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n"),
            posted(without=(field,) if field not in (b"", b"transfer-encoding", b"content-length") else ()),
            ours=ours,
        )
        for name, line, field, ours in _TRAILERS
    ),
    *(
        Case(f"chunks/trailer-line-{name}", "RFC 9112 7.1.2", why, chunked(b"0\r\n" + line + b"\r\n\r\n"))
        for name, line, why in _TRAILER_LINES
    ),
)  # fmt: skip
