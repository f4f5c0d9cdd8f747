"""Until when, and by whose word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ProtocolViolation
from sidecar.traffic.deadline import ENDLESS, NEVER, Deadline, DeadlineRules, seconds_of

TOTAL = DeadlineRules(total=10.0)


@pytest.mark.parametrize(
    ("rules", "headers", "loopback", "lasts", "at", "by"),
    [
        (DeadlineRules(), [], True, False, NEVER, ""),
        (TOTAL, [], True, False, 110.0, "timeouts.total"),
        (TOTAL, [], False, True, NEVER, ""),  # no total for what is meant to last (pain 33)
        (TOTAL, [(b"grpc-timeout", b"3S")], True, False, 103.0, "grpc-timeout"),
        (TOTAL, [(b"grpc-timeout", b"3S")], False, True, 103.0, "grpc-timeout"),  # but what the caller itself has set
        (TOTAL, [(b"grpc-timeout", b"1M")], True, False, 110.0, "timeouts.total"),  # only ever tighter
        (DeadlineRules(), [(b"mesh-timeout", b"500m")], True, False, 100.5, "mesh-timeout"),
        (DeadlineRules(), [(b"mesh-timeout", b"500m")], False, False, NEVER, ""),  # from a peer: no control header
        (DeadlineRules(), [(b"mesh-deadline", b"500m")], False, False, 100.5, "mesh-deadline"),
        (DeadlineRules(), [(b"mesh-deadline", b"500m")], True, False, NEVER, ""),  # from an application: no hop header
        (TOTAL, [(b"grpc-timeout", b"3S"), (b"mesh-deadline", b"2S")], False, False, 102.0, "mesh-deadline"),
        (TOTAL, [(b"grpc-timeout", b"1S"), (b"mesh-deadline", b"2S")], False, False, 101.0, "grpc-timeout"),
        (TOTAL, [(b"mesh-deadline", b"0n")], False, False, 100.0, "mesh-deadline"),
    ],
)
def test_the_earliest_wins_and_is_named(rules, headers, loopback, lasts, at, by):
    deadline = rules.of(headers, 100.0, loopback=loopback, lasts=lasts)
    assert (deadline.at, deadline.by) == (at, by)


@pytest.mark.parametrize("value", [b"", b"S", b"5", b"5s", b"-5S", b"123456789S", b"5 S", b"1.5S", b"\xffS"])
@pytest.mark.parametrize("name", [b"grpc-timeout", b"mesh-deadline"])
def test_what_cannot_be_read_is_refused(name, value):
    with pytest.raises(ProtocolViolation, match=name.decode()):
        DeadlineRules().of([(name, value)], 0.0, loopback=False, lasts=False)


def test_who_sets_none_allocates_none():
    assert DeadlineRules().of([], 0.0, loopback=True, lasts=False) is ENDLESS
    assert ENDLESS.field(5.0) is None
    assert seconds_of([], b"mesh-deadline") is None


def test_a_try_has_its_own_time_but_for_the_last_one():
    rules = DeadlineRules(per_try=2.0)
    end = Deadline(110.0, "grpc-timeout")
    said = [
        rules.of_try(end, 100.0, last=False),
        rules.of_try(end, 100.0, last=True),
        rules.of_try(end, 108.5, last=False),
        rules.of_try(ENDLESS, 100.0, last=True),
        DeadlineRules().of_try(end, 100.0, last=False),
    ]
    assert [(each.at, each.by) for each in said] == [
        (102.0, "timeouts.per_try"),
        (110.0, "grpc-timeout"),
        (110.0, "grpc-timeout"),
        (NEVER, ""),
        (110.0, "grpc-timeout"),
    ]


def test_left_and_passed():
    end = Deadline(10.0)
    assert [(end.left(now), end.passed(now)) for now in (9.0, 10.0, 11.0)] == [(1.0, False), (0.0, True), (0.0, True)]


@given(st.floats(0.0, 1e6), st.lists(st.floats(0.0, 100.0), min_size=1, max_size=5))
def test_over_any_number_of_hops_time_only_shrinks(seconds, spent):
    """Each hop's clock starts anywhere; what is told is what is left."""
    now, left = 50.0, seconds
    deadline = Deadline(now + seconds, "grpc-timeout")
    for number, pause in enumerate(spent):
        field = deadline.field(now + pause)
        assert field is not None
        now = 1000.0 * number
        deadline = DeadlineRules().of([field], now, loopback=False, lasts=False)
        assert deadline.left(now) <= max(0.0, left - pause) + 1e-6
        left = deadline.left(now)
