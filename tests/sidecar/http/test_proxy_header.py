"""PROXY headers: what each says, cut at every byte; what is malformed in any way is refused, not guessed at."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.proxy_header import (
    LONGEST,
    V1_LONGEST,
    V2_MARK,
    BadProxyHeader,
    IpAddress,
    ProxyHeader,
    crc32c,
    may_begin,
    parse,
    write,
)

FOUR = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + struct.pack("!HH", 56324, 443)
SIX = ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed + struct.pack("!HH", 1, 65535)
IN4 = (ip_address("192.0.2.1"), 56324, ip_address("198.51.100.2"), 443)
IN6 = (ip_address("2001:db8::1"), 1, ip_address("2001:db8::2"), 65535)
NOBODY = (None, 0, None, 0)
HELLO = b"\x16\x03\x01"


def v2(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    return V2_MARK + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def summed(body: bytes, *, off: int = 0) -> bytes:
    """A header for IPv4 with a checksum, which is wrong by `off`."""
    crc = crc32c(v2(0x21, 0x11, body + tlv(3, bytes(4))))
    return v2(0x21, 0x11, body + tlv(3, (crc ^ off).to_bytes(4, "big")))


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", False, IN4),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", False, IN6),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n", False, (IN4[0], 0, IN4[2], 0)),
    (b"PROXY UNKNOWN\r\n", False, NOBODY),
    (b"PROXY UNKNOWN ffff:f...f:ffff what ever 65535\r\n", False, NOBODY),
    (b"PROXY UNKNOWN " + b"a" * 91 + b"\r\n", False, NOBODY),  # 107 bytes
    (v2(0x21, 0x11, FOUR), False, IN4),
    (v2(0x21, 0x21, SIX), False, IN6),
    (v2(0x21, 0x31, b"/run/a.sock".ljust(108, b"\0") * 2), False, NOBODY),
    (v2(0x21, 0x00, b""), False, NOBODY),
    (v2(0x21, 0x00, b"anything"), False, NOBODY),
    (v2(0x20, 0x00, b""), True, NOBODY),
    (v2(0x20, 0x11, FOUR), True, NOBODY),
    (v2(0x20, 0xFF, b"x"), True, NOBODY),
    (v2(0x21, 0x11, FOUR + tlv(1, b"h2") + tlv(4, bytes(3)) + tlv(0xEA, b"")), False, IN4),
    (v2(0x21, 0x11, FOUR + tlv(4, bytes(LONGEST - 31))), False, IN4),
    (summed(FOUR), False, IN4),
    (summed(FOUR + tlv(2, b"orders")), False, IN4),
]  # fmt: skip


@pytest.mark.parametrize(("data", "local", "says"), GOOD)
def test_each_header_is_read_whole_and_no_byte_more(data: bytes, local: bool, says: tuple[object, ...]) -> None:
    found = parse(data + HELLO)
    assert isinstance(found, ProxyHeader)
    assert (found.size, found.local) == (len(data), local)
    assert (found.source, found.source_port, found.destination, found.destination_port) == says
    assert found.version == ("v2" if data.startswith(V2_MARK) else "v1")


@pytest.mark.parametrize(("data", "local", "says"), GOOD)
def test_a_part_of_it_asks_for_more_and_never_for_too_much(data: bytes, local: bool, says: object) -> None:
    for size in range(len(data)):
        wanted = parse(data[:size])
        assert isinstance(wanted, int)
        assert size < wanted <= len(data)


BAD = [
    (b"GET / HTTP/1.1\r\n", "does not begin"),
    (HELLO, "does not begin"),
    (b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "does not begin"),
    (b"PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n", "does not begin"),
    (V2_MARK[:11] + b"\r", "does not begin"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "malformed"),
    (b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "malformed"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "malformed"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "malformed"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "not a port"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "not a port"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", "malformed"),
    (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "malformed"),
    (b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "malformed"),
    (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "malformed"),
    (b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "malformed"),
    (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "malformed"),
    (b"PROXY UNKNOWNS\r\n", "malformed"),
    (b"PROXY UNKNOWN a\0b\r\n", "malformed"),
    (b"PROXY \r\n", "malformed"),
    (b"PROXY UNKNOWN " + b"a" * 92 + b"\r\n", "no line end"),  # 108 bytes
    (b"PROXY " + b"a" * V1_LONGEST, "no line end"),
    (v2(0x11, 0x11, FOUR), "version and command"),
    (v2(0x22, 0x11, FOUR), "version and command"),
    (v2(0x21, 0x12, FOUR), "not those of a TCP"),
    (v2(0x21, 0x10, FOUR), "not those of a TCP"),
    (v2(0x21, 0x41, FOUR), "not those of a TCP"),
    (v2(0x21, 0x02, b""), "not those of a TCP"),
    (v2(0x21, 0x11, FOUR[:-1]), "too few"),
    (v2(0x21, 0x21, FOUR), "too few"),
    (v2(0x21, 0x31, bytes(215)), "too few"),
    (v2(0x21, 0x11, b"", length=65535), "more than"),
    (v2(0x20, 0x00, b"", length=LONGEST - 15), "more than"),
    (v2(0x21, 0x11, FOUR + b"\x01\x00"), "cut off"),
    (v2(0x21, 0x11, FOUR + b"\x01\x00\x05abcd"), "longer than"),
    (v2(0x21, 0x11, FOUR + tlv(3, b"abc")), "other than 4"),
    (summed(FOUR, off=1), "checksum is wrong"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "why"), BAD)
def test_what_is_not_exactly_one_header_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadProxyHeader, match=why):
        parse(data)


def test_the_checksum_is_the_known_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4


ADDRESSES = st.none() | st.ip_addresses()
PORTS = st.integers(0, 65535)


@given(st.sampled_from(["v1", "v2"]), ADDRESSES, PORTS, ADDRESSES, PORTS)
def test_what_we_write_we_read(
    version: str, source: IpAddress | None, port: int, reached: IpAddress | None, at: int
) -> None:
    data = write(version, (source, port), (reached, at))  # type: ignore[arg-type]
    found = parse(data + HELLO)
    assert isinstance(found, ProxyHeader)
    assert (found.version, found.size, found.local) == (version, len(data), False)
    if source is None or reached is None:
        assert found.source is None
        return
    assert (found.source_port, found.destination_port) == (port, at)
    for ours, theirs in ((source, found.source), (reached, found.destination)):
        assert theirs is not None
        assert plain(ours) == plain(theirs)


def plain(address: IpAddress) -> IpAddress:
    return getattr(address, "ipv4_mapped", None) or address


def test_a_mixed_pair_is_written_as_ipv6_and_a_scope_stays_at_home() -> None:
    four, six = ip_address("192.0.2.1"), ip_address("fe80::1%eth0")
    line = write("v1", (four, 1), (six, 2))
    assert line == b"PROXY TCP6 ::ffff:c000:201 fe80::1 1 2\r\n"
    assert write("v1", (ip_address("::ffff:192.0.2.1"), 1), (four, 2)) == b"PROXY TCP4 192.0.2.1 192.0.2.1 1 2\r\n"


@given(st.binary(max_size=60))
def test_whether_one_begins_is_known_before_anything_else_is(data: bytes) -> None:
    begins = may_begin(data)
    if begins is None:
        assert parse(data) == len(data) + 1
    elif not begins:
        with pytest.raises(BadProxyHeader):
            parse(data)
