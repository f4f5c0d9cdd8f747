"""JSON bodies with one reading: UTF-8, no duplicate keys, no NaN, no lone surrogates, bounded in depth and number.

RFC 8259 leaves duplicate names, huge numbers and lone surrogates to each reader (sections 4, 6 and 8.2), and so two
programs may see two different texts in one (RFC 7493 forbids all three). Whatever is doubtful is refused here.

Theory of operation. The standard library's reader does the work in C. What it would take long over is refused before
it begins: the depth and the number of values are counted on the text without its strings, by expressions that are
linear. So a body of 1 MiB costs milliseconds, whatever is in it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 20_000  # 20 ms of checks at most; a list of a thousand orders of 20 fields

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # also without an end: linear
_NOT_NESTING: Final = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LARGEST: Final = 2**63  # integers beyond are floats elsewhere, and silently another number
_HUGE: Final = re.compile(rb"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")  # where a number may be beyond those bounds


class NotJson(ValueError):
    """The bytes are no JSON that has one reading. The message says why, without quoting them."""


def parse(body: bytes, most_values: int = MAX_VALUES) -> Any:
    """The value of a JSON text of at most MAX_BYTES. Raises NotJson."""
    if len(body) > MAX_BYTES:
        raise NotJson(f"over {MAX_BYTES} bytes")
    _bound(body, most_values)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"byte {error.start} is not UTF-8") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg}, at character {error.pos}") from None
    except RecursionError:
        raise NotJson(f"nested over {MAX_DEPTH} levels deep") from None
    except NotJson:
        raise
    except ValueError:  # more digits than Python reads (sys.set_int_max_str_digits)
        raise NotJson("a number that is too large") from None
    if _ESCAPED_SURROGATE.search(body) or _HUGE.search(body):
        _walk(value)
    return value


def _bound(body: bytes, most_values: int) -> None:
    """Count what makes it expensive: a comma or an opening bracket for each value, brackets for depth."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > most_values or body.count(b"[") + body.count(
        b"{"
    ) > MAX_DEPTH:
        bare = _STRINGS.sub(b"", body) if b'"' in body else body
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > most_values:
            raise NotJson(f"more than {most_values} values")
        depth = 0
        for bracket in bare.translate(None, _NOT_NESTING):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise NotJson(f"nested over {MAX_DEPTH} levels deep")
            if depth < 0:
                raise NotJson("a bracket that nothing has opened")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotJson("a key that stands twice in one object")
    return found


def _constant(_: str) -> NoReturn:
    raise NotJson("NaN and Infinity are no JSON")


def _walk(value: Any) -> None:
    """Refuse lone surrogates, and numbers that readers differ on (RFC 7493 sections 2.1 and 2.2)."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind is dict:
            waiting += each
            waiting += each.values()
        elif kind is list:
            waiting += each
        elif kind is str:
            if _SURROGATE.search(each):
                raise NotJson("a lone surrogate")
        elif (kind is int and not -_LARGEST <= each < 2 * _LARGEST) or (kind is float and each - each != 0):
            raise NotJson("a number that is too large")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
