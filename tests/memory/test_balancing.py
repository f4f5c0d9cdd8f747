"""Which endpoint a request goes to, as the proxy asks for it: by weight, by zone, and by what it sticks to one by."""

from __future__ import annotations

from collections import Counter

import pytest

from sidecar.config.terms import Address
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: leaf\r\n\r\n"
HOSTS = [f"10.0.0.{n}" for n in range(11, 16)]


def leaf(endpoints: str, more: str = "") -> str:
    """An upstream of the service orders outside the mesh."""
    said = f'to: leaf, unmeshed: passthrough, listen: "127.0.0.1:9005", protocol: http, endpoints: [{endpoints}]{more}'
    return f"    outbound:\n      - {{{said}}}\n"


def plain(hosts: list[str]) -> str:
    return ", ".join(f'"{host}:80"' for host in hosts)


def serve(stage: Stage, hosts: list[str] = HOSTS) -> None:
    """Let an application stand at each, that says which it is."""
    for host in hosts:
        name = host.rpartition(".")[2].encode()
        stage.app(apps.always(apps.OK.replace(b"ok", name)), f"{host}:80")


async def ask(stage: Stage, *fields: bytes, number: int = 1) -> Counter[bytes]:
    """Who has answered so many requests with these header lines, on one connection."""
    request = GET.replace(b"\r\n\r\n", b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n")
    line = await stage.call(9005)
    found: Counter[bytes] = Counter()
    for _ in range(number):
        await line.say(request)
        found[(await line.answer()).body] += 1
    line.close()
    return found


# ---- by weight -------------------------------------------------------------------------------------------------------


@scene(orders=leaf('{address: "10.0.0.11:80", weight: 3}, "10.0.0.12:80"', ", balance: weighted"))
async def test_three_to_one(stage: Stage) -> None:
    serve(stage)
    assert await ask(stage, number=40) == {b"11": 30, b"12": 10}


@scene(orders=leaf('{address: "10.0.0.11:80", weight: 3}, "10.0.0.12:80"', ", balance: weighted"))
async def test_a_reload_may_change_the_weights(stage: Stage) -> None:
    serve(stage)
    await ask(stage, number=8)
    stage.reload(orders=leaf('{address: "10.0.0.11:80", weight: 1}, "10.0.0.12:80"', ", balance: weighted"))
    found = await ask(stage, number=40)
    assert found == {b"11": 20, b"12": 20}  # and nobody starts slowly: both were there


@scene(orders=leaf(plain(HOSTS[:2]), ", balance: round_robin, slow_start: 20s"))
async def test_who_is_new_starts_slowly_as_long_as_is_said(stage: Stage) -> None:
    serve(stage)
    await ask(stage, number=4)
    stage.reload(orders=leaf(plain(HOSTS[:3]), ", balance: round_robin, slow_start: 20s"))
    early = await ask(stage, number=200)
    assert 1 < early[b"13"] < 20  # a tenth of its third
    await stage.sleep(20.0)
    assert 60 < (await ask(stage, number=200))[b"13"] < 72


@scene(orders=leaf(plain(HOSTS), ", balance: round_robin"))
async def test_one_after_the_other_from_the_first_request_on(stage: Stage) -> None:
    """Whether a connection is there or not must not decide whose turn it is, nor be counted as a request of its own."""
    serve(stage)
    assert await ask(stage, number=50) == dict.fromkeys((b"11", b"12", b"13", b"14", b"15"), 10)
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    assert upstream.destination.budget.requests == 50


# ---- by zone ---------------------------------------------------------------------------------------------------------

ZONES = ", ".join(f'{{address: "{host}:80", zone: {"a" if n < 2 else "b"}}}' for n, host in enumerate(HOSTS))


@scene(orders="    zone: a\n" + leaf(ZONES))
async def test_our_zone_is_preferred_and_spills_over_by_degrees(stage: Stage) -> None:
    serve(stage)
    assert set(await ask(stage, number=60)) == {b"11", b"12"}
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    upstream.destination.endpoints.all[0].mark(stage.now, healthy=False)
    found = await ask(stage, number=400)
    assert 240 < found[b"12"] < 320  # 0.7 of it: half of the zone, 1.4 times
    assert set(found) == {b"12", b"13", b"14", b"15"}
    upstream.destination.endpoints.all[1].mark(stage.now, healthy=False)
    assert set(await ask(stage, number=60)) == {b"13", b"14", b"15"}
    assert {row["our_zone"] for row in stage.orders.show.endpoints()} == {"a"}


# ---- by what it sticks by --------------------------------------------------------------------------------------------

USERS = [b"X-User: %d" % number for number in range(40)]


@pytest.mark.parametrize("number", [1, 3])
@scene(orders=leaf(plain(HOSTS), ", affinity: header x-user"))
async def test_the_same_header_goes_to_the_same_endpoint_whoever_asks_and_whichever_way(
    stage: Stage, number: int
) -> None:
    """The first request on a connection opens one, by the general way; the others take the express."""
    serve(stage)
    homes = [await ask(stage, user, number=number) for user in USERS]
    assert all(len(home) == 1 for home in homes)
    assert len({next(iter(home)) for home in homes}) == 5
    assert [await ask(stage, user, number=2 * number) for user in USERS] == [
        Counter(dict.fromkeys(home, 2 * number)) for home in homes
    ]
    special = [await ask(stage, user, b"Expect: 100-continue", b"Content-Length: 0") for user in USERS[:5]]
    assert [set(home) for home in special] == [set(home) for home in homes[:5]]


@scene(orders=leaf(plain(HOSTS), ", affinity: header x-user"))
async def test_it_sticks_over_a_reload_and_the_loss_of_others(stage: Stage) -> None:
    serve(stage)
    homes = {user: set(await ask(stage, user)) for user in USERS}
    stage.reload(orders=leaf(plain(HOSTS), ", affinity: header x-user, retries: {resends: 1}"))
    assert {user: set(await ask(stage, user)) for user in USERS} == homes
    stage.reload(orders=leaf(plain(HOSTS[:-1]), ", affinity: header x-user"))
    after = {user: set(await ask(stage, user)) for user in USERS}
    moved = [user for user in USERS if after[user] != homes[user]]
    assert {user for user in USERS if homes[user] == {b"15"}} <= set(moved)
    assert len([user for user in moved if homes[user] != {b"15"}]) <= 4  # a twentieth, and what chance adds
    stage.reload(orders=leaf(plain(HOSTS), ", affinity: header x-user"))
    await stage.sleep(10.0)
    assert {user: set(await ask(stage, user)) for user in USERS} == homes


@scene(orders=leaf(plain(HOSTS), ", affinity: header x-user"))
async def test_who_is_ill_is_stepped_over_and_gets_its_own_back(stage: Stage) -> None:
    serve(stage)
    homes = {user: set(await ask(stage, user)) for user in USERS}
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    upstream.destination.endpoints.all[0].mark(stage.now, healthy=False)
    after = {user: set(await ask(stage, user)) for user in USERS}
    assert {user for user in USERS if after[user] != homes[user]} == {u for u in USERS if homes[u] == {b"11"}}
    upstream.destination.endpoints.all[0].mark(stage.now, healthy=True)
    assert {user: set(await ask(stage, user)) for user in USERS} == homes


@scene(orders=leaf(plain(HOSTS), ", affinity: header x-user"))
async def test_without_the_header_it_goes_by_load(stage: Stage) -> None:
    serve(stage)
    assert len(await ask(stage, number=60)) == 5
    assert len(await ask(stage, b"X-User:", number=60)) == 5  # an empty value is none


COOKIES = [
    ([b"Cookie: session=one; a=b"], True),
    ([b"Cookie: a=b;session=one"], True),
    ([b"Cookie: a=b", b"Cookie: session=one"], True),
    ([b"Cookie: a=b;  session=one ; session=two"], True),
    ([b"Cookie: =; ;;session=; session=one"], True),
    ([b"Cookie: session=one=two"], False),
    ([b'Cookie: session="one"'], False),
    ([b"Cookie: Session=one"], None),
    ([b"Cookie: xsession=one; a=session=one"], None),
    ([b"Cookie: session"], None),
    ([b"Cookie: session=%6fne"], False),
]


@pytest.mark.parametrize(("fields", "same"), COOKIES)
@scene(orders=leaf(plain(HOSTS), ", affinity: cookie session"))
async def test_a_cookie_is_read_strictly(stage: Stage, fields: list[bytes], same: bool | None) -> None:
    """`same`: it is the key `one`; False: another one; None: none at all."""
    serve(stage)
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    assert upstream.key_of is not None
    pairs = [tuple(field.split(b": ", 1)) for field in fields]
    key = upstream.key_of([(b"cookie", value) for _, value in pairs])
    assert (key == b"one") if same else (key not in (b"one", b"")) if same is False else key == b""
    (home,) = await ask(stage, b"Cookie: session=one")
    if same:
        assert set(await ask(stage, *fields, number=5)) == {home}
    answer = await stage.ask(GET.replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"), port=9005)
    assert answer.get("set-cookie") is None  # nothing is set by us


@scene(orders=leaf(plain(HOSTS), ", affinity: caller"))
async def test_the_caller_of_an_upstream_is_this_service(stage: Stage) -> None:
    serve(stage)
    (home,) = await ask(stage, number=20)
    assert set(await ask(stage, b"X-User: 7", number=20)) == {home}


@scene(orders=leaf(plain(HOSTS), ", affinity: caller").replace("protocol: http", "protocol: tcp"))
async def test_raw_connections_stick_too(stage: Stage) -> None:
    serve(stage)
    found = {(await stage.ask(GET, port=9005)).body for _ in range(10)}
    assert len(found) == 1


@scene(orders=leaf(plain(HOSTS), ", balance: round_robin").replace("protocol: http", "protocol: tcp"))
async def test_raw_connections_are_balanced(stage: Stage) -> None:
    serve(stage)
    assert len({(await stage.ask(GET, port=9005)).body for _ in range(10)}) == 5


# ---- where nobody is, or we are --------------------------------------------------------------------------------------


@scene(orders=leaf('"leaf.test:9005"'))
async def test_a_name_that_leads_back_to_us_is_left_out(stage: Stage) -> None:
    """Or a request would go round until something breaks: outside the mesh there is no mesh-via that would end it."""
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    upstream.found(Address("leaf.test", 9005), ("127.0.0.1", "10.0.0.11"))
    assert [each["endpoint"] for each in stage.orders.show.endpoints()] == ["10.0.0.11:9005"]
    upstream.found(Address("leaf.test", 9005), ("127.0.0.1",))
    assert (await stage.ask(GET, port=9005)).status == 503
    error = str(stage.orders.books.hops[-1].error)
    assert error == "leaf has no endpoint: 127.0.0.1:9005 is where this sidecar itself listens"


@scene(orders=leaf('"leaf.test:80"'))
async def test_a_name_that_stands_for_nothing_is_told(stage: Stage) -> None:
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    upstream.found(Address("leaf.test", 80), ())
    assert (await stage.ask(GET, port=9005)).status == 503
    assert str(stage.orders.books.hops[-1].error) == "leaf has no endpoint: leaf.test stands for no address"


@scene(orders=leaf(plain([f"10.1.0.{n}" for n in range(12)]), ", breaker: off"))
async def test_nobody_may_be_asked_and_each_is_told_with_its_reason(stage: Stage) -> None:
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    for endpoint in upstream.destination.endpoints:
        endpoint.why = "refused"
        endpoint.eject(stage.now + 9.0)
    upstream.destination._balancer._panic = 0.0
    assert (await stage.ask(GET, port=9005)).status == 503
    error = str(stage.orders.books.hops[-1].error)
    assert error.startswith("no endpoint of leaf may be asked for the next 9.0 s: 10.1.0.0:80 ejected (refused); ")
    assert error.endswith("; of 4 more 4 ejected")


@scene(orders=leaf('"leaf.test:80"', ", affinity: header x-user"))
async def test_a_thousand_addresses_are_as_good_as_five(stage: Stage) -> None:
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    upstream.found(Address("leaf.test", 80), tuple(f"10.2.{n >> 8}.{n & 255}" for n in range(5000)))
    assert len(upstream.places) == 4096
    assert upstream.destination.endpoints.left_out == 904
    seen: list[bytes] = []

    async def answer(line: Line) -> None:
        await line.request()
        seen.append(b"")
        await line.say(apps.OK)

    for place in upstream.places.values():
        stage.app(answer, place.endpoint.name)
    await ask(stage, b"X-User: 1")
    assert len(seen) == 1
