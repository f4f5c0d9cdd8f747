"""From one version of HTTP to another: heads as fields of HTTP/2, and back to what HTTP/1 writes.

A head in our tongue (`message`) looks as HTTP/1 brought it: a target, one Host field, framing in `body` and `length`.
HTTP/2 writes target and host as pseudo-headers, frames its bodies itself, and knows no field that speaks of a
connection. Nothing is guessed on the way: what could be read in two ways has been refused by whoever read it.

Tunnels: a WebSocket is a GET with Upgrade in HTTP/1 (RFC 6455) and an extended CONNECT in HTTP/2 (RFC 8441). Our tongue
has the former. The key and its answer exist in HTTP/1 only; they prove that the far end speaks WebSocket, which HTTP/2
says by its 200, so each HTTP/1 side gets its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from http import HTTPStatus
from typing import Final

from sidecar.errors import UpstreamProtocolViolation
from sidecar.hop import Headers
from sidecar.http.headers import HOP_BY_HOP, first, tokens
from sidecar.http.message import RequestHead, ResponseHead

TRAILERS: Final = (b"te", b"trailers")  # the one thing that TE says in HTTP/2 (RFC 9113 section 8.2.2)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
KEY_BYTES: Final = 16  # RFC 6455 section 4.1
_KEY, _ACCEPT = b"sec-websocket-key", b"sec-websocket-accept"
_KEY_GRAMMAR = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==\Z")  # 16 bytes in base64
_NOT_IN_H2 = HOP_BY_HOP | {b"host"}
_EXPECT_CONTENT = frozenset((b"POST", b"PUT", b"PATCH"))  # RFC 9110 section 8.6: their empty body says so
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


# ---- to HTTP/2 ------------------------------------------------------------------------------------------------------


def request_fields(head: RequestHead, scheme: bytes) -> Headers:
    """A request as fields of HTTP/2. The target is in origin or asterisk form, or CONNECT's `host:port`."""
    host = first(head.headers, b"host") or b""
    if is_websocket(head):
        fields: Headers = [(b":method", b"CONNECT"), (b":protocol", b"websocket")]
        fields += [(b":scheme", scheme), (b":authority", host), (b":path", head.target)]
        return fields + [field for field in _plain(head.headers) if field[0] != _KEY]
    if head.method == b"CONNECT":
        return [(b":method", b"CONNECT"), (b":authority", head.target), *_plain(head.headers)]
    fields = [(b":method", head.method), (b":scheme", scheme), (b":authority", host), (b":path", head.target)]
    fields += _plain(head.headers)
    if TRAILERS in head.headers:
        fields.append(TRAILERS)
    return fields


def response_fields(head: ResponseHead) -> Headers:
    """A response as fields of HTTP/2: a 101 becomes the 200 that it is there (RFC 8441 section 5)."""
    if head.status != 101:
        return [(b":status", b"%d" % head.status), *_plain(head.headers)]
    return [(b":status", b"200"), *(field for field in _plain(head.headers) if field[0] != _ACCEPT)]


def agreed(head: ResponseHead) -> ResponseHead:
    """The 2xx that answers an extended CONNECT, as the 101 that it is in our tongue."""
    upgrade: Headers = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    headers = [field for field in head.headers if field[0] != _ACCEPT]  # there is no key to be answered
    return ResponseHead(101, headers + upgrade, b"", head.version)


def _plain(headers: Headers) -> Headers:
    return [field for field in headers if field[0] not in _NOT_IN_H2]


# ---- to HTTP/1 ------------------------------------------------------------------------------------------------------


def h1_request(head: RequestHead, nonce: bytes = b"") -> RequestHead:
    """A request as HTTP/1 writes it: its framing, and for a WebSocket a key of our own, made of 16 random bytes."""
    upgrade = is_websocket(head)
    headers = [field for field in head.headers if field[0] not in HOP_BY_HOP]
    if upgrade:
        headers += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
        if first(headers, _KEY) is None:
            assert len(nonce) == KEY_BYTES
            headers.append((_KEY, base64.b64encode(nonce)))
    elif head.body and head.length is None:
        headers.append((b"transfer-encoding", b"chunked"))
    elif not head.body and head.length is None and head.method in _EXPECT_CONTENT:
        headers.append((b"content-length", b"0"))
    return RequestHead(head.method, head.target, headers, b"1.1", head.expects_continue, head.body, head.length)


def reason_of(status: int) -> bytes:
    """The reason phrase that HTTP/1 has for a status; empty where it has none."""
    return _REASONS.get(status, b"")


# ---- WebSocket ------------------------------------------------------------------------------------------------------


def is_websocket(head: RequestHead) -> bool:
    """Whether a request asks for a WebSocket, and for nothing else, in either version's way."""
    if head.protocol:
        return head.protocol == b"websocket"
    return (
        head.method == b"GET"
        and tokens(head.headers, b"upgrade") == [b"websocket"]
        and b"upgrade" in tokens(head.headers, b"connection")
    )


def fits_extended_connect(head: RequestHead) -> bool:
    """Whether this request for a WebSocket can be asked in HTTP/2's way, and its caller be answered in its own: it is
    for nothing else, and has no content, and by HTTP/1 there is a key that can be answered (RFC 6455 section 4.2.1).
    """
    if head.protocol:
        return is_websocket(head)
    keys = [value for name, value in head.headers if name == _KEY]
    return (
        head.version == b"1.1" and not head.body and head.length is None and is_websocket(head)
        and len(keys) == 1 and _KEY_GRAMMAR.match(keys[0]) is not None
    )  # fmt: skip


def answer_to_key(request: RequestHead) -> Headers:
    """What an HTTP/1 caller is to see in the 101 of an upstream that was asked by HTTP/2."""
    key = first(request.headers, _KEY)
    return [(_ACCEPT, accept_of(key))] if key is not None else []


def accept_of(key: bytes) -> bytes:
    """What a server answers to a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def check_accept(request: RequestHead, response: ResponseHead) -> None:
    """Hold an HTTP/1 server's 101 to the key it was sent. Raises UpstreamProtocolViolation."""
    key = first(request.headers, _KEY)
    if key is not None and first(response.headers, _ACCEPT) != accept_of(key):
        raise UpstreamProtocolViolation("the upstream's sec-websocket-accept does not answer our key")
