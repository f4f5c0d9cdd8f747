"""Where the use of quotas is kept: what every store promises, and one in memory."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from certs.errors import MeshError


class QuotaStoreFailed(MeshError):
    """The store of quotas cannot be read or written. The message says which and why."""

    name = "quota_store"


class Use(NamedTuple):
    """One row of a store: what a key has used in a window."""

    quota: str
    key: str
    start: int  # seconds since the epoch
    end: int
    used: int


class QuotaStore(Protocol):
    """Where use is kept. Every method raises QuotaStoreFailed, and has then done nothing."""

    def reserve(self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int) -> tuple[int, int]:
        """Add to a key's use as much of `amount` as fits below `limit`, in one step; returns how much that was (also 0)
        and what is used now, with it.
        """
        ...

    def give_back(self, quota: str, key: str, start: int, amount: int) -> None:
        """Take so much off again."""
        ...

    def uses(self, quota: str) -> list[Use]:
        """All that is known of a quota, for `mesh quota show`."""
        ...

    def reset(self, quota: str, key: str) -> None:
        """Forget what a key has used."""
        ...

    def forget(self, ended_before: float) -> None:
        """Forget windows that ended before then."""
        ...


class MemoryStore:
    """A store for tests, and for those who do not mind that a restart forgets."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str, int], tuple[int, int]] = {}  # quota, key, start → end, used

    def reserve(self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int) -> tuple[int, int]:
        """See QuotaStore."""
        start, end = window
        used = self._uses.get((quota, key, start), (end, 0))[1]
        granted = max(0, min(amount, limit - used))
        self._uses[quota, key, start] = end, used + granted
        return granted, used + granted

    def give_back(self, quota: str, key: str, start: int, amount: int) -> None:
        """See QuotaStore."""
        if (quota, key, start) in self._uses:
            end, used = self._uses[quota, key, start]
            self._uses[quota, key, start] = end, max(0, used - amount)

    def uses(self, quota: str) -> list[Use]:
        """See QuotaStore."""
        return [Use(*name, end, used) for name, (end, used) in sorted(self._uses.items()) if name[0] == quota]

    def reset(self, quota: str, key: str) -> None:
        """See QuotaStore."""
        for name in [name for name in self._uses if name[:2] == (quota, key)]:
            del self._uses[name]

    def forget(self, ended_before: float) -> None:
        """See QuotaStore."""
        for name in [name for name, (end, _) in self._uses.items() if end < ended_before]:
            del self._uses[name]
