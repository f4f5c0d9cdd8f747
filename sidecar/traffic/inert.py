"""Settings that can never act, for `mesh check`: what somebody has written and believes to hold.

The classic is a time-out for one try that is longer than the one for all of them; Kuma's shipped defaults had it (S23).
Each finding is the setting's place within its rules, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sidecar.traffic.outlier import OutlierRules
from sidecar.traffic.view import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sidecar.traffic.deadline import DeadlineRules
    from sidecar.traffic.destination import DestinationRules
    from sidecar.traffic.endpoints import Declared
    from sidecar.traffic.throttle import ThrottleRules


class Inert(NamedTuple):
    """One of them."""

    setting: str
    why: str


def in_destination(
    rules: DestinationRules, deadlines: DeadlineRules, endpoints: Sequence[Declared] | None = None
) -> list[Inert]:
    """What of a destination's rules never acts. `endpoints` where they are listed, None where they are found out."""
    found = [*_times(rules, deadlines), *_retries(rules)]
    if not rules.watch and rules.outliers != OutlierRules():
        found.append(Inert("outliers", "nobody is taken out, as `watch` is off"))
    return found if endpoints is None else found + list(_of_list(rules, endpoints))


def in_throttle(rules: ThrottleRules) -> list[Inert]:
    """What of a throttle never acts."""
    if rules.longest * rules.rate < 1.0:
        shortest = f"{1 / rules.rate:g} s, a request's own interval"
        return [Inert("longest", f"nobody ever waits: the shortest wait is {shortest}")]
    return []


def _times(rules: DestinationRules, deadlines: DeadlineRules) -> Iterator[Inert]:
    per_try, total = deadlines.per_try, deadlines.total
    if per_try is not None and total is not None and per_try >= total:
        yield Inert("per_try", f"the whole request is over first (total: {total:g} s)")
    if per_try is not None and rules.retries.tries == 1:
        yield Inert("per_try", "the last try is not cut short, and there is only one")


def _retries(rules: DestinationRules) -> Iterator[Inert]:
    retries = rules.retries
    if retries.tries == 1 and (retries.statuses or retries.grpc):
        yield Inert("retries.statuses", "nothing is ever sent again (retries.tries: 1)")
    if retries.tries > 1 and not rules.budget_ratio and rules.budget_floor * rules.budget_window < 1.0:
        yield Inert("retries.tries", "the budget has nothing to give")
    if retries.base > retries.longest:
        yield Inert("retries.base", f"no wait is over {retries.longest:g} s (retries.longest)")


def _of_list(rules: DestinationRules, endpoints: Sequence[Declared]) -> Iterator[Inert]:
    zones = {each.zone for each in endpoints}
    if rules.zone and rules.zone not in zones:
        yield Inert("zone", f"no endpoint is in {rules.zone}")
    elif rules.zone and len(zones) == 1:
        yield Inert("zone", f"all endpoints are in {rules.zone}")
    if rules.balance == "round_robin" and len({each.weight for each in endpoints}) > 1:
        yield Inert("weight", "round_robin gives everybody the same; `balance: weighted` goes by it")
    if len(endpoints) < SMALL and rules.watch and rules.outliers != OutlierRules():
        yield Inert("outliers", f"below {SMALL} endpoints each has a breaker instead")
