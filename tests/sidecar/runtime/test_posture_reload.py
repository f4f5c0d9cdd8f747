"""Postures on real sockets: plaintext and TLS on one port, and what a reload does to those who came in without TLS."""

from __future__ import annotations

import time

import pytest
import trio

from sidecar.config.posture import show_moment
from tests.sidecar.runtime.test_proxy_reload import Line, Mesh, story

UPGRADE = b"GET /a HTTP/1.1\r\nhost: orders\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"


def posed(mesh: Mesh, posture: str) -> str:
    """The mesh's config with this posture on both listeners of orders."""
    if posture == "strict":
        return mesh.text()
    says = f", posture: {posture}, until: '{show_moment(time.time() + 3600.0)}'"
    text = mesh.text()
    for port in (mesh.ports.http_in, mesh.ports.raw_in):
        text = text.replace(f"port: {port},", f"port: {port}{says},")
    return text


async def without_tls(mesh: Mesh, kind: str) -> Line:
    """An open connection without TLS to the sidecar of orders, over which something has gone both ways."""
    line = await mesh.call("raw_in" if kind == "raw" else "http_in")
    if kind == "raw":
        await line.echo(b"ping")
    elif kind == "upgrade":
        await line.stream.send_all(UPGRADE)
        assert (await line.hear()).startswith(b"HTTP/1.1 101 ")
        await line.echo(b"ping")
    else:
        assert (await line.get()).startswith(b"HTTP/1.1 200 ")
    return line


@story
async def test_one_port_takes_both_while_it_is_permissive_and_neither_is_taken_for_the_other(mesh: Mesh) -> None:
    mesh.reload("orders", posed(mesh, "permissive"))
    plain, secure = await without_tls(mesh, "http"), await mesh.call()
    assert (await secure.get()).startswith(b"HTTP/1.1 200 ")
    assert (await plain.get()).startswith(b"HTTP/1.1 200 ")
    raw, raw_secure = await without_tls(mesh, "raw"), await mesh.call("raw_door")
    await raw_secure.echo(b"ping")
    await raw.echo(b"ping")
    seen = [(hop.peer and hop.peer.segments[-1], hop.rule) for hop in mesh.books["orders"].hops]
    assert seen == [(None, "posture:permissive"), ("web", "all"), (None, "posture:permissive")]
    assert mesh.proxies["orders"].show.listeners()[1]["would_refuse"] == 2


@story
async def test_a_first_byte_that_comes_alone_is_enough(mesh: Mesh) -> None:
    mesh.reload("orders", posed(mesh, "permissive"))
    line = await mesh.call("http_in")
    for byte in b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n":
        await line.stream.send_all(bytes((byte,)))
        await trio.sleep(0)
    assert (await line.hear()).startswith(b"HTTP/1.1 200 ")
    broken = await mesh.call("http_in")
    await broken.stream.send_all(b"\x16")  # of a handshake, so it is held to be one
    await broken.stream.send_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
    assert b"HTTP/1.1" not in await said(broken)
    assert len(mesh.books["orders"].hops) == 1


@pytest.mark.parametrize("after", ["strict", "observe"])
@pytest.mark.parametrize("kind", ["http", "raw", "upgrade"])
def test_a_reload_that_demands_mtls_ends_those_without(kind: str, after: str) -> None:
    @story
    async def play(mesh: Mesh) -> None:
        mesh.reload("orders", posed(mesh, "permissive"))
        line = await without_tls(mesh, kind)
        other = await mesh.call("raw_door" if kind == "raw" else "door")  # with TLS, and not to be touched
        if kind == "raw":
            await other.echo(b"ping")
        mesh.reload("orders", posed(mesh, after))
        if kind == "http":
            answer = await line.get()
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"connection: close" in answer
            assert b"mesh-decision-id" not in answer
            assert await line.broke()
            assert (await other.get()).startswith(b"HTTP/1.1 200 ")
        else:
            assert await line.broke()
        if kind == "raw":
            await other.echo(b"ping")
        hop = next(hop for hop in mesh.books["orders"].hops if hop.error is not None)
        assert hop.error is not None
        assert (hop.peer, hop.flag, hop.error.name) == (None, "ID", "identity_refused")
        assert hop.error.midway == ("" if kind == "http" else "identity")
        new = await mesh.call("http_in")
        await new.stream.send_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
        assert b"HTTP/1.1" not in await said(new)

    play()


async def said(line: Line) -> bytes:
    """All that the other side says until it ends."""
    heard = b""
    try:
        while data := await line.hear():
            heard += data
    except trio.BrokenResourceError:
        pass
    return heard


@story
async def test_who_has_not_said_a_word_when_it_becomes_strict_is_a_stranger_like_any_other(mesh: Mesh) -> None:
    mesh.reload("orders", posed(mesh, "permissive"))
    line = await mesh.call("http_in")
    while not mesh.proxies["orders"].inbound_connections:
        await trio.sleep(0.001)
    mesh.reload("orders", posed(mesh, "strict"))
    await line.stream.send_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
    assert b"HTTP/1.1" not in await said(line)
    assert mesh.books["orders"].hops == []
    text = mesh.books["orders"].metrics.render().decode()
    assert 'mesh_tls_handshake_failures_total{direction="inbound",listener="http",reason="plaintext"} 1' in text


@story
async def test_a_rule_that_is_added_while_it_is_observed_keeps_the_tunnel_beyond_the_posture(mesh: Mesh) -> None:
    observed = posed(mesh, "observe")
    nobody = observed.replace("allow: [{name: all, from: web}]", "allow: []")
    mesh.reload("orders", nobody)
    kept, cut = await mesh.call("raw_door"), await mesh.call("raw_door")
    for line in (kept, cut):
        await line.echo(b"ping")
    mesh.reload("orders", posed(mesh, "strict"))  # in which the rule is
    await kept.echo(b"ping")
    mesh.reload("orders", nobody)
    await cut.echo(b"ping")  # observed again
    mesh.reload("orders", mesh.text(allow="[]"))
    assert await kept.broke()
    assert await cut.broke()
    hops = mesh.books["orders"].hops
    assert [(hop.flag, hop.error and hop.error.midway, hop.rule) for hop in hops] == [("PD", "policy", "")] * 2
    assert all(hop.waived is not None for hop in hops)
