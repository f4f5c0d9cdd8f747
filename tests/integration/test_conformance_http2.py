"""HTTP/2 in, HTTP/1.1 out: every case through our doors and others', and six servers that read alike what we pass on.

The suite itself, its verb and the published page are tested in test_conformance.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.conformance import h2case, report, runner
from sidecar.conformance.corpus import h2_protocol
from sidecar.conformance.judge import Outcome
from sidecar.conformance.origin import Origin
from tests.kit.doors import Doors
from tests.wire import battery
from tests.wire.hop import Hop, Result, Vector, every_control, every_h2_case

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "conformance.md").read_text()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Doors, Origin]]:
    with battery.our_doors(tmp_path_factory.mktemp("doors")) as both:
        yield both


@pytest.mark.parametrize("door", battery.DOORS)
def test_every_case_over_http_2_is_refused_or_leaves_by_http_1_in_its_one_reading(
    ours: tuple[Doors, Origin], door: str
) -> None:
    verdicts = battery.through(door, *ours, http2=True)
    assert report.findings(verdicts) == []
    assert {one.case.name for one in verdicts if one.outcome is Outcome.HELD} == battery.UNFINISHED_H2
    assert {one.case.name for one in verdicts if one.outcome is Outcome.ANSWERED} == battery.tunnels(door)
    ours[0].assert_well()


@pytest.mark.parametrize("case", [case for case in h2_protocol.CASES if case.name in h2_protocol.DEMANDS],
                         ids=lambda case: case.name)  # fmt: skip
def test_each_error_has_the_code_and_the_scope_that_the_rfc_demands(
    ours: tuple[Doors, Origin], case: h2case.H2Case
) -> None:
    ends, codes = h2_protocol.DEMANDS[case.name]
    heard, closed = runner.converse(ours[0].over_http2("inbound"), case, battery.LONG_PATIENCE)
    if ends == "stream":
        assert (heard.reset in {code.name for code in codes}, heard.goaway) == (True, "")
    else:
        assert heard.goaway in {code.name for code in codes}
        assert closed


@pytest.fixture(scope="module")
def others() -> battery.Runs:
    return battery.against_all(battery.present(), http2=True)


@pytest.mark.parametrize("name", battery.COMPARED)
def test_the_suite_runs_against_others_over_http_2(name: str, others: battery.Runs) -> None:
    battery.program(name)
    found = others[name]
    if isinstance(found, BaseException):
        raise found
    label, verdicts = found
    unserved = [verdict.case.name for verdict in verdicts if verdict.outcome is Outcome.NOT_SERVED]
    assert len(unserved) <= 4, unserved  # what they do not speak, such as trailers in a request
    assert any(not verdict.passed for verdict in verdicts)
    assert not [verdict for verdict in verdicts if verdict.outcome is Outcome.POISONED]
    assert PAGE.count(f"| {label.partition(' ')[0]} ") >= 2


# ---- real back ends --------------------------------------------------------------------------------------------------


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


# What a server does not speak, for all that it is HTTP/2: a request with trailers.
UNSPOKEN = {("nginx", "h2-control/trailers", 503)}


def test_servers_that_are_asked_by_http_2_read_every_good_message_alike(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """HTTP/1.1 or HTTP/2 in, HTTP/2 out (`app_http: http2`)."""
    folder = tmp_path_factory.mktemp("upgrade")
    folder.chmod(0o755)
    with Hop(folder, http2=True) as hop:
        results = [(vector.name, hop.send(vector)) for vector in every_control()]
        hop.doors.assert_well()
    assert [(name, result.differences) for name, result in results if result.differences] == []
    assert {(server, name, code) for name, result in results for server, code in result.stricter} == UNSPOKEN
    assert sum(bool(result.requests) for _, result in results) == len(results)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_with_http_2_between_the_sidecars_every_case_is_as_safe(tmp_path: Path, http2: bool) -> None:
    """HTTP/1.1 or HTTP/2 in, HTTP/2 between (`upgrade: h2`), HTTP/1.1 out."""
    with Origin() as origin, Doors(tmp_path, origin.address[1], upgrade="h2") as doors:
        assert report.findings(battery.through("outbound", doors, origin, http2=http2)) == []
        doors.assert_well()
