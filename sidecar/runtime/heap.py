"""Memory that many connections have used goes back to the system once they have gone.

A TLS connection costs some 50 KiB of small blocks, most of them OpenSSL's. glibc keeps freed blocks for later,
scattered over a heap that it seldom shrinks by itself: after a crowd a sidecar of 50 MiB stays at 120. malloc_trim(3)
gives whole pages back, wherever they lie. It takes a few milliseconds, so it is called once a crowd has halved, not at
every departure; and in a quiet moment, where more than 1 MiB has come to what was left the last time. Other C libraries
have no such function.

What a reload replaces (rules, routes, sides) refers to itself, so only the garbage collector can free it, and that
looks at old things so seldom that a dozen generations lie about. It is asked for at each reload, and kept short by
setting aside (gc.freeze) what the start has made and nobody will ever drop.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

from sidecar.net.admission import memory_used

CROWD = 64  # connections that must have gone before it is worth the time
QUIET_LOOKS = 10  # from one quiet moment that is taken to the next, at least
WORTH = 1024 * 1024  # bytes


class Heap:
    """Told again and again of open connections and of requests under way; what it is made of can be others in tests."""

    def __init__(
        self, trim: Callable[[], object] | None = None, used: Callable[[], int] = memory_used
    ) -> None:
        self._trim = trim or _malloc_trim()
        self._used = used
        self._most = 0  # connections since the last trim
        self._left = 0  # bytes after the last quiet moment
        self._looks = 0

    def look(self, connections: int, requests: int = 0) -> None:
        """Trim if a crowd has gone, or nothing is under way and there is something to give back."""
        self._most = max(self._most, connections)
        if self._most - connections >= max(CROWD, self._most // 2):
            self._most = connections
            self._trim()
        self._looks += 1
        if self._looks >= QUIET_LOOKS and not requests:
            self._looks = 0
            if self._used() > self._left + WORTH:
                self._trim()
                self._left = self._used()


def set_aside() -> None:
    """What stands by now stands for good: the collector need not look at it again. What the start has used and dropped
    goes back to the system.
    """
    gc.collect()
    gc.freeze()
    _malloc_trim()()


def collect() -> None:
    """Free what has been replaced; a few milliseconds."""
    gc.collect()


def _malloc_trim() -> Callable[[], object]:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: function(0)
