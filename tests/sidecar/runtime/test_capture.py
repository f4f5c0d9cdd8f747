"""Captured connections without rules or rights: a real proxy on real sockets, which is told what the kernel would say.

`tests/integration/netns/test_captured.py` has the kernel say it.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

import pytest
import trio

from sidecar.config.posture import show_moment
from sidecar.config.terms import Address
from sidecar.net.original import Place, place
from sidecar.runtime import capture
from sidecar.runtime.listening import CannotListen
from tests.sidecar.runtime.test_proxy_reload import Mesh, a_mesh

TEXT = """\
trust_domain: demo.mesh
services:
  shop:
    address: 127.0.0.1
    redirect: {{capture_in: {c_in}, capture_out: {c_out}, passthrough: [{passthrough}]}}
    inbound:
      - {{name: http, port: 8080, app: "127.0.0.1:{first}", posture: permissive, until: {until}}}
      - {{name: raw, port: 5432, app: "127.0.0.1:{echo}", posture: permissive, until: {until}, protocol: tcp,
         app_proxy_protocol: v1}}
    outbound:
      - {{to: other, unmeshed: passthrough, endpoints: "127.0.0.1:{second}",
         addresses: ["10.96.0.1:80", other.internal:81]}}
    health: {{listen: off}}
    timeouts: {{drain: 1s}}
"""


class Kernel:
    """What it remembers of connections that are accepted, and whose they are."""

    def __init__(self) -> None:
        self.asked: Place | None = None
        self.ours = False


class Shop:
    """A redirected sidecar in a mesh."""

    def __init__(self, mesh: Mesh, kernel: Kernel) -> None:
        self.mesh, self.kernel = mesh, kernel
        mesh.add("shop", self.text())
        self.books, self.proxy = mesh.books["shop"], mesh.proxies["shop"]

    def text(self, passthrough: str = "") -> str:
        p = self.mesh.ports
        until = show_moment(time.time() + 86400)
        place = passthrough or f'"127.0.0.1:{p.echo}"'
        return TEXT.format(
            c_in=p.c_in, c_out=p.c_out, first=p.first, second=p.second, echo=p.echo, passthrough=place, until=until
        )

    async def connect(self, door: str, asked: str) -> trio.SocketStream:
        """A connection that was made to this address, and brought to this door."""
        host, _, port = asked.rpartition(":")
        self.kernel.asked = place(host.strip("[]"), int(port)) if asked else None
        stream = await trio.open_tcp_stream("127.0.0.1", getattr(self.mesh.ports, door))
        self.mesh.streams.append(stream)
        return stream

    async def is_refused(self, door: str, asked: str) -> None:
        """It is closed, perhaps before we have noticed that it was open."""
        try:
            stream = await self.connect(door, asked)
        except OSError:
            while not self.books.hops:
                await trio.sleep(0.01)
        else:
            assert await hear(stream) == b""

    async def get(self, door: str, asked: str, host: str) -> bytes:
        stream = await self.connect(door, asked)
        await stream.send_all(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        return await hear(stream)


async def hear(stream: trio.SocketStream) -> bytes:
    """What comes; empty where it has ended, however."""
    with trio.fail_after(5):
        try:
            return await stream.receive_some()
        except trio.BrokenResourceError:
            return b""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(capture, "original_destination", lambda sock: kernel.asked)
    monkeypatch.setattr(capture.SocketOwners, "is_ours", lambda self, local, remote: kernel.ours)
    return kernel


@pytest.fixture
def play(kernel: Kernel) -> Callable[[Callable[[Shop], object]], None]:
    def run(story: Callable[[Shop], object]) -> None:
        async def whole() -> None:
            with trio.fail_after(30):
                async with a_mesh() as mesh:
                    await story(Shop(mesh, kernel))  # type: ignore[misc]

        trio.run(whole)

    return run


Play = Callable[[Callable[[Shop], object]], None]


def test_an_upstream_is_found_by_its_address_and_called_by_its_names(play: Play) -> None:
    async def story(shop: Shop) -> None:
        second = f"127.0.0.1:{shop.mesh.ports.second}"
        for asked in (second, f"[::ffff:127.0.0.1]:{shop.mesh.ports.second}", "10.96.0.1:80"):
            for host in ("other", second, "10.96.0.1", "10.96.0.1:80"):
                assert (await shop.get("c_out", asked, host)).endswith(b"second"), (asked, host)
            for host in ("orders", "10.96.0.1:81", "10.96.0.2"):
                assert b" 403 " in await shop.get("c_out", asked, host), (asked, host)
        assert {hop.listener for hop in shop.books.hops if hop.error is None} == {"other"}

    play(story)


def test_a_name_among_its_addresses_is_followed_and_what_it_stands_for_means_the_upstream(play: Play) -> None:
    async def story(shop: Shop) -> None:
        await shop.is_refused("c_out", "10.96.0.7:81")
        (named,) = [each for each in shop.proxy.followed if each.names]
        named.found(Address("other.internal", 81), ("10.96.0.7",))
        for host in ("other.internal", "other.internal:81", "10.96.0.7:81"):
            assert (await shop.get("c_out", "10.96.0.7:81", host)).endswith(b"second"), host
        await shop.is_refused("c_out", "10.96.0.7:80")

    play(story)


def test_where_plaintext_may_go_it_goes_until_a_reload_forbids_it(play: Play) -> None:
    async def story(shop: Shop) -> None:
        stream = await shop.connect("c_out", f"127.0.0.1:{shop.mesh.ports.echo}")
        await stream.send_all(b"hello")
        assert await hear(stream) == b"hello"
        (row,) = shop.books.plaintext.to_json()
        assert (row["listener"], row["open"]) == ("redirect.passthrough", 1)
        shop.mesh.reload("shop", shop.text("10.0.0.0/8"))
        assert await hear(stream) == b""
        assert shop.books.plaintext.to_json()[0]["open"] == 0
        assert shop.books.flags == ["PD"]

    play(story)


@pytest.mark.parametrize(
    ("door", "asked", "error"),
    [
        ("c_out", "10.9.0.7:5432", "undeclared_upstream"),
        ("c_out", "", "not_redirected"),
        ("c_out", "10.0.0.1:{c_out}", "not_redirected"),
        ("c_out", "10.0.0.1:{c_in}", "not_redirected"),
        ("c_in", "", "not_redirected"),
        ("c_in", "127.0.0.1:{c_in}", "not_redirected"),
        ("c_in", "10.0.0.1:8081", "undeclared_port"),
    ],
)
def test_what_tells_nothing_is_refused_unread(play: Play, door: str, asked: str, error: str) -> None:
    async def story(shop: Shop) -> None:
        ports = {name: getattr(shop.mesh.ports, name) for name in ("c_in", "c_out")}
        await shop.is_refused(door, asked.format(**ports))
        (hop,) = shop.books.hops
        assert hop.error is not None
        assert (hop.error.name, hop.flag, hop.listener) == (error, "PD", "redirect")
        assert hop.decision_id

    play(story)


def test_one_of_our_own_is_refused(play: Play, kernel: Kernel) -> None:
    async def story(shop: Shop) -> None:
        kernel.ours = True
        await shop.is_refused("c_out", f"127.0.0.1:{shop.mesh.ports.second}")
        assert shop.books.flags == ["LR"]
        kernel.ours = False
        assert (await shop.get("c_out", f"127.0.0.1:{shop.mesh.ports.second}", "other")).endswith(b"second")

    play(story)


def test_a_listener_is_found_by_its_port_on_whichever_address(play: Play) -> None:
    async def story(shop: Shop) -> None:
        for asked in ("10.77.0.2:8080", "[fd77::2]:8080"):
            assert (await shop.get("c_in", asked, "shop")).endswith(b"first")
        assert {hop.listener for hop in shop.books.hops} == {"http"}
        rows = shop.books.plaintext.to_json()
        assert [(row["direction"], row["address"], row["connections"]) for row in rows] == [
            ("inbound", "127.0.0.1", 2)
        ]
        assert shop.books.metrics.would_refuse["http"] == 2

    play(story)


def test_an_application_is_told_which_address_its_caller_connected_to(play: Play) -> None:
    """And not the capture port's."""

    async def story(shop: Shop) -> None:
        stream = await shop.connect("c_in", "10.77.0.2:5432")
        await stream.send_all(b"hello")
        said = b""
        while not said.endswith(b"hello"):
            said += await hear(stream)
        port = stream.socket.getsockname()[1]
        assert said == f"PROXY TCP4 127.0.0.1 10.77.0.2 {port} 5432\r\nhello".encode()

    play(story)


