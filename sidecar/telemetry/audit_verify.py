"""Whether an audit still says what the sidecar wrote: line after line, file after file, in little memory.

What a chain shows by itself: a line that was changed, dropped, put elsewhere or slipped in between others. What it
cannot: that its last line is the last, or that it was not written anew from some line on. For that there are heads
which the CA has witnessed (`Witness`): up to the last of them nothing can be cut or rewritten, and what follows is
only chained. The report tells the two apart.

A line without a place in a chain is half a line (a crash, or a disk that was full), or older than the chain, or was
slipped in; it is never part of what the chain vouches for, and is told as a note where it can be innocent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sidecar.telemetry.chain import NONE, link_of

MAX_FINDINGS = 50
_SHORT = 8  # bytes of each hash that are remembered, to tell a copy of a line from another line of the same number


@dataclass(frozen=True, slots=True)
class Witness:
    """A head that the CA has seen: of which service and chain, number and hash of its line, and when by the CA's
    clock (seconds since the epoch).
    """

    service: str
    chain: str
    number: int
    hash: str
    at: float


@dataclass(slots=True)
class ChainReport:
    """What is known of one chain: its first and last line in these files, and the last that a witness vouches for."""

    chain: str
    first: int = 0
    last: int = 0
    hash: str = NONE
    lines: int = 0
    witnessed_to: int = 0
    witnessed_at: float = 0.0
    witnesses: int = 0  # heads that were compared
    seen: bytearray = field(default_factory=bytearray, repr=False)

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "chain": self.chain, "first": self.first, "last": self.last, "head": self.hash, "lines": self.lines,
            "witnesses": self.witnesses, "witnessed_to": self.witnessed_to, "witnessed_at": self.witnessed_at or None,
            "only_chained": max(0, self.last - self.witnessed_to),
        }  # fmt: skip


@dataclass(slots=True)
class Report:
    """What a look at the files found. `findings` break the record, `notes` do not."""

    chains: dict[str, ChainReport] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: int = 0
    more: int = 0  # findings beyond MAX_FINDINGS

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def find(self, what: str) -> None:
        """One more thing that breaks the record."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(what)
        else:
            self.more += 1

    def note(self, what: str) -> None:
        """One more thing to know."""
        if len(self.notes) < MAX_FINDINGS:
            self.notes.append(what)

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "ok": self.ok, "lines": self.lines, "chains": [one.as_json() for one in self.chains.values()],
            "findings": self.findings, "further_findings": self.more, "notes": self.notes,
        }  # fmt: skip


