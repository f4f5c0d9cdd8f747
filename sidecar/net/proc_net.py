"""What /proc/net says of this network namespace: who listens on TCP, and which addresses are ours. No rights needed.

The kernel lists listening sockets before all others (tcp_seq_start), so that reading stops at the first of the others:
a thousand open connections cost nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

TABLES = ("tcp", "tcp6")
LISTEN = "0A"  # include/net/tcp_states.h, in hexadecimal
LINK_LOCAL, HOST = "20", "10"  # scopes in if_inet6, in hexadecimal
PROC_NET = Path("/proc/net")

IP = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Row:
    """A socket as proc(5) tells it."""

    address: IP
    port: int
    peer: IP
    peer_port: int
    listens: bool
    uid: int

    @property
    def beyond(self) -> bool:
        """Whether others than this namespace may reach it."""
        return not self.address.is_loopback


def listening(folder: Path = PROC_NET) -> list[Row]:
    """Every TCP socket that listens, both IP versions."""
    found = []
    for table in TABLES:
        with suppress(OSError), (folder / table).open() as lines:
            for row in parse(lines):
                if not row.listens:
                    break
                found.append(row)
    return found


def every(folder: Path = PROC_NET) -> list[Row]:
    """Every TCP socket, open connections too."""
    found: list[Row] = []
    for table in TABLES:
        with suppress(OSError), (folder / table).open() as lines:
            found += parse(lines)
    return found


def parse(lines: Iterable[str]) -> Iterator[Row]:
    """The rows of /proc/net/tcp or tcp6; a line that is none is left out."""
    for line in lines:
        words = line.split()
        if len(words) < 8 or ":" not in words[1]:
            continue
        with suppress(ValueError, IndexError):
            (here, port), (there, peer_port) = _end(words[1]), _end(words[2])
            yield Row(here, port, there, peer_port, words[3] == LISTEN, int(words[7]))


def _end(text: str) -> tuple[IP, int]:
    """`0100007F:1F90`: an address as 32-bit words of this machine's byte order, and a port."""
    address, _, port = text.partition(":")
    words = [int(address[place : place + 8], 16) for place in range(0, len(address), 8)]
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found, int(port, 16)


def own_addresses(folder: Path = PROC_NET) -> list[str]:
    """Our addresses beyond loopback: IPv4 in the kernel's order, then IPv6, the link-local ones as `fe80::1%eth0`."""
    return [*_ipv4(folder), *sorted(_ipv6(folder), key=lambda address: "%" in address)]


def _ipv4(folder: Path) -> list[str]:
    """`/32 host LOCAL` under an address, in the trie of routes."""
    found: dict[str, None] = {}
    with suppress(OSError):
        address = ""
        for line in (folder / "fib_trie").read_text().splitlines():
            words = line.split()
            if words[:1] == ["|--"]:
                address = words[1]
            elif words == ["/32", "host", "LOCAL"] and not address.startswith("127."):
                found[address] = None
    return list(found)


def _ipv6(folder: Path) -> list[str]:
    with suppress(OSError):
        rows = [line.split() for line in (folder / "if_inet6").read_text().splitlines()]
        found = [(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0])), row) for row in rows]
        return [name + (f"%{row[5]}" if row[3] == LINK_LOCAL else "") for name, row in found if row[3] != HOST]
    return []
