"""When to renew and how long to wait: tables of (given, now, expected), clock jumps among them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.rotation import (
    BACKOFF_CAP_SECONDS,
    MIN_RENEWAL_SECONDS,
    RECHECK_SECONDS,
    Renewal,
    backoff,
    in_last_tenth,
    renewal_at,
    retry_wait,
    worth_waiting,
)

T = 1_800_000_000.0  # when the certificate was made
H, D = 3600.0, 86400.0
MID = 0.5  # dice that add no jitter
LAST = math.nextafter(1.0, 0.0)  # the highest throw


@pytest.mark.parametrize(
    ("life", "obtained", "dice", "expected"),
    [
        (D, T, MID, T + 12 * H),
        (D, T, 0.0, T + 12 * H * 0.9),
        (D, T, LAST, T + 12 * H * 1.1),
        (H, T, MID, T + H / 2),
        (D, T + 6 * H, MID, T + 6 * H + 9 * H),  # obtained late: half of what is left
        (20.0, T, MID, T + 10),  # a life of 20 s, as in tests
        (20.0, T, LAST, T + 11),
        (20.0, T, 0.0, T + 10),  # never within 10 s
        (5.0, T, MID, T + 10),
        (D, T + 2 * D, MID, T + 2 * D + 10),  # our clock is two days ahead: it looks expired
        (D, T + D, MID, T + D + 10),
        (D, T - 2 * D, MID, T - 2 * D + 12 * H + 30),  # two days behind: half its real life, not half of three days
        (D, T - 120, MID, T - 120 + 12 * H + 30),  # two minutes behind
        (D, T + 120, MID, T + 120 + (D - 120) / 2),  # two minutes ahead
        (-10.0, T, MID, T + 10),  # a certificate that ends before it begins
    ],
)
def test_renewal_comes_at_half_of_what_is_left(life: float, obtained: float, dice: float, expected: float) -> None:
    backdated = T - 60  # the CA puts NotBefore 60 s back; what is left is counted from when we got it
    assert renewal_at(backdated, T + life, obtained, dice) == pytest.approx(expected, abs=1e-3)


@given(
    life=st.floats(30, 30 * D),
    obtained=st.floats(-10 * D, 40 * D),
    dice=st.floats(0, 1, exclude_max=True),
)
def test_renewal_is_never_early_and_never_past_the_end_of_a_good_certificate(
    life: float, obtained: float, dice: float
) -> None:
    at = renewal_at(T, T + life, T + obtained, dice)
    assert at >= T + obtained + MIN_RENEWAL_SECONDS
    assert at - (T + obtained) <= max(MIN_RENEWAL_SECONDS, 0.55 * life) + 1e-3
    if 0 <= obtained <= life - 2 * MIN_RENEWAL_SECONDS:
        assert at < T + life


# ---- two clocks --------------------------------------------------------------------------------------------------

M = 5_000.0  # the monotonic clock when the certificate was obtained
PLAN = Renewal.plan(T - 60, T + D, now=T, monotonic=M, dice=MID)


@pytest.mark.parametrize(
    ("wall", "monotonic", "wait"),
    [
        (T, M, 12 * H),
        (T + H, M + H, 11 * H),
        (T + 12 * H - 1, M + 12 * H - 1, 1.0),
        (T + 12 * H, M + 12 * H, 0.0),
        (T + 20 * H, M + 20 * H, 0.0),
        (T + 12 * H, M + 60, 0.0),  # slept: the monotonic clock stood still
        (T + 2 * D, M + 60, 0.0),  # slept past the end
        (T - 2 * D + H, M + H, 11 * H),  # set back two days after an hour: the monotonic clock keeps the time
        (T - 2 * D, M + 12 * H, 0.0),
        (T + 365 * D, M + 1, 9.0),  # set ahead a year at once: due, but not within 10 s of the last one
        (T + 365 * D, M, 10.0),
        (T - 365 * D, M, 12 * H),
    ],
)
def test_a_renewal_is_due_when_either_clock_says_so(wall: float, monotonic: float, wait: float) -> None:
    assert PLAN.wait(wall, monotonic) == pytest.approx(wait)
    assert PLAN.next_look(wall, monotonic) == pytest.approx(min(wait, RECHECK_SECONDS))


@given(jumps=st.lists(st.floats(-400 * D, 400 * D), max_size=30), steps=st.lists(st.floats(0, 40), max_size=30))
def test_however_the_wall_clock_jumps_two_renewals_are_10_s_apart(jumps: list[float], steps: list[float]) -> None:
    wall, monotonic, renewed = T, M, [M]
    plan = PLAN
    for jump, step in zip(jumps, steps, strict=False):
        wall, monotonic = wall + step + jump, monotonic + step
        if plan.wait(wall, monotonic) == 0:
            renewed.append(monotonic)
            plan = Renewal.plan(wall - 60, wall + D, now=wall, monotonic=monotonic, dice=MID)
    assert all(later - earlier >= MIN_RENEWAL_SECONDS - 1e-6 for earlier, later in pairwise(renewed))


def test_looking_at_the_clocks_as_told_ends_at_the_renewal() -> None:
    wall, monotonic, looks = T, M, 0
    while PLAN.wait(wall, monotonic) > 0:
        nap = PLAN.next_look(wall, monotonic)
        wall, monotonic, looks = wall + nap, monotonic + nap, looks + 1
    assert (wall, looks) == (PLAN.renew_at, 12 * H / RECHECK_SECONDS)


# ---- after a failure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "ceiling"),
    [(-1, 0.5), (0, 0.5), (1, 1), (2, 2), (3, 4), (7, 64), (8, 128), (9, 150), (10, 150), (1000, 150), (10**9, 150)],
)
def test_the_ceiling_of_the_back_off_doubles_from_half_a_second_to_150(attempt: int, ceiling: float) -> None:
    assert backoff(attempt, 0.0) == 0.0
    assert backoff(attempt, 0.5) == ceiling / 2
    assert backoff(attempt, LAST) == pytest.approx(ceiling)
    assert backoff(attempt, LAST) < ceiling


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.floats(-D, D))
def test_no_try_is_put_off_past_the_end_of_the_certificate(attempt: int, dice: float, left: float) -> None:
    wait = retry_wait(attempt, dice, T, T + left)
    assert 0 <= wait <= backoff(attempt, dice) < BACKOFF_CAP_SECONDS
    if T + left > T:
        assert wait <= left + 1e-3


@pytest.mark.parametrize(
    ("not_after", "expected"), [(None, 75.0), (T + D, 75.0), (T + 20, 20.0), (T, 75.0), (T - D, 75.0)]
)
def test_a_wait_is_cut_at_an_end_that_is_still_to_come(not_after: float | None, expected: float) -> None:
    assert retry_wait(20, 0.5, T, not_after) == expected


@pytest.mark.parametrize(
    ("wait", "not_after", "worth"),
    [(5.0, T + 10, True), (10.0, T + 10, False), (11.0, T + 10, False), (0.0, T - 1, False), (5.0, None, False)],
)
def test_a_wait_is_worth_it_while_the_certificate_lasts(wait: float, not_after: float | None, worth: bool) -> None:
    assert worth_waiting(wait, T, not_after) is worth


@pytest.mark.parametrize(("since", "last"), [(-1, False), (0, False), (89, False), (90, True), (200, True)])
def test_the_last_tenth_of_a_life(since: float, last: bool) -> None:
    assert in_last_tenth(T, T + 100, T + since) is last
