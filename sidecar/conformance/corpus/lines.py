"""Lines and header fields: bare line ends, folding, blanks, control characters (RFC 9112 sections 2.2 and 5)."""

from __future__ import annotations

from sidecar.conformance.case import HOST, NOTHING, Case, Wanted, bare, head, one

_H = b"Host: " + HOST

# RFC 9112 section 2.2 lets a server take a bare LF for a line end, and section 5.2 lets it unfold a line to blanks.
_FORGIVEN = ("lf-all", "lf-request-line", "lf-field", "lf-end", "lf-lf-end")
_UNFOLDED: dict[str, tuple[bytes, ...]] = {
    "fold": (b"1 X-B: 2", b"1  X-B: 2", b"1   X-B: 2"),
    "fold-tab": (b"1 X-B: 2", b"1  X-B: 2", b"1   X-B: 2", b"1\tX-B: 2"),
    "fold-empty": (b"1",),
}

_RAW: tuple[tuple[str, bytes, str], ...] = (
    ("lf-all", b"GET /c HTTP/1.1\n" + _H + b"\n\n", "Every line ends with a bare LF."),
    ("lf-request-line", b"GET /c HTTP/1.1\n" + _H + b"\r\n\r\n", "The request line ends with a bare LF."),
    ("lf-field", b"GET /c HTTP/1.1\r\n" + _H + b"\nX-A: 1\r\n\r\n", "A field line ends with a bare LF."),
    ("lf-end", b"GET /c HTTP/1.1\r\n" + _H + b"\r\n\n", "The empty line is a bare LF."),
    ("lf-lf-end", b"GET /c HTTP/1.1\r\n" + _H + b"\n\n", "The head ends with two bare LFs."),
    ("cr-all", b"GET /c HTTP/1.1\r" + _H + b"\r\r\n\r\n", "Every line ends with a bare CR."),
    ("cr-request-line", b"GET /c HTTP/1.1\r" + _H + b"\r\n\r\n", "The request line ends with a bare CR."),
    ("cr-in-target", b"GET /c\rd HTTP/1.1\r\n" + _H + b"\r\n\r\n", "A bare CR in the target."),
    ("cr-cr-lf", b"GET /c HTTP/1.1\r\r\n" + _H + b"\r\n\r\n", "CR CR LF after the request line."),
    ("cr-cr-lf-field", b"GET /c HTTP/1.1\r\n" + _H + b"\r\r\n\r\n", "CR CR LF after a field."),
    ("cr-cr-lf-end", b"GET /c HTTP/1.1\r\n" + _H + b"\r\n\r\r\n", "CR CR LF in the place of the empty line."),
    ("lf-cr", b"GET /c HTTP/1.1\n\r" + _H + b"\n\r\n\r", "LF CR, the wrong way round."),
    ("nul-first", b"\x00" + head(), "A NUL before the request line."),
    ("space-first", b" " + head(), "A space before the request line."),
    ("tab-first", b"\t" + head(), "A tab before the request line."),
    ("garbage-first", b"\xff\xfe" + head(), "A byte order mark before the request line."),
    ("garbage", bytes(range(128, 256)) * 4 + b"\r\n\r\n", "Nothing but noise."),
    ("tls", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160), "A TLS handshake inside the connection."),
    ("unfinished", b"GET /c HTTP/1.1\r\n" + _H + b"\r\n", "A head without its empty line is never a request."),
    ("fold-first", b"GET /c HTTP/1.1\r\n X-A: 1\r\n" + _H + b"\r\n\r\n", "A folded line before any field."),
    ("fold-host", b"GET /c HTTP/1.1\r\nHost:\r\n " + HOST + b"\r\n\r\n", "A folded Host."),
    ("fold-host-two", b"GET /c HTTP/1.1\r\n" + _H + b"\r\n .evil.example\r\n\r\n", "A Host that goes on below."),
)

