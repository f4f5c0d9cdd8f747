"""How much one destination may take at once (semantics S15). Over it the answer is 503 with flag UO.

Ceilings protect *us*: a destination that hangs must not take all our memory and connections with it, while requests for
all the others wait. Envoy has 1024 requests under way; a sidecar in Python has 512. Envoy's ceiling on retries, 3, is
for when there is no budget; we always have one, and the ceiling is a fifth of the requests, so that retries that *wait*
for long are bounded too. Connections, and requests that wait for one, are bounded by each endpoint's pool
(`sidecar.net.pool`), at 1024 both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CeilingRules:
    """How many at once."""

    requests: int = 512
    retries: int = 102


class Ceiling:
    """One of them: `enter`, and where that was let in, `leave` once."""

    __slots__ = ("count", "most", "name", "refused")

    def __init__(self, name: str, most: int) -> None:
        self.name = name  # as the operator wrote it
        self.most = most
        self.count = 0
        self.refused = 0

    def enter(self) -> bool:
        """Take a place, if there is one."""
        if self.count >= self.most:
            self.refused += 1
            return False
        self.count += 1
        return True

    def leave(self) -> None:
        """Give it back."""
        self.count -= 1


class Ceilings:
    """Those of a destination."""

    __slots__ = ("requests", "retries")

    def __init__(self, rules: CeilingRules) -> None:
        self.requests = Ceiling("limits.requests", rules.requests)
        self.retries = Ceiling("limits.retries", rules.retries)

    def adopt(self, rules: CeilingRules) -> None:
        """From now on these hold; who is over them already may stay."""
        self.requests.most = rules.requests
        self.retries.most = rules.retries
