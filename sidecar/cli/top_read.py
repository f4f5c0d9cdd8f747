"""What `mesh top` knows: one reading of all admin sockets of this machine, and what has happened since the last one.

Sidecars are looked for at each reading, as they come and go. They are asked side by side and given two seconds: one
that is stopped (SIGSTOP) or swamped must not blind us to the others, and its silence is itself a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sidecar.cli.console import Failure
from sidecar.cli.rows import shown
from sidecar.cli.sidecars import Sidecar, running
from sidecar.cli.top_limits import limit_rows
from sidecar.cli.top_sheets import DETECTIONS, ENDPOINTS, HOPS, LIMITS, SHEETS, SIDECARS, UPSTREAMS, Row

PATIENCE: Final = 2.0  # seconds for an answer
AT_ONCE: Final = 16  # sidecars that are asked
WINDOW: Final = 5.0  # seconds over which a rate is taken
KEPT: Final = 120  # readings that the line at the top shows
PATHS: Final = ("/status", "/hops", "/endpoints", "/limits", "/quotas", "/detections")

Documents = dict[str, dict[str, Any]]  # by path; one that the sidecar does not have is absent


@dataclass(frozen=True, slots=True)
class Reading:
    """All sheets at one moment, by name."""

    rows: dict[str, list[Row]]
    per_second: float  # hops
    failing: float  # of them, a second
    history: tuple[float, ...] = ()  # hops a second at this and the last readings, the newest last

    def to_json(self) -> dict[str, Any]:
        """One document, as `mesh top -o json` prints it."""
        sheets = {sheet.name.lower(): self.rows[sheet.name] for sheet in SHEETS}
        return {"hops_per_second": round(self.per_second, 3), "failures_per_second": round(self.failing, 3)} | sheets


@dataclass(slots=True)
class Reader:
    """Reads again and again, and knows rates."""

    run_dir: Path | None = None
    service: str | None = None
    _past: deque[tuple[float, dict[str, float]]] = field(default_factory=deque)
    _history: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def read(self, now: float) -> Reading:
        """Everything at monotonic `now`. Never raises for a sidecar that is silent."""
        sidecars = [each for each in running(self.run_dir) if self.service in (None, each.service)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = dict(zip((each.service for each in sidecars), threads.map(_ask, sidecars), strict=True))
        rows = {
            HOPS.name: shown(row for answer in answers.values() for row in answer.get("/hops", {}).get("hops", ())),
            UPSTREAMS.name: _rows(answers, "/endpoints", "upstreams"),
            ENDPOINTS.name: _rows(answers, "/endpoints", "endpoints"),
            LIMITS.name: [
                {"service": service, **row}
                for service, answer in answers.items()
                for row in limit_rows(answer.get("/limits", {}), answer.get("/quotas", {}))
            ],
            DETECTIONS.name: detection_rows(answers),
            SIDECARS.name: [_state_of(service, answer) for service, answer in answers.items()],
        }
        self._rates(rows, now)
        per_second = sum(row["rate"] or 0.0 for row in rows[HOPS.name])
        failing = sum(row["failures_now"] or 0.0 for row in rows[HOPS.name])
        self._history.append(per_second)
        return Reading(rows, per_second, failing, tuple(self._history))

    def _rates(self, rows: dict[str, list[Row]], now: float) -> None:
        """Put what happens a second beside what has happened in all."""
        counts: dict[str, float] = {}
        before, then = (self._past[0][1], self._past[0][0]) if self._past else ({}, now)

        def rate(key: str, row: Row, name: str) -> float | None:
            counts[key] = float(row.get(name) or 0)
            past = now - then
            return max(0.0, counts[key] - before.get(key, 0.0)) / past if past > 0.0 else None

        for row in rows[HOPS.name]:
            who = HOPS.identity(row)
            row["rate"] = rate(f"hop {who}", row, "requests")
            row["failures_now"] = rate(f"failed {who}", row, "failures")
        for row in rows[LIMITS.name]:
            row["refused_now"] = rate(f"limit {LIMITS.identity(row)}", row, "refused")
        self._past.append((now, counts))
        while now - self._past[0][0] > WINDOW:
            self._past.popleft()


def _ask(sidecar: Sidecar) -> Documents:
    """What this one says at each path; nothing where it is silent, which is found out once."""
    documents: Documents = {}
    for path in PATHS:
        try:
            status, document = sidecar.ask("GET", path, timeout=PATIENCE)
        except Failure:
            return {}
        if status == 200:
            documents[path] = document
    return documents


def _rows(answers: dict[str, Documents], path: str, name: str) -> list[Row]:
    return [
        {"service": service, **row}
        for service, answer in answers.items() for row in _dicts(answer.get(path, {}).get(name, ()))
    ]  # fmt: skip


def detection_rows(answers: dict[str, Documents]) -> list[Row]:
    """Who is held, and what else was found: a detection that led to a hold in force is a row with it."""
    held = {_which(row): row for row in _rows(answers, "/detections", "held")}
    newest_first = _rows(answers, "/detections", "found")
    found = [row | held.pop(_which(row), {}) for row in newest_first]
    return [*({**row, "at": row.get("since")} for row in held.values()), *found]


def _which(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("service", "caller", "user", "detector"))


def _dicts(values: Iterable[Any]) -> list[Row]:
    return [each for each in values if isinstance(each, dict)]


def _state_of(service: str, answer: Documents) -> Row:
    return answer.get("/status") or {"service": service, "state": "unreachable", "not_ready": ["it does not answer"]}
