"""By-passes and smuggling: every case through every door of ours; and the same corpus against proxies of others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.cli.root import run_command
from sidecar.conformance import report
from sidecar.conformance.corpus import CASES, H2_CASES, digest
from sidecar.conformance.judge import Outcome
from sidecar.conformance.origin import Origin
from tests.kit.doors import Doors
from tests.kit.free_ports import free_port
from tests.wire import battery

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "conformance.md").read_text()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Doors, Origin]]:
    with battery.our_doors(tmp_path_factory.mktemp("doors")) as both:
        yield both


@pytest.mark.parametrize("door", battery.DOORS)
def test_every_case_is_refused_or_passes_in_its_one_reading(ours: tuple[Doors, Origin], door: str) -> None:
    verdicts = battery.through(door, *ours)
    assert report.findings(verdicts) == []
    assert {verdict.case.name for verdict in verdicts if verdict.outcome is Outcome.HELD} == battery.unfinished(door)
    assert not [verdict for verdict in verdicts if verdict.outcome in (Outcome.CLOSED, Outcome.ANSWERED)]
    ours[0].assert_well()


def test_the_verb_itself_over_mtls_and_through_the_forward_proxy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in docs/conformance.md: the suite is the application behind app's sidecar."""
    port = free_port()
    which = ["--origin", f"127.0.0.1:{port}", "--mesh", "--only", "control/*", "--only", "framing/c*", "-o", "json"]
    with Doors(tmp_path, port) as doors:
        keys = ["--cert", str(doors.certificate), "--key", str(doors.key), "--ca", str(doors.ca), "--host", "app"]
        ways = {
            f"https://127.0.0.1:{doors.ports.app_in}": keys,
            f"http://127.0.0.1:{doors.ports.door}": ["--origin-host", "app"],
            "http://app:80": ["--host", "app", "--forward-proxy", f"127.0.0.1:{doors.ports.proxy}"],
        }
        for url, how in ways.items():
            code = run_command(["conformance", url, *how, *which])
            document = json.loads(capsys.readouterr().out)
            assert (code, document["passed"], document["origin"]) == (0, True, True), document
            assert document["totals"]["forwarded"] >= 28
            over = [*how, "--http2", "--only", "h2-control/*", "--only", "h2-chunks/*"]
            code = run_command(["conformance", url, *over, *which[:3], "-o", "json"])
            document = json.loads(capsys.readouterr().out)
            assert (code, document["passed"], document["corpus"]) == (0, True, digest(H2_CASES)), document
            assert document["totals"]["forwarded"] >= 36
        without = run_command(["conformance", f"https://127.0.0.1:{doors.ports.app_in}", "--ca", str(doors.ca), *which])
        assert without == 3  # no certificate, no answer
        assert "cannot be tested" in capsys.readouterr().err


# ---- others ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def others() -> battery.Runs:
    return battery.against_all(battery.present())


@pytest.mark.parametrize("name", battery.COMPARED)
def test_the_suite_runs_against_others_and_can_tell_good_from_bad(name: str, others: battery.Runs) -> None:
    battery.program(name)
    found = others[name]
    if isinstance(found, BaseException):
        raise found
    label, verdicts = found
    assert [verdict for verdict in verdicts if verdict.case.must_pass and not verdict.passed] == []
    assert any(not verdict.passed for verdict in verdicts)  # none of them holds decision D4, for one
    assert not [verdict for verdict in verdicts if verdict.outcome is Outcome.POISONED]
    assert f"| {label.partition(' ')[0]} " in PAGE


# ---- the published page ----------------------------------------------------------------------------------------------


def test_the_published_tables_are_of_this_corpus_and_we_pass_all_of_it() -> None:
    counts = []
    for cases in (CASES, H2_CASES):
        told = f"Corpus `{digest(cases)}`: {len(cases)} cases"
        assert told in PAGE, "python -m tests.wire.publish > docs/conformance.md"
        counts += [(str(len(cases)), str(len(cases)))] * len(battery.DOORS)
    rows = re.findall(r"^\| mesh [^|]+\| (\d{4}-\d\d-\d\d) \| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)
    assert [(cases, passed) for _, cases, passed in rows] == counts
