"""Every published HTTP/1 message through the real hop, and five servers behind it that must read alike what passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.kit import vectors
from tests.wire.answers import every_answer, read_answer
from tests.wire.decisions import DECISIONS, ODD, key
from tests.wire.hop import Hop, Result, Vector, every_vector

# Servers that are stricter than we are may be; each such refusal is counted, so that a new one is noticed.
MOST_STRICTER = 25


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Vector, Result]]]:
    vectors.folder("http1", "llhttp", "request")
    vectors.folder("http1", "gunicorn", "valid")
    folder = tmp_path_factory.mktemp("vectors")
    folder.chmod(0o755)
    with Hop(folder) as hop:
        yield [(vector, hop.send(vector)) for vector in every_vector()]
        hop.doors.assert_well()


def decisive(results: list[tuple[Vector, Result]]) -> dict[str, tuple[Vector, Result]]:
    """One result a file: that of the message with a Host put in, where it has none."""
    return {key(vector.name): (vector, result) for vector, result in results}


def test_whatever_is_forwarded_every_server_reads_alike_or_refuses(results: list[tuple[Vector, Result]]) -> None:
    odd = {(server, key(vector.name)): fault for vector, result in results for server, fault in result.differences}
    assert odd.keys() <= ODD.keys(), {each: fault for each, fault in odd.items() if each not in ODD}
    compared = [result for _, result in results if result.requests]
    assert len(compared) >= 90
    stricter = Counter(server for _, result in results for server, _ in result.stricter)
    assert stricter.total() <= MOST_STRICTER, stricter


def test_every_difference_from_a_publishers_verdict_is_a_written_decision(
    results: list[tuple[Vector, Result]],
) -> None:
    differ = {
        name
        for name, (vector, result) in decisive(results).items()
        if (vector.expected == "taken" and result.verdict != "taken")
        or (vector.expected == "refused" and result.verdict == "taken")
    }
    decided = {name for name in DECISIONS if not name.startswith("llhttp/response/")}
    assert differ - decided == set(), "no decision is written for these"
    assert decided - differ == set(), "these are no differences any more"


def test_without_a_host_nothing_of_http11_passes(results: list[tuple[Vector, Result]]) -> None:
    for (vector, result), (following, _) in pairwise(results):
        if following.name == f"{vector.name} + Host" and b" HTTP/1.0" not in vector.raw:
            assert result.requests == [], vector.name


def test_answers_are_read_as_llhttp_reads_them_or_for_a_written_reason() -> None:
    differ = set()
    for name, raw, expected in every_answer():
        found = read_answer(raw, eof=True)
        if (expected == "taken") != (found == "taken") and not (expected == "lenient" and found != "taken"):
            differ.add(key(name))
        if expected == "lenient" and found == "taken":
            assert read_answer(raw, eof=False) in ("taken", "waits"), name
    lenient = {key(name) for name, _, expected in every_answer() if expected == "lenient"}
    decided = {name for name in DECISIONS if name.startswith("llhttp/response/")}
    assert differ - lenient == decided
