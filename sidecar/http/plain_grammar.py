"""The expressions of plain heads: every header line is ordinary, or one that is known and comes once.

An *ordinary* line travels on and nobody asks what it says. A *known* one has a group of the expression to itself. What
is neither, or comes twice, or has a byte in it that is not beyond doubt, makes the whole expression fail.

Two rules keep that fast, whatever is thrown at it. The alternatives of a line begin with different letters, and no two
of one letter fit the same line, so nothing is read in a second way after it has failed in the first. And each
repetition of characters is possessive, so nothing is given back. No *group* is: CPython before 3.11.5, Debian's among
them, matches possessive groups wrongly (gh-106052).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"  # RFC 9110 section 5.5, without control characters
LENGTH = rb"0|[1-9][0-9]{0,17}"
PERSISTENCE = rb"(?i:keep-alive|close)"
_SYMBOLS = rb"!#$%&'*+\-.^_`|~0-9"
_REST = rb"[" + _SYMBOLS + rb"A-Za-z]*+:" + VALUE + rb"\r\n"  # of a line, behind its first letter
_LETTERS = b"AXHCTUBDEFGIJKLMNOPQRSVWYZ"  # what most lines begin with is asked for first


class Take(Enum):
    """What the group of a known line holds."""

    VALUE = "value"  # perhaps with blanks around it
    LINE = "line"  # from its second letter on, with its CRLF
    NOTHING = "nothing"  # only that it has come


class Known(NamedTuple):
    """A line that may come once."""

    name: bytes  # lower-case
    value: bytes  # an expression
    take: Take


def head(first_line: bytes, known: Sequence[Known], excluded: Iterable[bytes], most: int) -> re.Pattern[bytes]:
    """A whole head of at most so many header lines.

    The groups are those of `first_line`, then one for each known line, which are given in the order of their letters.
    `excluded` are expressions of beginnings that no line may have.
    """
    assert list(known) == sorted(known, key=lambda line: _LETTERS.index(line.name[:1].upper()))
    count = re.compile(first_line).groups
    group = {line.name: count + number for number, line in enumerate(known, 1)}
    barred = [*(line.name + b":" for line in known), *excluded]
    alternatives, free = [], b""
    for letter in map(bytes, zip(_LETTERS)):
        mine = [begin[1:] for begin in barred if begin[:1].upper() == letter]
        if not mine:
            free += letter + letter.lower()
            continue
        kinds = [rb"(?!(?i:" + rb"|".join(mine) + rb"))" + _REST]
        kinds += [_once(group[line.name], line) for line in known if line.name[:1].upper() == letter]
        alternatives.append(rb"[%b%b](?:%b)" % (letter, letter.lower(), rb"|".join(kinds)))
    alternatives.insert(2, rb"[" + _SYMBOLS + free + rb"]" + _REST)
    return re.compile(first_line + rb"(?:" + rb"|".join(alternatives) + rb"){0,%d}\r\n" % most)


def _once(group: int, line: Known) -> bytes:
    """The rest of a known line behind its first letter; it fails where its group is taken."""
    name = rb"(?i:%b):" % line.name[1:]
    if line.take is Take.LINE:
        return rb"(?(%d)(?!)|(%b ?%b\r\n))" % (group, name, line.value)
    if line.take is Take.NOTHING:
        return rb"(?(%d)(?!)|%b ?%b\r\n())" % (group, name, line.value)
    return rb"(?(%d)(?!)|%b ?(%b)\r\n)" % (group, name, line.value)
