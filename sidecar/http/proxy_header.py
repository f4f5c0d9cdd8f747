"""The PROXY protocol, versions 1 and 2: who connected to the load balancer in front of us, told before the first byte.

Written by HAProxy (proxy-protocol.txt), read here more strictly than it asks for, because an address that is believed
decides about requests: one spelling of every number, nothing after the last field, every length exact. TLVs are
skipped, but for a checksum (CRC-32C), which must be right where there is one.

Whose address is not told has none. `LOCAL` is the load balancer itself (its health checks): there the address of the
connection holds. `UNKNOWN`, an unspecified family or a Unix socket say that somebody else connected and not from where;
the load balancer's address would be a lie then, so such a caller has no address, and no rule with `source` allows it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from certs.errors import MeshError

Version = Literal["v1", "v2"]
IpAddress = IPv4Address | IPv6Address

V1_MARK: Final = b"PROXY "
V2_MARK: Final = b"\r\n\r\n\0\r\nQUIT\n"
V1_LONGEST: Final = 107  # section 2.1: bytes of the longest line, with its CRLF
V2_FIXED: Final = 16  # section 2.2: signature, version and command, family, length
LONGEST: Final = 4096  # of ours: the format allows 64 KiB of TLVs, and nobody needs to make us wait for those
_V1_LINE = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39}) (\d{1,5}) (\d{1,5})\r\n")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n")
_CRC32C_TLV: Final = 0x03
_PAIRS: Final = {0: 0, 1: 12, 2: 36, 3: 216}  # bytes of both addresses, by address family
_STREAM: Final = 1
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and the command


class BadProxyHeader(MeshError):
    """What should be a PROXY header is none, or one with more than one reading."""

    name = "bad_proxy_header"


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What one header says; `size` is how many bytes it took."""

    version: Version
    size: int
    local: bool = False  # the sender speaks for itself
    source: IpAddress | None = None
    source_port: int = 0
    destination: IpAddress | None = None
    destination_port: int = 0


# ---- reading ---------------------------------------------------------------------------------------------------------


def may_begin(data: bytes) -> bool | None:
    """Whether these are the first bytes of a header; None where more are needed to tell."""
    if data.startswith((V1_MARK, V2_MARK)):
        return True
    return None if V1_MARK.startswith(data) or V2_MARK.startswith(data) else False


def parse(data: bytes) -> ProxyHeader | int:
    """The header at the beginning of `data`, or how many bytes must be there before another try is worth it.

    Raises BadProxyHeader.
    """
    begins = may_begin(data)
    if begins is None:
        return len(data) + 1
    if not begins:
        raise BadProxyHeader("the connection does not begin with a PROXY header")
    return _parse_v2(data) if data.startswith(V2_MARK) else _parse_v1(data)


def _parse_v1(data: bytes) -> ProxyHeader | int:
    end = data.find(b"\n", 0, V1_LONGEST)
    if end < 0:
        if len(data) >= V1_LONGEST:
            raise BadProxyHeader(f"no line end within {V1_LONGEST} bytes")
        return len(data) + 1
    line = data[: end + 1]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader("v1", len(line))
    found = _V1_LINE.fullmatch(line)
    if found is None:
        raise BadProxyHeader("the line of version 1 is malformed")
    family, source, destination, source_port, destination_port = found.groups()
    kind = IPv4Address if family == b"4" else IPv6Address
    try:
        return ProxyHeader(
            "v1", len(line), False, kind(source.decode()), _port(source_port),
            kind(destination.decode()), _port(destination_port),
        )  # fmt: skip
    except ValueError as error:
        raise BadProxyHeader(f"the line of version 1 is malformed: {error}") from None


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535 or str(port) != digits.decode():
        raise ValueError(f"{digits.decode()} is not a port")
    return port


