"""Metric series as plain objects: a dict of cells for each metric, capped, expiring, and made text only when scraped.

prometheus_client's own children take a lock and walk their buckets at each observation, and it needs a millisecond to
print what one kind of hop counts. A sidecar has one thread that counts, so a cell here is an object with integer slots
that knows its label text, and printing it is a few format strings (Prometheus text format 0.0.4). A scrape may run in
another thread: it copies dicts with one C call and reads integers, so the worst it can see is a hop counted in one
metric and not yet in the next.

No metric may grow without end. A metric has at most `cap` label sets; past it every open label becomes `other`,
closed labels keep their value, and the hop is still counted. A label set that nobody touched for ten minutes goes (as
in Linkerd, S25), so the place is free again. Prometheus reads a series that comes back as a counter reset.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram"]
LabelValues = tuple[str, ...]

OTHER = "other"
IDLE_SECONDS = 600.0  # Linkerd drops idle series after ten minutes too


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric: its name, labels, meaning and limits. `expires` is off where the label sets are few and fixed."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    cap: int = 200
    expires: bool = False


class Cell:
    """The number behind one label set of a counter or gauge."""

    __slots__ = ("labels", "used", "value")

    def __init__(self, labels: str) -> None:
        self.labels = labels  # as `label_text` makes it
        self.value: float = 0
        self.used = 0.0  # monotonic seconds

    def lines(self, name: str) -> Iterable[str]:
        """The sample, as text."""
        yield sample(name, self.labels, self.value)


class HistogramCell:
    """The counts behind one label set of a histogram; `counts[-1]` is what was over the last bound."""

    __slots__ = ("bounds", "counts", "labels", "total", "used")

    def __init__(self, labels: str, bounds: tuple[float, ...]) -> None:
        self.labels = labels
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.used = 0.0

    def observe(self, value: float, now: float) -> None:
        """Count a value at monotonic time `now`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.used = now

    def lines(self, name: str) -> Iterable[str]:
        """The cumulative buckets, count and sum, as text."""
        before = f"{name}_bucket{{{self.labels}," if self.labels else f"{name}_bucket{{"
        cumulative = 0
        for bound, count in zip(_bound_texts(self.bounds), self.counts.copy(), strict=True):
            cumulative += count
            yield f'{before}le="{bound}"}} {cumulative}\n'
        yield sample(f"{name}_count", self.labels, cumulative)
        yield sample(f"{name}_sum", self.labels, self.total)


def sample(name: str, labels: str, value: float) -> str:
    """One line of a scrape."""
    return f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"


def header(definition: Definition) -> str:
    """What stands before a metric's samples."""
    doc = definition.doc.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {definition.name} {doc}\n# TYPE {definition.name} {definition.kind}\n"


def label_text(names: tuple[str, ...], values: LabelValues) -> str:
    """Labels as they stand between the braces, values escaped."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@lru_cache
def _bound_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*(repr(float(bound)) for bound in bounds), "+Inf")


class Cap:
    """Keeps the label sets of one metric within bounds."""

    __slots__ = ("_closed", "_definition", "_dropped")

    def __init__(self, definition: Definition, closed: Mapping[str, bool], dropped: Callable[[str], None]) -> None:
        self._definition = definition
        self._closed = tuple(closed[label] for label in definition.labels)
        self._dropped = dropped

    def admit(self, labels: LabelValues, present: int) -> LabelValues:
        """The label set to count under: `labels`, or its `other` form where `present` sets are already kept."""
        if present < self._definition.cap:
            return labels
        self._dropped(self._definition.name)
        return tuple(value if closed else OTHER for value, closed in zip(labels, self._closed, strict=True))


C = TypeVar("C", Cell, HistogramCell)


class _Cells(Generic[C]):
    """A metric with its label sets."""

    def __init__(self, definition: Definition, closed: Mapping[str, bool], dropped: Callable[[str], None]) -> None:
        self.definition = definition
        self._cap = Cap(definition, closed, dropped)
        self._cells: dict[LabelValues, C] = {}

    def _new(self, text: str) -> C:
        raise NotImplementedError

    def cell(self, labels: LabelValues = ()) -> C:
        """The cell of this label set, made where it is new; one of `other` past the cap."""
        cell = self._cells.get(labels)
        if cell is None:
            labels = self._cap.admit(labels, len(self._cells))
            cell = self._cells.get(labels)
            if cell is None:
                cell = self._cells[labels] = self._new(label_text(self.definition.labels, labels))
        return cell

    def sweep(self, now: float) -> int:
        """Forget label sets idle for IDLE_SECONDS at monotonic `now`; returns how many went."""
        return forget_idle(self._cells, now) if self.definition.expires else 0

    def lines(self) -> Iterable[str]:
        """This metric as text."""
        yield header(self.definition)
        for cell in list(self._cells.values()):
            yield from cell.lines(self.definition.name)

    def __len__(self) -> int:
        return len(self._cells)


class Family(_Cells[Cell]):
    """A counter or gauge with its label sets."""

    def _new(self, text: str) -> Cell:
        return Cell(text)

    def add(self, labels: LabelValues = (), amount: float = 1, now: float = 0.0) -> None:
        """Add to the cell of this label set."""
        cell = self.cell(labels)
        cell.value += amount
        cell.used = now

    def set(self, value: float, labels: LabelValues = ()) -> None:
        """Set the cell of this label set."""
        self.cell(labels).value = value


class HistogramFamily(_Cells[HistogramCell]):
    """A histogram with its label sets."""

    def _new(self, text: str) -> HistogramCell:
        return HistogramCell(text, self.definition.buckets)

    def observe(self, value: float, labels: LabelValues, now: float) -> None:
        """Count a value under this label set."""
        self.cell(labels).observe(value, now)


def forget_idle(cells: dict[LabelValues, C], now: float) -> int:
    """Drop every cell not used for IDLE_SECONDS at monotonic `now`; returns how many went."""
    idle = [labels for labels, cell in cells.items() if now - cell.used > IDLE_SECONDS]
    for labels in idle:
        del cells[labels]
    return len(idle)
