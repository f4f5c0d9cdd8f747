"""JSON bodies with one reading: UTF-8, no duplicate keys, no NaN, no lone surrogates, bounded in depth and number.

RFC 8259 leaves duplicate names, huge numbers and lone surrogates to each reader (sections 4, 6 and 8.2), and so two
programs may see two different texts in one (RFC 7493 forbids all three). Whatever is doubtful is refused here.

Theory of operation. The standard library's reader does the work in C. What it would take long over is refused before
it begins: the number of values is counted on the text without its strings, by an expression that is linear. So a body
of 1 MiB costs milliseconds, whatever is in it.

Most bodies are read by a quick reader, which calls back for objects and for fractions alone. It is sure of all integers
where no 19 digits stand in a row, and that no key stands twice where its objects have as many members as the text has
colons behind quotes: a text cannot have fewer of those than members, as long as no colon stands behind a blank. Where
either is in doubt (a text that begins with a colon will do), the strict reader reads it again.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from certs.strict_json import no_constant, unique

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 20_000  # 20 ms of checks at most; a list of a thousand orders of 20 fields

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # also without an end: linear
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LARGEST: Final = 2**63  # integers beyond are floats elsewhere, and silently another number
_SURE: Final = 18  # digits of a number that is within those bounds for sure
_DIGITS: Final = bytes(ord("0") if chr(each).isdigit() and each < 128 else each for each in range(256))
_TOO_MANY: Final = b"0" * (_SURE + 1)
_SPACED: Final = (b" :", b"\t:", b"\n:", b"\r:")
_LEAVES: Final = frozenset((str, int, float, bool, type(None)))


class NotJson(ValueError):
    """The bytes are no JSON that has one reading. The message says why, without quoting them."""


def parse(body: bytes, most_values: int = MAX_VALUES) -> Any:
    """The value of a JSON text of at most MAX_BYTES. Raises NotJson."""
    if len(body) > MAX_BYTES:
        raise NotJson(f"over {MAX_BYTES} bytes")
    if len(body) > most_values:
        _bound(body, most_values)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"byte {error.start} is not UTF-8") from None
    try:
        value = _read(body, text)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg}, at character {error.pos}") from None
    except ValueError as error:
        raise NotJson(str(error)) from None
    except RecursionError:  # from Python's own limit, far above ours
        raise NotJson(f"nested over {MAX_DEPTH} levels deep") from None
    if _ESCAPED_SURROGATE.search(body):
        _check_texts(value)
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and type(value) in (dict, list):
        _check_depth(value)
    return value


def write(value: Any) -> bytes:
    """A value that was read, as JSON without blanks."""
    return _ENCODE(value).encode()


def _read(body: bytes, text: str) -> Any:
    if _TOO_MANY in body.translate(_DIGITS):
        return _STRICT.decode(text)
    _members[0] = 0
    value = _QUICK.decode(text)
    if body.count(b'":') == _members[0] and not any(mark in body for mark in _SPACED):
        return value
    return _STRICT.decode(text)


def _bound(body: bytes, most_values: int) -> None:
    """Count what makes it expensive: a comma or an opening bracket for each value."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > most_values:
        # A value has at most two strings, its name and itself; a quote behind a backslash may be inside of one.
        if body.count(b'"') - body.count(b'\\"') > 4 * (most_values + 1):
            raise NotJson(f"more than {most_values} values")
        bare = _STRINGS.sub(b"", body)
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > most_values:
            raise NotJson(f"more than {most_values} values")


def _check_depth(value: Any) -> None:
    """Look at all objects and lists of one level, then at those of the next."""
    level, depth = [value], 0
    while level:
        if depth >= MAX_DEPTH:
            raise NotJson(f"nested over {MAX_DEPTH} levels deep")
        depth += 1
        below = []
        for each in level:
            values = each.values() if type(each) is dict else each
            if not _LEAVES.issuperset(map(type, values)):
                below += [inner for inner in values if type(inner) not in _LEAVES]
        level = below


def _int(text: str) -> int:
    if len(text) > _SURE and (len(text) > _SURE + 2 or not -_LARGEST <= int(text) < 2 * _LARGEST):
        raise NotJson("a number that is too large")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise NotJson("a number that is too large")
    return value


def _count(found: dict[str, Any]) -> dict[str, Any]:
    _members[0] += len(found)
    return found


def _check_texts(value: Any) -> None:
    """Refuse lone surrogates (RFC 7493 section 2.1)."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind is dict:
            waiting += each
            waiting += each.values()
        elif kind is list:
            waiting += each
        elif kind is str and _SURROGATE.search(each):
            raise NotJson("a lone surrogate")


_members = [0]  # of the objects of the text that is being read; nobody waits meanwhile, and one thread reads bodies
_QUICK: Final = json.JSONDecoder(object_hook=_count, parse_constant=no_constant, parse_float=_float)
_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=unique, parse_constant=no_constant, parse_int=_int, parse_float=_float
)
_ENCODE: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode  # fmt: skip
