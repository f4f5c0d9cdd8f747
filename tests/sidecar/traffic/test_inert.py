"""What can never act is named; what can is not."""

from __future__ import annotations

import pytest

from sidecar.traffic.deadline import DeadlineRules
from sidecar.traffic.destination import DestinationRules
from sidecar.traffic.endpoints import Declared
from sidecar.traffic.inert import in_destination, in_throttle
from sidecar.traffic.outlier import OutlierRules
from sidecar.traffic.retry import RetryRules
from sidecar.traffic.throttle import ThrottleRules
from tests.kit.traffic import declared

ONCE = RetryRules(tries=1, statuses=frozenset((503,)))
PLAIN, NO_TIMES = DestinationRules(), DeadlineRules()


@pytest.mark.parametrize(
    ("rules", "times", "endpoints", "found"),
    [
        (PLAIN, NO_TIMES, None, []),
        (PLAIN, NO_TIMES, declared(3), []),
        (PLAIN, DeadlineRules(15.0, 5.0), None, []),
        (PLAIN, DeadlineRules(15.0, 16.0), None, ["per_try"]),  # as Kuma shipped it
        (DestinationRules(retries=RetryRules(tries=1)), DeadlineRules(15.0, 5.0), None, ["per_try"]),
        (DestinationRules(retries=ONCE), NO_TIMES, None, ["retries.statuses"]),
        (DestinationRules(budget_ratio=0.0, budget_floor=0.0), NO_TIMES, None, ["retries.tries"]),
        (DestinationRules(budget_ratio=0.0, budget_floor=0.1), NO_TIMES, None, []),
        (DestinationRules(retries=RetryRules(base=1.0)), NO_TIMES, None, ["retries.base"]),
        (DestinationRules(watch=False, outliers=OutlierRules(in_a_row=3)), NO_TIMES, declared(3), ["outliers"]),
        (DestinationRules(outliers=OutlierRules(in_a_row=3)), NO_TIMES, declared(4), ["outliers"]),
        (DestinationRules(outliers=OutlierRules(in_a_row=3)), NO_TIMES, declared(5), []),
        (DestinationRules(outliers=OutlierRules(in_a_row=3)), NO_TIMES, None, []),
        (DestinationRules(zone="a"), NO_TIMES, declared(3, zones="abb"), []),
        (DestinationRules(zone="c"), NO_TIMES, declared(3, zones="abb"), ["zone"]),
        (DestinationRules(zone="a"), NO_TIMES, declared(3, zones="aaa"), ["zone"]),
        (DestinationRules(balance="round_robin"), NO_TIMES, declared(2, weights=(1, 2)), ["weight"]),
        (DestinationRules(balance="weighted"), NO_TIMES, declared(2, weights=(1, 2)), []),
    ],
)
def test_in_a_destination(
    rules: DestinationRules, times: DeadlineRules, endpoints: list[Declared] | None, found: list[str]
) -> None:
    assert [each.setting for each in in_destination(rules, times, endpoints)] == found


def test_in_a_throttle():
    assert in_throttle(ThrottleRules(rate=10.0)) == []
    (inert,) = in_throttle(ThrottleRules(rate=0.1))
    assert inert == ("longest", "nobody ever waits: the shortest wait is 10 s, a request's own interval")
