"""`pattern` of JSON Schema without the danger: matched by RE2, in time linear in the text.

JSON Schema's expressions are ECMA-262's (draft 2020-12, section 6.4), which a few letters can make take for ever. RE2
has no look-around and no back-references, and needs none of their time. What it cannot read is a mistake in the
contract, with its line. Differences that remain: `\\s` and `\\w` mean ASCII alone, `.` excludes only the line feed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_PATTERN: Final = 512  # characters; RE2's programs grow with counted repetitions
MAX_TEXT: Final = 64 * 1024  # characters that one is matched against: about 10 ms where RE2 falls back to its NFA
_MEMORY: Final = 1 << 20  # bytes of one program and what it keeps

_CODE_POINT: Final = re.compile(r"\\u(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{4}))")


class Dangerous(ValueError):
    """The expression is none that can be matched in bounded time."""


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a text has a match anywhere in it. Raises Dangerous."""
    import re2  # type: ignore[import-untyped]  # most have no contract, and it is memory

    if len(pattern) > MAX_PATTERN:
        raise Dangerous(f"is {len(pattern)} characters long; at most {MAX_PATTERN} are compiled")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        search = re2.compile(_CODE_POINT.sub(lambda m: f"\\x{{{m[1] or m[2]}}}", pattern), options).search
    except re2.error as error:
        said = error.args[0] if error.args else b""
        said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise Dangerous(f"cannot be matched in bounded time: {said}") from None
    return lambda text: len(text) <= MAX_TEXT and search(text) is not None
