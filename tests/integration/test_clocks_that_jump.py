"""The clocks of the CA and of its sidecars jump back and forward together, while requests run (libfaketime).

All agree on the time, but what was issued before a jump is judged by the time after it. Less than a minute back is
within what certificates are back-dated by. After half a day back they are not valid yet: what stands goes on, and an
order to rotate is obeyed, though no certificate that a sidecar holds can vouch for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.programs import curl, echo_app
from tests.kit.wrong_clock import MINUTES, WrongClock

HOURS = 60 * MINUTES


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    """One clock for the CA and both sidecars."""
    return WrongClock(tmp_path, 18 * HOURS)


@pytest.fixture
def pair(tmp_path: Path, clock: WrongClock) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_ca(clock.env)
        for name in ("app", "web"):
            pair[name].start(env=clock.env, ready=False)
        for name in ("app", "web"):
            pair[name].wait_ready()
        yield pair
        pair.assert_well()


def statuses(pair: Pair, count: int = 3) -> set[str]:
    """What so many requests, each on a connection of its own to the caller's sidecar, are answered."""
    return {curl("-o", "/dev/null", "-w", "%{http_code}", pair.url).text for _ in range(count)}


def serials(pair: Pair) -> dict[str, str]:
    return {name: str(pair[name].identity()["serial"]) for name in ("web", "app")}


def jump(pair: Pair, clock: WrongClock, offset: float) -> None:
    """All clocks at once; requests pass right after it."""
    clock.set(offset)
    assert statuses(pair) == {"200"}, offset


def test_they_jump_together_and_requests_pass(pair: Pair, clock: WrongClock) -> None:
    assert statuses(pair) == {"200"}
    for seconds in (-48.0, 0.0, 48.0, -48.0):
        jump(pair, clock, 18 * HOURS + seconds)
    before = serials(pair)

    jump(pair, clock, 0)  # both certificates begin in 18 hours from now
    done = pair.mesh("certs", "rotate", "--all")
    assert done.returncode == 0, done
    after = serials(pair)
    assert all(before[name] != after[name] for name in before)
    assert statuses(pair) == {"200"}, "by certificates of the new time"
    assert all(not pair[name].identity()["clock_warning"] for name in after)

    jump(pair, clock, 18 * HOURS)  # and forward again: there are six hours left
    jump(pair, clock, 0)
