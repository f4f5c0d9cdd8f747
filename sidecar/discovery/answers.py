"""What a look-up comes to. Apart from `names`: its library is large, and not all sidecars need it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """An answer. Without addresses it is one, too: the name has none, and the resolvers are sure of it."""

    addresses: tuple[str, ...]
    ttl: float  # seconds


class NotFound(Exception):
    """No resolver could tell: that says nothing of the name."""
