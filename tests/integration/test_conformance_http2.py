"""Whatever comes in by HTTP/2 and goes on leaves by HTTP/1.1 in one reading: six servers behind the sidecar agree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.hop import Hop, Result, Vector, every_h2_case


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Vector, Result]]]:
    folder = tmp_path_factory.mktemp("downgrade")
    folder.chmod(0o755)
    with Hop(folder) as hop:
        yield [(vector, hop.send(vector)) for vector in every_h2_case()]
        hop.doors.assert_well()


# What a server does with one message, although it reads it as we do.
ODD: dict[tuple[str, str], str] = {}


def test_whatever_is_forwarded_every_server_reads_alike_or_refuses(results: list[tuple[Vector, Result]]) -> None:
    found = {(server, vector.name): fault for vector, result in results for server, fault in result.differences}
    assert found.keys() == ODD.keys(), found
    assert sum(bool(result.requests) for _, result in results) >= 45
    stricter = [(server, vector.name, code) for vector, result in results for server, code in result.stricter]
    assert len(stricter) <= 5, stricter


def test_every_control_was_forwarded(results: list[tuple[Vector, Result]]) -> None:
    assert [vector.name for vector, result in results if vector.expected == "taken" and not result.requests] == []
