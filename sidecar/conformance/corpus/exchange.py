"""More than one message: pipelining, Expect, upgrades (RFC 9112 section 9, RFC 9110 sections 7.8 and 10.1.1)."""

from __future__ import annotations

from sidecar.conformance.case import (
    HELLO,
    HOST,
    POST,
    SMUGGLED,
    Case,
    Reading,
    Wanted,
    bare,
    chunked,
    head,
    one,
    post,
    posted,
    size_of,
)

_FIRST: tuple[Reading, ...] = one(Wanted())
_BAD = b"GET /smuggled HTTP/1.1\r\nHost: " + HOST + b"\r\nX A: bad\r\n\r\n"
_H2C = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_WEBSOCKET = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
              b"Sec-WebSocket-Version: 13")  # fmt: skip
_NO_UPGRADE = Wanted(without=(b"upgrade",))


def _h2c(name: str, value: bytes, why: str) -> Case:
    return Case(f"exchange/upgrade-{name}", "RFC 9113 3.1", why, head(*_H2C, b"Upgrade: " + value), one(_NO_UPGRADE))


CASES = (
    Case("exchange/bad-after-good", "RFC 9112 9.3.2", "The first request is served, the bad one behind it is not.",
         head() + _BAD, _FIRST),
    Case("exchange/bad-after-body", "RFC 9112 9.3.2", "The same after a body.",
         post(b"Content-Length: 5", body=b"hello") + _BAD, posted()),
    Case("exchange/bad-after-chunks", "RFC 9112 9.3.2", "The same after chunks.", chunked(HELLO) + _BAD, posted()),
    Case("exchange/one-byte-between", "RFC 9112 9.3.2", "A stray byte becomes part of the next method.",
         head() + b"X" + SMUGGLED, (*_FIRST, (Wanted(), Wanted(b"XGET", b"/smuggled")))),
    Case("exchange/body-without-length", "RFC 9112 6.3", "Bytes after a request without framing are a bad request.",
         post(body=b"hello\r\n\r\n"), one(Wanted(POST))),
    Case("exchange/after-close", "RFC 9112 9.6", "Nothing is read after a request that says close.",
         head(b"Connection: close") + SMUGGLED, _FIRST),
    Case("exchange/after-close-upper", "RFC 9112 9.6", "The same in upper case and in a list.",
         head(b"Connection: x, CLOSE") + SMUGGLED, _FIRST),
    Case("exchange/after-http10", "RFC 9112 9.3", "HTTP/1.0 ends after one exchange unless it asks to stay.",
         head(version=b"HTTP/1.0") + SMUGGLED, _FIRST),
    Case("exchange/half-a-head", "RFC 9112 9.3.2", "Half a head behind a request never becomes one of somebody else's.",
         head() + b"GET /smuggled HTTP/1.1\r\nX-Eats: ", _FIRST),
    Case("exchange/head-with-body", "RFC 9110 9.3.2", "A HEAD with a body that looks like a request.",
         head(b"Content-Length: %b" % size_of(SMUGGLED), method=b"HEAD") + SMUGGLED,
         one(Wanted(b"HEAD", body=SMUGGLED))),
    Case("exchange/hundred-pipelined", "RFC 9112 9.3.2", "A hundred requests at once are a hundred requests or fewer.",
         head() * 100, tuple((Wanted(),) * count for count in range(1, 101))),
    # Expect
    Case("exchange/expect-unknown", "RFC 9110 10.1.1", "An expectation that nobody can meet.",
         post(b"Expect: 200-ok", b"Content-Length: 5", body=b"hello"), posted()),
    Case("exchange/expect-list", "RFC 9110 10.1.1", "A known and an unknown expectation.",
         post(b"Expect: 100-continue, x", b"Content-Length: 5", body=b"hello"), posted()),
    Case("exchange/expect-obfuscated", "RFC 9110 10.1.1", "Two servers disagree whether a body follows at once.",
         post(b"Expect: y 100-continue", b"Content-Length: 5", body=b"hello"), posted()),
    Case("exchange/expect-case", "RFC 9110 10.1.1", "The value is case-insensitive.",
         post(b"Expect: 100-Continue", b"Content-Length: 5", body=b"hello"), posted()),
    Case("exchange/expect-get", "RFC 9110 10.1.1", "An expectation without a body: nothing to wait for.",
         head(b"Expect: 100-continue"), _FIRST),
    Case("exchange/expect-get-smuggle", "RFC 9110 10.1.1", "0.CL: the body of a GET that expects is still its body.",
         head(b"Expect: 100-continue", b"Content-Length: %b" % size_of(SMUGGLED)) + SMUGGLED,
         one(Wanted(body=SMUGGLED))),
    Case("exchange/expect-http10", "RFC 9110 10.1.1", "HTTP/1.0 expects nothing.",
         post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello", version=b"HTTP/1.0"), posted()),
    Case("exchange/expect-chunks-smuggle", "RFC 9110 10.1.1", "The last chunk ends the message, expected or not.",
         chunked(HELLO + SMUGGLED, b"Expect: 100-continue"),
         (*posted(), (Wanted(POST, body=b"hello"), Wanted(target=b"/smuggled")))),
    # upgrades
    _h2c("h2c", b"h2c", "h2c smuggling: after a 101 the proxy sees no more requests, only bytes."),
    _h2c("h2c-upper", b"H2C", "The same in upper case."),
    Case("exchange/upgrade-h2c-list", "RFC 9113 3.1", "The same in a list.", head(*_H2C, b"Upgrade: websocket, h2c"),
         ((_NO_UPGRADE,), (Wanted(fields=((b"upgrade", b"websocket"),)),))),
    _h2c("h2c-version", b"h2c/1", "The same with a version."),
    Case("exchange/upgrade-h2c-only-settings", "RFC 9113 3.1", "h2c without being named in Connection.",
         head(b"Connection: HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
         one(_NO_UPGRADE)),
    Case("exchange/upgrade-h2c-preface", "RFC 9113 3.1", "h2c, and the preface at once, without waiting for 101.",
         head(*_H2C, b"Upgrade: h2c") + _PREFACE, one(_NO_UPGRADE)),
    Case("exchange/upgrade-h2c-body", "RFC 9113 3.1", "h2c with a body.",
         post(*_H2C, b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"),
         posted(without=(b"upgrade",))),
    Case("exchange/upgrade-tls", "RFC 2817 3", "An upgrade to TLS would take the hop out of our sight.",
         head(b"Connection: Upgrade", b"Upgrade: TLS/1.0"), one(Wanted(without=(b"upgrade",)))),
    Case("exchange/upgrade-refused-then-bad", "RFC 9110 7.8",
         "The origin does not upgrade, so what follows is HTTP: a proxy that tunnels now passes anything on.",
         head(*_WEBSOCKET) + _BAD, _FIRST),
    Case("exchange/upgrade-bad-version", "RFC 6455 4.4", "The same with a version that no origin speaks.",
         head(*_WEBSOCKET[:3], b"Sec-WebSocket-Version: 777") + _BAD, _FIRST),
    Case("exchange/upgrade-http10", "RFC 9110 7.8", "HTTP/1.0 cannot upgrade.",
         head(*_WEBSOCKET, version=b"HTTP/1.0"), one(Wanted(without=(b"upgrade",)))),
    Case("exchange/upgrade-no-connection", "RFC 9110 7.8", "Upgrade that Connection does not name is not for anybody.",
         head(b"Upgrade: websocket"), one(Wanted(without=(b"upgrade",)))),
    Case("exchange/connect-then-bytes", "RFC 9110 9.3.6", "A CONNECT that is not answered with 2xx opens nothing.",
         bare(b"CONNECT 127.0.0.1:1 HTTP/1.1", b"Host: 127.0.0.1:1") + SMUGGLED),
)  # fmt: skip
