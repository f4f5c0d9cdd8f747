"""Memory stays flat: however long a body is, however slow a reader, a sidecar holds a window of it and no more.

The long form of the same, 2 GiB each way, is tests/deep/test_flat_memory.py; figures are in docs/limits.md.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.kit.bodies import download, pids, upload
from tests.kit.fleet import settled
from tests.kit.memory_use import MIB, MemoryWatch, rss
from tests.kit.meshes import Pair
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

BODY = 256 * MIB
BAR = 32 * MIB  # that a sidecar may grow
IDLE_BAR = 60 * MIB
SLOW_READERS = 20
SLOW_BYTES_PER_SECOND = 10 * 1024


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("flat")
    pair = Pair(folder)
    with echo_app(folder, pair.ports.app), pair:
        pair.start_all()
        yield pair
        pair.assert_well()


def test_an_idle_sidecar_stays_below_its_bar(pair: Pair, record_property: pytest.RecordProperty) -> None:
    for name, pid in pids(pair).items():
        record_property(f"{name} idle", rss(pid))
        print(f"{name} idle after its start: {rss(pid) / MIB:.1f} MiB")
        assert rss(pid) <= IDLE_BAR


@pytest.mark.parametrize("move", [upload, download], ids=["upload", "download"])
def test_a_large_body_passes_through_a_small_window(pair: Pair, move: object) -> None:
    assert callable(move)
    with MemoryWatch(pids(pair)) as memory:
        seconds = move(pair.ports.door, BODY)
    print(f"{BODY // MIB} MiB in {seconds:.1f} s\n{memory.report()}")
    for name in ("web", "app"):
        assert memory[name].grown < BAR, memory.report()


def test_slow_readers_slow_only_themselves(pair: Pair, record_property: pytest.RecordProperty) -> None:
    """Each asks for 64 MiB and takes 10 KiB a second; a good caller beside them notices nothing."""
    over = threading.Event()
    what = (pair.ports.door, 64 * MIB, over)
    readers = [threading.Thread(target=read_slowly, args=what) for _ in range(SLOW_READERS)]
    with MemoryWatch(pids(pair)) as memory:
        for reader in readers:
            reader.start()
        eventually("all of them read", lambda: pair["app"].status()["in_flight"] >= SLOW_READERS)
        with NonceLoad(pair.ports.door, rate=100, seed=3) as load:
            time.sleep(6)
        tally = load.stop()
        over.set()
        for reader in readers:
            reader.join()
    record_property("beside slow readers", tally.summary())
    print(tally.summary(), memory.report(), sep="\n")
    tally.assert_flawless()
    assert tally.quantile(0.99) < 1000
    assert memory["web"].grown < BAR
    assert memory["app"].grown < BAR
    settled([pair["web"], pair["app"]])


def test_after_load_an_idle_sidecar_is_below_its_bar_still(pair: Pair) -> None:
    """Last in this file on purpose: everything above has been through these two."""
    for name, pid in pids(pair).items():
        eventually(f"{name} below its bar", lambda pid=pid: rss(pid) <= IDLE_BAR, 30)
        print(f"{name} idle after load: {rss(pid) / MIB:.1f} MiB")


def read_slowly(port: int, size: int, over: threading.Event) -> None:
    """A caller that takes 10 KiB a second of its answer."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.connect(("127.0.0.1", port))
        sock.sendall(f"GET /bytes/{size} HTTP/1.1\r\nhost: app\r\n\r\n".encode())
        while not over.wait(0.1):
            sock.recv(SLOW_BYTES_PER_SECOND // 10)
