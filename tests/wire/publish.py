"""Prints docs/conformance.md: `python -m tests.wire.publish > docs/conformance.md`. Takes some minutes."""

from __future__ import annotations

import datetime
import sys
import tempfile
from pathlib import Path
from typing import Any

from sidecar.conformance import report
from sidecar.conformance.corpus import CASES, H2_CASES, digest
from tests.wire import battery
from tests.wire.decisions import decisions_table

PAGE = Path(__file__).with_name("page.md")


def runs(*, http2: bool) -> list[dict[str, Any]]:
    """Every run of one of the page's tables, as the documents that `mesh conformance -o json` prints."""
    today = datetime.datetime.now(datetime.UTC).date()
    found = []
    with tempfile.TemporaryDirectory(prefix="mesh-cf-") as folder, battery.our_doors(Path(folder)) as (doors, origin):
        for door in battery.DOORS:
            verdicts = battery.through(door, doors, origin, http2=http2)
            found.append(report.document(battery.LABELS[door], verdicts, origin=True, when=today))
    for name, result in battery.against_all(battery.COMPARED, http2=http2).items():
        if isinstance(result, BaseException):
            raise SystemExit(f"{name} cannot be run: {result}")
        found.append(report.document(result[0], result[1], origin=True, when=today))
    return found


def page(http1: list[dict[str, Any]], http2: list[dict[str, Any]]) -> str:
    """The page around the tables of these runs."""
    text = PAGE.read_text()
    for found, cases, suffix in ((http1, CASES, ""), (http2, H2_CASES, "-H2")):
        doors = len(battery.DOORS)
        ours, theirs = found[:doors], sorted(found[doors:], key=lambda run: str(run["label"]).lower())
        own = sum(case.ours for case in cases)
        for mark, value in (
            ("CORPUS", f"Corpus `{digest(cases)}`: {len(cases)} cases, of which {own} hold promises that only this mesh"
                       " makes and concern nobody else."),
            ("TOTALS", report.totals_table([*ours, *theirs])),
            ("GROUPS", report.groups_table([*ours[:1], *theirs])),
            ("FINDINGS", report.findings_table([*ours[:1], *theirs])),
        ):  # fmt: skip
            text = text.replace(f"<!-- {mark}{suffix} -->", value)
    return text.replace("<!-- DECISIONS -->", decisions_table())


if __name__ == "__main__":
    sys.stdout.write(page(runs(http2=False), runs(http2=True)))
