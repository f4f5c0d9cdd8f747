"""Header hygiene from end to end: what belongs to one connection, and what belongs to the mesh (D21, semantics S10)."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Request
from tests.kit.hops import WEB
from tests.kit.play import Stage, scene

RESERVED = (
    b"mesh-timeout: 9S\r\nMESH-Retry: 1\r\nmesh_via: x\r\nMesh_Decision-ID: x\r\n"
    b"X-Forwarded-Client-Cert: By=a;URI=b\r\nx_forwarded_client_cert: By=a\r\n"
)
HOP_BY_HOP = (
    b"Connection: x-private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"
    b"TE: trailers\r\nProxy-Authorization: Basic eA==\r\nProxy-Authenticate: x\r\nHTTP2-Settings: x\r\n"
)


def names(request: Request) -> set[bytes]:
    return {name for name, _ in request.headers}


@scene()
async def test_the_application_sees_its_caller_as_the_handshake_proved_it(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\n" + RESERVED + b"\r\n")
    xfcc = seen[0].get("x-forwarded-client-cert") or b""
    assert xfcc.startswith(b"By=spiffe://demo.mesh/ns/default/sa/orders;Hash=")
    assert xfcc.endswith(b';Subject="";URI=spiffe://demo.mesh/ns/default/sa/web')
    assert names(seen[0]) == {b"host", b"x-forwarded-client-cert", b"mesh-via"}
    assert seen[0].get("mesh-via") == b",".join(proxy.books.instance.encode() for proxy in (stage.web, stage.orders))


@scene()
async def test_a_peer_cannot_say_who_it_is(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    await peer.say(b"GET / HTTP/1.1\r\nHost: orders\r\n" + RESERVED + b"\r\n")
    await peer.answer()
    assert len(seen[0].all("x-forwarded-client-cert")) == 1
    assert b"URI=b" not in (seen[0].get("x-forwarded-client-cert") or b"")
    assert names(seen[0]) == {b"host", b"x-forwarded-client-cert", b"mesh-via"}


@scene(http=", xfcc_forwarders: [web]")
async def test_a_listed_forwarders_word_is_kept_and_added_to(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    await peer.say(
        b"GET / HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: By=a;URI=first\r\n"
        b"X-Forwarded-Client-Cert: By=b;URI=second\r\nx_forwarded_client_cert: URI=forged\r\n\r\n"
    )
    await peer.answer()
    xfcc = seen[0].get("x-forwarded-client-cert") or b""
    assert xfcc.startswith(b"By=a;URI=first,By=b;URI=second,By=spiffe://")
    assert xfcc.endswith(f"URI={WEB.text}".encode())


@scene(http=", xfcc_forwarders: [web]")
async def test_a_listed_forwarders_word_is_refused_where_it_has_two_readings(stage: Stage) -> None:
    """A stray quote would swallow our element, the one that counts."""
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    await peer.say(b'GET / HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: By="a\r\n\r\n')
    assert (await peer.answer()).status == 400
    assert not seen


@scene()
async def test_what_belongs_to_one_connection_stays_on_it(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Own: 1\r\n" + HOP_BY_HOP + b"\r\n"))
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\nX-Own: 1\r\n" + HOP_BY_HOP + b"\r\n")
    assert names(seen[0]) == {b"host", b"x-own", b"x-forwarded-client-cert", b"mesh-via"}
    assert answer.headers == [(b"content-length", b"0"), (b"x-own", b"1")]


@scene()
async def test_an_application_cannot_speak_for_the_mesh(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + RESERVED + b"\r\n"))
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert answer.headers == [(b"content-length", b"0")]


@pytest.mark.parametrize(
    "named",
    [
        b"Host",
        b"content-length",
        b"Authorization",
        b"close, cookie",
        b"X-Forwarded-Client-Cert",
        b"mesh-via",
        b"Expect",
    ],
)
@scene()
async def test_a_connection_header_cannot_take_away_what_matters(stage: Stage, named: bytes) -> None:
    stage.app(apps.always(apps.OK))
    request = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: " + named + b"\r\n\r\n"
    assert (await stage.ask(request)).status == 400
    peer = await stage.peer()
    await peer.say(request)
    assert (await peer.answer()).status == 400
    assert stage.apps == []


@scene()
async def test_a_request_that_comes_back_is_cut(stage: Stage) -> None:
    own = stage.orders.books.instance.encode()
    peer = await stage.peer()
    await peer.say(b"GET / HTTP/1.1\r\nHost: orders\r\nMesh-Via: 00000001, " + own.upper() + b"\r\n\r\n")
    assert (await peer.answer()).status == 508
    assert stage.orders.books.hop.flag == "LR"
    web = await stage.ask(
        b"GET / HTTP/1.1\r\nHost: orders\r\nmesh-via: " + stage.web.books.instance.encode() + b"\r\n\r\n"
    )
    assert web.status == 508


@scene()
async def test_a_request_that_has_seen_too_many_sidecars_is_cut(stage: Stage) -> None:
    peer = await stage.peer()
    via = b",".join(b"%08x" % n for n in range(32))
    await peer.say(b"GET / HTTP/1.1\r\nHost: orders\r\nmesh-via: " + via + b"\r\n\r\n")
    assert (await peer.answer()).status == 508


@scene()
async def test_values_and_their_order_are_left_alone(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen, b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"))
    answer = await stage.ask(
        b"GET / HTTP/1.1\r\nHost: orders\r\nX-A:  1 , 2\t\r\nX-B: \xe4\xf6\r\nX-A: 3\r\nX-Empty:\r\nX_A: 4\r\n\r\n"
    )
    kept = [field for field in seen[0].headers if field[0].startswith((b"x-a", b"x-b", b"x-e", b"x_a"))]
    assert kept == [(b"x-a", b"1 , 2"), (b"x-b", b"\xe4\xf6"), (b"x-a", b"3"), (b"x-empty", b""), (b"x_a", b"4")]
    assert (answer.reason, answer.all("set-cookie")) == (b"Fine", [b"a", b"b"])
