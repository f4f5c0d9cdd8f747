"""Where a message ends: Content-Length, Transfer-Encoding, and every quarrel between the two (RFC 9112 section 6)."""

from __future__ import annotations

from sidecar.conformance.case import (
    HELLO,
    NOTHING,
    POST,
    SMUGGLED,
    Case,
    Reading,
    Wanted,
    bare,
    head,
    one,
    post,
    posted,
    size_of,
)

_LENGTH = b"Content-Length: %b"
_TE = b"Transfer-Encoding: chunked"
_ENDED = b"0\r\n\r\n"
_INNER = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"  # its size is a chunk's, so it names a host of one letter
_HIDDEN = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_INNER), _INNER)


def _both() -> tuple[Case, ...]:
    """Content-Length beside Transfer-Encoding. RFC 9112 6.3: refuse, or read the chunks, forward one framing, close."""
    chunks = posted()
    empty = posted(b"")
    hidden = posted(_INNER)
    why = "Content-Length and Transfer-Encoding: two servers see two ends of this message."
    return (
        Case("framing/cl-te", "RFC 9112 6.3", why, post(_LENGTH % size_of(HELLO), _TE, body=HELLO), chunks),
        Case("framing/te-cl", "RFC 9112 6.3", why, post(_TE, _LENGTH % size_of(HELLO), body=HELLO), chunks),
        Case("framing/cl.te-smuggle", "RFC 9112 6.3", "CL.TE: the length covers what the chunks leave behind.",
             post(_LENGTH % size_of(_ENDED + SMUGGLED), _TE, body=_ENDED + SMUGGLED), empty),
        Case("framing/te.cl-smuggle", "RFC 9112 6.3", "TE.CL: the chunks cover what the length leaves behind.",
             post(_LENGTH % b"4", _TE, body=_HIDDEN), hidden),
        Case("framing/cl0-te", "RFC 9112 6.3", "CL.0: a length of zero beside chunks.",
             post(_LENGTH % b"0", _TE, body=_HIDDEN), hidden),
        Case("framing/cl-te-http10", "RFC 9112 6.1", "HTTP/1.0 knows no transfer codings: nobody agrees on this.",
             post(_LENGTH % size_of(HELLO), _TE, body=HELLO, version=b"HTTP/1.0"), chunks),
        Case("framing/te-http10", "RFC 9112 6.1", "Chunks in HTTP/1.0: framing is faulty, even where it parses.",
             post(_TE, body=HELLO, version=b"HTTP/1.0"), chunks),
        Case("framing/te-http10-smuggle", "RFC 9112 6.1", "Who ignores chunked in HTTP/1.0 sees a second request.",
             post(b"Connection: keep-alive", _TE, body=_ENDED + SMUGGLED, version=b"HTTP/1.0"), empty),
        Case("framing/get-te-smuggle", "RFC 9112 6.3", "GET with both, the second request inside the length.",
             head(_LENGTH % size_of(_ENDED + SMUGGLED), _TE) + _ENDED + SMUGGLED,
             one(Wanted())),
    )  # fmt: skip


_CODINGS: tuple[tuple[str, bytes, bool], ...] = (  # name, value, whether a chunked reading of it is right
    ("unknown", b"cow", False),
    ("prefix", b"xchunked", False),
    ("suffix", b"chunkedx", False),
    ("quoted", b'"chunked"', False),
    ("parameter", b"chunked;q=1", False),
    ("twice", b"chunked, chunked", False),
    ("identity", b"identity", False),
    ("identity-last", b"chunked, identity", False),
    ("identity-first", b"identity, chunked", False),
    ("gzip-last", b"chunked, gzip", False),
    ("unknown-first", b"cow, chunked", False),
    ("vt", b"\x0bchunked", False),
    ("ff", b"chunked\x0c", False),
    ("nul", b"chunked\x00", False),
    ("nbsp", b"\xa0chunked", False),
    ("utf8", "chunₖed".encode(), False),
    ("dotless", "chunkeď".encode(), False),
    ("space-inside", b"chun ked", False),
    ("semicolon", b"chunked;", False),
    ("cr", b"chunked\r", False),
    ("lf-identity", b"chunked\nX: identity", False),
    ("comma-after", b"chunked,", True),
    ("comma-before", b",chunked", True),
    ("tab", b"\tchunked", True),
    ("mixed-case", b"cHuNkEd", True),
    ("blanks", b"  chunked \t ", True),
    ("empty", b"", False),
)


