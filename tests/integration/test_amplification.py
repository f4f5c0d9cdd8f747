"""A dead leaf behind three real hops at 200 requests a second, and applications that pass on no header: how many
requests it gets for each that was made (docs/traffic.md: 1.20; each hop minding its own budget alone comes to 1.73).

    client → web's sidecar → a's sidecar → a → a's sidecar → b's sidecar → b → b's sidecar → leaf
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports
from tests.kit.processes import Process, eventually, listens
from tests.kit.relay_app import Pool, ask

ROOT = Path(__file__).resolve().parents[2]
RATE = 200.0  # requests a second
DEAD_SECONDS = 12.0  # more than the budget's window
MOST = 1.2
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: a, listen: "127.0.0.1:{p.web}", {how}}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  a:
    inbound: [{{port: {p.a_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.a}"}}]
    allow: [{{from: web}}]
    outbound: [{{to: b, listen: "127.0.0.1:{p.a_out}", {how}}}]
    health: {{listen: "127.0.0.1:{p.a_health}"}}
  b:
    inbound: [{{port: {p.b_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.b}"}}]
    allow: [{{from: a}}]
    outbound:
      - {{to: leaf, unmeshed: passthrough, listen: "127.0.0.1:{p.b_out}", endpoints: "127.0.0.1:{p.leaf}", {how}}}
    health: {{listen: "127.0.0.1:{p.b_health}"}}
"""


class Chain:
    """All of it, running."""

    def __init__(self, ports: Ports, mesh: Fleet) -> None:
        self.ports = ports
        self.mesh = mesh
        self._pool: Pool = []
        self._leaf: Pool = []

    async def leaf(self, order: str) -> int:
        """Tell the leaf something; how many requests it has had."""
        return int((await ask(self._leaf, self.ports.leaf, order))[1])

    async def press(self, seconds: float) -> list[tuple[float, int]]:
        """Ask at the rate for so long, whatever comes back: when each request was made, and its status."""
        began, found, tasks = time.monotonic(), list[tuple[float, int]](), set[asyncio.Task[None]]()

        async def one(at: float) -> None:
            try:
                status = (await ask(self._pool, self.ports.web))[0]
            except (OSError, asyncio.IncompleteReadError):
                status = 0
            found.append((at, status))

        for number in range(int(seconds * RATE)):
            await asyncio.sleep(began + number / RATE - time.monotonic())
            tasks.add(asyncio.create_task(one(number / RATE)))
        await asyncio.wait(tasks)
        return sorted(found)

    def play(self, story: Callable[[Chain], Coroutine[Any, Any, None]]) -> None:
        """Run it, and close what it has opened."""

        async def whole() -> None:
            try:
                await story(self)
            finally:
                for _, writer in (*self._pool, *self._leaf):
                    writer.close()
                await asyncio.sleep(0)

        asyncio.run(whole())


@contextmanager
def a_chain(folder: Path, how: str, least: int, most: int) -> Iterator[Chain]:
    """Sidecars, applications that take so many milliseconds, and the leaf."""
    ports = Ports()
    mesh = Fleet(folder, TEXT.format(domain=TRUST_DOMAIN, p=ports, how=how))
    with ExitStack() as stack:
        for name, onward in (("a", str(ports.a_out)), ("b", str(ports.b_out)), ("leaf", "-")):
            port, work = getattr(ports, name), (least, most) if onward != "-" else (0, 0)
            command = (sys.executable, "-m", "tests.kit.relay_app", str(port), onward, str(work[0]), str(work[1]))
            process = Process(name, command, folder / f"{name}.log", env={"PYTHONPATH": str(ROOT)})
            stack.callback(process.stop)
            eventually(f"{name} listens", lambda port=port: listens(port))
        stack.enter_context(mesh)
        mesh.start_all()
        yield Chain(ports, mesh)


def share(found: list[tuple[float, int]], status: int, since: float = 0.0) -> float:
    """How many of those that were made from then on ended so."""
    late = [each for at, each in found if at >= since]
    return late.count(status) / len(late)


@pytest.mark.parametrize(
    ("least", "most"), [(0, 0), pytest.param(50, 200, marks=pytest.mark.deep)], ids=["quick", "slow"]
)
def test_only_the_hop_nearest_to_a_failure_tries_again(tmp_path: Path, least: int, most: int) -> None:
    """Joined by time alone, and without any breaker that would spare the leaf."""

    async def story(chain: Chain) -> None:
        assert share(await chain.press(0.1), 200) == 1.0  # hardly a request that the budget could be filled from
        before = await chain.leaf("/die")
        dead = await chain.press(DEAD_SECONDS)
        amplification = (await chain.leaf("/live") - before) / len(dead)
        print(f"amplification {amplification:.3f} with applications of {least} to {most} ms")
        assert share(dead, 503) >= 0.99, share(dead, 503)
        assert 1.0 < amplification <= MOST
        assert share(await chain.press(3.0), 200, since=0.5) >= 0.99

    with a_chain(tmp_path, "retries: {statuses: [503]}, breaker: off", least, most) as chain:
        chain.play(story)
        for name in ("web", "a", "b"):
            chain.mesh[name].assert_well()
        elsewhere = [chain.mesh[name].metrics().total("mesh_retries_total", what="elsewhere") for name in ("web", "a")]
        assert min(elsewhere) > 0, elsewhere


def test_with_breakers_the_leaf_is_spared_and_comes_back(tmp_path: Path) -> None:
    """One probe per back-off is all that it sees, from the moment the breaker has opened."""

    async def story(chain: Chain) -> None:
        assert share(await chain.press(2.0), 200) == 1.0
        before = await chain.leaf("/die")
        dead = await chain.press(5.0)
        seen = await chain.leaf("/live") - before
        assert seen <= 0.1 * len(dead), seen
        later = await chain.press(14.0)
        good = next(at for at, status in later if status == 200)
        print(f"{seen} of {len(dead)} requests reached the dead leaf; it was back {good:.2f} s after its return")
        assert good <= 6.5  # the back-off of 4 s, and up to half of it
        assert share(later, 200, since=12.0) == 1.0

    with a_chain(tmp_path, "retries: {statuses: [503]}", 0, 0) as chain:
        chain.play(story)
