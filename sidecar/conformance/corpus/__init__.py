"""The corpus, as data: `CASES` (HTTP/1) and `H2_CASES` (HTTP/2), in the order of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sidecar.conformance.case import Case
from sidecar.conformance.corpus import (
    chunks,
    control,
    exchange,
    fields,
    framing,
    h2_bodies,
    h2_connections,
    h2_heads,
    h2_protocol,
    hosts,
    lines,
    paths,
    request_line,
)
from sidecar.conformance.h2case import H2Case

CASES: tuple[Case, ...] = (
    *control.CASES, *framing.CASES, *chunks.CASES, *lines.CASES, *request_line.CASES, *paths.CASES, *hosts.CASES,
    *fields.CASES, *exchange.CASES,
)  # fmt: skip
H2_CASES: tuple[H2Case, ...] = (*h2_connections.CASES, *h2_heads.CASES, *h2_bodies.CASES, *h2_protocol.CASES)


def digest(cases: Sequence[Case] = CASES) -> str:
    """Names this state of the corpus, so that two tables can be compared."""
    return hashlib.sha256(repr(tuple(cases)).encode()).hexdigest()[:12]


def choose(patterns: tuple[str, ...], ours: bool, *, http2: bool = False) -> list[Case]:
    """The cases whose names match one of these shell patterns (all, where there is none)."""
    from fnmatch import fnmatchcase

    wanted = [case for case in (H2_CASES if http2 else CASES) if ours or not case.ours]
    return [case for case in wanted if not patterns or any(fnmatchcase(case.name, pattern) for pattern in patterns)]