def _codings() -> tuple[Case, ...]:
    """Transfer-Encoding in disguise, alone and beside a length."""
    cases = []
    for name, value, right in _CODINGS:
        line = b"Transfer-Encoding: " + value
        why = "A transfer coding that some servers take for chunked and others do not."
        if right:
            why = "Unusual blanks, case or empty list members: chunked, or a refusal, and nothing else."
        accept = posted() if right else NOTHING
        cases.append(Case(f"framing/te-{name}", "RFC 9112 6.1", why, post(line, body=HELLO), accept))
        both = posted(b"") if right else NOTHING
        body = _ENDED + SMUGGLED
        raw = post(_LENGTH % size_of(body), line, body=body)
        cases.append(Case(f"framing/cl-te-{name}", "RFC 9112 6.3", f"{why} With a length beside it.", raw, both))
    return tuple(cases)


_LINES: tuple[tuple[str, tuple[bytes, ...], str], ...] = (
    ("two-lines", (_TE, _TE), "Chunked applied twice, on two lines."),
    ("then-identity", (_TE, b"Transfer-Encoding: identity"), "Two lines that disagree."),
    ("identity-then", (b"Transfer-Encoding: identity", _TE), "Two lines that disagree, the other way round."),
    ("space-colon", (b"Transfer-Encoding : chunked",), "A space before the colon: no field to some."),
    ("tab-colon", (b"Transfer-Encoding\t: chunked",), "A tab before the colon."),
    ("vt-colon", (b"Transfer-Encoding\x0b: chunked",), "A vertical tab before the colon."),
    ("nul-name", (b"Transfer-Encoding\x00: chunked",), "A NUL ends the name for C code only."),
    ("high-name", (b"Transfer-Encoding\xff: chunked",), "A byte that some servers drop from names."),
    ("lead-space", (b" Transfer-Encoding: chunked",), "A line that begins with a space continues the one before."),
    ("lead-tab", (b"\tTransfer-Encoding: chunked",), "The same with a tab."),
    ("folded", (b"Transfer-Encoding:", b" chunked"), "A folded value: chunked to some, empty to others."),
    ("lf-before", (b"X: x\nTransfer-Encoding: chunked",), "A bare LF ends a line for some servers only."),
    ("cr-before", (b"X: x\rTransfer-Encoding: chunked",), "A bare CR ends a line for some servers only."),
    ("cr-name", (b"\rTransfer-Encoding: chunked",), "A CR in front of a name."),
    ("no-colon", (b"Transfer-Encoding chunked",), "A line without a colon."),
    ("lf-value", (b"Transfer-Encoding:\nchunked",), "A bare LF between colon and value."),
)


def _disguised_lines() -> tuple[Case, ...]:
    body = _ENDED + SMUGGLED
    return tuple(
        Case(f"framing/te-line-{name}", "RFC 9112 5.1", why, post(_LENGTH % size_of(body), *lines, body=body),
             posted(b"") if name == "folded" else NOTHING)  # RFC 9112 section 5.2 lets a server unfold it
        for name, lines, why in _LINES
    )  # fmt: skip


