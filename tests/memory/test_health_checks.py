"""Active health checks: who is taken out and let in again by them, on which road they go, and what says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.terms import Address
from sidecar.telemetry.record import Checked
from sidecar.traffic.endpoints import Declared
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.hops import MALLORY
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
LEAF = GET.replace(b"orders", b"leaf")
ILL = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
EVERY_SECOND = ", health: {http: /healthz, every: 1s, within: 500ms}"


def leaf(*hosts: str, more: str = "") -> str:
    """An upstream of the service orders outside the mesh, with these endpoints."""
    listed = ", ".join(f'"{host}:80"' for host in hosts)
    said = f'to: leaf, unmeshed: passthrough, listen: "127.0.0.1:9005", protocol: http, endpoints: [{listed}]{more}'
    return f"    outbound:\n      - {{{said}}}\n"


class App:
    """An application that can be ill: its `/healthz` says so, or everything does."""

    def __init__(self, name: bytes = b"ok") -> None:
        self.answer = apps.OK.replace(b"ok", name[:2])
        self.healthy: bytes | None = apps.OK  # what it says of itself; None for nothing at all
        self.checks: list[Request] = []
        self.asked = 0

    async def __call__(self, line: Line) -> None:
        while True:
            request = await line.request()
            if request.target != b"/healthz":
                self.asked += 1
                await line.say(self.answer)
                continue
            self.checks.append(request)
            if self.healthy is None:
                return await apps.silent(line)
            await line.say(self.healthy)


def told(stage: Stage, who: str = "web") -> list[Checked]:
    """All checks of a sidecar from now on."""
    found: list[Checked] = []
    books = getattr(stage, who).books
    record = books.checked
    for upstream in getattr(stage, who).upstreams:
        if upstream.checks is not None:
            upstream.checks._on_check = lambda it: (found.append(it), record(it))
    return found


def row(stage: Stage, who: str = "web", number: int = 0) -> dict[str, Any]:
    rows: list[dict[str, Any]] = getattr(stage, who).show.endpoints()
    return rows[number]


@scene(upstream=EVERY_SECOND)
async def test_an_application_that_says_it_is_ill_is_left_within_three_checks_and_comes_back(stage: Stage) -> None:
    app = App()
    stage.app(app)
    stage.attend()
    await stage.sleep(1.0)
    assert row(stage)["health"]["result"] == "passed"
    checks = told(stage)
    app.healthy = ILL
    await stage.sleep(4.0)
    assert [(each.result, each.changed) for each in checks[:3]] == [("failed", False), ("failed", False),
                                                                    ("failed", True)]  # fmt: skip
    assert (await stage.ask(GET)).status == 503
    hop = stage.web.books.hops[-1]
    assert hop.flag == "UH"
    assert "10.0.0.2:17443 unhealthy (answers 500 to /healthz, not 200-399)" in str(hop.error)
    assert row(stage)["state"] == "unhealthy"
    app.healthy, before = apps.OK, len(checks)
    await stage.sleep(3.0)
    assert (await stage.ask(GET)).status == 200
    assert [each.changed for each in checks[before:]].count(True) == 1
    assert (app.checks[0].get("user-agent"), app.checks[0].get("host")) == (b"mesh-health", b"orders")
    assert all(hop.target == "/" for hop in stage.web.books.hops)  # a check is no hop of ours
    assert len(stage.apps) <= 3  # and takes connections that are there
    text = stage.web.books.metrics.render().decode()
    assert 'mesh_health_checks_total{listener="orders.http",result="failed"} ' in text


@scene(upstream=EVERY_SECOND + ", upgrade: h2", app="127.0.0.1:8080")
async def test_a_check_goes_by_http_2_where_requests_do(stage: Stage) -> None:
    app = App()
    stage.app(app)
    stage.attend()
    await stage.sleep(3.0)
    assert row(stage)["health"]["result"] == "passed"
    assert {hop.version for hop in stage.orders.books.hops} == {"2"}
    app.healthy = ILL
    await stage.sleep(4.0)
    assert row(stage)["health"]["reason"] == "answers 500 to /healthz, not 200-399"
    assert len(stage.web.books.handshakes) == 1


@scene(upstream=EVERY_SECOND)
async def test_the_first_check_decides_at_once_and_before_it_an_endpoint_counts_as_well(stage: Stage) -> None:
    app = App()
    app.healthy = ILL
    stage.app(app)
    assert (await stage.ask(GET)).status == 200
    assert row(stage)["health"]["result"] == "unchecked"
    stage.attend()
    await stage.sleep(1.2)
    assert len(app.checks) == 1
    assert (await stage.ask(GET)).status == 503


@scene(upstream=EVERY_SECOND)
async def test_one_that_never_answers_is_given_up_in_time(stage: Stage) -> None:
    app = App()
    app.healthy = None
    stage.app(app)
    stage.attend()
    await stage.sleep(3.0)
    health = row(stage)["health"]
    assert (health["result"], health["reason"]) == ("timed_out", "no answer within 0.5 s")
    assert stage.web.upstreams[0].roads[0].open == 0  # nothing is left of those


@scene(upstream=EVERY_SECOND, may="[web], path: /orders")
async def test_a_check_that_the_rules_of_the_peer_refuse_says_nothing_and_says_so(stage: Stage) -> None:
    """It is no failure of the endpoint (decision D24)."""
    app = App()
    stage.app(app)
    stage.attend()
    checks = told(stage)
    await stage.sleep(8.0)
    assert (await stage.ask(GET.replace(b"/", b"/orders", 1))).status == 200
    assert row(stage)["state"] == "available"
    assert row(stage)["health"]["reason"] == (
        "the check is refused by orders.http's allowlist, so it says nothing: allow GET /healthz"
    )
    assert [each.silent for each in checks] == [True] + [False] * (len(checks) - 1)  # told once
    assert {each.result for each in checks} == {"refused"}
    assert app.checks == []


@scene(upstream=EVERY_SECOND, orders="    rates: [{limit: 1/m, burst: 1}]\n")
async def test_a_check_that_a_rate_limit_of_the_peer_refuses_says_nothing(stage: Stage) -> None:
    stage.app(App())
    stage.attend()
    await stage.sleep(8.0)
    assert row(stage)["state"] == "available"
    assert "rate limit of orders" in row(stage)["health"]["reason"]


@scene(upstream=EVERY_SECOND)
async def test_without_an_identity_of_our_own_nobody_is_blamed(stage: Stage) -> None:
    stage.app(App())
    stage.attend()
    await stage.sleep(2.0)
    stage.web._gate.not_after = stage.port.wall() - 1.0  # type: ignore[attr-defined]
    for road in stage.web.upstreams[0].roads:
        road.renew(7)
    await stage.sleep(8.0)
    assert row(stage)["health"]["result"] == "skipped"
    assert row(stage)["state"] == "available"


@scene(upstream=EVERY_SECOND)
async def test_a_pool_that_is_full_of_requests_makes_nobody_ill(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        if (await line.request()).target == b"/":
            await stage.sleep(12.0)
        await line.say(apps.OK)

    stage.app(slow)
    callers = [await stage.call() for _ in range(4)]
    for line in callers:
        await line.say(GET)
    await stage.quiet()
    stage.attend()
    await stage.sleep(10.0)
    assert row(stage)["health"]["result"] == "skipped"
    assert row(stage)["state"] == "available"
    for line in callers:
        assert (await line.answer()).status == 200
    await stage.sleep(2.0)
    assert row(stage)["health"]["result"] == "passed"


@scene(upstream=EVERY_SECOND)
async def test_an_application_that_is_not_there_is_told_by_its_sidecar(stage: Stage) -> None:
    stage.attend()
    await stage.sleep(2.0)
    assert row(stage)["health"]["reason"] == "its sidecar answers 503 to /healthz, not 200-399"
    assert row(stage)["state"] == "unhealthy"


@scene(upstream=', health: {tcp: true, every: 1s}')
async def test_tcp_is_a_whole_handshake_with_the_declared_identity(stage: Stage) -> None:
    stage.attend()
    await stage.sleep(3.0)
    assert row(stage)["health"]["result"] == "passed"
    assert len(stage.web.books.handshakes) >= 2  # each time anew
    stage.orders._reception._gate = stage.gates[MALLORY]
    await stage.sleep(5.0)
    assert row(stage)["health"]["result"] == "unreachable"
    assert row(stage)["state"] == "unhealthy"


@scene(upstream=EVERY_SECOND.replace("1s", "3s"))
async def test_an_application_that_closes_after_each_answer_is_as_well_as_others(stage: Stage) -> None:
    async def serve(line: Line) -> None:
        await line.request()
        await line.say(apps.OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    stage.app(serve)
    stage.attend()
    checks = told(stage)
    await stage.sleep(30.0)
    assert {each.result for each in checks} == {"passed"}


@scene(orders=leaf("10.0.0.11", "10.0.0.12", more=EVERY_SECOND))
async def test_a_connection_that_died_while_nobody_asked_is_no_failure(stage: Stage) -> None:
    """By silence of the other side's FIN: it comes with the next request on it."""

    async def serve(line: Line) -> None:
        await line.request()
        await line.say(apps.OK)
        await line.request()  # and leaves without a word

    for host in ("10.0.0.11", "10.0.0.12"):
        stage.app(serve, f"{host}:80")
    stage.attend()
    checks = told(stage, "orders")
    await stage.sleep(10.0)
    assert len(checks) > 10
    assert {each.result for each in checks} == {"passed"}


