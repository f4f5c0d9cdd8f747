"""Ports in the way: each is named with who wants it, who has it and how to move, before anything is started."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from sidecar.cli import preflight
from sidecar.cli.console import Failure
from sidecar.cli.preflight import Wanted, check_ports, holder_of, wanted_ports, why_not
from sidecar.config.load import load_text
from sidecar.config.terms import Address
from sidecar.demo.config import DemoPorts, demo_yaml


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that we listen on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_every_port_of_the_demo_is_checked_and_follows_the_base() -> None:
    for base in (17000, 27000):
        config = load_text(demo_yaml(base))
        wanted = {want.port for want in wanted_ports(config, config.ca.address or Address("", 0))}
        p = DemoPorts(base)
        assert wanted == {
            p.ca, p.orders_inbound, p.payments_inbound, p.orders_app, p.payments_app, p.web_to_orders,
            p.web_to_payments, p.orders_to_payments, p.health(0), p.health(1), p.health(2),
        }  # fmt: skip
        assert all(base <= port < base + 1000 for port in wanted)
        assert all(want.host == "127.0.0.1" for want in wanted_ports(config, Address("127.0.0.1", p.ca)))


def test_a_taken_port_is_named_with_its_holder(taken: int) -> None:
    with pytest.raises(Failure) as caught:
        check_ports([Wanted("127.0.0.1", taken, "orders, for its peers", "mesh.yaml:12")], demo_base=None)
    failure = caught.value
    assert failure.code == 3
    assert f"port {taken} is taken by " in failure.message
    assert f"pid {os.getpid()}" in failure.message
    assert f"orders, for its peers, wants 127.0.0.1:{taken}" in failure.message
    assert failure.advice == "Choose other ports in mesh.yaml:12, or stop what holds these."


def test_the_demo_is_offered_a_base_that_is_free(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_free_base", lambda wanted, base: 31000)
    with pytest.raises(Failure) as caught:
        check_ports([Wanted("127.0.0.1", taken, "the CA", "")], demo_base=17000)
    assert "mesh up --port-base 31000" in caught.value.advice


def test_the_base_that_is_offered_has_every_port_free(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {27012, 28443}
    monkeypatch.setattr(preflight, "why_not", lambda host, port: OSError() if port in busy else None)
    wanted = [Wanted("127.0.0.1", 17012, "", ""), Wanted("127.0.0.1", 17443, "", "")]
    assert preflight._free_base(wanted, 17000) == 29000


def test_all_ports_in_the_way_are_named_at_once(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        second = other.getsockname()[1]
        both = [Wanted("127.0.0.1", taken, "a", "f:1"), Wanted("127.0.0.1", second, "b", "f:2")]
        with pytest.raises(Failure) as caught:
            check_ports(both, demo_base=None)
    assert str(taken) in caught.value.message
    assert str(second) in caught.value.advice


def test_an_address_of_another_machine_is_called_that() -> None:
    with pytest.raises(Failure, match=r"192\.0\.2\.1 is no address of this machine; the CA wants 192\.0\.2\.1:17999\."):
        check_ports([Wanted("192.0.2.1", 17999, "the CA", "")], demo_base=None)


def test_a_free_port_is_no_obstacle_and_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert why_not("127.0.0.1", port) is None
    assert holder_of(port) == ""


def test_a_machine_without_ipv6_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo asks for IPv4 addresses only: no socket of the other family is even made."""
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    for want in wanted_ports(load_text(demo_yaml(21000)), Address("127.0.0.1", 21012)):
        error = why_not(want.host, want.port)
        assert error is None or error.errno == errno.EADDRINUSE  # by a test beside us, not for want of a family
