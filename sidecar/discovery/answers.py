"""What a look-up comes to. Apart from `names`: its library is large, and not all sidecars need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.traffic.endpoints import Declared


@dataclass(frozen=True, slots=True)
class Found:
    """An answer. Without addresses it is one, too: the name has none, and the resolvers are sure of it."""

    addresses: tuple[str, ...]
    ttl: float  # seconds


@dataclass(frozen=True, slots=True)
class Offered:
    """Endpoints that a name stands for, and for how long they are good."""

    declared: tuple[Declared, ...]
    ttl: float  # seconds
    left_out: int = 0  # beyond the bound
    notes: tuple[str, ...] = ()  # what is odd about it


class NotFound(Exception):
    """No resolver could tell: that says nothing of the name."""