@scene(orders=leaf("10.0.0.11", "10.0.0.12", more=EVERY_SECOND))
async def test_an_ill_one_of_two_gets_nothing_and_a_body_without_end_is_not_waited_for(stage: Stage) -> None:
    well, ill = App(), App()
    ill.healthy = ILL
    well.healthy = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 20_000
    stage.app(well, "10.0.0.11:80")
    stage.app(ill, "10.0.0.12:80")
    stage.attend()
    await stage.sleep(2.0)
    for _ in range(20):
        assert (await stage.ask(LEAF, port=9005)).status == 200
    assert (well.asked, ill.asked) == (20, 0)


FIVE = [f"10.0.0.1{n}" for n in range(5)]


@scene(orders=leaf(*FIVE, more=EVERY_SECOND))
async def test_with_fewer_than_half_of_five_well_all_are_asked(stage: Stage) -> None:
    every = [App() for _ in FIVE]
    for host, app in zip(FIVE, every, strict=True):
        stage.app(app, f"{host}:80")
    every[0].healthy = every[1].healthy = ILL
    stage.attend()
    await stage.sleep(2.0)
    for _ in range(50):
        await stage.ask(LEAF, port=9005)
    assert [app.asked > 0 for app in every] == [False, False, True, True, True]
    every[2].healthy = ILL
    await stage.sleep(5.0)
    for _ in range(50):
        await stage.ask(LEAF, port=9005)
    assert every[0].asked > 0
    assert every[1].asked > 0


