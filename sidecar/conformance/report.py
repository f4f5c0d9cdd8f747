"""What is told: totals and findings as text, one JSON document, or a Markdown page that compares several runs."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sidecar.conformance.case import Case
from sidecar.conformance.corpus import CASES, H2_CASES, digest
from sidecar.conformance.judge import SAFE, Outcome, Verdict

_SHORT = {
    "forwarded": "one reading", "refused": "refused", "reset": "reset", "closed": "closed", "answered": "own answer",
    "held": "held",
    "passed on": "passed on", "misread": "**misread**", "smuggled": "**smuggled**", "malformed": "**malformed**",
    "poisoned": "**poisoned**", "not served": "**not served**",
}  # fmt: skip


def document(label: str, verdicts: Sequence[Verdict], *, origin: bool, when: datetime.date) -> dict[str, Any]:
    """A run as JSON: what `-o json` prints and `--markdown` reads."""
    return {
        "v": 1,
        "label": label,
        "date": when.isoformat(),
        "corpus": digest(H2_CASES if verdicts and verdicts[0].case in H2_CASES else CASES),
        "origin": origin,
        "passed": all(verdict.passed for verdict in verdicts),
        "totals": dict(sorted(totals(verdicts).items())),
        "cases": [
            {"name": verdict.case.name, "outcome": verdict.outcome.value, "status": verdict.status,
             "passed": verdict.passed, "detail": verdict.detail}
            for verdict in verdicts
        ],
    }  # fmt: skip


def totals(verdicts: Iterable[Verdict]) -> Counter[str]:
    """How many cases had which outcome."""
    return Counter(verdict.outcome.value for verdict in verdicts)


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line: how many passed, and how."""
    counts = totals(verdicts)
    parts = ", ".join(f"{counts[outcome.value]} {outcome.value}" for outcome in Outcome if counts[outcome.value])
    return f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} cases passed: {parts}"


def findings(verdicts: Iterable[Verdict]) -> list[tuple[str, str, str, str]]:
    """The cases that did not pass: name, outcome, what was seen, and why it matters."""
    return [
        (verdict.case.name, verdict.outcome.value, verdict.detail, f"{verdict.case.section}: {verdict.case.why}")
        for verdict in verdicts
        if not verdict.passed
    ]


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """The tables of several runs side by side, from their JSON documents."""
    return "\n\n".join((totals_table(runs), groups_table(runs), findings_table(runs))) + "\n"


def _by_name(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in run["cases"]}


def _cases_of(runs: Sequence[dict[str, Any]]) -> list[Case]:
    """The cases that any of these runs asked, in the corpus's order."""
    asked = {case["name"] for run in runs for case in run["cases"]}
    return [case for case in (*CASES, *H2_CASES) if case.name in asked]


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def totals_table(runs: Sequence[dict[str, Any]]) -> str:
    """A line a run: how many cases passed, and how often each outcome came."""
    lines = [
        _row("proxy", "date", "cases", "passed", *(outcome.value for outcome in Outcome)),
        _row(*["---"] * (4 + len(Outcome))),
    ]
    for run in runs:
        counts = Counter(case["outcome"] for case in run["cases"])
        passed = sum(case["passed"] for case in run["cases"])
        lines.append(
            _row(run["label"], run["date"], len(run["cases"]), passed, *(counts[outcome.value] for outcome in Outcome))
        )
    return "\n".join(lines)


def groups_table(runs: Sequence[dict[str, Any]]) -> str:
    """A line a subject, a column a run: passed of asked."""
    groups = list(dict.fromkeys(case.group for case in _cases_of(runs)))
    lines = [_row("subject", *(run["label"] for run in runs)), _row(*["---"] * (1 + len(runs)))]
    for group in groups:
        cells = []
        for run in runs:
            cases = [case for case in run["cases"] if case["name"].startswith(group + "/")]
            cells.append(f"{sum(case['passed'] for case in cases)} of {len(cases)}")
        lines.append(_row(group, *cells))
    return "\n".join(lines)


def findings_table(runs: Sequence[dict[str, Any]]) -> str:
    """A line for each case in which any run was not safe."""
    tables = [_by_name(run) for run in runs]
    lines = [_row("case", *(run["label"] for run in runs), "why it matters"), _row(*["---"] * (2 + len(runs)))]
    safe = {outcome.value for outcome in SAFE}
    for case in _cases_of(runs):
        found = [table.get(case.name) for table in tables]
        if all(one is None or one["outcome"] in safe for one in found):
            continue
        cells = [_SHORT[one["outcome"]] if one is not None else "not asked" for one in found]
        lines.append(_row(f"`{case.name}`", *cells, f"{case.section}: {case.why}".replace("|", "\\|")))
    return "\n".join(lines)


def corpus_table(*, http2: bool = False) -> str:
    """Every case of a version, with its section and reason."""
    lines = [_row("case", "section", "a careful proxy", "why"), _row(*["---"] * 4)]
    for case in H2_CASES if http2 else CASES:
        allowed = "forwards it" if case.must_pass else "refuses, or one reading" if case.accept else "refuses"
        lines.append(_row(f"`{case.name}`", case.section, allowed, case.why.replace("|", "\\|")))
    return "\n".join(lines) + "\n"
