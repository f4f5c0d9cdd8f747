"""The issuance bucket: 100 certificates a second, a burst of 1,000 (decision D19). Pure: time is an argument.

Consul holds CAs to 50 a second, sized so that 1,000 services rotate in 20 s; our signature is cheaper, and the start of
a whole laptop or cluster (1,000 sidecars at once) should pass without a single 429.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RATE = 100.0
BURST = 1000.0


@dataclass(slots=True)
class Bucket:
    """`rate` tokens a second, at most `burst` of them saved up; full at the start."""

    rate: float = RATE
    burst: float = BURST
    _level: float = field(init=False)
    _filled_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._level = self.burst

    def take(self, now: float) -> float:
        """Take one token and return 0.0, or take none and return how many seconds until there is one.

        `now` is monotonic seconds; a clock that goes backwards adds nothing and takes nothing.
        """
        if now > self._filled_at:
            if self._filled_at != float("-inf"):
                self._level = min(self.burst, self._level + (now - self._filled_at) * self.rate)
            self._filled_at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self.rate
