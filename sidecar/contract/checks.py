"""What keywords of JSON Schema check, one function each: `schemas` puts them together.

A check takes a value and what work may still be spent on it, and returns None or what is wrong and where, as text for
the operator. `Work` bounds what one body may cost: whoever walks items or matches long texts takes from it, and where
nothing is left the body is refused (`Exhausted`), so that neither many branches nor many items stall anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import fmod
from typing import Any, Final

from sidecar.contract.formats import whole

WORK: Final = 60_000  # values looked at for one body, each branch counted: some 30 ms


class Exhausted(Exception):
    """A value would take too long to check."""


class Work:
    """What may still be spent on one value."""

    __slots__ = ("left",)

    def __init__(self, left: int = WORK) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        """Take from it. Raises Exhausted."""
        self.left -= count
        if self.left < 0:
            raise Exhausted


Check = Callable[[Any, Work], "str | None"]


def anything(_: Any, __: Work) -> str | None:
    return None


def nothing(_: Any, __: Work) -> str | None:
    return ": is not in the contract"


def never(_: str) -> bool:
    return False


TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "null": (type(None),), "boolean": (bool,), "object": (dict,), "array": (list,), "number": (int, float),
    "integer": (int,), "string": (str,),
}  # fmt: skip


def all_of(checks: list[Check]) -> Check:
    if not checks:
        return anything
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:
        first, second = checks
        return lambda value, work: first(value, work) or second(value, work)
    every = tuple(checks)

    def check(value: Any, work: Work) -> str | None:
        for each in every:
            wrong = each(value, work)
            if wrong is not None:
                return wrong
        return None

    return check


def type_check(names: tuple[str, ...]) -> Check:
    kinds = frozenset(kind for name in names for kind in TYPES[name])
    wrong, integers = f": is no {' or '.join(names)}", "integer" in names

    def check(value: Any, _: Work) -> str | None:
        return None if type(value) in kinds or (integers and whole(value)) else wrong

    return check


def _key(value: Any) -> Any:
    """A value that can be compared and hashed as JSON does: 1 is 1.0, but not true."""
    kind = type(value)
    if kind is bool:
        return ("bool", value)
    if kind is list:
        return ("list", tuple(_key(each) for each in value))
    if kind is dict:
        return ("dict", frozenset((name, _key(each)) for name, each in value.items()))
    return value


def enum_check(values: list[Any]) -> Check:
    keys = frozenset(_key(each) for each in values)
    plain = frozenset(each for each in values if type(each) is str)
    nested = any(type(each) in (list, dict) for each in values)

    def check(value: Any, work: Work) -> str | None:
        kind = type(value)
        if kind is str:
            return None if value in plain else _NOT_LISTED
        if kind in (list, dict):
            if not nested:
                return _NOT_LISTED
            work.spend(size_of(value))
        return None if _key(value) in keys else _NOT_LISTED

    return check


_NOT_LISTED: Final = ": is none of the values in the contract"


def size_of(value: Any) -> int:
    """How many values there are in one."""
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        count += 1
        if type(each) is list:
            waiting += each
        elif type(each) is dict:
            waiting += each.values()
    return count


def range_check(
    low: float | None, high: float | None, above: float | None, below: float | None
) -> Check:  # fmt: skip
    def check(value: Any, _: Work) -> str | None:
        kind = type(value)
        if kind is not int and kind is not float:
            return None
        if (low is not None and value < low) or (above is not None and value <= above):
            return ": is too small"
        if (high is not None and value > high) or (below is not None and value >= below):
            return ": is too large"
        return None

    return check


def step_check(step: float) -> Check:
    def check(value: Any, _: Work) -> str | None:
        kind = type(value)
        if kind is int and type(step) is int:
            return None if value % step == 0 else _NO_MULTIPLE
        if kind is not int and kind is not float:
            return None
        try:
            quotient = value / step
        except OverflowError:
            return _NO_MULTIPLE
        if quotient - quotient != 0:  # over what a float can say
            return None if fmod(value, step) == 0 else _NO_MULTIPLE
        return None if abs(quotient - round(quotient)) < 1e-9 else _NO_MULTIPLE

    return check


_NO_MULTIPLE: Final = ": is no multiple of what the contract says"


def length_check(least: int, most: int | None) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not str:
            return None
        length = len(value)
        if length < least:
            return ": is too short"
        return ": is too long" if most is not None and length > most else None

    return check


def pattern_check(matches: Callable[[str], bool]) -> Check:
    """A text with a match. Where RE2 has to fall back to its NFA, four letters cost as much as a look at a value."""

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not str:
            return None
        work.spend(len(value) >> 2)
        return None if matches(value) else ": does not match its pattern"

    return check


def format_check(name: str, holds: Callable[[str], bool]) -> Check:
    """A text of this format."""
    wrong = f": is no {name}"

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not str:
            return None
        work.spend(len(value) >> 6)
        return None if holds(value) else wrong

    return check


def items_count_check(least: int, most: int | None) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not list:
            return None
        if len(value) < least:
            return ": has too few items"
        return ": has too many items" if most is not None and len(value) > most else None

    return check


def fields_count_check(least: int, most: int | None) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not dict:
            return None
        if len(value) < least:
            return ": has too few fields"
        return ": has too many fields" if most is not None and len(value) > most else None

    return check


def unique(value: Any, work: Work) -> str | None:
    if type(value) is not list:
        return None
    work.spend(size_of(value))
    return ": has an item twice" if len({_key(each) for each in value}) != len(value) else None


def items_check(first: list[Check], rest: Check) -> Check:
    count = len(first)

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not list:
            return None
        work.spend(len(value))
        for index, each in enumerate(value):
            wrong = (first[index] if index < count else rest)(each, work)
            if wrong is not None:
                return f"[{index}]{wrong}"
        return None

    def plain(value: Any, work: Work) -> str | None:
        if type(value) is not list:
            return None
        work.spend(len(value))
        for each in value:
            wrong = rest(each, work)
            if wrong is not None:
                return f"[]{wrong}"
        return None

    return check if first else plain


def contains_check(inner: Check, least: int, most: int | None) -> Check:
    def check(value: Any, work: Work) -> str | None:
        if type(value) is not list:
            return None
        work.spend(len(value))
        count = sum(inner(each, work) is None for each in value)
        good = count >= least and (most is None or count <= most)
        return None if good else ": does not have the items that the contract wants in it"

    return check


def object_check(
    known: Mapping[str, Check], patterned: list[tuple[Callable[[str], bool], Check]], required: tuple[str, ...],
    rest: Check | None,
) -> Check:  # fmt: skip
    get = known.get

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not dict:
            return None
        work.spend(len(value))
        for name in required:
            if name not in value:
                return f".{name}: is missing"
        for name, each in value.items():
            inner = get(name)
            if inner is not None:
                wrong = inner(each, work)
                if wrong is not None:
                    return f".{name}{wrong}"
            if patterned or (inner is None and rest is not None):
                wrong = other(name, each, work, known=inner is not None)
                if wrong is not None:
                    return f".{name[:64]}{wrong}"
        return None

    def other(name: str, each: Any, work: Work, *, known: bool) -> str | None:
        for matches, inner in patterned:
            work.spend(1 + (len(name) >> 2))
            if matches(name):
                known = True
                wrong = inner(each, work)
                if wrong is not None:
                    return wrong
        return rest(each, work) if rest is not None and not known else None

    return check


def only_check(names: frozenset[str], patterns: tuple[Callable[[str], bool], ...]) -> Check:
    """Fields of these names, or of those that match one of these."""

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not dict:
            return None
        work.spend(len(value))
        for name in value:
            if name not in names and not _matches_one(name, patterns, work):
                return f".{name[:64]}: is not in the contract"
        return None

    return check


def _matches_one(name: str, patterns: tuple[Callable[[str], bool], ...], work: Work) -> bool:
    work.spend(len(patterns) * (1 + (len(name) >> 2)))
    return any(matches(name) for matches in patterns)


def names_check(inner: Check) -> Check:
    def check(value: Any, work: Work) -> str | None:
        if type(value) is not dict:
            return None
        work.spend(len(value))
        return next((f".{name[:64]}{wrong}" for name in value if (wrong := inner(name, work)) is not None), None)

    return check


def needs_check(name: str, needed: tuple[str, ...]) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not dict or name not in value:
            return None
        return next((f".{each}: is missing" for each in needed if each not in value), None)

    return check


def where_check(name: str, inner: Check) -> Check:
    return lambda value, work: inner(value, work) if type(value) is dict and name in value else None


def any_check(branches: list[Check]) -> Check:
    def check(value: Any, work: Work) -> str | None:
        work.spend(len(branches))
        wrong: str | None = None
        for branch in branches:
            wrong = branch(value, work)
            if wrong is None:
                return None
        return f": fits none of its kinds (anyOf); of the last: {wrong}"

    return check


def one_check(branches: list[Check]) -> Check:
    def check(value: Any, work: Work) -> str | None:
        work.spend(len(branches))
        fits = sum(branch(value, work) is None for branch in branches)
        return None if fits == 1 else f": fits {fits or 'none'} of its kinds, not one (oneOf)"

    return check


def not_check(inner: Check) -> Check:
    return lambda value, work: ": is what the contract excludes" if inner(value, work) is None else None


def if_check(condition: Check, then: Check, other: Check) -> Check:
    return lambda value, work: (then if condition(value, work) is None else other)(value, work)
