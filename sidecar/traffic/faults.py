"""Faults on purpose: a share of requests is delayed or refused, to see how callers bear it.

Each request throws its dice once for each kind, so that a delay of 10 % and an abort of 10 % meet in 1 %. Whatever was
injected is flagged DI (delay) or FI (abort) in log, metric and trace (semantics S24) and is nobody's failure: it counts
against no endpoint, and is not tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from certs.spiffe import SpiffeId
    from sidecar.patterns import IdentityPattern

LONGEST: Final = 60.0  # seconds of a delay: more would only hold memory


class Injected(NamedTuple):
    """What a request is to suffer; the delay first."""

    delay: float  # seconds; 0.0 for none
    status: int  # 0 for none


@dataclass(frozen=True, slots=True)
class FaultRules:
    """What an operator says. Shares are 0 to 1. Without callers it means all of them."""

    delay: float = 0.0  # seconds
    delay_share: float = 0.0
    status: int = 0
    abort_share: float = 0.0
    callers: tuple[IdentityPattern, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be."""
        if not (0.0 <= self.delay_share <= 1.0 and 0.0 <= self.abort_share <= 1.0):
            raise ValueError("a share is 0 to 1")
        if not 0.0 <= self.delay <= LONGEST:
            raise ValueError(f"a delay is up to {LONGEST:g} s")
        if self.status and not 400 <= self.status <= 599:
            raise ValueError(f"a request is refused with a status of 400 to 599, not {self.status}")

    @property
    def acts(self) -> bool:
        """Whether it ever meets anybody."""
        return bool((self.delay and self.delay_share) or (self.status and self.abort_share))

    def __str__(self) -> str:
        """For people: "0.1 wait 2 s, 0.05 are refused with 503"."""
        parts = [f"{self.delay_share:.4g} wait {self.delay:g} s"] if self.delay and self.delay_share else []
        parts += [f"{self.abort_share:.4g} are refused with {self.status}"] if self.status and self.abort_share else []
        whose = f", of requests by {', '.join(map(str, self.callers))}" if self.callers else ""
        return f"{' and '.join(parts) or 'nothing'}{whose}"

    def concerns(self, peer: SpiffeId | None) -> bool:
        """Whether it may meet a request of this caller."""
        return not self.callers or (peer is not None and any(each.matches(peer) for each in self.callers))

    def check(self, peer: SpiffeId | None, dice: Callable[[], float]) -> Injected | None:
        """What this request suffers; None, as a rule."""
        if not self.concerns(peer):
            return None
        delay = self.delay if self.delay_share and dice() < self.delay_share else 0.0
        status = self.status if self.abort_share and dice() < self.abort_share else 0
        return Injected(delay, status) if delay or status else None