def test_a_drain_closes_the_doors_one_after_the_other(play: Play) -> None:
    async def story(shop: Shop) -> None:
        shop.proxy.drain()
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await shop.connect("c_in", "10.77.0.2:8080")
        assert (await shop.get("c_out", "10.96.0.1:80", "other")).endswith(b"second")
        shop.proxy.drain_outbound()
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await shop.connect("c_out", "10.96.0.1:80")

    play(story)


def test_a_port_that_is_taken_opens_nothing(play: Play) -> None:
    async def story(shop: Shop) -> None:
        text = shop.text().replace(f"capture_in: {shop.mesh.ports.c_in}", f"capture_in: {shop.mesh.ports.other_in}")
        with pytest.raises(CannotListen, match=str(shop.mesh.ports.c_out)):
            shop.mesh.add("shop", text)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", shop.mesh.ports.other_in))

    play(story)


def test_a_machine_without_ipv6_has_two_doors_less(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind, tried = capture.bind, []

    def without(address: Address, *, one_family: bool) -> socket.socket:
        tried.append(address.host)
        if ":" in address.host:
            try:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            except OSError:
                raise CannotListen(f"cannot listen on {address}") from None
        return bind(address, one_family=one_family)

    monkeypatch.setattr(capture, "bind", without)

    async def story(shop: Shop) -> None:
        assert tried == ["0.0.0.0", "::", "127.0.0.1", "::1"]
        assert (await shop.get("c_out", "10.96.0.1:80", "other")).endswith(b"second")

    play(story)
