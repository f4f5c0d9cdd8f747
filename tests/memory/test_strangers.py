"""Whoever is known goes first: a crowd of newcomers beside a caller whose connection stands."""

from __future__ import annotations

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.hops import MALLORY
from tests.kit.play import Stage, scene

CROWD = 200
GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
OK = apps.always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def ask(line: Line) -> None:
    await line.say(GET)
    assert (await line.answer()).status == 200


def let_in(stage: Stage) -> int:
    return sum(handshake.ok for handshake in stage.orders.books.handshakes)


@scene()
async def test_a_request_on_a_standing_connection_waits_for_none_of_a_crowd(stage: Stage) -> None:
    stage.app(OK)
    web = await stage.call()
    await ask(web)
    began, before = stage.now, let_in(stage)
    crowd = [stage.port.spawn(stage.peer(MALLORY)) for _ in range(CROWD)]
    waited_for = []
    for _ in range(3):
        await ask(web)
        waited_for.append(let_in(stage) - before)
    assert waited_for == [0, 0, 0]  # its bytes were always here before the next stranger's turn
    for each in crowd:
        await stage.port.wait(each)
    assert let_in(stage) - before == CROWD  # and nobody has been forgotten
    assert stage.now == began


@scene(orders_limits=", handshakes_per_second: 10")
async def test_who_has_given_up_costs_no_handshake(stage: Stage) -> None:
    crowd = [stage.port.spawn(stage.peer(MALLORY)) for _ in range(10)]
    for each in crowd:
        await stage.port.wait(each)
    late = await stage.stranger()
    await stage.sleep(0.05)  # in line by now: the burst is used up
    late.close()
    await stage.sleep(1.0)
    last = stage.orders.books.handshakes[-1]
    assert (let_in(stage), last.ok, last.reason) == (10, False, "reset")
    assert "while it waited" in last.detail


@scene(orders_limits=", handshakes_per_second: 10")
async def test_those_over_the_rate_wait_are_counted_and_come_in(stage: Stage) -> None:
    stage.app(OK)
    crowd = [stage.port.spawn(stage.peer(MALLORY)) for _ in range(30)]
    await stage.sleep(0.0)
    await stage.quiet()
    metrics = stage.orders.books.metrics
    assert "mesh_tls_handshakes_waiting 20\n" in metrics.render().decode()
    for each in crowd:
        await stage.port.wait(each)
    assert 1.9 < stage.now < 2.1
    assert "mesh_tls_handshakes_waiting 0\n" in metrics.render().decode()
