"""Names to addresses, with a real DNS server on loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from sidecar.discovery.answers import Found, NotFound
from sidecar.discovery.names import HOSTS_TTL, SystemNames, read_hosts
from tests.kit.dns_server import DnsServer, serving

NOWHERE = Path("/nonexistent/hosts")


def played(script: Callable[[DnsServer, SystemNames], Awaitable[None]]) -> None:
    """Play a script with a server, and with somebody who asks it."""

    async def run() -> None:
        async with serving() as server:
            await script(server, SystemNames(server.resolver(search=("mesh.test.",)), NOWHERE))

    trio.run(run)


def test_an_answer_and_its_time() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        server.records["orders.test", "A"] = ("10.0.0.1", "10.0.0.2")
        assert await names.look_up("orders.test.") == Found(("10.0.0.1", "10.0.0.2"), 30.0)

    played(script)


def test_the_search_list() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        server.records["orders.mesh.test", "A"] = ("10.0.0.3",)
        assert (await names.look_up("orders")).addresses == ("10.0.0.3",)

    played(script)


def test_ipv6_where_there_is_no_ipv4() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        server.records["six.test", "AAAA"] = ("fd00::1",)
        assert (await names.look_up("six.test.")).addresses == ("fd00::1",)
        server.records["six.test", "A"] = ("10.0.0.4",)
        assert (await names.look_up("six.test.")).addresses == ("10.0.0.4",)

    played(script)


def test_an_answer_that_was_cut_off_comes_whole_by_tcp() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        server.records["many.test", "A"] = tuple(f"10.0.1.{n}" for n in range(1, 251))
        server.truncated = True
        assert len((await names.look_up("many.test.")).addresses) == 250
        assert server.by_tcp

    played(script)


@pytest.mark.parametrize("exists", [False, True])
def test_a_name_that_has_nothing_is_an_answer(exists: bool) -> None:
    """NXDOMAIN and NODATA, for as long as the zone says (RFC 2308): here 7 s."""

    async def script(server: DnsServer, names: SystemNames) -> None:
        if exists:
            server.records["empty.test", "TXT"] = ('"x"',)
        assert await names.look_up("empty.test.") == Found((), 7.0)

    played(script)


def test_a_server_that_fails_says_nothing() -> None:
    async def script(server: DnsServer, names: SystemNames) -> None:
        server.broken = True
        with pytest.raises(NotFound):
            await names.look_up("orders.test.")

    played(script)


def test_no_resolver_at_all_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.resolver

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", _no_configuration)
    with pytest.raises(NotFound):
        trio.run(SystemNames(hosts=NOWHERE).look_up, "orders.test.")


def _no_configuration(*_: object) -> None:
    import dns.resolver

    raise dns.resolver.NoResolverConfiguration


def test_the_hosts_file_comes_first_and_is_read_again(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.8 orders.test\n")

    async def run() -> None:
        async with serving() as server:
            names = SystemNames(server.resolver(), hosts)
            server.records["orders.test", "A"] = ("10.0.0.9",)
            assert await names.look_up("Orders.test") == Found(("10.0.0.8",), HOSTS_TTL)
            hosts.write_text("# nobody any more\n")
            assert (await names.look_up("orders.test.")).addresses == ("10.0.0.9",)

    trio.run(run)


def test_what_a_hosts_file_may_say() -> None:
    lines = ["127.0.0.1\tlocalhost  Orders # ours", "::1 localhost", "fe80::1%eth0 link", "", "no-address x", "10.1 y"]
    assert read_hosts(lines) == {"localhost": ("127.0.0.1", "::1"), "orders": ("127.0.0.1",), "link": ("fe80::1",)}
