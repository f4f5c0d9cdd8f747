"""Parameters of path, query and header: read from text by their schema's type, then checked by it.

Styles `simple` (path, header) and `form` (query; `explode` or not), for single values and lists (OpenAPI 3.1 section
4.8.12). An object, another style, or a parameter with `content` cannot be read without a guess, and is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from sidecar.contract.checks import Check, Work

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})\Z", re.ASCII)  # within 64 bits, or nearly: more is too large
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,32})?(?:[eE][-+]?[0-9]{1,2})?\Z", re.ASCII)
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
MAX_PARAMETERS: Final = 256  # in one query


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation."""

    name: str  # of a header: lower-case
    place: str  # "path", "query" or "header"
    required: bool
    kinds: frozenset[str]  # the JSON types that its text, or each item of its list, may stand for; none for text
    listed: bool
    explode: bool
    check: Check

    def wrong(self, given: list[str], work: Work) -> str | None:
        """What is wrong with these values of it; of a list that is written as one value, that one."""
        if self.listed:
            texts = given if self.explode and self.place == "query" else None
            if texts is None:
                if len(given) > 1 and self.place != "header":
                    return ": stands twice"
                texts = [part.strip() for text in given for part in text.split(",")]
            return self.check([self._read(text) for text in texts], work)
        if len(given) > 1:
            return ": stands twice"
        value = self._read(given[0])
        wrong = self.check(value, work)
        if wrong is not None and type(value) is not str and "string" in self.kinds:
            return self.check(given[0], work)
        return wrong

    def _read(self, text: str) -> Any:
        """The value that a text stands for; the text itself where it is none of those types, for the check to refuse.
        """
        kinds = self.kinds
        if kinds & {"integer", "number"} and _INTEGER.match(text):
            return int(text)
        if "number" in kinds and _NUMBER.match(text):
            return float(text) if set(text) & set(".eE") else int(text)
        if "boolean" in kinds and text in ("true", "false"):
            return text == "true"
        return text


class BadQuery(ValueError):
    """A query that cannot be read one way."""


def query_of(target: str) -> Mapping[str, list[str]]:
    """The parameters of a target's query, decoded. Raises BadQuery."""
    found: dict[str, list[str]] = {}
    _, _, query = target.partition("?")
    for count, (name, value) in enumerate(_pairs(query)):
        if count >= MAX_PARAMETERS:
            raise BadQuery(f"more than {MAX_PARAMETERS} parameters")
        found.setdefault(name, []).append(value)
    return found


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            yield _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    raw = text.encode("ascii", "replace").replace(b"+", b" ")
    if _BAD_ESCAPE.search(raw):
        raise BadQuery("a % that begins no escape")
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadQuery("an escape that is not UTF-8") from None
