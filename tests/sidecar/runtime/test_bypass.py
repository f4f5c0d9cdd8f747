"""An application that neighbours reach past its sidecar makes the sidecar not ready; what counts, and what does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.net.proc_net import Row, own_addresses
from sidecar.runtime import bypass
from sidecar.runtime.bypass import app_ports, exposed, reachable_at
from tests.kit.processes import eventually
from tests.kit.sidecars import LocalSidecar, World

SERVICE = """
trust_domain: demo.mesh
services:
  shop:
    inbound:
      - {name: main, port: 8080, bind: 192.0.2.7, app: '127.0.0.1:8080'}
      - {name: split, port: 8443, app: '127.0.0.1:8081', routes: [{path: '/v2/**', app: '127.0.0.1:8082'}]}
      - {name: sock, port: 8444, app: 'unix:/run/app.sock'}
    allow: [{from: '*'}]
"""
OWN = ["192.0.2.7", "192.0.2.8", "fd00::7", "fd00::8"]


def row(address: str, port: int) -> Row:
    return Row(ip_address(address), port, ip_address("0.0.0.0"), 0, listens=True, uid=0)


def test_which_sockets_count() -> None:
    service = load_text(SERVICE).services["shop"]
    assert app_ports(service) == {8080, 8081, 8082}
    rows = {  # a socket, and whether it is a way past the sidecar
        row("127.0.0.1", 8080): False,
        row("127.8.9.9", 8080): False,
        row("::1", 8080): False,
        row("0.0.0.0", 8080): True,
        row("::", 8081): True,
        row("192.0.2.9", 8082): True,
        row("192.0.2.7", 8080): False,  # the sidecar's own listener
        row("192.0.2.8", 8080): True,
        row("0.0.0.0", 8443): False,  # no port of the application's
        row("0.0.0.0", 22): False,
    }
    assert exposed(rows, service) == tuple(each for each, counts in rows.items() if counts)


@pytest.mark.parametrize(
    ("address", "own", "dialled"),
    [
        ("0.0.0.0", OWN, ["192.0.2.7"]),
        ("::", OWN, ["192.0.2.7", "fd00::7"]),  # it may take both versions
        ("192.0.2.8", OWN, ["192.0.2.8"]),  # of several networks the one that it is bound to
        ("fd00::8", OWN, ["fd00::8"]),
        ("0.0.0.0", ["fd00::7"], []),  # there is no way to it
        ("::", [], []),
    ],
)
def test_where_it_would_be_reached(address: str, own: list[str], dialled: list[str]) -> None:
    assert reachable_at(row(address, 8080), own) == dialled


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if not [each for each in own_addresses() if ":" not in each]:
        pytest.skip("this machine has no IPv4 address beyond loopback; tests/integration/netns has hosts that do")
    monkeypatch.setattr(bypass, "EVERY_SECONDS", 0.05)
    world = World(tmp_path)
    yield world
    world.close()


@contextmanager
def application(host: str, port: int, family: socket.AddressFamily = socket.AF_INET) -> Iterator[None]:
    with socket.create_server((host, port), family=family):
        yield


def status(app: LocalSidecar) -> dict[str, Any]:
    found: dict[str, Any] = app.admin("GET", "/status")[1]
    return found


def result(app: LocalSidecar) -> str:
    return str((status(app)["bypass"] or {}).get("result"))


def test_not_ready_for_as_long_as_it_is_reached(world: World) -> None:
    port = world.ports.app
    with world.sidecar("app") as app:
        assert result(app) == "none"
        for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
            with application(host, port, family):
                eventually("it is noticed", lambda: status(app)["not_ready"])
                (reason,) = status(app)["not_ready"]
                assert f"{port}, where neighbours reach it past this sidecar" in reason
                assert "mesh redirect install" in reason
                assert "unsafe_allow_bypass" in reason
                assert app.total("mesh_bypass_ports") == 1
                code, out, _ = world.mesh("status", "--ready")
                assert code == 1
                assert "neighbours reach it" in out
            eventually("it is over", lambda: not status(app)["not_ready"])
            assert app.total("mesh_bypass_ports") == 0
        with application("127.0.0.1", port):
            eventually("a look", lambda: result(app) == "none")
            assert status(app)["not_ready"] == []
        assert [line["message"] for line in app.warnings() if "past this sidecar" in line["message"]]


def test_the_unsafe_way_on_is_shouted(world: World) -> None:
    world.config = load_text(world.text.replace("  app:\n", "  app:\n    unsafe_allow_bypass: true\n", 1))
    with application("0.0.0.0", world.ports.app), world.sidecar("app") as app:
        eventually("it has looked", lambda: result(app) == "allowed")
        assert status(app)["not_ready"] == []
        assert app.total("mesh_bypass_ports") == 1
        _, out, _ = world.mesh("status")
        assert "UNSAFE_ALLOW_BYPASS" in "".join(out.split())
        assert any("unsafe_allow_bypass" in line["message"] for line in app.warnings())


def test_rules_that_come_later_are_noticed_at_the_next_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same sockets and the same addresses: only what a dial meets has changed."""
    reached = [True]

    async def answers(*_: object) -> bool:
        return reached[0]

    monkeypatch.setattr(bypass.BypassCheck, "_answers", answers)
    with application("0.0.0.0", world.ports.app), world.sidecar("app") as app:
        eventually("it is noticed", lambda: result(app) == "open")
        reached[0] = False
        eventually("it is over", lambda: result(app) == "guarded", 5)
        assert status(app)["not_ready"] == []