@scene(orders=leaf("10.0.0.11", "10.0.0.12", more=EVERY_SECOND))
async def test_a_check_that_passes_ends_an_ejection(stage: Stage) -> None:
    stage.app(App(), "10.0.0.11:80")
    stage.app(App(), "10.0.0.12:80")
    stage.attend()
    await stage.sleep(2.0)
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    endpoint = upstream.destination.endpoints.all[0]
    endpoint.eject(stage.now + 300.0)
    assert row(stage, "orders")["state"] == "ejected"
    await stage.sleep(1.6)
    assert row(stage, "orders")["state"] == "available"


@scene(orders=leaf(*[f"10.1.{n >> 8}.{n & 255}" for n in range(1000)], more=", health: {http: /, every: 60s}"))
async def test_a_thousand_are_not_asked_in_one_instant(stage: Stage) -> None:
    at: list[float] = []
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    assert upstream.checks is not None
    upstream.checks._on_check = lambda _: at.append(stage.now)
    stage.attend()
    await stage.sleep(30.0)
    assert len(at) == 1000
    assert max(sum(second <= each < second + 1.0 for each in at) for second in range(30)) < 90
    counts = upstream.states()
    assert counts["unhealthy"] == 1000
    answer = await stage.ask(LEAF, port=9005)  # panic: all are asked
    assert answer.status == 503
    assert stage.orders.books.hops[-1].flag == "UF,URX"


