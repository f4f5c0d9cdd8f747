"""Unix sockets to listen on: whose file may be replaced, who may use it, and what a failure leaves behind."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config.terms import Address, SocketMode
from sidecar.net.memory import MemoryClock
from sidecar.net.reactor import Acceptor, Reactor
from sidecar.runtime.listening import CannotListen, bind_all


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(f"unix:{tmp_path}/a.sock", 0)


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    found: list[socket.socket] = []
    yield found
    for sock in found:
        sock.close()


def listen(address: Address, opened: list[socket.socket], mode: SocketMode = "owner") -> socket.socket:
    sock = bind_all([address], modes={address: mode})[address]
    opened.append(sock)
    return sock


@pytest.mark.parametrize(("mode", "bits"), [("owner", 0o600), ("group", 0o660)])
def test_its_mode_is_the_one_that_was_asked_for(
    address: Address, opened: list[socket.socket], mode: SocketMode, bits: int
) -> None:
    listen(address, opened, mode)
    assert stat.S_IMODE(Path(address.path).stat().st_mode) == bits
    other: SocketMode = "group" if mode == "owner" else "owner"
    bind_all([], [address], {address: other})  # a reload that keeps the address
    assert stat.S_IMODE(Path(address.path).stat().st_mode) == 0o600 + 0o660 - bits


def test_what_a_dead_process_has_left_is_replaced(address: Address, opened: list[socket.socket]) -> None:
    listen(address, opened).close()
    assert Path(address.path).is_socket()
    listen(address, opened)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)


def test_a_socket_that_somebody_listens_on_is_left_alone(address: Address, opened: list[socket.socket]) -> None:
    listen(address, opened)
    with pytest.raises(CannotListen, match="somebody listens there already"):
        bind_all([address])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)


def test_one_whose_queue_is_full_has_a_listener_too(address: Address, opened: list[socket.socket]) -> None:
    sock = listen(address, opened)
    sock.listen(0)
    for _ in range(2):
        client = socket.socket(socket.AF_UNIX)
        opened.append(client)
        client.setblocking(False)
        client.connect_ex(address.path)
    with pytest.raises(CannotListen, match="somebody listens there already"):
        bind_all([address])


def test_nothing_but_a_socket_is_ever_replaced(address: Address, tmp_path: Path) -> None:
    Path(address.path).write_text("dear to somebody")
    with pytest.raises(CannotListen, match="is no socket; move it away"):
        bind_all([address])
    assert Path(address.path).read_text() == "dear to somebody"
    Path(address.path).unlink()
    Path(address.path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotListen, match="is no socket"):
        bind_all([address])
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="No such file or directory; make its folder first"):
        bind_all([Address(f"unix:{tmp_path}/no/a.sock", 0)])


def test_all_or_none_and_nothing_is_left(address: Address) -> None:
    with pytest.raises(CannotListen):
        bind_all([address, Address("192.0.2.1", 1)])
    assert not Path(address.path).exists()


def test_the_file_goes_with_its_listener_and_never_takes_anothers_along(
    address: Address, opened: list[socket.socket]
) -> None:
    reactor = Reactor(MemoryClock())  # type: ignore[arg-type]
    acceptor = Acceptor(reactor, listen(address, opened), lambda wire: wire.close())
    acceptor.close()
    assert not Path(address.path).exists()
    acceptor = Acceptor(reactor, listen(address, opened), lambda wire: wire.close())
    Path(address.path).unlink()
    listen(address, opened)
    acceptor.close()
    assert Path(address.path).is_socket()
