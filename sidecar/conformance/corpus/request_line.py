"""The request line: versions, methods, separators, forms of targets in the wrong place (RFC 9112 section 3)."""

from __future__ import annotations

from sidecar.conformance.case import HOST, NOTHING, Case, Reading, Wanted, bare, head, one

_H = b"Host: " + HOST
_CONNECT = b"CONNECT"

_VERSIONS: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("1.2", b"HTTP/1.2", one(Wanted()), "A later minor version is read as 1.1, or refused (RFC 9110 2.5)."),
    ("1.9", b"HTTP/1.9", one(Wanted()), "The same with 1.9."),
    ("2.0", b"HTTP/2.0", NOTHING, "Another major version in this syntax."),
    ("3.0", b"HTTP/3.0", NOTHING, "The same with 3.0."),
    ("0.9", b"HTTP/0.9", NOTHING, "HTTP/0.9 has no version and no header."),
    ("no-minor", b"HTTP/1", NOTHING, "A version without its minor half."),
    ("dot-only", b"HTTP/1.", NOTHING, "A dot and nothing after it."),
    ("no-major", b"HTTP/.1", NOTHING, "Nothing before the dot."),
    ("two-digits", b"HTTP/1.10", NOTHING, "Versions have one digit on each side."),
    ("leading-zero", b"HTTP/01.1", NOTHING, "A leading zero."),
    ("huge", b"HTTP/4294967297.1", NOTHING, "1 modulo 2**32."),
    ("lower-case", b"http/1.1", NOTHING, "The name is case-sensitive."),
    ("space-inside", b"HTTP/ 1.1", NOTHING, "A blank inside."),
    ("space-before-slash", b"HTTP /1.1", NOTHING, "A blank before the slash."),
    ("comma", b"HTTP/1,1", NOTHING, "A comma for a dot."),
    ("letters", b"HTTP/1.1x", NOTHING, "Letters after the version."),
    ("other-name", b"HTTPS/1.1", NOTHING, "Another protocol's name."),
    ("icap", b"ICAP/1.0", NOTHING, "The same."),
    ("trailing-space", b"HTTP/1.1 ", one(Wanted()), "A blank after the version: read strictly, or forgiven alike."),
    ("trailing-tab", b"HTTP/1.1\t", NOTHING, "A tab after the version."),
    ("nul", b"HTTP/1.1\x00", NOTHING, "A NUL after the version."),
)

_LINES: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("no-version", b"GET /c", NOTHING, "HTTP/0.9 with a header after it: two readings of what follows."),
    ("two-spaces", b"GET  /c HTTP/1.1", one(Wanted()), "Two blanks: an empty target to some."),
    ("two-spaces-late", b"GET /c  HTTP/1.1", one(Wanted()), "Two blanks before the version."),
    ("tab", b"GET\t/c\tHTTP/1.1", NOTHING, "Tabs for blanks."),
    ("vt", b"GET\x0b/c HTTP/1.1", NOTHING, "A vertical tab, which some take for a blank."),
    ("ff", b"GET /c\x0cHTTP/1.1", NOTHING, "A form feed, which some take for a blank."),
    ("nbsp", b"GET\xa0/c HTTP/1.1", NOTHING, "A no-break space, which str.split() takes for a blank."),
    ("nel", b"GET /c\x85HTTP/1.1", NOTHING, "NEL, which some take for a line end."),
    ("four-words", b"GET /c /d HTTP/1.1", NOTHING, "Two targets, or one with a space in it."),
    ("two-versions", b"GET /c HTTP/1.1 HTTP/1.1", NOTHING, "Two versions, or a target with one in it."),
    ("no-target", b"GET HTTP/1.1", NOTHING, "No target, or one that is called HTTP/1.1."),
    ("no-method", b"/c HTTP/1.1", NOTHING, "No method."),
    ("empty-method", b" /c HTTP/1.1", NOTHING, "An empty method."),
    ("only-method", b"GET", NOTHING, "A method and nothing else."),
)

_METHODS: tuple[tuple[str, bytes, str], ...] = (
    ("nul", b"GET\x00", "A NUL ends the method for C code only."),
    ("nul-inside", b"G\x00ET", "A NUL inside."),
    ("colon", b"GET:", "A separator in a method."),
    ("comma", b"GET,POST", "A list of methods."),
    ("brackets", b"<GET>", "Brackets."),
    ("high", b"GET\xdf", "A byte outside ASCII."),
    ("quoted", b'"GET"', "Quotes."),
    ("slash", b"GET/POST", "A slash."),
    ("cr", b"GET\r", "A CR in a method."),
    ("lf", b"GET\nPOST", "An LF in a method."),
)

_UNUSUAL: tuple[tuple[str, bytes, str], ...] = (
    ("lower-case", b"get", "Methods are case-sensitive: get is not GET, for the rule nor for the origin."),
    ("mixed-case", b"Get", "The same with Get."),
    ("unknown", b"FROBNICATE", "A method that nobody knows passes as itself or not at all."),
    ("dashes", b"-GET-", "A token, if an odd one."),
    ("trace", b"TRACE", "TRACE tells a caller what the proxy added."),
    ("m-search", b"M-SEARCH", "A method with a dash."),
)