@scene(orders=leaf("10.0.0.11", "10.0.0.12", more=", health: {http: /healthz, within: 2s, every: 5s}"))
async def test_who_leaves_the_list_while_it_is_asked_is_forgotten(stage: Stage) -> None:
    app = App()
    app.healthy = None
    stage.app(app, "10.0.0.11:80")
    upstream = next(each for each in stage.orders.upstreams if each.name == "leaf")
    stage.attend()
    await stage.sleep(1.0)
    upstream.listed("others", [Declared(Address("10.0.0.13", 80))])
    upstream._endpoints = upstream._endpoints[1:]
    upstream.listed("others", [])
    await stage.sleep(8.0)
    assert [each["endpoint"] for each in stage.orders.show.endpoints()] == ["10.0.0.12:80"]


# ---- over a reload ---------------------------------------------------------------------------------------------------


@scene(upstream=EVERY_SECOND)
async def test_a_reload_keeps_who_is_ill_and_without_a_check_nobody_is(stage: Stage) -> None:
    app = App()
    app.healthy = ILL
    stage.app(app)
    stage.attend()
    await stage.sleep(2.0)
    stage.reload(web_limits=", head_lines: 50")
    assert row(stage)["state"] == "unhealthy"
    assert (await stage.ask(GET)).status == 503
    stage.reload(upstream="")
    assert row(stage)["health"] is None
    assert (await stage.ask(GET)).status == 200
    seen = len(app.checks)
    await stage.sleep(5.0)
    assert len(app.checks) == seen  # nobody goes on asking


@scene(upstream=EVERY_SECOND)
async def test_another_way_to_ask_decides_at_once(stage: Stage) -> None:
    app = App()
    app.healthy = ILL
    stage.app(app)
    stage.attend()
    await stage.sleep(5.0)
    assert row(stage)["state"] == "unhealthy"
    stage.reload(upstream=", health: {tcp: true}")
    await stage.sleep(0.8)
    assert row(stage)["state"] == "available"


@pytest.mark.parametrize("change", [{"web_limits": ", head_lines: 50"}, {"web": "    timeouts: {connect: 1s}\n"}])
@scene(orders=leaf("10.0.0.11"))
async def test_a_reload_forgives_nobody(stage: Stage, change: dict[str, str]) -> None:
    """A breaker stays open, latency and budget are what they were, and what is under way is counted to its end."""

    stage.app(apps.always(ILL))
    for _ in range(12):
        await stage.ask(GET)
    before = stage.web.upstreams[0]
    endpoint = before.destination.endpoints.all[0]
    assert row(stage)["state"] == "open"
    stage.reload(**change)
    after = stage.web.upstreams[0]
    assert after is not before
    assert after.destination.endpoints.all[0] is endpoint
    assert after.destination.budget is before.destination.budget
    assert (await stage.ask(GET)).status == 503
    assert stage.web.books.hops[-1].flag == "UH"
    assert " open (" in str(stage.web.books.hops[-1].error)


@scene()
async def test_a_breaker_that_opened_for_a_wrong_identity_says_nothing_of_the_right_one(stage: Stage) -> None:
    stage.app(apps.always(ILL))
    for _ in range(12):
        await stage.ask(GET)
    assert row(stage)["state"] == "open"
    stage.web.upstreams[0].identity = MALLORY
    stage.reload(web_limits=", head_lines: 50")
    assert row(stage)["state"] == "available"
