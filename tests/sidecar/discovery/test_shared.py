"""Sources that upstreams share, that outlive a reload, and whose loops fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar.config.terms import Address
from sidecar.discovery.answers import Found, NotFound
from sidecar.discovery.follow import AFTER_A_FAULT, Follower, difference
from sidecar.discovery.listing import Listing
from sidecar.discovery.sources import FromFile, FromSrv, Source
from sidecar.discovery.ways import Way, Ways
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.traffic.endpoints import Declared


class Upstream:
    """Who is told."""

    why_none = ""
    loops: tuple[Address, ...] = ()

    def __init__(self, name: str, *sources: Source, names: tuple[Address, ...] = ()) -> None:
        self.name = name
        self.sources: tuple[Hashable, ...] = sources
        self.names = names
        self.told: list[list[str]] = []

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        self.told.append(list(addresses))

    def listed(self, source: Hashable, declared: Sequence[Declared]) -> None:
        assert source in self.sources
        self.told.append([str(each.address) for each in declared])


async def nobody(name: str) -> Found:
    raise NotFound("nobody there")


def played(script: Callable[[Follower], Awaitable[None]], follower: Callable[[], Follower]) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            it = follower()
            await nursery.start(it.run)
            await script(it)
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.02))


def write(path: Path, *endpoints: str) -> FromFile:
    path.write_text("[" + ", ".join(f'"{each}"' for each in endpoints) + "]")
    return FromFile(str(path))


def test_one_source_of_two_upstreams_is_followed_once(tmp_path: Path) -> None:
    source = write(tmp_path / "e.yaml", "10.0.0.1:80")
    metrics = Metrics()

    async def script(follower: Follower) -> None:
        one, two = Upstream("one", source), Upstream("two", source)
        follower.look([one, two])
        assert one.told == two.told == [["10.0.0.1:80"]]  # in that very step
        write(tmp_path / "e.yaml", "10.0.0.2:80", "10.0.0.3:80")
        await trio.sleep(3.0)
        assert one.told[1:] == two.told[1:] == [["10.0.0.2:80", "10.0.0.3:80"]]
        assert [row["upstream"] for row in follower.to_json()] == ["one", "two"]
        assert follower.to_json()[0]["listed"] == 2

    played(script, lambda: Follower(nobody, Log(), metrics))
    text = metrics.render().decode()
    assert 'mesh_discovery_updates_total{listener="one",source="file"} 2' in text
    assert 'mesh_discovery_age_seconds{listener="two",source="file"}' in text


def test_an_upstream_that_a_reload_makes_anew_is_told_at_once(tmp_path: Path) -> None:
    source = FromSrv("_mesh._tcp.orders.test")
    asked = []

    class Some(Ways):
        def of(self, source: Source, listing: Listing) -> Way:
            async def way() -> None:
                asked.append(source)
                await trio.sleep(1.0)
                listing.say([Declared(Address("10.0.0.1", 80))])
                await trio.sleep_forever()

            return way

    async def script(follower: Follower) -> None:
        before = Upstream("orders", source)
        follower.look([before])
        assert "has not answered yet" in before.why_none
        await follower.settled(5.0)
        assert before.told == [["10.0.0.1:80"]]
        after = Upstream("orders", source)
        follower.look([after])
        assert after.told == [["10.0.0.1:80"]]
        assert len(asked) == 1
        follower.look([])
        assert follower.to_json() == []

    played(script, lambda: Follower(nobody, Log(), ways=Some(nobody)))


def test_a_start_does_not_wait_for_ever() -> None:
    class Never(Ways):
        def of(self, source: Source, listing: Listing) -> Way:
            return trio.sleep_forever

    async def script(follower: Follower) -> None:
        upstream = Upstream("orders", FromSrv("a.test"))
        follower.look([upstream])
        began = trio.current_time()
        await follower.settled(5.0)
        assert trio.current_time() - began == pytest.approx(5.0)

    played(script, lambda: Follower(nobody, Log(), ways=Never(nobody)))


def test_a_loop_of_ours_that_fails_ends_nothing_else(tmp_path: Path) -> None:
    began: list[float] = []

    class Broken(Ways):
        def of(self, source: Source, listing: Listing) -> Way:
            if isinstance(source, FromFile):
                return super().of(source, listing)

            async def way() -> None:
                began.append(trio.current_time())
                if len(began) == 1:
                    listing.say([Declared(Address("10.0.0.1", 80))])
                raise ZeroDivisionError

            return way

    async def script(follower: Follower) -> None:
        source = write(tmp_path / "e.yaml", "10.0.0.9:80")
        upstream, other = Upstream("orders", FromSrv("a.test")), Upstream("other", source)
        follower.look([upstream, other])
        await trio.sleep(2.5 * AFTER_A_FAULT)
        assert len(began) == 3
        assert upstream.told == [["10.0.0.1:80"]]
        assert other.told == [["10.0.0.9:80"]]
        assert "a fault of this sidecar: ZeroDivisionError" in upstream.why_none

    played(script, lambda: Follower(nobody, Log(), ways=Broken(nobody)))


def test_why_there_is_none(tmp_path: Path) -> None:
    async def script(follower: Follower) -> None:
        missing = Upstream("a", FromFile(str(tmp_path / "none")))
        empty = Upstream("b", write(tmp_path / "empty"))
        named = Upstream("c", names=(Address("c.test", 80),))
        follower.look([missing, empty, named])
        await trio.sleep(0.5)
        assert "cannot read: No such file or directory" in missing.why_none
        assert empty.why_none == f"file {tmp_path}/empty lists none"
        assert named.why_none == "dns c.test: nobody there"
        assert follower.failures >= 2

    played(script, lambda: Follower(nobody, Log()))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("", "ab", "2 endpoints added"),
        ("a", "bcd", "3 endpoints added, 1 gone"),
        ("abc", "c", "2 endpoints gone"),
        ("a", "A", "1 endpoint with another weight or zone"),
        ("aA", "bA", "1 endpoint added"),
        ("ab", "ba", "another order"),
    ],
)
def test_a_change_in_words(before: str, after: str, words: str) -> None:
    def listed(letters: str) -> list[Declared]:
        return [Declared(Address(each.lower(), 80), 2 if each.isupper() else 1) for each in letters]

    assert difference(listed(before), listed(after)) == words
