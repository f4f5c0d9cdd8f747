"""Mistakes in a config: collected, all of them, each with its place, what is wrong and what was probably meant.

Each carries a code that stays the same for ever, whatever becomes of its words; `codes` tells what stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

from certs.errors import MeshError
from sidecar.config.terms import Where

MAX_CANDIDATES = 2000  # to compare a slip with; more would take seconds
MAX_MISTAKES = 500  # a file that is not a config at all would otherwise be quoted back whole


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to change, and where. `path` is dotted (`services.orders.allow[0].from`), empty for the whole file."""

    where: Where
    path: str
    message: str
    hint: str = ""
    code: str = ""  # "MESH012"; empty where the text itself could not be read

    def __str__(self) -> str:
        place = self.where.file
        if self.where.line:
            place += f":{self.where.line}:{self.where.column}"
        text = f"{self.path}: {self.message}" if self.path else self.message
        code = f" [{self.code}]" if self.code else ""
        return f"{place}: {text}; {self.hint}{code}" if self.hint else f"{place}: {text}{code}"

    def to_json(self) -> dict[str, object]:
        """For `-o json`."""
        return {
            "file": self.where.file,
            "line": self.where.line,
            "column": self.where.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
            "code": self.code,
        }


class ConfigErrors(MeshError):
    """A config with mistakes in it. `mistakes` has all of them in the order of the files; nothing was loaded."""

    name: ClassVar[str] = "config"

    def __init__(self, mistakes: Iterable[Mistake], sources: Mapping[str, str] | None = None) -> None:
        self.mistakes: tuple[Mistake, ...] = tuple(mistakes)
        self.sources: Mapping[str, str] = sources or {}
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class TooMany(Exception):
    """The book is full; nobody reads further than this."""


@dataclass
class Book:
    """Where every part of the loader writes mistakes and warnings down, and remembers which path stands where."""

    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)
    places: dict[str, Where] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # every file that was read, for quoting its lines
    stage: str = "MESH001"  # the code of what `add` and `at` are told without one

    def add(self, where: Where, path: str, message: str, hint: str = "", code: str = "") -> None:
        """Note a mistake; without a code it gets that of the part of the loader that is at work. Raises TooMany at the
        last one that fits.
        """
        mistake = Mistake(where, _printable(path), _printable(message), _printable(hint), code or self.stage)
        self.mistakes.append(mistake)
        if len(self.mistakes) >= MAX_MISTAKES:
            self.mistakes.append(Mistake(where, "", f"{MAX_MISTAKES} mistakes so far; what follows was not read"))
            raise TooMany

    def at(self, path: str, message: str, hint: str = "", code: str = "") -> None:
        """Note a mistake at a path that was read, unless something is wrong there already."""
        if not self.has(path):
            self.add(self.place(path), path, message, hint, code)

    def warn(self, code: str, path: str, message: str, hint: str = "") -> None:
        """Note what is allowed but odd."""
        self.warnings.append(Mistake(self.place(path), path, message, hint, code))

    def has(self, path: str) -> bool:
        """Whether something is wrong exactly at this path, or below it."""
        below = (path + ".", path + "[")
        return any(mistake.path == path or mistake.path.startswith(below) for mistake in self.mistakes)

    def item(self, path: str, key: str, index: int) -> str:
        """The path of one value of a list, or of its key where a single value was written without a list."""
        listed = f"{path}.{key}[{index}]"
        return listed if listed in self.places else f"{path}.{key}"

    def place(self, path: str) -> Where:
        """Where this path stands, or the nearest one around it that was written at all."""
        while path and path not in self.places:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.places.get(path, Where("", 0))


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` is most likely a slip of, or None: at most one slip in three letters."""
    best: tuple[int, str] | None = None
    folded = word.lower().replace("-", "_")
    for candidate in islice(candidates, MAX_CANDIDATES):
        target = candidate.lower().replace("-", "_")
        allowed = max(1, max(len(folded), len(target)) // 3)
        if abs(len(folded) - len(target)) > allowed or len(word) > 100:
            continue
        if len(set(folded) ^ set(target)) > 2 * allowed:  # a slip changes two letters at most
            continue
        distance = _slips(folded, target)
        if distance <= allowed and distance < len(target) and (best is None or distance < best[0]):
            best = (distance, candidate)
    return best[1] if best else None


def meant(word: str, candidates: Sequence[str], *, what: str = "valid here") -> str:
    """The hint for a word that is not one of the candidates: the nearest one, or all of them where none is near."""
    near = nearest(word, candidates)
    if near is not None:
        return f'did you mean "{near}"?'
    return f"{what}: {', '.join(candidates)}" if candidates else ""


def _printable(text: str) -> str:
    """One line that does nothing to a terminal, whatever was in the file."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _slips(a: str, b: str) -> int:
    """Letters to change, add, drop or swap with a neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
