"""HTTP/2 heads: pseudo-headers, names, values, hosts and paths that would be another message in HTTP/1 (RFC 9113 8)."""

from __future__ import annotations

from sidecar.conformance.case import HOST, NOTHING, POST, SPOOF, Reading, Wanted, one
from sidecar.conformance.corpus.hosts import VALUES
from sidecar.conformance.corpus.paths import PATHS
from sidecar.conformance.h2case import Fields, H2Case, Head, case, data, fields

_FIRST = one(Wanted())
_REQUEST = b" HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\nGET /smuggled"
_LINE = b"\r\nx-line: " + SPOOF

# What may be hidden in a string that HTTP/2 carries by its length and HTTP/1 by its line.
_HIDDEN: tuple[tuple[str, bytes, str], ...] = (
    ("cr", b"a\rb", "A CR: the end of a line to some."),
    ("lf", b"a\nb", "An LF: the end of a line to most."),
    ("crlf", b"a\r\nb", "A CRLF ends a line of HTTP/1."),
    ("nul", b"a\x00b", "A NUL ends a string of C."),
    ("line", b"a" + _LINE, "A whole field of HTTP/1."),
    ("request", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n", "A whole request."),
    ("lf-line", b"a\nx-line: " + SPOOF, "A field behind a bare LF."),
)  # fmt: skip
_PLACES: tuple[tuple[str, str], ...] = (
    ("method", "RFC 9110 9.1"), ("scheme", "RFC 9113 8.3.1"), ("authority", "RFC 9113 8.3.1"),
    ("path", "RFC 9113 8.3.1"), ("value", "RFC 9113 8.2.1"), ("name", "RFC 9113 8.2.1"),
    ("cookie", "RFC 9113 8.2.1"), ("host", "RFC 9113 8.2.1"), ("content-type", "RFC 9113 8.2.1"),
)  # fmt: skip


def _with_hidden(place: str, hidden: bytes) -> Fields:
    if place == "method":
        return fields(method=b"GET" + hidden[1:])
    if place == "scheme":
        return fields(scheme=b"http" + hidden[1:])
    if place == "authority":
        return fields(authority=HOST + hidden[1:])
    if place == "path":
        return fields(path=b"/" + hidden)
    if place == "name":
        return fields((b"x-" + hidden, b"1"))
    if place == "host":
        return (*(field for field in fields() if field[0] != b":authority"), (b"host", HOST + hidden[1:]))
    return fields((b"x-value" if place == "value" else place.encode(), hidden))


_NAMES: tuple[tuple[str, bytes, str], ...] = (
    ("upper", b"X-A", "Names are in lower case, so that everybody finds them."),
    ("upper-length", b"Content-Length", "The same in a field that frames the body in HTTP/1."),
    ("upper-coding", b"Transfer-Encoding", "The same for chunks."),
    ("upper-host", b"Host", "The same for the host."),
    ("empty", b"", "A line that begins with a colon."),
    ("space", b"x a", "A space in a name."),
    ("space-first", b" x-a", "A folded line in HTTP/1."),
    ("space-last", b"x-a ", "A space before the colon in HTTP/1."),
    ("tab-first", b"\tx-a", "A line that begins with a tab: folded."),
    ("space-length", b"content-length ", "A space before the colon of a field that frames."),
    ("space-coding", b"transfer-encoding ", "The same for chunks."),
    ("colon", b"x:a", "A colon in a name: name `x` in HTTP/1."),
    ("colon-last", b"x-a:", "Two colons in HTTP/1."),
    ("colon-length", b"content-length: 0\r\nx", "A field of its own in HTTP/1."),
    ("colon-coding", b"transfer-encoding: chunked", "The value is in the name."),
    ("del", b"x-a\x7f", "A control character."),
    ("high", b"x-\xe4", "Bytes outside ASCII."),
    ("quote", b'x"a', "No token."),
    ("slash", b"x/a", "No token."),
    ("nul-length", b"content-length\x00", "A field that frames, to C."),
)  # fmt: skip

_BAD_VALUES: tuple[tuple[str, bytes, str], ...] = (
    ("space-first", b" a", "A blank at the beginning is lost on the way, and what was signed with it."),
    ("space-last", b"a ", "A blank at the end."),
    ("tab-first", b"\ta", "A tab at the beginning."),
    ("blank", b" ", "Nothing but a blank."),
    ("vt", b"a\x0bb", "A vertical tab: white space to some."),
    ("del", b"a\x7fb", "A control character."),
    ("esc", b"a\x1bb", "An escape sequence for whoever reads the log."),
    ("bel", b"a\x07b", "A bell."),
)  # fmt: skip

_GOOD = dict(fields())


def _without(name: bytes, *more: tuple[bytes, bytes]) -> Fields:
    return tuple(field for field in fields(*more) if field[0] != name)


def _as(name: bytes, value: bytes) -> Fields:
    return tuple((field, value if field == name else old) for field, old in fields())


_PSEUDO = tuple(name.decode() for name in (b":method", b":scheme", b":authority", b":path"))

_VALUES_OF: tuple[tuple[str, bytes, bytes, tuple[Reading, ...], str], ...] = (
    ("method-request", b":method", b"GET /smuggled HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\nGET", NOTHING,
     "A request in the method."),
    ("method-target", b":method", b"GET /smuggled", NOTHING, "A method and a target: a space is the end of a method."),
    ("method-tab", b":method", b"GET\t/smuggled", NOTHING, "The same with a tab."),
    ("method-colon", b":method", b"GET:", NOTHING, "A method is a token."),
    ("method-paren", b":method", b"(GET)", NOTHING, "No token."),
    ("method-high", b":method", b"G\xc3\x8bT", NOTHING, "Bytes outside ASCII."),
    ("method-space", b":method", b" GET", NOTHING, "A blank before the method."),
    ("method-pri", b":method", b"PRI", one(Wanted(b"PRI")), "The method of the preface: no request (RFC 9113 11)."),
    ("path-absolute", b":path", b"http://" + HOST + b"/c", NOTHING, "A URL has no place in :path."),
    ("path-absolute-other", b":path", b"http://evil.example/c", NOTHING, "The URL of somebody else."),
    ("path-relative", b":path", b"c", NOTHING, "A path begins with a slash; glued to a host it is another host."),
    ("path-at", b":path", b"@evil.example/c", NOTHING, "Glued to the host, the host becomes user information."),
    ("path-port", b":path", b":81/c", NOTHING, "Glued to the host, another port."),
    ("path-dot", b":path", b".evil.example/c", NOTHING, "Glued to the host, another host."),
    ("path-query", b":path", b"?a=b", NOTHING, "A query alone."),
    ("path-asterisk", b":path", b"*", NOTHING, "Only OPTIONS may ask for *."),
    ("path-version", b":path", b"/c HTTP/1.1", NOTHING, "The end of a request line in the path."),
    ("path-request", b":path", b"/c" + _REQUEST, NOTHING, "A whole request in the path."),
    ("path-old-version", b":path", b"/c HTTP/0.9\r\n", NOTHING, "An older version in the path."),
    ("path-space-first", b":path", b" /c", NOTHING, "A blank before the path."),
    ("path-space-last", b":path", b"/c ", NOTHING, "A blank behind it."),
    ("scheme-url", b":scheme", b"http://evil.example/?", NOTHING, "A URL is built from scheme and path by some."),
    ("scheme-path", b":scheme", b"https://" + HOST + b"/smuggled?", NOTHING, "The same to another path."),
    ("scheme-ftp", b":scheme", b"ftp", NOTHING, "Not served here."),
    ("scheme-file", b":scheme", b"file", NOTHING, "Nor is this."),
    ("scheme-space", b":scheme", b"http ", NOTHING, "A blank behind it."),
)  # fmt: skip

CASES: tuple[H2Case, ...] = (
    *(case(f"pseudo/missing-{name[1:]}", "RFC 9113 8.3.1", f"A request without {name}.",
           Head(_without(name.encode()))) for name in _PSEUDO),
    *(case(f"pseudo/empty-{name[1:]}", "RFC 9113 8.3.1", f"{name} is empty.", Head(_as(name.encode(), b"")))
      for name in _PSEUDO),
    *(case(f"pseudo/twice-{name[1:]}", "RFC 9113 8.3", f"{name} twice, even with one value, is an error.",
           Head(((name.encode(), _GOOD[name.encode()]), *fields()))) for name in _PSEUDO),
    *(case(f"pseudo/late-{name[1:]}", "RFC 9113 8.3", f"{name} behind a field.",
           Head((*_without(name.encode(), (b"x-a", b"1")), (name.encode(), _GOOD[name.encode()]))))
      for name in _PSEUDO),
    *(case(f"pseudo/late-second-{name[1:]}", "RFC 9113 8.3", f"A second {name} behind the fields.",
           Head(fields((b"x-a", b"1"), (name.encode(), b"/smuggled"))))
      for name in _PSEUDO),
    case("pseudo/none", "RFC 9113 8.3", "No pseudo-header at all.", Head(((b"x-a", b"1"),))),
    case("pseudo/nothing", "RFC 9113 8.3", "No field at all.", Head(())),
    case("pseudo/unknown", "RFC 9113 8.3", "A pseudo-header that nobody has defined.",
         Head(((b":smuggled", b"1"), *fields()))),
    case("pseudo/status", "RFC 9113 8.3", "A response's pseudo-header in a request.",
         Head(((b":status", b"200"), *fields()))),
    case("pseudo/upper", "RFC 9113 8.2.1", "A pseudo-header in upper case.",
         Head(tuple((name.title(), value) for name, value in fields()))),
    case("pseudo/colon", "RFC 9113 8.3", "A name of one colon.", Head(((b":", b"1"), *fields()))),
    case("pseudo/protocol", "RFC 8441 4", ":protocol is for CONNECT only.",
         Head(((b":protocol", b"websocket"), *fields()))),
    *(case(f"pseudo/{name}", "RFC 9113 8.3.1", why, Head(_as(field, value)), accept=accept)
      for name, field, value, accept, why in _VALUES_OF),
    *(case(f"hidden/{place}-{name}", section, why, Head(_with_hidden(place, hidden)))
      for place, section in _PLACES for name, hidden, why in _HIDDEN),
    *(case(f"names/{name}", "RFC 9113 8.2.1", why, Head(fields((field, b"0")))) for name, field, why in _NAMES),
    *(case(f"values/{name}", "RFC 9113 8.2.1", why, Head(fields((b"x-a", value)))) for name, value, why in _BAD_VALUES),
    # hosts
    *(case(f"hosts/{name}", "RFC 9113 8.3.1", why, Head(_as(b":authority", value)), accept=accept)
      for name, value, accept, why in VALUES if name != "empty"),
    case("hosts/field-differs", "RFC 9113 8.3.1", "host differs from :authority: which one is it for?",
         Head(fields((b"host", b"evil.example"))), accept=one(Wanted(host=HOST))),
    case("hosts/authority-differs", "RFC 9113 8.3.1", "The same, the other way round.",
         Head(fields((b"host", HOST), authority=b"evil.example")), accept=one(Wanted(host=b"evil.example"))),
    case("hosts/field-twice", "RFC 9110 7.2", "Two fields host, even equal ones.",
         Head(fields((b"host", HOST), (b"host", HOST))), accept=one(Wanted(host=HOST))),
    case("hosts/field-twice-differ", "RFC 9110 7.2", "Two that differ.",
         Head(fields((b"host", HOST), (b"host", b"evil.example"))), accept=one(Wanted(host=HOST))),
    case("hosts/field-twice-alone", "RFC 9110 7.2", "Two that differ, and no :authority.",
         Head(_without(b":authority", (b"host", HOST), (b"host", b"evil.example")))),
    case("hosts/field-port-differs", "RFC 9113 8.3.1", "The ports differ.",
         Head(fields((b"host", b"localhost:82"), authority=b"localhost:81")),
         accept=one(Wanted(host=b"localhost:81"))),
    case("hosts/field-empty", "RFC 9113 8.3.1", "An empty host beside :authority.",
         Head(fields((b"host", b""))), accept=one(Wanted(host=HOST))),
    case("hosts/both-missing-field-forwarded", "D21", "A gateway may take the forwarded host for the host.",
         Head(_without(b":authority", (b"x_forwarded_host", b"evil.example")))),
    # paths, as in HTTP/1
    *(case(f"paths/{name}", "D4, RFC 3986 6", why, Head(fields(path=target)), accept=accept)
      for name, target, accept, why in PATHS),
    # fields
    *(case(f"fields/{name}", "RFC 9113 8.2.2", f"{field.decode()} belongs to a connection of HTTP/1.",
           Head(fields((field, value))))
      for name, field, value in (
          ("connection", b"connection", b"close"), ("connection-names", b"connection", b"x-forwarded-for"),
          ("keep-alive", b"keep-alive", b"timeout=99"), ("proxy-connection", b"proxy-connection", b"keep-alive"),
          ("upgrade", b"upgrade", b"websocket"), ("upgrade-h2c", b"upgrade", b"h2c"),
          ("transfer-encoding", b"transfer-encoding", b"chunked"), ("te-gzip", b"te", b"gzip"),
          ("te-list", b"te", b"trailers, gzip"), ("te-chunked", b"te", b"chunked"),
      )),
    *(case(f"fields/upgrade-whole-{name}", "RFC 9113 8.6", "An upgrade of HTTP/1 inside of HTTP/2.",
           Head(fields((b"connection", b"upgrade"), (b"upgrade", name.encode()), (b"http2-settings", b"AAMAAABk"))))
      for name in ("h2c", "websocket")),
    *(case(f"fields/repeated-{name}", "RFC 9110 5.3", "Which of the two counts is anybody's guess.",
           Head(fields((name.encode(), first), (name.encode(), second), method=POST), end=False), data(b"hello"),
           accept=one(Wanted(POST, body=b"hello", once=(name.encode(),))))
      for name, first, second in (
          ("content-type", b"text/plain", b"application/json"), ("authorization", b"Basic YTph", b"Basic Yjpi"),
          ("expect", b"100-continue", b"200-ok"),
      )),
    case("fields/expect-unknown", "RFC 9110 10.1.1", "An expectation that nobody can meet.",
         Head(fields((b"expect", b"200-ok"), method=POST), end=False), data(b"hello"),
         accept=one(Wanted(POST, body=b"hello"))),
    case("fields/lookalike-coding", "D21", "CGI's heirs take it for Transfer-Encoding.",
         Head(fields((b"transfer_encoding", b"chunked"), method=POST), end=False), data(b"0\r\n\r\n"),
         accept=one(Wanted(POST, body=b"0\r\n\r\n", without=(b"transfer-encoding",)))),
    case("fields/lookalike-length", "D21", "CGI's heirs take it for Content-Length.",
         Head(fields((b"content_length", b"1"), method=POST), end=False), data(b"hello"),
         accept=one(Wanted(POST, body=b"hello", once=(b"content-length",), fields=(), clean=True))),
    case("fields/proxy-authorization", "RFC 9110 11.7.2", "Credentials for this proxy go no further.",
         Head(fields((b"proxy-authorization", b"Basic YTph"))), accept=one(Wanted(without=(b"proxy-authorization",)))),
    *(case(f"fields/reserved-{name}", "D21", "A name that only the mesh may use, in any spelling.",
           Head(fields((field, SPOOF))), accept=_FIRST, ours=True)
      for name, field in (
          ("via-underscore", b"mesh_via"), ("decision", b"mesh-decision-id"),
          ("xfcc", b"x-forwarded-client-cert"), ("xfcc-underscore", b"x_forwarded_client_cert"),
      )),
)  # fmt: skip
