"""The log as a hash chain: how a line is written, and how each line vouches for all before it. Pure.

A line is one JSON object on one line: `n` (its number, from 1 up), `at` (seconds since the epoch), `kind`, and what
that kind has to say. Its hash is SHA-256 over the hash of the line before it, a newline, and the very text of the line;
the first line follows 64 zeros. So the text that was stored is the text that is hashed: nothing is ever rendered again,
and `sha256sum` is all that an outsider needs to follow the chain.

Kinds: `issued` · `slot` (a signing key changed its state) · `revoked`, `unrevoked` · `entry_added`, `entry_removed` ·
`key_added`, `key_revoked` · `token_made`, `token_used` · `jwt_key` (as `slot`), `jwt_issued` · `cluster_added`,
`cluster_removed` · `rotation` (`ca.rotation`) · `federation_added`, `federation_removed`, `federated_bundle` ·
`audit_head` (`ca.witness`) · `migrated`, `restored`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

BEFORE_THE_FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends: the number and the hash of its last line; 0 and 64 zeros while it is empty."""

    number: int = 0
    hash: str = BEFORE_THE_FIRST


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log, as it is stored."""

    number: int
    text: str
    hash: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the line says. Raises ValueError where it is no JSON object."""
        found = json.loads(self.text)
        if not isinstance(found, dict):
            raise ValueError("a line of the log is not a JSON object")
        return found

    @property
    def head(self) -> Head:
        """The log's head while this was its last line."""
        return Head(self.number, self.hash)


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be logged: when, what kind, and what it says. Its number comes with its place in the chain."""

    at: float
    kind: str
    facts: dict[str, Any]


def hash_of(previous: str, text: str) -> str:
    """The hash of a line that follows a line with the hash `previous`."""
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def append(head: Head, events: Iterable[Event]) -> Iterator[Line]:
    """These events as the next lines after `head`."""
    number, previous = head.number, head.hash
    for event in events:
        number += 1
        text = _encode({"n": number, "at": event.at, "kind": event.kind, **event.facts})
        previous = hash_of(previous, text)
        yield Line(number, text, previous)


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
