"""Which objects a request asks for, by its path; and how many different ones were asked for, in little memory.

A path template says where ids stand (`/orders/{id}`). Where a rule has none, or ends in `**`, what looks like an id is
one: digits, a UUID, or a long run of hexadecimal digits.

How many different ones is counted by linear counting (Whang, Vander-Zanden and Taylor 1990): each sets one of 4,096
bits, and how many are set tells how many there were, within 3 % up to some thousand. For numbers the neighbours' bits
are looked at too: of those that are asked for one after the other, or all of a range in any order, most have one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import log
from typing import Final
from zlib import crc32

BITS: Final = 4096
_FULL: Final = BITS - 8  # set bits above which nothing more can be told
_SPREAD: Final = 0x9E3779B97F4A7C15  # odd, 2**64 over the golden ratio (Knuth, TAOCP 3, section 6.4)
_WORD: Final = (1 << 64) - 1
_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_OPAQUE: Final = re.compile(
    r"(?:[0-9]{1,18}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{16,64})\Z", re.ASCII
)
ID: Final = "*"
Place = tuple[str, ...]  # a path with `*` for each id


@lru_cache(maxsize=1024)  # of routes, which the configuration names
def positions(route: str) -> tuple[tuple[int, ...], bool]:
    """Where the parameters of a template stand, and whether it leaves open what comes after; `/**` leaves all open."""
    segments = route.split("/")[1:] if route.startswith("/") else ["**"]
    rest = segments[-1] == "**"
    return tuple(index for index, each in enumerate(segments) if each[:1] == "{"), rest


def ids_of(route: str, segments: tuple[str, ...]) -> tuple[Place, tuple[str, ...]]:
    """Where the ids of this path stand, and what they are; none where it names no object."""
    places, rest = positions(route)
    if not rest:
        return (route,), tuple([segments[index] for index in places if index < len(segments)])
    found = [_OPAQUE.match(each) is not None or index in places for index, each in enumerate(segments)]
    place = tuple([ID if here else each for here, each in zip(found, segments, strict=True)])
    return place, tuple([each for here, each in zip(found, segments, strict=True) if here])


class Distinct:
    """How many different ids there were, in one window after the other; those of the window before count too."""

    __slots__ = ("_before", "_bits", "_was", "missing", "numbers", "pairs", "set")

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)
        self._before = bytearray(0)  # of the window before; empty for none
        self.set = 0  # bits, of both windows, none twice
        self.numbers = 0  # of those that set a bit
        self.pairs = 0  # of these, with the number before or after it
        self.missing = 0  # ids that were refused, or are not there
        self._was = (0, 0, 0, 0)  # the same when this window began

    def turn(self, *, next_one: bool) -> None:
        """Another window has begun: the one after, or a later one."""
        total, numbers, pairs, missing = self._was
        mine = (self.set - total, self.numbers - numbers, self.pairs - pairs, self.missing - missing)
        self._before = self._bits if next_one else bytearray(0)
        self._bits = bytearray(BITS // 8)
        self.set, self.numbers, self.pairs, self.missing = self._was = mine if next_one else (0, 0, 0, 0)

    def add(self, ids: tuple[str, ...], missing: bool) -> bool:
        """Take note of what one path names, and whether it is missing; whether it is new."""
        first = ids[0]
        if len(ids) > 1 or _NUMBER.match(first) is None:
            new = self._mark(crc32("/".join(ids).encode("utf-8", "surrogatepass")) % BITS)
        else:
            number = int(first)
            new = self._mark(_bit(number))
            if new:
                self.numbers += 1
                self.pairs += self._has(_bit(number - 1)) + self._has(_bit(number + 1))
        if new and missing:
            self.missing += 1
        return new

    @property
    def count(self) -> float:
        """How many different ones, about."""
        return -BITS * log(1.0 - min(self.set, _FULL) / BITS)

    @property
    def sequential(self) -> float:
        """How many pairs of numbers side by side, beyond those that chance alone brings about in so few bits."""
        return self.pairs - self.numbers * self.set / BITS

    @property
    def fresh(self) -> tuple[float, float]:
        """What this window alone has brought: ids, and pairs as in `sequential`."""
        total, numbers, pairs, _ = self._was
        return self.set - total, self.pairs - pairs - (self.numbers - numbers) * self.set / BITS

    def _mark(self, bit: int) -> bool:
        at, mask = bit >> 3, 1 << (bit & 7)
        if self._bits[at] & mask or (self._before and self._before[at] & mask):
            return False
        self._bits[at] |= mask
        self.set += 1
        return True

    def _has(self, bit: int) -> bool:
        at, mask = bit >> 3, 1 << (bit & 7)
        return bool(self._bits[at] & mask or (self._before and self._before[at] & mask))


def _bit(number: int) -> int:
    return ((number * _SPREAD) & _WORD) >> 52  # the upper 12 bits: 0 to 4,095
