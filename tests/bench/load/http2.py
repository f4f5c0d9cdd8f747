"""The requests of the load in HTTP/2, as frames: the stream's number and the marks are filled in by the load.

A client sends most of its fields in every request, so after the first one they are a byte each (RFC 7541 section 6.1).
What differs from request to request is written out, without Huffman's code, so that the load can write into it.
"""

from __future__ import annotations

import struct

from tests.bench.load import ID_HEAD, MARK
from tests.bench.rows import Work

_SETTINGS = ((2, 0), (4, 1 << 30))  # no push; windows of a gigabyte
_STATIC = {b":authority": 1, b":path": 4, b"user-agent": 58, b"accept": 19, b"accept-encoding": 16, b"te": 0}
_POST, _GET, _HTTP, _HTTPS = 0x83, 0x82, 0x86, 0x87  # whole fields of the static table
_FIRST_OF_OURS = 62  # where the dynamic table begins
# What the rows of HTTP/1 send, and six more.
FIELDS: tuple[tuple[bytes, bytes], ...] = (
    (b":authority", b"orders"),
    (b"user-agent", b"checkout/4.12.0 (linux; amd64) http-client/2.31.1"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-GB,en;q=0.8"),
    (b"x-tenant", b"acme-europe-west"),
    (b"x-session", b"s-7f2c1f0a9d5e4b3c8a6f1e2d3c4b5a69788796a5b4c3d2e1f0a1b2c3d4e5f607"),
    (b"baggage", b"region=eu-west-1,plan=enterprise,experiment=checkout-7,tier=gold,channel=web"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (b"x-b3-sampled", b"1"),
    (b"x-device", b"ios-17.4.1"),
    (b"x-forwarded-proto", b"https"),
    (b"cache-control", b"no-cache"),
    (b"origin", b"https://shop.example"),
    (b"referer", b"https://shop.example/cart"),
)
GRPC_FIELDS: tuple[tuple[bytes, bytes], ...] = (
    (b":authority", b"orders"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-python/1.74.0 grpc-c/48.0.0 (linux; chttp2)"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)


def greeting() -> bytes:
    """Preface, SETTINGS, and a window for the connection."""
    settings = b"".join(struct.pack("!HL", key, value) for key, value in _SETTINGS)
    window = _frame(8, 0, struct.pack("!L", (1 << 30) - 65535))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, settings) + window


def request(work: Work, *, tls: bool, first: bool) -> bytes:
    """One request; the first on a connection puts its fields into the table, those after it point there."""
    fields = GRPC_FIELDS if work.grpc else FIELDS
    path = work.path if work.grpc else work.path + MARK  # a method of gRPC has one name
    block = bytes((_POST if work.body else _GET, _HTTPS if tls else _HTTP))
    block += _named(0x00, 4, b":path") + _text(path.encode())
    for number, (name, value) in enumerate(fields):
        if first:
            block += _named(0x40, 6, name) + _text(value)
        else:
            block += _integer(0x80, 7, _FIRST_OF_OURS + len(fields) - 1 - number)
    block += _named(0x00, 4, b"x-request-id") + _text((ID_HEAD + MARK).encode())
    if not work.body:
        return _frame(1, 0x5, block)
    body = b"\x00" + struct.pack("!L", work.body - 5) + b"b" * (work.body - 5) if work.grpc else b"b" * work.body
    return _frame(1, 0x4, block) + _frame(0, 0x1, body)


def _named(kind: int, prefix: int, name: bytes) -> bytes:
    """The beginning of a field that is written out: its name, by number where the static table has it."""
    index = _STATIC.get(name, 0)
    return _integer(kind, prefix, index) + (b"" if index else _text(name))


def _text(value: bytes) -> bytes:
    return _integer(0x00, 7, len(value)) + value


def _integer(kind: int, prefix: int, value: int) -> bytes:
    """RFC 7541 section 5.1."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((kind | value,))
    found, value = bytes((kind | most,)), value - most
    while value >= 0x80:
        found, value = found + bytes((value & 0x7F | 0x80,)), value >> 7
    return found + bytes((value,))


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!BHBBL", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, 0) + payload
