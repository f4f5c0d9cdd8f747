"""Whether a request is sent again: only where nobody can be paid twice, never too late, never for nothing."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.traffic.budget import Budget
from sidecar.traffic.retry import IDEMPOTENT, Again, Enough, Kind, RetryRules, kind_of

NEVER = float("inf")
U, S, T, F = Kind.UNPROCESSED, Kind.STALE, Kind.STATUS, Kind.FINAL


def check(
    kind: Kind = U, tries: int = 1, budget: Budget | None = None, rules: RetryRules | None = None, now: float = 100.0,
    dice: float = 0.5, **facts: Any,
) -> str | float:  # fmt: skip
    """Why not, or the wait."""
    facts = {"repeatable": True, "replayable": True, "deadline": NEVER} | facts
    said = (rules or RetryRules()).check(kind, tries, now, dice, budget or Budget(), **facts)
    return said.wait if isinstance(said, Again) else said.why


STALE_RESET = errors.UpstreamReset(reused=True)


@pytest.mark.parametrize(
    ("error", "unsent", "sent"),
    [
        (errors.ConnectFailed(), U, U),
        (errors.HandshakeFailed(), U, U),
        (errors.UpstreamRefused(), U, U),  # REFUSED_STREAM; a GOAWAY that leaves it out
        (errors.NoHealthyUpstream(), U, U),
        (STALE_RESET, U, S),
        (errors.UpstreamClosed(reused=True), U, S),
        (errors.UpstreamReset(), U, F),
        (errors.UpstreamClosed(), U, F),
        (errors.ResponseTimeout(), F, F),
        (errors.UpstreamIdle(), F, F),
        (errors.UpstreamProtocolViolation(), F, F),
        (errors.PeerIdentityMismatch("other_identity"), F, F),
        (errors.Overflow(), F, F),
        (errors.PolicyDenied(), F, F),
        (errors.DownstreamGone(), F, F),
        (errors.DeadlinePast(), F, F),
        (errors.TotalTimeout(), F, F),
        (errors.TryTimeout(), U, Kind.LATE),  # nobody had begun, or somebody may have
    ],
    ids=lambda each: each.name if isinstance(each, errors.HopError) else "",
)
def test_kinds(error, unsent, sent):
    assert (kind_of(error, wrote=False), kind_of(error, wrote=True)) == (unsent, sent)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, 0.0125),
        ({"repeatable": False}, 0.0125),  # a POST that nobody has seen
        ({"kind": F}, "kind"),
        ({"kind": S}, 0.0125),
        ({"kind": S, "repeatable": False}, "kind"),
        ({"kind": T}, 0.0125),
        ({"kind": T, "repeatable": False}, "kind"),
        ({"elsewhere": True}, "elsewhere"),
        ({"tries": 2}, 0.0375),
        ({"tries": 3}, "tries"),
        ({"replayable": False}, "replay"),
        ({"deadline": 100.0125}, "deadline"),  # there would be no time left
        ({"deadline": 100.0126}, 0.0125),
        ({"deadline": 100.0126, "least": 0.001}, "deadline"),
        ({"deadline": 99.0}, "deadline"),
        ({"hint": 0.0}, 0.0125),
        ({"hint": 2.0}, 2.5),
        ({"hint": 5.0}, 6.25),
        ({"hint": 5.1}, "pushed_back"),
        ({"hint": 3_155_760_000.0}, "pushed_back"),
        ({"hint": NEVER}, "pushed_back"),
        ({"hint": 2.0, "deadline": 102.0}, "deadline"),
        ({"kind": F, "hint": NEVER, "tries": 9, "elsewhere": True}, "kind"),  # the first reason is named
    ],
)
def test_judgement(facts, said):
    assert check(**facts) == (said if isinstance(said, str) else pytest.approx(said))


def test_statuses_are_opt_in():
    listed = RetryRules(statuses=frozenset((503,)), grpc=frozenset((14,)))
    assert [RetryRules().kind_of_status(503), listed.kind_of_status(503), listed.kind_of_status(502)] == [F, T, F]
    assert [RetryRules().kind_of_grpc(14), listed.kind_of_grpc(14), listed.kind_of_grpc(13)] == [F, T, F]


def test_a_post_is_repeatable_by_its_key_only():
    assert b"POST" not in IDEMPOTENT
    assert b"PATCH" not in IDEMPOTENT
    assert {b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"} == IDEMPOTENT


def test_a_yes_is_paid_for_and_a_no_is_not():
    budget = Budget(floor=0.1)
    assert check(budget=budget, kind=F) == "kind"
    assert check(budget=budget, tries=3) == "tries"
    assert check(budget=budget, deadline=1.0) == "deadline"
    assert (budget.retries, budget.left(100.0)) == (0, 1)
    assert check(budget=budget) == 0.0125
    assert check(budget=budget) == "budget"
    assert (budget.retries, budget.spent) == (1, 1)


@pytest.mark.parametrize(
    ("tries", "longest"), [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.250), (5, 0.250), (10_000, 0.250)]
)
def test_back_off_is_full_jitter_below_a_growing_bound(tries, longest):
    rules = RetryRules()
    assert [rules.wait(tries, dice) for dice in (0.0, 0.5)] == pytest.approx([0.0, longest / 2])


@given(
    st.sampled_from([U, S, T, F]), st.integers(1, 5), st.floats(0, 0.999), st.booleans(), st.booleans(),
    st.floats(90, 110), st.none() | st.floats(0, 400), st.booleans(),
)  # fmt: skip
def test_never_past_the_deadline_never_a_fourth_time_never_twice_what_may_not_be(
    kind, tries, dice, repeatable, replayable, deadline, hint, elsewhere
):
    said = RetryRules().check(
        kind, tries, 100.0, dice, Budget(), repeatable=repeatable, replayable=replayable, deadline=deadline, hint=hint,
        elsewhere=elsewhere,
    )  # fmt: skip
    if isinstance(said, Enough):
        return
    assert 100.0 + said.wait < deadline
    assert tries < 3
    assert replayable
    assert not elsewhere
    assert kind == U or (kind != F and repeatable)
    assert said.wait >= (hint or 0.0)


@pytest.mark.parametrize(
    ("why", "settled"),
    [("kind", False), ("replay", False), ("elsewhere", True), ("pushed_back", True), ("tries", True),
     ("deadline", True), ("budget", True)],
)  # fmt: skip
def test_who_has_had_its_chance_says_so_to_those_before_it(why, settled):
    assert Enough(why).settled == settled


def test_every_reason_has_its_turn():
    said = {
        check(kind, tries, rules=None, repeatable=r, replayable=p, deadline=d, hint=h, elsewhere=e, budget=Budget(0, b))
        for kind, tries, r, p, d, h, e, b in product(
            [U, F], [1, 3], [True], [True, False], [NEVER, 0.0], [None, NEVER], [True, False], [0.0, 10.0]
        )
    }
    assert {each for each in said if isinstance(each, str)} == {
        "kind", "elsewhere", "pushed_back", "tries", "replay", "deadline", "budget"
    }  # fmt: skip