_EVIL = one(Wanted(host=b"evil.example"))  # RFC 9112 section 3.2.2: the target wins, and Host is made anew
_SAME = one(Wanted(host=HOST))

_TARGETS: tuple[tuple[str, bytes, bytes, tuple[Reading, ...], str], ...] = (
    ("asterisk-get", b"GET", b"*", NOTHING, "Only OPTIONS may ask for `*`."),
    ("asterisk-post", b"POST", b"*", NOTHING, "Only OPTIONS may ask for `*`."),
    ("asterisk-path", b"OPTIONS", b"*/c", NOTHING, "Neither `*` nor a path."),
    ("authority-get", b"GET", HOST, NOTHING, "Only CONNECT has an authority for a target."),
    ("authority-port-get", b"GET", HOST + b":80", NOTHING, "The same with a port."),
    ("connect-path", _CONNECT, b"/c", NOTHING, "CONNECT has an authority for a target, never a path."),
    ("connect-no-port", _CONNECT, b"spoofed.example", NOTHING, "CONNECT needs a port."),
    ("connect-elsewhere", _CONNECT, b"127.0.0.1:1", NOTHING, "A tunnel to a place of the caller's choice."),
    ("connect-userinfo", _CONNECT, b"user@127.0.0.1:1", NOTHING, "User information in an authority."),
    ("connect-absolute", _CONNECT, b"http://127.0.0.1:1/", NOTHING, "CONNECT with a URL."),
    ("absolute-other-host", b"GET", b"http://evil.example/c", _EVIL, "The target names another host than Host."),
    ("absolute-userinfo", b"GET", b"http://" + HOST + b"@evil.example/c", _EVIL, "The host is what follows the @."),
    ("absolute-userinfo-same", b"GET", b"http://user:pw@" + HOST + b"/c", _SAME, "User information in a target."),
    ("absolute-https", b"GET", b"https://evil.example/c", _EVIL, "A scheme that this connection does not speak."),
    ("absolute-ftp", b"GET", b"ftp://" + HOST + b"/c", NOTHING, "A scheme that is not HTTP."),
    ("absolute-file", b"GET", b"file:///etc/passwd", NOTHING, "A file."),
    ("absolute-no-host", b"GET", b"http:///c", NOTHING, "A URL without a host."),
    ("absolute-one-slash", b"GET", b"http:/c", NOTHING, "A URL with one slash."),
    ("absolute-backslash", b"GET", b"http://" + HOST + b"\\@evil.example/c", NOTHING, "A backslash: a slash to some."),
    ("absolute-fragment", b"GET", b"http://" + HOST + b"/c#d", NOTHING, "A fragment never travels."),
    ("absolute-no-path-options", b"OPTIONS", b"http://" + HOST,
     ((Wanted(b"OPTIONS", b"*"),), (Wanted(b"OPTIONS", b"http://" + HOST),)), "`*` to some, `/` to others."),
    ("relative", b"GET", b"c", NOTHING, "A target without its slash."),
    ("relative-dots", b"GET", b"../c", NOTHING, "The same, upwards."),
    ("query-only", b"GET", b"?c", NOTHING, "A query without a path."),
    ("javascript", b"GET", b"javascript:alert(1)", NOTHING, "Another scheme."),
    ("space", b"GET", b"/c /smuggled", NOTHING, "A space in a target."),
    ("at", b"GET", b"@evil.example/c", NOTHING, "Glued to a host by a careless proxy, this is user information."),
    ("colon", b"GET", b":80/c", NOTHING, "Glued to a host by a careless proxy, this is a port."),
    ("dot-host", b"GET", b".evil.example/c", NOTHING, "Glued to a host by a careless proxy, this is another host."),
)


def _version(value: bytes) -> bytes:
    return bare(b"GET /c " + value, _H)


CASES = (
    *(Case(f"request-line/version-{name}", "RFC 9112 2.3", why, _version(value), accept)
      for name, value, accept, why in _VERSIONS),
    *(Case(f"request-line/{name}", "RFC 9112 3", why, bare(line, _H), accept) for name, line, accept, why in _LINES),
    *(Case(f"request-line/method-{name}", "RFC 9110 9.1", why, head(method=method)) for name, method, why in _METHODS),
    *(Case(f"request-line/method-{name}", "RFC 9110 9.1", why, head(method=method), one(Wanted(method)))
      for name, method, why in _UNUSUAL),
    *(Case(f"request-line/target-{name}", "RFC 9112 3.2", why, head(method=method, target=target), accept)
      for name, method, target, accept, why in _TARGETS),
    Case("request-line/http09", "RFC 9112 C.1", "HTTP/0.9: no version, no header, no status.", b"GET /c\r\n\r\n"),
    Case("request-line/http09-lf", "RFC 9112 C.1", "The same with a bare LF.", b"GET /c\n"),
    Case("request-line/h2-preface", "RFC 9113 3.4", "HTTP/2's preface on a connection that agreed on HTTP/1.",
         b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    Case("request-line/proxy-protocol", "D3", "A PROXY line from a stranger would choose its own address.",
         b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + head()),
)  # fmt: skip
