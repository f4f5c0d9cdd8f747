"""The line of handshakes: each source address in its turn; nobody who leaves takes a turn along."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sidecar.net.line import Line, origin
from sidecar.net.memory import MemoryPort
from sidecar.net.port import Cancelled, Expired, Task


class Counter:
    """A line, those who stand in it, and in which order they had their turns, 1 s each."""

    def __init__(self) -> None:
        self.port = MemoryPort()
        self.line = Line()
        self.served: list[str] = []

    async def stand(self, name: str, source: str, patience: float = 1e9) -> None:
        self.port.deadline(self.port.now + patience)
        await self.line.wait(self.port, source)
        self.served.append(name)
        try:
            await self.port.sleep(1.0)
        finally:
            self.line.pass_on()

    async def all_of(self, *tasks: Task) -> None:
        for task in tasks:
            await self.port.wait(task)

    def come(self, *names: str) -> list[Task]:
        """`a1` comes from address a."""
        return [self.port.spawn(self.stand(name, name[0])) for name in names]


def test_one_address_is_served_in_the_order_it_came() -> None:
    counter = Counter()

    async def story() -> None:
        await counter.all_of(*counter.come(*[f"a{n}" for n in range(9)]))

    counter.port.run(story())
    assert counter.served == [f"a{n}" for n in range(9)]
    assert counter.port.now == 9.0


def test_an_address_with_many_makes_the_others_wait_for_two_of_its_at_most() -> None:
    counter = Counter()

    async def story() -> None:
        flood = counter.come(*[f"a{n}" for n in range(6)])
        await counter.port.sleep(0.5)
        await counter.all_of(*flood, *counter.come("b0", "b1", "c0"))

    counter.port.run(story())
    assert counter.served == ["a0", "a1", "b0", "c0", "a2", "b1", "a3", "a4", "a5"]


def test_who_leaves_the_line_or_the_turn_leaves_it_to_the_next() -> None:
    counter = Counter()

    async def impatient() -> None:
        with pytest.raises(Expired):
            await counter.stand("late", "a", patience=0.5)

    async def story() -> None:
        first, second, third = counter.come("a0", "a1", "a2")
        leaves = counter.port.spawn(impatient())
        await counter.port.sleep(0.6)
        second.cancel()  # while it waits
        first.cancel()  # while it is its turn
        await counter.all_of(third, leaves)

    counter.port.run(story())
    assert counter.served == ["a0", "a2"]
    assert counter.port.now == pytest.approx(1.6)


def test_who_ends_between_its_call_and_its_turn_leaves_it_to_the_next() -> None:
    counter = Counter()

    async def story() -> None:
        first, second, third = counter.come("a0", "a1", "a2")
        await counter.port.sleep(0.1)
        first.cancel()  # this calls the second, which is not stepped before it is cancelled too
        second.cancel()
        assert isinstance(second.error, Cancelled)
        await counter.all_of(third)

    counter.port.run(story())
    assert counter.served == ["a0", "a2"]


def test_an_empty_line_costs_no_wait_and_remembers_nobody() -> None:
    counter = Counter()

    async def story() -> None:
        for number in range(100):
            await counter.stand("x", f"address {number}")

    counter.port.run(story())
    assert counter.port.now == 100.0
    assert not counter.line._of


@pytest.mark.parametrize(
    ("source", "counts_as"),
    [
        (None, ""),
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
    ],
)
def test_what_one_host_may_choose_for_itself_tells_nobody_apart(source: str | None, counts_as: str) -> None:
    assert origin(ip_address(source) if source is not None else None) == counts_as
