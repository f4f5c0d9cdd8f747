"""The corpus, as data: `CASES` in the order of the files."""

from __future__ import annotations

import hashlib

from sidecar.conformance.case import Case
from sidecar.conformance.corpus import chunks, control, exchange, fields, framing, hosts, lines, paths, request_line

CASES: tuple[Case, ...] = (
    *control.CASES, *framing.CASES, *chunks.CASES, *lines.CASES, *request_line.CASES, *paths.CASES, *hosts.CASES,
    *fields.CASES, *exchange.CASES,
)  # fmt: skip


def digest() -> str:
    """Names this state of the corpus, so that two tables can be compared."""
    return hashlib.sha256(repr(CASES).encode()).hexdigest()[:12]


def choose(patterns: tuple[str, ...], ours: bool) -> list[Case]:
    """The cases whose names match one of these shell patterns (all, where there is none)."""
    from fnmatch import fnmatchcase

    wanted = [case for case in CASES if ours or not case.ours]
    return [case for case in wanted if not patterns or any(fnmatchcase(case.name, pattern) for pattern in patterns)]
