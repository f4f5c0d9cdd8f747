"""Clocks that are wrong, that are set, and machines that sleep: what a sidecar makes of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.kit.fake_ca import FakeCa
from tests.kit.identities import DAY, HOUR, NOW
from tests.sidecar.identity.life import Life

MINUTE = 60.0
Story = Callable[[FakeCa, Path], Awaitable[None]]
Run = Callable[[Story], None]


@pytest.mark.parametrize(("skew", "words"), [(2 * MINUTE, "2 min ahead of"), (-2 * MINUTE, "2 min behind")])
def test_two_minutes_of_skew_are_measured_and_named_and_do_no_harm(with_ca: Run, skew: float, words: str) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, skew=skew)
        await life.identity()
        assert life.now.clock_skew_seconds == pytest.approx(skew, abs=0.1)
        assert life.now.clock_warning == f"this machine's clock is {words} the CA's; set it"
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(DAY / 2, rel=0.01)

    with_ca(story)


@pytest.mark.parametrize(("skew", "words"), [(2 * DAY, "2 d ahead of"), (-2 * DAY, "2 d behind")])
def test_two_days_of_skew_hold_the_identity_back_until_the_clock_is_set(with_ca: Run, skew: float, words: str) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.own_life = (NOW - HOUR, NOW + DAY)
        life = Life(ca, folder, skew=skew)
        await trio.sleep(20 * MINUTE)
        assert life.svids.number == 0
        assert f"this machine's clock is {words} the CA's; set it" in life.now.last_error
        assert life.now.clock_skew_seconds == pytest.approx(skew, abs=1)
        assert set(ca.paths()) == {"/v1/time"}, "nothing secret was said to a CA that could not be judged"
        life.clock.jump(-skew)
        await life.identity()
        assert trio.current_time() < 20 * MINUTE + 151
        assert life.now.clock_warning == ""

    with_ca(story)


def test_a_certificate_that_has_ended_by_our_clock_is_not_published(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, skew=2 * DAY)  # the CA's own certificate lives long enough for us to believe it
        await trio.sleep(10 * MINUTE)
        assert life.svids.number == 0
        assert "2 d ahead" in life.now.last_error
        assert life.now.consecutive_failures < 30, "a CA is not flooded because our clock is wrong"

    with_ca(story)


def test_a_clock_that_changes_while_we_run_is_seen_by_the_watch(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        life.clock.jump(3 * MINUTE)
        await trio.sleep(31)
        assert life.now.clock_skew_seconds == pytest.approx(3 * MINUTE, abs=0.1)
        assert "clock" in life.now.clock_warning

    with_ca(story)


def test_a_laptop_that_slept_past_the_renewal_renews_within_thirty_seconds(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        await trio.sleep(MINUTE)
        for clock in (life.clock, ca.clock):
            clock.jump(13 * HOUR)
        await life.svids.wait_past(1)
        assert trio.current_time() <= MINUTE + 31
        assert "/v1/renew" in ca.paths()

    with_ca(story)


def test_a_laptop_that_slept_past_the_end_enrols_within_thirty_seconds(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        await trio.sleep(MINUTE)
        ca.seen.clear()
        for clock in (life.clock, ca.clock):
            clock.jump(40 * HOUR)
        await life.svids.wait_past(1)
        assert trio.current_time() <= MINUTE + 31
        assert "/v1/renew" not in ca.paths()
        assert "/v1/challenge" in ca.paths()

    with_ca(story)


def test_a_sleep_during_a_back_off_is_noticed_too(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, dice=0.999)
        await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(DAY * 0.75)
        before = life.failures()[-1]
        assert life.now.consecutive_failures > 10
        await trio.sleep(before + 151 - trio.current_time())  # just into the next back-off of 150 s
        tries = len(life.failures())
        jumped = trio.current_time()
        life.clock.jump(DAY)
        await trio.sleep(31)
        assert len(life.failures()) == tries + 1
        assert life.failures()[-1] - jumped <= 30.1

    with_ca(story)


def test_a_clock_set_back_does_not_put_off_the_renewal(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        life.clock.jump(-2 * HOUR)
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(DAY / 2, abs=31)

    with_ca(story)
