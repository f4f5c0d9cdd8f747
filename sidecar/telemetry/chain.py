"""The audit as a hash chain: each line carries the hash of the one before it, across restarts and rotations.

At the end of each line stand `chain` (sixteen random hex digits, made with the first line that the sidecar ever wrote
to this path), `n` (its number in the chain, from 1 up) and `prev`: SHA-256 over the text of the line before, without
its newline; 64 zeros in the first. As `prev` is part of the text, each line vouches for all before it, and `sha256sum`
is all that an outsider needs to follow.

The links are made on the writer's thread, when lines leave for the disk. So what was lost for want of room was never
in the chain, and a head that is told (`written`) is of a line that is there.

A sidecar that starts goes on where its predecessor ended: after the last whole line of the file or, where logrotate has
just moved it away, of the file beside it; `PATH.head`, written each minute and at the end, is asked too. Where that
knows of later lines than any file has, it is believed: the gap that shows then is real.

`mesh audit verify` (audit_verify.py) reads all this back.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

NONE: Final = "0" * 64
HEAD_SECONDS: Final = 60.0  # between two writings of the head's file
_TAIL_BYTES = 1024 * 1024  # longer than any line
_LINK = re.compile(rb',"chain":"([0-9a-f]{16})","n":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})"\}')


@dataclass(frozen=True, slots=True)
class Link:
    """A line's place: which chain, which number from 1 up, and the hash (hex) of the line before."""

    chain: str
    number: int
    previous: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: its name, the number of its last line and that line's hash; number 0 while it is empty."""

    chain: str
    number: int = 0
    hash: str = NONE


def link_of(line: bytes) -> Link | None:
    """The place of a line (without its newline); None for one that has none: no line of a chain, or half of one."""
    start = line.rfind(b',"chain":"')
    found = _LINK.fullmatch(line, start) if start >= 0 else None
    return None if found is None else Link(found[1].decode(), int(found[2]), found[3].decode())


def hash_of(line: bytes) -> str:
    """The hash of a line without its newline."""
    return sha256(line).hexdigest()


class Chain:
    """Links lines to the chain of this file. All but `written` and `secured` belongs to the writer's thread."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._is_file = path != "-"
        self._head: Head | None = None
        self._kept_at = 0.0
        self._keeping = threading.Lock()
        self.written: Head | None = None  # of the last line that was given to the disk; replaced whole

    def seal(self, lines: Sequence[bytes]) -> list[bytes]:
        """These lines (JSON objects with newlines) with their places in the chain."""
        head: Head = self._head or self._resume()
        chain, number, previous = head.chain, head.number, head.hash
        ending, sealed = b',"chain":"%s","n":%d,"prev":"%s"}', []
        name = chain.encode()
        for line in lines:
            number += 1
            text = line[:-2] + ending % (name, number, previous.encode())
            previous = sha256(text).hexdigest()
            sealed.append(text + b"\n")
        self._head = Head(chain, number, previous)
        return sealed

    def done(self, fd: int) -> None:
        """What was sealed last has been written to this file. Keeps the head beside it now and then."""
        self.written = self._head
        if self._is_file and time.monotonic() - self._kept_at >= HEAD_SECONDS:
            self.keep(fd)

    def keep(self, fd: int = -1) -> None:
        """Write the head beside the file, once the lines themselves are safe. Failing is no harm: it is a help only."""
        head = self.written
        if head is None or not self._is_file:
            return
        self._kept_at = time.monotonic()
        with suppress(OSError), self._keeping:
            if fd >= 0:
                os.fdatasync(fd)
            beside = head_file(self._path)
            new = beside.with_name(beside.name + ".new")
            with new.open("w") as file:
                file.write(json.dumps({"chain": head.chain, "n": head.number, "hash": head.hash}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(beside)

    def secured(self) -> Head | None:
        """`written`, once its lines are on the disk and the head is beside them. Blocks on the disk.

        What somebody is to witness must not be lost with the power: a chain that went on from an earlier line would
        look like a fork.
        """
        head = self.written
        if head is not None and self._is_file:
            with suppress(OSError):
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self.keep(descriptor)
                finally:
                    os.close(descriptor)
        return head

    def _resume(self) -> Head:
        own = last_head(self._path) if self._is_file else None
        found = [own] if own is not None else [*map(last_head, rotated(self._path))] if self._is_file else []
        kept = read_head_file(self._path) if self._is_file else None
        ends: list[Head] = [head for head in (*found, kept) if head is not None]
        if not ends:
            return Head(secrets.token_hex(8))
        chain = ends[0].chain  # of the file itself, or of the one that was moved away last
        last = ends[0]
        for head in ends:
            if head.chain == chain and head.number > last.number:
                last = head
        return last


def head_file(path: Path) -> Path:
    """Where the head of this audit is kept."""
    return path.with_name(path.name + ".head")


def rotated(path: Path) -> list[Path]:
    """Files that logrotate made of this one (`audit.jsonl.1`, `audit.jsonl-20260131`), the newest first, unpacked."""
    try:
        beside = [one for one in path.parent.glob(path.name + "[.-]*") if one.is_file()]
        named = [one for one in beside if re.fullmatch(r"[.-][0-9][0-9.-]*", one.name[len(path.name):])]
        return sorted(named, key=lambda one: one.stat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def read_head_file(path: Path) -> Head | None:
    """The head that was kept beside this audit; None where there is none that can be read."""
    try:
        said = json.loads(head_file(path).read_text())
        return Head(str(said["chain"]), int(said["n"]), str(said["hash"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def last_head(path: Path) -> Head | None:
    """The head of the last whole line of this file; None where it has none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return None
    for line in _backwards(tail):
        if (link := link_of(line)) is not None:
            return Head(link.chain, link.number, hash_of(line))
    return None


def _backwards(tail: bytes) -> Iterator[bytes]:
    """The lines that end in a newline, the last first."""
    end = tail.rfind(b"\n")
    while end >= 0:
        start = tail.rfind(b"\n", 0, end)
        yield tail[start + 1 : end]
        end = start