class Verifier:
    """Feed it the files of one sidecar, the oldest first, then ask for the report."""

    def __init__(self, witnesses: Sequence[Witness] = ()) -> None:
        self.report = Report()
        self._expected: dict[tuple[str, int], set[str]] = {}
        self._witnesses = witnesses
        for each in witnesses:
            self._expected.setdefault((each.chain, each.number), set()).add(each.hash)
        self._at: ChainReport | None = None

    def read(self, name: str, lines: Iterable[bytes], progress: Callable[[int], None] = lambda _: None) -> None:
        """Read one file; `lines` have their newlines, `progress` is told bytes read now and then."""
        row = size = 0
        half: tuple[int, bytes] | None = None
        older = 0
        for line in lines:
            row += 1
            size += len(line)
            if row % 20_000 == 0:
                progress(size)
            text = line.rstrip(b"\n")
            link = link_of(text)
            if half is not None:
                self._judge_half(name, half, text, link is not None)
                half = None
            if link is None:
                if not self.report.chains and _is_json(text):
                    older += 1
                else:
                    half = (row, text)
                continue
            where = f"{name}:{row}"
            if not line.endswith(b"\n"):
                self.report.note(f"{where} has no end yet: it is being written, or a crash cut its newline")
            alone = self.report.lines + row == 1
            self._follow(where, link.chain, link.number, link.previous, sha256(text).hexdigest(), alone)
        if half is not None:
            self.report.note(f"{name}:{half[0]} is half a line at the end of the file: a crash, or a cut within a line")
        if older:
            self.report.note(f"{name}: {older} lines are older than the chain; nothing vouches for them")
        self.report.lines += row
        progress(size)

    def finish(self) -> Report:
        """Compare what is known of the ends with what was witnessed."""
        report = self.report
        for (chain, number), hashes in sorted(self._expected.items()):
            if len(hashes) > 1:
                report.find(f"line {number} of chain {chain} was witnessed with {len(hashes)} hashes: two forks of it")
        ends: dict[str, Witness] = {}
        for each in self._witnesses:
            if each.chain not in ends or each.number > ends[each.chain].number:
                ends[each.chain] = each
        for chain, last in ends.items():
            known = report.chains.get(chain)
            if known is None:
                report.note(f"chain {chain} of {last.service} was witnessed to line {last.number}: not in these files")
            elif last.number > known.last:
                report.find(
                    f"lines {known.last + 1} to {last.number} of chain {chain} were cut off: the CA has witnessed "
                    f"line {last.number}"
                )
        if not report.chains:
            report.find("there is no line of a chain in these files")
        return report

    def _judge_half(self, name: str, half: tuple[int, bytes], after: bytes, chained: bool) -> None:
        row, text = half
        if chained and text and after.startswith(text):
            self.report.note(f"{name}:{row} is half of the line that follows: the disk was full for a while")
        elif chained and not _is_json(text):
            self.report.note(f"{name}:{row} is half a line: a crash while it was written; the chain goes on without it")
        else:
            self.report.find(f"{name}:{row} has no place in the chain: it was slipped in, or changed")

    def _follow(self, where: str, chain: str, number: int, previous: str, own: str, alone: bool) -> None:
        known = self.report.chains.get(chain)
        if known is None:
            known = self._begin(where, chain, number, previous, alone)
        elif number == known.last + 1:
            if previous != known.hash:
                self.report.find(
                    f"{where}: line {known.last} was changed after line {number} was written (their hashes do not fit)"
                )
        elif number > known.last + 1:
            gap = str(known.last + 1) if number == known.last + 2 else f"{known.last + 1} to {number - 1}"
            self.report.find(f"{where}: line {gap} of chain {chain} is missing before line {number}")
            known.seen.extend(bytes(_SHORT * (number - known.last - 1)))
        else:
            self._again(where, known, number, own)
            return
        known.last, known.hash = number, own
        known.lines += 1
        known.seen += bytes.fromhex(own[: 2 * _SHORT])
        expected = self._expected.get((chain, number))
        if expected is not None:
            self._compare(where, known, number, own, expected)

    def _begin(self, where: str, chain: str, number: int, previous: str, alone: bool) -> ChainReport:
        if self.report.chains:
            self.report.note(f"{where}: another chain begins, {chain}")
        known = self.report.chains[chain] = ChainReport(chain, first=number, last=number - 1)
        if number == 1 and previous != NONE:
            self.report.find(f"{where}: the first line of chain {chain} says that another went before it")
        if number > 1 and alone:
            self.report.note(f"{where}: lines 1 to {number - 1} of chain {chain} are not in these files")
        elif number > 1:  # rotation takes the oldest lines, never some between older and newer ones
            self.report.find(
                f"{where}: line {number} is the first of chain {chain}, and what stands before it is of no or another "
                "chain: lines were changed, or a file between is not here"
            )
        return known

    def _again(self, where: str, known: ChainReport, number: int, own: str) -> None:
        """A number that has been there, or lies before the first one."""
        index = (number - known.first) * _SHORT
        before = bytes(known.seen[index : index + _SHORT]) if index >= 0 else b""
        if index < 0 or before == bytes(_SHORT):
            self.report.find(f"{where}: line {number} of chain {known.chain} stands after line {known.last}: reordered")
        elif before == bytes.fromhex(own[: 2 * _SHORT]):
            self.report.find(f"{where}: line {number} of chain {known.chain} is there twice")
        else:
            self.report.find(
                f"{where}: line {number} of chain {known.chain} is there with another text: two forks of one chain"
            )

    def _compare(self, where: str, known: ChainReport, number: int, own: str, expected: set[str]) -> None:
        if own not in expected:
            self.report.find(f"{where}: line {number} is not the one that the CA witnessed: written anew, or a fork")
            return
        known.witnesses += 1
        known.witnessed_to = number
        known.witnessed_at = max(
            each.at for each in self._witnesses if (each.chain, each.number, each.hash) == (known.chain, number, own)
        )


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def in_order(files: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """Names of files by what their first chained line says, the oldest first; those without one stand first.

    `files` are names with the beginning of each.
    """
    placed = []
    for place, (name, beginning) in enumerate(files):
        links = [link for line in beginning.split(b"\n") if (link := link_of(line)) is not None]
        placed.append((links[0].chain if links else "", links[0].number if links else 0, place, name))
    order: dict[str, int] = {}
    for chain, _, place, _ in placed:
        order.setdefault(chain, place)
    for _, _, _, name in sorted(placed, key=lambda one: (order[one[0]] if one[0] else -1, one[1], one[2])):
        yield name
