"""Host: missing, twice, differing, malformed (RFC 9110 section 7.2, RFC 9112 sections 3.2 and 3.3)."""

from __future__ import annotations

from sidecar.conformance.case import HOST, NOTHING, Case, Reading, Wanted, bare, one

_GET = b"GET /c HTTP/1.1"

VALUES: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("empty", b"", NOTHING, "An empty host is whichever the server likes."),
    ("blank", b" \t ", NOTHING, "Blanks are empty."),
    ("list", HOST + b", evil.example", NOTHING, "A list: the first to some, the last to others."),
    ("space", HOST + b" evil.example", NOTHING, "Two hosts."),
    ("tab", HOST + b"\tevil.example", NOTHING, "The same with a tab."),
    ("userinfo", b"user@" + HOST, NOTHING, "User information."),
    ("userinfo-host", HOST + b"@evil.example", NOTHING, "The host is what follows the @."),
    ("path", HOST + b"/evil", NOTHING, "A path, glued into URLs by who builds them."),
    ("query", HOST + b"?evil", NOTHING, "A query."),
    ("fragment", HOST + b"#evil", NOTHING, "A fragment."),
    ("backslash", HOST + b"\\evil", NOTHING, "A backslash."),
    ("scheme", b"http://" + HOST, NOTHING, "A URL."),
    ("port-word", b"localhost:http", NOTHING, "A port that is no number."),
    ("port-minus", b"localhost:-80", NOTHING, "A negative port."),
    ("port-plus", b"localhost:+80", NOTHING, "A port with a sign."),
    ("port-huge", b"localhost:65616", NOTHING, "80 modulo 2**16."),
    ("port-space", b"localhost: 80", NOTHING, "A blank before the port."),
    ("port-two", b"localhost:80:81", NOTHING, "Two ports."),
    ("port-suffix", b"localhost:80.evil.example", NOTHING, "A port with a name after it."),
    ("percent", b"local%68ost", NOTHING, "An escape in a host."),
    ("percent-slash", b"localhost%2fevil", NOTHING, "An encoded slash in a host."),
    ("ipv6-open", b"[::1", NOTHING, "A bracket that never closes."),
    ("ipv6-bare", b"::1", NOTHING, "IPv6 without brackets: a port to some."),
    ("ipv6-zone", b"[fe80::1%25lo]", NOTHING, "A zone says nothing to anybody else."),
    ("ipv6-suffix", b"[::1].evil.example", NOTHING, "A name after the bracket."),
    ("ipv6-bad", b"[not:an:address]", NOTHING, "Brackets around no address."),
    ("utf8", "exämple".encode(), NOTHING, "Bytes outside ASCII."),
    ("quoted", b'"' + HOST + b'"', NOTHING, "Quotes."),
    ("brackets", b"<" + HOST + b">", NOTHING, "Angle brackets."),
    ("semicolon", HOST + b";evil", NOTHING, "A semicolon."),
    ("del", HOST + b"\x7f", NOTHING, "A control character."),
    ("long", b"a." * 2000 + b"a", NOTHING, "Four thousand bytes; names have at most 253."),
)

_TWO: tuple[tuple[str, tuple[bytes, ...], str], ...] = (
    ("twice-same", (b"Host: " + HOST, b"Host: " + HOST), "Two lines, even equal ones, are an error."),
    ("twice-differ", (b"Host: " + HOST, b"Host: evil.example"), "The first to some, the last to others."),
    ("twice-differ-first", (b"Host: evil.example", b"Host: " + HOST), "The same, the other way round."),
    ("twice-apart", (b"Host: " + HOST, b"X-A: 1", b"hOST: evil.example"), "Apart, and in another case."),
    ("twice-space", (b"Host: " + HOST, b"Host : evil.example"), "The second one with a space before its colon."),
    ("twice-fold", (b"Host: " + HOST, b" Host: evil.example"), "The second one folded into the first."),
    ("twice-empty", (b"Host: " + HOST, b"Host:"), "The second one empty."),
    ("twice-nul", (b"Host: " + HOST, b"Host\x00: evil.example"), "The second one with a NUL in its name."),
    ("missing", (b"X-A: 1",), "No Host in HTTP/1.1."),
)

CASES = (
    *(Case(f"hosts/{name}", "RFC 9112 3.2", why, bare(_GET, b"Host: " + value), accept)
      for name, value, accept, why in VALUES),
    *(Case(f"hosts/{name}", "RFC 9112 3.2", why, bare(_GET, *lines)) for name, lines, why in _TWO),
    Case("hosts/http10-twice", "RFC 9112 3.2", "Two Hosts are an error in HTTP/1.0 too.",
         bare(b"GET /c HTTP/1.0", b"Host: " + HOST, b"Host: evil.example")),
    Case("hosts/http10-missing", "RFC 9112 3.2", "HTTP/1.0 may leave Host out; what goes on in 1.1 must have one.",
         bare(b"GET /c HTTP/1.0"), one(Wanted())),
    Case("hosts/absolute-differs", "D4", "RFC 9112 3.2.2 lets the target win; not every origin does.",
         bare(b"GET http://evil.example/c HTTP/1.1", b"Host: " + HOST), one(Wanted(host=b"evil.example"))),
    Case("hosts/absolute-differs-host", "D4", "The same, the other way round.",
         bare(b"GET http://" + HOST + b"/c HTTP/1.1", b"Host: evil.example"), one(Wanted(host=HOST))),
    Case("hosts/absolute-port-differs", "D4", "The same with ports.",
         bare(b"GET http://localhost:81/c HTTP/1.1", b"Host: localhost:82"), one(Wanted(host=b"localhost:81"))),
    Case("hosts/absolute-host-missing", "RFC 9112 3.2", "A URL as target is no Host line.",
         bare(b"GET http://" + HOST + b"/c HTTP/1.1")),
    Case("hosts/port-empty", "RFC 3986 3.2.3", "An empty port is legal, and read by some only.",
         bare(_GET, b"Host: localhost:"), one(Wanted())),
    Case("hosts/underscore-host", "D21", "A gateway that maps names to variables cannot tell this from nothing.",
         bare(_GET, b"Host: " + HOST, b"X_Forwarded_Host: evil.example"),
         one(Wanted())),
)  # fmt: skip