_LENGTHS: tuple[tuple[str, tuple[bytes, ...], tuple[Reading, ...], str], ...] = (
    ("twice-same", (b"5", b"5"), posted(once=(b"content-length",)), "Two equal lengths: refuse, or forward one."),
    ("twice-differ", (b"5", b"40"), NOTHING, "Two lengths that differ."),
    ("twice-differ-first", (b"40", b"5"), NOTHING, "Two lengths that differ, the larger one first."),
    ("list-same", (b"5, 5",), posted(once=(b"content-length",)), "A list of equal lengths: refuse, or forward one."),
    ("list-differ", (b"5, 6",), NOTHING, "A list of lengths that differ."),
    ("list-empty", (b"5,",), NOTHING, "A list with an empty member."),
    ("plus", (b"+5",), NOTHING, "A sign, which number readers of most languages take."),
    ("minus", (b"-5",), NOTHING, "A negative length."),
    ("minus-zero", (b"-0",), NOTHING, "Minus zero is zero to some, an error to others."),
    ("hex", (b"0x5",), NOTHING, "A hexadecimal length is 0 or 5."),
    ("underscore", (b"0_5",), NOTHING, "Python's int() takes underscores."),
    ("space-inside", (b"5 5",), NOTHING, "Two numbers, or one, or none."),
    ("decimal", (b"5.0",), NOTHING, "A decimal point."),
    ("exponent", (b"5e0",), NOTHING, "An exponent."),
    ("empty", (b"",), NOTHING, "No number at all."),
    ("word", (b"five",), NOTHING, "A word."),
    ("semicolon", (b"5;x=1",), NOTHING, "A parameter."),
    ("quoted", (b'"5"',), NOTHING, "Quotes."),
    ("nul", (b"5\x00",), NOTHING, "A NUL ends the number for C code only."),
    ("vt", (b"\x0b5",), NOTHING, "isspace() of C takes a vertical tab for a blank, HTTP does not."),
    ("arabic", ("٥".encode(),), NOTHING, "A digit to Unicode, not to HTTP."),
    ("superscript", (b"\xb2",), NOTHING, "A digit to Latin-1's isdigit()."),
    ("overflow-64", (b"18446744073709551621",), NOTHING, "5 modulo 2**64."),
    ("overflow-32", (b"4294967301",), NOTHING, "5 modulo 2**32: passes only as what it says."),
    ("overflow-1000-digits", (b"1" * 1000,), NOTHING, "No machine has that many bytes."),
)


def _lengths() -> tuple[Case, ...]:
    return tuple(
        Case(f"framing/length-{name}", "RFC 9112 6.3", why,
             post(*(b"Content-Length: " + value for value in values), body=b"hello"), accept)
        for name, values, accept, why in _LENGTHS
    )  # fmt: skip


CASES = (
    *_both(),
    *_codings(),
    *_disguised_lines(),
    *_lengths(),
    Case("framing/length-space-colon", "RFC 9112 5.1", "A space before the colon hides the length from some.",
         post(b"Content-Length : %b" % size_of(SMUGGLED), body=SMUGGLED)),
    Case("framing/length-folded", "RFC 9112 5.2", "A folded length is 5, 56 or `5 6`.",
         post(b"Content-Length: 5", b" 6", body=b"hello")),
    Case("framing/length-short", "RFC 9112 6.3", "What exceeds the length is the next request, and a bad one.",
         post(b"Content-Length: 3", body=b"hello\r\n\r\n"), posted(b"hel")),
    Case("framing/length-long", "RFC 9112 6.3", "A body that never comes whole is never a request.",
         post(b"Content-Length: 50", body=b"hello")),
    Case("framing/get-body-is-no-request", "RFC 9110 9.3.1", "GET with a body that looks like a request: one request.",
         head(_LENGTH % size_of(SMUGGLED)) + SMUGGLED, one(Wanted(body=SMUGGLED))),
    Case("framing/underscore-te", "D21", "A gateway that maps names to variables reads `_` as `-`: chunked to some.",
         post(_LENGTH % size_of(HELLO), b"Transfer_Encoding: chunked", body=HELLO),
         posted(HELLO, without=(b"transfer-encoding",))),
    Case("framing/underscore-length", "D21", "The same with a second length.",
         post(b"Content-Length: 5", b"Content_Length: 50", body=b"hello"), posted(once=(b"content-length",))),
    Case("framing/te-on-continuation-of-request-line", "RFC 9112 2.2", "Blanks before the first field line.",
         bare(b"POST /c HTTP/1.1", b" Transfer-Encoding: chunked", b"Host: {host}", b"Content-Length: 5") + b"hello"),
    Case("framing/no-length-body", "RFC 9112 6.3", "Without framing there is no body: what follows is a request.",
         post(body=SMUGGLED), ((Wanted(POST), Wanted(target=b"/smuggled")), (Wanted(POST),))),
)  # fmt: skip
