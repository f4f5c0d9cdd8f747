"""Fuzzers of what comes first on a connection: PROXY headers, and the bytes that a protocol is told by."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from ipaddress import IPv4Address

from h11 import CLIENT, NEED_DATA, SERVER, Connection, RemoteProtocolError, Request
from hypothesis import example
from hypothesis import strategies as st

from sidecar.http.detect import DETECT_BYTES, conclude, detect
from sidecar.http.proxy_header import LONGEST, V2_MARK, BadProxyHeader, ProxyHeader, parse
from tests.fuzz.depth import fuzz

WORDS = [
    b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", b" ", b"192.0.2.1", b"::1", b"0", b"1", b"65535", b"65536", b"01", b"\r",
    b"\n", b"\r\n", b"\0", V2_MARK, V2_MARK[:12], b"\x21", b"\x20", b"\x11", b"\x31", b"\0\x0c", b"\0\x24", b"\xff\xff",
    bytes(12), bytes(36), b"\x03\0\x04abcd", b"\x04\0\x01", b"\x16\x03\x01",
]  # fmt: skip
PIECES = st.lists(st.sampled_from(WORDS) | st.binary(max_size=4), max_size=12).map(b"".join)
HEADERS = st.builds(
    lambda command, family, body, lie: V2_MARK + struct.pack("!BBH", command, family, len(body) + lie) + body,
    st.sampled_from([0x20, 0x21]), st.sampled_from([0x00, 0x11, 0x21, 0x31, 0x12]), st.binary(max_size=60),
    st.sampled_from([0, 0, 0, 1]),
)  # fmt: skip


@fuzz(PIECES | HEADERS, st.binary(max_size=5), brief=2000, long=200_000)
@example(V2_MARK + b"\x21\x11\0\x0c" + bytes(12), b"\x16")
def test_a_proxy_header_is_whole_and_the_same_however_it_comes(data: bytes, rest: bytes) -> None:
    """Bytes are refused, or too few, or one header: the same whatever follows, read only when it is whole, within the
    longest; what is refused is refused with more bytes too; and asking for more is asking for what will decide.
    """
    try:
        found = parse(data)
    except BadProxyHeader:
        with suppress(BadProxyHeader):
            assert not parse(data + rest)
        return
    if isinstance(found, int):
        assert len(data) < found <= LONGEST
        return
    assert parse(data[: found.size]) == found == parse(data + rest)
    for size in range(found.size):
        assert isinstance(parse(data[:size]), int)
    if found.version == "v1" and isinstance(found.source, IPv4Address):
        line = f"PROXY TCP4 {found.source} {found.destination} {found.source_port} {found.destination_port}\r\n"
        assert data.startswith(line.encode()), "another spelling of the same"
    assert found.source is None or (not found.local and isinstance(found, ProxyHeader))


LINES = st.lists(
    st.sampled_from([b"GET", b"get", b"PRI", b"* ", b" ", b"/", b"/a", b"HTTP/1.1", b"HTTP/2.0", b"\r\n", b"Host: a"])
    | st.binary(max_size=3),
    max_size=10,
).map(b"".join)  # fmt: skip


@fuzz(LINES, brief=2000, long=200_000)
@example(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
def test_whatever_an_http_server_takes_is_never_opaque(data: bytes) -> None:
    """What h11 takes for a request is HTTP here too, once leading blank lines are off; what is known of some bytes
    holds for more of them; and at the limit everything is known.
    """
    known = detect(data)
    for size in range(len(data)):
        before = detect(data[:size])
        assert before in (None, known)
    server = Connection(SERVER)
    server.receive_data(data)
    try:
        event = server.next_event()
    except RemoteProtocolError:
        event = NEED_DATA
    if isinstance(event, Request) and re.match(rb"[^\r\n]", data):
        assert known == "http1"
    assert detect(data.ljust(DETECT_BYTES, b"a")) is not None
    assert conclude(data) == (known or conclude(data))
    assert server.their_role is CLIENT