def _parse_v2(data: bytes) -> ProxyHeader | int:
    if len(data) < V2_FIXED:
        return V2_FIXED
    command, family, length = struct.unpack_from("!BBH", data, len(V2_MARK))
    size: int = V2_FIXED + length
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader(f"version and command 0x{command:02x} are unknown")
    if size > LONGEST:
        raise BadProxyHeader(f"{size} bytes are more than the {LONGEST} that we take")
    if len(data) < size:
        return size
    if command == _LOCAL:  # section 2.2: the family is to be ignored, and what follows skipped
        return ProxyHeader("v2", size, local=True)
    kind, transport = family >> 4, family & 0x0F
    if kind not in _PAIRS or (kind and transport != _STREAM) or transport > _STREAM:
        raise BadProxyHeader(f"address family and transport 0x{family:02x} are not those of a TCP connection")
    if length < _PAIRS[kind]:
        raise BadProxyHeader(f"{length} bytes are too few for the addresses of family {kind}")
    if kind:
        _check_tlvs(data[:size], V2_FIXED + _PAIRS[kind])
    return _with_addresses(kind, data, size)


def _with_addresses(kind: int, data: bytes, size: int) -> ProxyHeader:
    at = V2_FIXED
    if kind == 1:
        source, destination, source_port, destination_port = struct.unpack_from("!4s4sHH", data, at)
        return ProxyHeader(
            "v2", size, False, IPv4Address(source), source_port, IPv4Address(destination), destination_port
        )
    if kind == 2:
        source, destination, source_port, destination_port = struct.unpack_from("!16s16sHH", data, at)
        return ProxyHeader(
            "v2", size, False, IPv6Address(source), source_port, IPv6Address(destination), destination_port
        )
    return ProxyHeader("v2", size)


def _check_tlvs(header: bytes, at: int) -> None:
    """Step over every TLV to the exact end; hold a checksum against the bytes (section 2.2.3)."""
    while at < len(header):
        if at + 3 > len(header):
            raise BadProxyHeader("a TLV is cut off")
        kind, length = struct.unpack_from("!BH", header, at)
        value, at = at + 3, at + 3 + length
        if at > len(header):
            raise BadProxyHeader("a TLV is longer than the header")
        if kind == _CRC32C_TLV:
            if length != 4:
                raise BadProxyHeader("a checksum of other than 4 bytes")
            if crc32c(header[:value] + bytes(4) + header[at:]) != int.from_bytes(header[value:at], "big"):
                raise BadProxyHeader("the checksum is wrong")


# ---- writing ---------------------------------------------------------------------------------------------------------


def write(version: Version, source: tuple[IpAddress | None, int], destination: tuple[IpAddress | None, int]) -> bytes:
    """The header for a caller at `source` who reached `destination`; without both addresses one that tells none."""
    ours, theirs = _one_family(source[0], destination[0])
    if ours is None or theirs is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else V2_MARK + struct.pack("!BBH", _PROXY, 0, 0)
    if version == "v1":
        pair = f"{_text(ours)} {_text(theirs)}"
        return f"PROXY TCP{ours.version} {pair} {source[1]} {destination[1]}\r\n".encode("ascii")
    body = ours.packed + theirs.packed + struct.pack("!HH", source[1], destination[1])
    return V2_MARK + struct.pack("!BBH", _PROXY, (0x10 if ours.version == 4 else 0x20) | _STREAM, len(body)) + body


def _one_family(one: IpAddress | None, other: IpAddress | None) -> tuple[IpAddress | None, IpAddress | None]:
    """Both in one family, as IPv6 where they differ; without the scope that only our own host understands."""
    if one is None or other is None:
        return None, None
    one, other = _unmapped(one), _unmapped(other)
    if one.version == other.version:
        return one, other
    return _as_v6(one), _as_v6(other)


def _unmapped(address: IpAddress) -> IpAddress:
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _text(address: IpAddress) -> str:
    """An address in letters; IPv6 in hex groups alone (section 2.1), which Python 3.13 writes otherwise where the last
    four bytes are an address of IPv4.
    """
    if isinstance(address, IPv4Address) or address.ipv4_mapped is None:
        return str(address)
    return f"::ffff:{int(address) >> 16 & 0xFFFF:x}:{int(address) & 0xFFFF:x}"


def _as_v6(address: IpAddress) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


# ---- CRC-32C (RFC 3720 appendix B.4) ---------------------------------------------------------------------------------


@cache
def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum of these bytes."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
