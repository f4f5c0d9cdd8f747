"""Which requests a sidecar has spent retries on, so that only the hop nearest the failure retries (pain 6).

Hop after hop that tries thrice multiplies a failure: three hops make 27 attempts of one request. A sidecar whose
*outbound* side has spent a retry therefore says so on the 5xx that its *inbound* side then sends back, and the sidecar
that gets it does not try again. Applications copy no headers of ours, so the two are joined by what is there: by the
trace, where the request has one (W3C Trace Context), and otherwise by time: a retry was spent while the request was
under way. That may mark an answer that had nothing to do with it. The price is a retry less, and not one more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sidecar.http.headers import first

if TYPE_CHECKING:
    from sidecar.hop import Headers

RETRIED: Final = (b"mesh-retried", b"1")  # on such an answer (decision D21: a hop header)
MOST: Final = 4096  # retries that are remembered
SECONDS: Final = 60.0  # and for how long
_TRACE: Final = slice(3, 35)  # of a traceparent: version, "-", 32 hexadecimal digits
_NO_TRACE: Final = b"0" * 32


class Spent:
    """The retries of one sidecar lately, to all of its upstreams."""

    __slots__ = ("_retries",)

    def __init__(self) -> None:
        self._retries: deque[tuple[float, bytes]] = deque(maxlen=MOST)

    def add(self, trace: bytes, now: float) -> None:
        """A retry is sent, or was due and the budget was spent; `trace` is of the request that the application sent,
        empty where it has none.
        """
        self._retries.append((now, trace))

    def during(self, trace: bytes, began: float, now: float) -> bool:
        """Whether a retry was spent on behalf of a request that has been under way since then."""
        since = max(began, now - SECONDS)
        for at, its in reversed(self._retries):
            if at < since:
                return False
            if not trace or not its or trace == its:
                return True
        return False


def trace_of(headers: Headers) -> bytes:
    """The trace-id of a request (Trace Context section 3.2); empty where it has none that can be read."""
    value = first(headers, b"traceparent")
    if value is None or len(value) < 55 or value[2:3] != b"-" or value[35:36] != b"-":
        return b""
    trace = value[_TRACE].lower()
    return b"" if trace == _NO_TRACE else trace
