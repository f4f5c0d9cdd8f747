"""A door into the mesh: strangers ask for whatever host, are let to one upstream, and learn nothing of refusals."""

from __future__ import annotations

from tests.kit import apps
from tests.kit.h1_line import Request
from tests.kit.play import Stage, scene

DOOR = ", edge: true"


@scene(upstream=DOOR)
async def test_any_host_leads_to_the_one_upstream_under_its_own_name(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    for host in (b"shop.example.org", b"127.0.0.1:8080", b"orders"):
        answer = await stage.ask(b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert answer.status == 200
    assert [each.get("host") for each in seen] == [b"orders"] * 3


@scene(upstream=DOOR, may="nobody")
async def test_a_refused_stranger_learns_nothing(stage: Stage) -> None:
    answer = await stage.ask(b"GET /a HTTP/1.1\r\nHost: shop\r\n\r\n")
    assert answer.status == 403
    assert not [name for name, _ in answer.headers if name.startswith(b"mesh-") or name == b"proxy-status"]
    assert stage.orders.books.hops[0].error is not None


@scene(upstream=DOOR)
async def test_a_page_of_another_site_is_refused_here_too(stage: Stage) -> None:
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: shop\r\nSec-Fetch-Site: cross-site\r\n\r\n")
    assert answer.status == 403
    assert b"proxy-status" not in dict(answer.headers)


@scene()
async def test_without_it_the_listener_is_for_its_host_alone(stage: Stage) -> None:
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: shop.example.org\r\n\r\n")
    assert answer.status == 403
    assert b"proxy-status" in dict(answer.headers)
