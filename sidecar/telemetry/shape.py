"""The shape of a path: its segments with everything that looks like an identifier folded to `{id}`.

The audit counts permits by shape, so that a million orders are one line, and tools learn rules from it later. A segment
is folded when it has three digits or more, no letters, is a UUID, eight or more hex digits, long and mixed like base64,
holds a character outside `A-Z a-z 0-9 . _ ~ -`, or is longer than 40. What remains are words and versions: `orders`,
`v1`, `oauth2`. An extension survives (`{id}.json`). Words that *are* identifiers (`/users/alice`) cannot be told from
others; the bound on the number of shapes in audit.py is what holds those.

Folding twice changes nothing, and no digits-only segment ever survives.
"""

from __future__ import annotations

import re

ID = "{id}"
REST = "…"
MAX_SEGMENTS = 12  # further ones become one `…`
_MAX_PLAIN = 40
_MAX_WORDS = 1024

_WORD = re.compile(r"[A-Za-z]{1,15}\Z")
_PLAIN = re.compile(rf"[A-Za-z0-9._~-]{{1,{_MAX_PLAIN}}}\Z")
_EXTENSION = re.compile(r"(.+)(\.[A-Za-z]{1,5})\Z", re.DOTALL)
_HEX = re.compile(r"[0-9A-Fa-f]{8,}\Z")
_DIGIT = re.compile(r"[0-9]")
_LETTER = re.compile(r"[A-Za-z]")
_WORDS: set[str] = set()  # segments that are their own shape, as far as they have been met
_MIXED_CASE = re.compile(r"(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_-]{16,}\Z")


def path_shape(segments: tuple[str, ...]) -> str:
    """The path with identifiers folded: `/orders/{id}/items`."""
    if len(segments) > MAX_SEGMENTS:
        return "/" + "/".join(map(segment_shape, segments[:MAX_SEGMENTS])) + "/" + REST
    return "/" + "/".join(map(segment_shape, segments))


def segment_shape(segment: str) -> str:
    """One segment, `{id}` where it looks like an identifier."""
    if segment in _WORDS:
        return segment
    if segment.isdecimal() and segment.isascii():
        return ID
    shape = _shape(segment)
    if shape == segment and len(_WORDS) < _MAX_WORDS:
        _WORDS.add(segment)
    return shape


def _shape(segment: str) -> str:
    if _WORD.match(segment) and not _HEX.match(segment):
        return segment
    if segment in (ID, REST, ""):
        return segment
    named = _EXTENSION.match(segment)
    if named is not None:
        stem = named.group(1)
        return segment if stem == ID else _folded(stem, segment, named.group(2))
    return ID if _is_identifier(segment) else segment


def _folded(stem: str, segment: str, extension: str) -> str:
    if len(segment) > _MAX_PLAIN or not _PLAIN.match(segment):
        return ID
    return ID + extension if _is_identifier(stem) else segment


def _is_identifier(text: str) -> bool:
    if not _PLAIN.match(text):
        return True
    digits = len(_DIGIT.findall(text))
    return (
        digits >= 3
        or not _LETTER.search(text)
        or _HEX.match(text) is not None
        or (len(text) >= 16 and digits > 0)
        or _MIXED_CASE.match(text) is not None
    )
