"""The corpus: names, reasons, lengths that are what they claim; and its own readings, read by its own origin."""

from __future__ import annotations

import re
import socket
from collections import Counter

import pytest

from sidecar.conformance.answers import Answer
from sidecar.conformance.case import HOST, Case, size_of
from sidecar.conformance.corpus import CASES, choose, digest
from sidecar.conformance.judge import Observation, Outcome, judge
from sidecar.conformance.origin import Origin, Seen
from tests.kit.processes import eventually

SUBJECTS = {"control", "framing", "chunks", "lines", "request-line", "paths", "hosts", "fields", "exchange"}


def test_every_case_has_its_own_name_a_subject_a_section_and_one_sentence_why() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert {case.group for case in CASES} == SUBJECTS
    for case in CASES:
        assert re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]+", case.name), case.name
        assert re.match(r"RFC \d{4} [0-9C]|D\d+", case.section), case.name
        assert case.why.endswith("."), case.name
        assert len(case.why) <= 130, case.name
        assert case.accept or not case.must_pass, case.name


def test_lengths_are_made_for_the_host_that_is_asked_for() -> None:
    inner = b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
    case = Case("a/b", "", "", b"Content-Length: " + size_of(inner) + b"\r\n\r\n" + inner)
    for host in (b"a", b"orders.example:8080"):
        head, _, body = case.bytes_for(host).partition(b"\r\n\r\n")
        assert int(head.partition(b": ")[2]) == len(body)
        assert host in body


def test_choosing_by_pattern_leaves_out_our_own_promises_unless_asked() -> None:
    assert {case.group for case in choose(("paths/*",), ours=False)} == {"paths"}
    assert [case.name for case in choose(("paths/dot", "control/get"), ours=False)] == ["control/get", "paths/dot"]
    assert not any(case.ours for case in choose((), ours=False))
    assert len(choose((), ours=True)) == len(CASES)
    assert choose(("nothing/*",), ours=True) == []
    assert re.fullmatch("[0-9a-f]{12}", digest())


@pytest.mark.parametrize("case", [case for case in CASES if case.must_pass], ids=lambda case: case.name)
def test_a_strict_origin_reads_every_control_as_the_corpus_does(case: Case) -> None:
    """The controls sent to the origin itself: the corpus and its own judge agree on what is good."""
    with Origin() as origin, socket.create_connection(origin.address) as sock:
        sock.sendall(case.bytes_for(b"app"))
        found: list[Seen] = []
        eventually("all requests", lambda: found.extend(origin.take()) or len(found) >= case.answers)
    verdict = judge(case, Observation([Answer(200)], False, found), b"app", b"app")
    if case.name not in ("control/empty-line-first",):
        assert verdict.outcome is Outcome.FORWARDED, verdict
