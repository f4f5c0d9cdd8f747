"""Fields: repeated singletons, hop-by-hop fields, Connection as a weapon, and names that gateways confuse."""

from __future__ import annotations

from sidecar.conformance.case import HOST, NOTHING, POST, Case, Wanted, head, one, post, posted

_SINGLETONS: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("authorization", (b"Authorization: Basic YTph", b"Authorization: Basic Yjpi")),
)

# name, field line, field that Connection names
_NAMED: tuple[tuple[str, bytes, bytes], ...] = (
    ("authorization", b"Authorization: Basic YTph", b"authorization"),
    ("cookie", b"Cookie: a=b", b"cookie"),
    ("x-forwarded-for", b"X-Forwarded-For: 192.0.2.1", b"x-forwarded-for"),
    ("cache-control", b"Cache-Control: no-store", b"cache-control"),
)

_HOP_BY_HOP: tuple[tuple[str, bytes, bytes], ...] = (
    ("keep-alive", b"Keep-Alive: timeout=99", b"keep-alive"),
    ("te", b"TE: gzip", b"te"),
    ("http2-settings", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"http2-settings"),
    ("upgrade-alone", b"Upgrade: websocket", b"upgrade"),
    ("proxy-connection", b"Proxy-Connection: keep-alive", b"proxy-connection"),
    ("proxy-authorization", b"Proxy-Authorization: Basic YTph", b"proxy-authorization"),
)

_RESERVED: tuple[tuple[str, bytes], ...] = (
    ("mesh-via-underscore", b"mesh_via: spoofed"),
    ("mesh-decision", b"Mesh-Decision-Id: spoofed"),
    ("mesh-anything", b"mesh-anything: spoofed"),
    ("mesh-anything-underscore", b"Mesh_Anything: spoofed"),
    ("xfcc", b"X-Forwarded-Client-Cert: URI=spoofed"),
    ("xfcc-underscore", b"X_Forwarded_Client_Cert: URI=spoofed"),
    ("xfcc-mixed", b"x-forwarded_client-cert: URI=spoofed"),
    ("xfcc-upper", b"X-FORWARDED-CLIENT-CERT: URI=spoofed"),
)

CASES = (
    *(
        Case(f"fields/repeated-{name}", "RFC 9110 5.3", "Which of the two counts is anybody's guess.",
             post(*lines, b"Content-Length: 5", body=b"hello"))
        for name, lines in _SINGLETONS
    ),
    Case("fields/repeated-proxy-authorization", "RFC 9110 5.3", "Two credentials for this proxy.",
         head(b"Proxy-Authorization: Basic YTph", b"Proxy-Authorization: Basic Yjpi"),
         one(Wanted(without=(b"proxy-authorization",)))),
    Case("fields/repeated-expect", "RFC 9110 5.3", "Two expectations, one of them unknown.",
         post(b"Expect: 100-continue", b"Expect: 200-ok", b"Content-Length: 5", body=b"hello"), posted()),
    Case("fields/repeated-content-type", "RFC 9110 5.3", "Two types of one body: judged as one, read as the other.",
         post(b"Content-Type: text/plain", b"Content-Type: application/json", b"Content-Length: 5", body=b"hello"),
         posted(once=(b"content-type",))),
    *(
        Case(f"fields/connection-names-{name}", "RFC 9110 7.6.1",
             "Connection names an end-to-end field: the origin never sees what the policy judged.",
             head(line, b"Connection: close, " + field), one(Wanted(fields=((field, line.partition(b": ")[2]),))))
        for name, line, field in _NAMED
    ),
    Case("fields/connection-names-host", "RFC 9110 7.6.1", "Connection names Host.",
         head(b"Connection: close, host"), one(Wanted(host=HOST))),
    Case("fields/connection-names-content-length", "RFC 9110 7.6.1", "Connection names the framing.",
         post(b"Connection: close, content-length", b"Content-Length: 5", body=b"hello"), posted()),
    Case("fields/connection-names-transfer-encoding", "RFC 9110 7.6.1", "The same for chunks.",
         post(b"Connection: close, transfer-encoding", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
         posted()),
    Case("fields/connection-names-own", "RFC 9110 7.6.1", "What Connection names belongs to this connection only.",
         head(b"X-Hop: spoofed", b"Connection: close, X-Hop"), one(Wanted())),
    Case("fields/connection-names-underscore", "D21", "The same, spelled as a gateway reads it.",
         head(b"X-Hop: 1", b"Connection: close, X_Hop"), one(Wanted())),
    Case("fields/connection-nonsense", "RFC 9110 7.6.1", "Options are tokens.",
         head(b"Connection: close, \x01"), NOTHING),
    *(
        Case(f"fields/hop-by-hop-{name}", "RFC 9110 7.6.1", f"{field.decode()} is for this connection only.",
             head(line), one(Wanted(without=(field,))))
        for name, line, field in _HOP_BY_HOP
    ),
    *(
        Case(f"fields/reserved-{name}", "D21", "A name that only the mesh may use, in any spelling.",
             head(line), one(Wanted()), ours=True)
        for name, line in _RESERVED
    ),
    Case("fields/connection-names-xfcc", "D21", "Connection would take our word about the caller away.",
         head(b"Connection: close, x-forwarded-client-cert"), one(Wanted()), ours=True),
    Case("fields/connection-names-mesh", "D21", "The same for mesh-via.",
         head(b"Connection: close, mesh-via"), one(Wanted()), ours=True),
    Case("fields/content-length-on-get-twice", "RFC 9112 6.3", "Two lengths on a GET.",
         head(b"Content-Length: 0", b"Content-Length: 40")),
    Case("fields/trailer-names-length", "RFC 9110 6.6.2", "Trailer announces what no trailer may say.",
         post(b"Trailer: Content-Length", b"Content-Length: 5", body=b"hello"), one(Wanted(POST, body=b"hello"))),
)  # fmt: skip