_FIELDS: tuple[tuple[str, bytes, str], ...] = (
    ("fold", b"X-A: 1\r\n X-B: 2", "A folded line: one field, or two, or an error."),
    ("fold-tab", b"X-A: 1\r\n\tX-B: 2", "The same with a tab."),
    ("fold-empty", b"X-A: 1\r\n \r\nX-B: 2", "A line of one blank: the end of the head to some."),
    ("lf-in-value", b"X-A: 1\nX-B: spoofed", "A bare LF in a value hides a second field."),
    ("cr-in-value", b"X-A: 1\rX-B: spoofed", "A bare CR in a value hides a second field."),
    ("cr-end-of-value", b"X-A: 1\r", "A value that ends with a CR."),
    ("lf-host", b"X-A: 1\nHost: evil.example", "A bare LF hides a second Host."),
    ("cr-before-colon", b"X-A\r: 1", "A CR before the colon."),
    ("no-colon", b"nonsense", "A line without a colon."),
    ("no-name", b": 1", "A line without a name."),
    ("only-colon", b":", "A colon and nothing else."),
    ("space-before-colon", b"X-A : 1", "A space before the colon: a different name to some."),
    ("tab-before-colon", b"X-A\t: 1", "A tab before the colon."),
    ("space-in-name", b"X A: 1", "A space in a name."),
    ("space-before-name", b" X-A: 1", "A blank in front of a name."),
    ("quoted-name", b'"X-A": 1', "A quoted name."),
    ("utf8-name", "X-Ä: 1".encode(), "Letters outside ASCII in a name."),
    ("latin1-name", b"X-\xe4: 1", "The same in Latin-1."),
    ("two-colons-host", b"Host:: " + HOST, "Two colons: a second Host to some."),
)

_NAME_BYTES = b"\x00\x01\x08\x0b\x0c\x1b\x1f\x7f\x80\xa0\xff()<>@,;\\\"/[]?={}"
_VALUE_BYTES = b"\x00\x01\x07\x08\x0b\x0c\x1b\x1f\x7f"

CASES = (
    *(
        Case(f"lines/{name}", "RFC 9112 2.2", why, raw,
             one(Wanted()) if name in _FORGIVEN else one(Wanted(host=HOST)) if name == "fold-host" else NOTHING)
        for name, raw, why in _RAW
    ),
    *(
        Case(f"lines/field-{name}", "RFC 9112 5", why, head(line),
             tuple((Wanted(fields=((b"x-a", value),)),) for value in _UNFOLDED.get(name, ())))
        for name, line, why in _FIELDS
    ),
    *(
        Case(f"lines/name-byte-{byte:02x}", "RFC 9110 5.6.2", f"Byte 0x{byte:02x} may not stand in a field name.",
             head(b"X-A" + bytes((byte,)) + b"B: 1"), NOTHING)
        for byte in _NAME_BYTES
    ),
    *(
        Case(f"lines/value-byte-{byte:02x}", "RFC 9110 5.5", f"Byte 0x{byte:02x} may not stand in a field value.",
             head(b"X-A: a" + bytes((byte,)) + b"b"), NOTHING)
        for byte in _VALUE_BYTES
    ),
    Case("lines/field-nul-in-host", "RFC 9110 7.2", "A NUL in Host ends it for C code only.",
         bare(b"GET /c HTTP/1.1", _H + b"\x00.evil.example")),
    Case("lines/empty-lines", "RFC 9112 2.2", "Ten empty lines before a request: ten times what is forgiven.",
         b"\r\n" * 10 + head(), one(Wanted())),
    Case("lines/lf-first", "RFC 9112 2.2", "A bare LF before a request.", b"\n" + head(), one(Wanted())),
    Case("lines/head-1-mib", "RFC 9110 5.4", "A header line of 1 MiB.", head(b"X-A: " + b"x" * (1 << 20))),
    Case("lines/name-1-mib", "RFC 9110 5.4", "A name of 1 MiB.", head(b"X" * (1 << 20) + b": 1")),
    Case("lines/fields-10000", "RFC 9110 5.4", "Ten thousand header lines.", head(*[b"X: 1"] * 10_000)),
    Case("lines/target-1-mib", "RFC 9112 3", "A target of 1 MiB.", head(target=b"/" + b"x" * (1 << 20))),
    Case("lines/method-64-kib", "RFC 9112 3", "A method of 64 KiB.", head(method=b"G" * (1 << 16))),
    Case("lines/head-33-kib", "D13", "A head over our 32 KiB.", head(b"X-A: " + b"x" * (33 << 10)), ours=True),
    Case("lines/fields-101", "D13", "More than our 100 header lines.", head(*[b"X: 1"] * 100), ours=True),
)  # fmt: skip
