"""How much a peer may take, and how often: sizes, counts and budgets of one HTTP/2 connection.

A flood is told from use by what it is *for*. A peer that reads our answers sends WINDOW_UPDATE and PING because we sent
DATA; one that cancels requests also lets many come to their end. So each budget is a bucket of tokens that fills slowly
with time and quickly with such work: honest use never meets it, whatever its rate, and what has no work behind it is
over in a burst. An empty bucket ends the connection with ENHANCE_YOUR_CALM, by a name that counters and `mesh explain`
know (`Abuse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sidecar.http.h2.codes import FRAME_BYTES, Abuse


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket: so many at once, so many more each second."""

    burst: float
    per_second: float


# What others chose: nghttp2 lets 1000 resets through at once and 33 a second; Envoy 1 empty frame in a row, 100
# PRIORITY frames, and 10 WINDOW_UPDATEs for each frame of DATA that it sends.
RATES: Final[Mapping[Abuse, Rate]] = MappingProxyType(
    {
        Abuse.RAPID_RESET: Rate(200, 20),  # and one for each stream that came to its end
        Abuse.RESET_FLOOD: Rate(500, 100),  # the same; as many each second as there can be streams at once
        Abuse.EXCESS_STREAMS: Rate(1000, 20),  # a client may send before it has read our SETTINGS
        Abuse.PING_FLOOD: Rate(100, 10),  # and one for each frame of DATA that we send: gRPC measures the path by them
        Abuse.SETTINGS_FLOOD: Rate(50, 1),
        Abuse.PRIORITY_FLOOD: Rate(200, 10),  # and two for each stream
        Abuse.WINDOW_UPDATE_FLOOD: Rate(1000, 100),  # and 1 for 512 bytes, 4 for a frame of ours, 4 for a stream
        Abuse.EMPTY_FRAME_FLOOD: Rate(100, 10),  # and one for each stream
        Abuse.UNKNOWN_FRAME_FLOOD: Rate(200, 10),  # and one for each stream
    }
)
EARNED_BY_STREAM: Final[Mapping[Abuse, float]] = MappingProxyType(
    {
        Abuse.RAPID_RESET: 1,
        Abuse.RESET_FLOOD: 1,
        Abuse.PRIORITY_FLOOD: 2,
        Abuse.WINDOW_UPDATE_FLOOD: 4,
        Abuse.EMPTY_FRAME_FLOOD: 1,
        Abuse.UNKNOWN_FRAME_FLOOD: 1,
    }
)
# A cancelled request that has lived this long is no rapid reset: deadlines that pass by the dozen, since an application
# has stopped, are what honest callers do, and 100 streams can be 400 of those a second. They only count as RESET_FLOOD,
# whose bucket refills as fast as 100 calls with a deadline of 1 s can empty it, and holds what 400 callers with one
# deadline cancel at once; and all it costs to empty that one is to come back on another connection. Envoy looks after
# 500 streams at those that were cancelled in their first second, and never at later ones; nghttp2 asks for no age.
RAPID_SECONDS: Final = 0.25
BYTES_FOR_A_WINDOW_UPDATE: Final = 512
WINDOW_UPDATES_FOR_A_FRAME: Final = 4  # gRPC gives room back message by message, on stream and connection


@dataclass(frozen=True, slots=True)
class H2Limits:
    """The limits of one connection. Sizes in bytes, times in seconds."""

    head_bytes: int = 32 * 1024  # SETTINGS_MAX_HEADER_LIST_SIZE: names, values and 32 for each line; over it 431 (D13)
    head_lines: int = 100  # D13
    streams: int = 100  # SETTINGS_MAX_CONCURRENT_STREAMS: Envoy's advice at an edge (semantics S29)
    streams_per_connection: int = 100_000  # then GOAWAY: what a connection collects in its life is bounded
    stream_window: int = 1 << 20
    connection_window: int = 4 << 20
    frame_bytes: int = FRAME_BYTES
    continuations: int = 16  # CONTINUATION frames of one header block; a head of 32 KiB needs two
    head_seconds: float = 10.0  # for the preface and for each header block, once begun (D8)
    stall_seconds: float = 300.0  # for the other side to take one piece of a body of at most 64 KiB (D8: idle)
    unread_bytes: int = 4 << 20  # of heads and control frames that the wire has not taken; 100 heads fit
    rates: Mapping[Abuse, Rate] = field(default_factory=lambda: RATES)

    @property
    def block_bytes(self) -> int:
        """How long a header block may be: what is up to twice too large is still read, and answered with 431."""
        return 2 * self.head_bytes

    @property
    def bomb_bytes(self) -> int:
        """How large the list may be that a header block means, before it is a bomb."""
        return 2 * self.head_bytes


class Budgets:
    """The buckets of one connection.

    Work that earns tokens is only counted when it is done, and turned into tokens when some are asked for: who asks for
    none costs nothing.
    """

    __slots__ = ("_at", "_rates", "_seen", "_tokens", "sent_bytes", "sent_frames", "streams")

    def __init__(self, rates: Mapping[Abuse, Rate], now: float) -> None:
        self.streams = 0  # that came to their end as they should
        self.sent_frames = 0  # of DATA and heads, by us
        self.sent_bytes = 0  # of DATA, by us
        self._rates = rates
        self._tokens = {abuse: rate.burst for abuse, rate in rates.items()}
        self._seen = dict.fromkeys(rates, 0.0)  # what had been earned when tokens were last asked for
        self._at = dict.fromkeys(rates, now)

    def take(self, abuse: Abuse, now: float, cost: float = 1) -> bool:
        """Whether there was as much left. A bucket never holds more than its burst."""
        rate = self._rates.get(abuse)
        if rate is None:
            return True
        earned = self._earned(abuse)
        more = earned - self._seen[abuse] + max(0.0, now - self._at[abuse]) * rate.per_second
        left = min(rate.burst, self._tokens[abuse] + more)
        self._seen[abuse] = earned
        self._at[abuse] = now
        self._tokens[abuse] = left - cost
        return left >= cost

    def _earned(self, abuse: Abuse) -> float:
        """What all work so far was worth to one of the buckets."""
        earned = self.streams * EARNED_BY_STREAM.get(abuse, 0.0)
        if abuse is Abuse.PING_FLOOD:
            return earned + self.sent_frames
        if abuse is Abuse.WINDOW_UPDATE_FLOOD:
            return earned + self.sent_bytes / BYTES_FOR_A_WINDOW_UPDATE + self.sent_frames * WINDOW_UPDATES_FOR_A_FRAME
        return earned
