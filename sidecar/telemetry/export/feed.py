"""The audit file as the queue of an export: what has not been taken yet, across restarts and rotations.

There is no second copy on the disk. An export remembers (in a small file of its own) the last line that was taken,
reads on from there, and follows the chain of numbers through the files that logrotate has made. An event's id is its
place in the chain, CHAIN-NUMBER, so whoever gets one twice can tell.

Two bounds. `backlog` is how many bytes may wait: past it the oldest are skipped, so that an export that was away for
weeks does not send for days; never by the look that first finds it so full, so that there was an alarm before. And a
rotated file that was packed or removed before it was read is gone for the export. Both are counted, each line once, by
their numbers, and never silent; the record itself stays as it is.

All of it blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.telemetry.chain import link_of, rotated

ALARM: Final = 0.8  # share of the backlog from which on there is an alarm
MAX_BATCH: Final = 500  # events
_BATCH_BYTES = 256 * 1024
_LONGEST = 64 * 1024  # no line is longer


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit on its way: its id, its text without the newline, and the same read."""

    id: str
    text: bytes
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where it was read: file (device and inode), bytes, and the last line's place in the chain."""

    device: int = 0
    inode: int = 0
    offset: int = 0
    chain: str = ""
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the file that remembers it."""
        return {name: getattr(self, name) for name in ("device", "inode", "offset", "chain", "number")}


@dataclass(frozen=True, slots=True)
class Batch:
    """The next events, and the position after them; maybe none, where lines were read that are no events."""

    events: tuple[Event, ...]
    after: Position


class Feed:
    """One export's way through the audit at `path`; `cursor` is the file that remembers how far it is."""

    def __init__(self, path: Path, cursor: Path, backlog: int) -> None:
        self._path = path
        self._cursor = cursor
        self.backlog = backlog
        self.dropped = 0  # lines that were skipped or had gone, since the start
        self.waiting = 0  # bytes behind what is written, as of the last `read`
        self._dropped_to = ("", 0)  # chain and number of the last line that was counted so
        self.at = self._load()  # up to here it was taken for certain

    @property
    def full(self) -> float:
        """How much of the backlog is used, as a share."""
        return self.waiting / self.backlog

    def read(self, after: Position) -> Batch:
        """The next events that follow this position; none where there are none yet. Raises OSError."""
        files = [one for one in (*reversed(rotated(self._path)), self._path) if one.is_file()]
        if not files:
            return Batch((), after)
        if after == Position() and self._path in files:
            found = self._path.stat()  # it begins here, wherever this file is moved before anything was taken
            after = Position(found.st_dev, found.st_ino)
            self.taken(after)
        index, offset = self._place(files, after)
        sizes = [one.stat().st_size for one in files]
        warned = self.full >= ALARM
        self.waiting = max(0, sum(sizes[index:]) - offset)
        skip = self.waiting - self.backlog if warned else 0
        while True:
            batch = self._read_file(files[index], offset, after, skip)
            if batch.after != after or index + 1 >= len(files):
                return batch
            index, offset = index + 1, 0  # this one is read to its end, and nobody writes to it any more

    def taken(self, position: Position) -> None:
        """From now on everything up to here is out of our hands. Raises OSError."""
        self.at = position
        new = self._cursor.with_name(self._cursor.name + ".new")
        new.write_text(json.dumps(position.to_json()) + "\n")
        new.replace(self._cursor)

    def _place(self, files: list[Path], after: Position) -> tuple[int, int]:
        """In which file to read on, and where."""
        for index, file in enumerate(files):
            found = file.stat()
            if (found.st_dev, found.st_ino) == (after.device, after.inode) and _ends_there(file, after):
                return index, after.offset
        return 0, 0

    def _read_file(self, file: Path, offset: int, after: Position, skip: int) -> Batch:
        events: list[Event] = []
        chain, number, size = after.chain, after.number, 0
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            opened.seek(offset)
            for line in opened:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                text = line[:-1]
                link = link_of(text)
                if link is None or (link.chain == chain and link.number <= number):
                    continue  # half a line, or one that was read in another file
                if link.chain == chain:
                    self._drop(chain, number + 1, link.number - 1)
                chain, number = link.chain, link.number
                if size <= skip:
                    self._drop(chain, number, number)
                    continue
                events.append(Event(f"{chain}-{number}", text, json.loads(text)))
                if len(events) >= MAX_BATCH or size >= max(skip, 0) + _BATCH_BYTES:
                    break
        if not size and not events and (found.st_dev, found.st_ino) == (after.device, after.inode):
            return Batch((), after)
        return Batch(tuple(events), Position(found.st_dev, found.st_ino, offset + size, chain, number))

    def _drop(self, chain: str, first: int, last: int) -> None:
        """Count these lines, but for those that were counted when they were read before and not taken."""
        known = self._dropped_to[1] if self._dropped_to[0] == chain else 0
        if last >= first and last > known:
            self.dropped += last - max(first - 1, known)
            self._dropped_to = (chain, last)

    def _load(self) -> Position:
        try:
            said = json.loads(self._cursor.read_text())
            return Position(
                int(said["device"]), int(said["inode"]), int(said["offset"]), str(said["chain"]), int(said["number"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Position()


def _ends_there(file: Path, after: Position) -> bool:
    """Whether the last line before this offset is the one that was read last: the file was neither cut nor is it
    another one in the place of the old.
    """
    if not after.offset:
        return True
    with file.open("rb") as opened:
        opened.seek(max(0, after.offset - _LONGEST))
        before = opened.read(after.offset - opened.tell())
    if not before.endswith(b"\n"):
        return False
    for line in reversed(before.split(b"\n")):
        if (link := link_of(line)) is not None:
            return (link.chain, link.number) == (after.chain, after.number)
    return not after.chain
