"""Prints docs/conformance.md: `python -m tests.wire.publish > docs/conformance.md`. Takes a minute."""

from __future__ import annotations

import datetime
import sys
import tempfile
from pathlib import Path
from typing import Any

from sidecar.conformance import report
from sidecar.conformance.corpus import CASES, digest
from tests.wire import battery
from tests.wire.decisions import decisions_table

PAGE = Path(__file__).with_name("page.md")


def runs() -> list[dict[str, Any]]:
    """Every run of the page, as the documents that `mesh conformance -o json` prints."""
    today = datetime.datetime.now(datetime.UTC).date()
    found = []
    with tempfile.TemporaryDirectory(prefix="mesh-cf-") as folder, battery.our_doors(Path(folder)) as (doors, origin):
        for door in battery.DOORS:
            verdicts = battery.through(door, doors, origin)
            found.append(report.document(battery.LABELS[door], verdicts, origin=True, when=today))
    for name, result in battery.against_all(battery.COMPARED).items():
        if isinstance(result, BaseException):
            raise SystemExit(f"{name} cannot be run: {result}")
        found.append(report.document(result[0], result[1], origin=True, when=today))
    return found


def page(found: list[dict[str, Any]]) -> str:
    """The page around the tables of these runs."""
    doors = len(battery.DOORS)
    ours, theirs = found[:doors], sorted(found[doors:], key=lambda run: str(run["label"]).lower())
    text = PAGE.read_text()
    for mark, value in (
        ("CORPUS", f"Corpus `{digest()}`: {len(CASES)} cases, of which {sum(case.ours for case in CASES)} hold promises"
                   " that only this mesh makes and concern nobody else."),
        ("TOTALS", report.totals_table([*ours, *theirs])),
        ("GROUPS", report.groups_table([*ours[:1], *theirs])),
        ("FINDINGS", report.findings_table([*ours[:1], *theirs])),
        ("DECISIONS", decisions_table()),
    ):  # fmt: skip
        text = text.replace(f"<!-- {mark} -->", value)
    return text


if __name__ == "__main__":
    sys.stdout.write(page(runs()))
