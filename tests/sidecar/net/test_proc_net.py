"""What /proc/net says, line by line."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from sidecar.net.proc_net import every, listening, own_addresses, parse

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = HEAD + (
    "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0\n"
    "   1: 00000000:2382 00000000:0000 0A 00000000:00000000 00:00000000 00000000 17000        0 2 1 0 100 0 0 10 0\n"
    "   2: 0B004D0A:1F90 15004D0A:C001 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 0 10 -1\n"
    "   3: 0200007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0\n"
)
TCP6 = HEAD + (
    "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 5 0 1\n"
    "   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 0:0 00:0 0 5 0 1\n"
    "   2: 0000000000000000FFFF00000B004D0A:1F93 00000000000000000000000000000000:0000 0A 0:0 00:0 0 5 0 1\n"
    "   3: 0000000000000000FFFF00000100007F:1F94 00000000000000000000000000000000:0000 0A 0:0 00:0 0 5 0 1\n"
    "   4: torn\n   5: XX:1F90 YY:0 0A a b c d\n"
)
TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.77.0.0/24 2 0 2
        |-- 10.77.0.11
           /32 host LOCAL
        |-- 10.77.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 172.17.0.2
           /32 host LOCAL
"""
IF_INET6 = """\
fd770000000000000000000000000011 02 40 00 80     eth0
fe800000000000000000000000000001 02 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""
little_endian = pytest.mark.skipif(sys.byteorder == "big", reason="the tables above are of the usual machines")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for name, text in {"tcp": TCP, "tcp6": TCP6, "fib_trie": TRIE, "if_inet6": IF_INET6}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@little_endian
def test_who_listens_and_where(proc: Path) -> None:
    rows = [(str(row.address), row.port, row.uid, row.beyond) for row in listening(proc)]
    assert rows == [
        ("127.0.0.1", 8080, 1000, False),
        ("0.0.0.0", 9090, 17000, True),  # and no further: the kernel puts those that listen first
        ("::", 8080, 5, True),
        ("::1", 8082, 5, False),
        ("10.77.0.11", 8083, 5, True),  # IPv4 in a socket of IPv6
        ("127.0.0.1", 8084, 5, False),
    ]
    assert len(every(proc)) == 8
    open_one = next(row for row in every(proc) if not row.listens)
    assert (str(open_one.address), open_one.port, str(open_one.peer), open_one.peer_port) == (
        "10.77.0.11", 8080, "10.77.0.21", 49153,
    )  # fmt: skip


def test_our_addresses(proc: Path, tmp_path: Path) -> None:
    assert own_addresses(proc) == ["10.77.0.11", "172.17.0.2", "fd77::11"]
    assert own_addresses(tmp_path / "nowhere") == []
    assert listening(tmp_path / "nowhere") == []
    assert list(parse(["", "one two", ": : : : : : : :"])) == []


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_this_very_machine(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert [str(row.address) for row in listening() if row.port == port] == [host]
