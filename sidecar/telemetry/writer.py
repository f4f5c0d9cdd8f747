"""Lines to a file or to standard output, written by a thread so that nobody else ever waits for a disk.

`put` is called on the reactor's thread: it appends to an unbounded queue in C and adds to a counter, no lock in
sight. The bound is kept by counting: `put` counts what went in, the thread counts what is on the disk, and each
counter has one writer, so their difference needs no lock either. When `capacity` bytes wait, further lines are
dropped and counted exactly.

The thread takes what is there, waits a moment for more, and writes it in one go. When a write fails (disk full, folder
gone, pipe closed) it keeps the bytes, remembers how far a partial write came, and tries again each second on a freshly
opened file; where that is another one, from the beginning of the line. A file that was moved away
(logrotate) is noticed by its inode and opened anew. A half line left by a crashed predecessor is ended first.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

STDOUT = "-"
BATCH_SECONDS = 0.05  # how long a line may wait for company
RETRY_SECONDS = 1.0
_BATCH_BYTES = 256 * 1024
_STOP = b""

Problem = Callable[[str], None]


class Seal(Protocol):
    """Changes lines on their way to the disk, on the writer's thread (`sidecar.telemetry.chain`)."""

    def seal(self, lines: list[bytes], /) -> list[bytes]:
        """As many lines, each with its newline."""

    def done(self, fd: int, /) -> None:
        """What was sealed last has been written to this file."""

    def keep(self, fd: int, /) -> None:
        """Writing ends here."""


class LineWriter:
    """A queue of lines in front of one file. `put` and `close` belong to one thread, the writing to another."""

    def __init__(
        self,
        path: str,
        *,
        capacity: int,
        name: str,
        fd: int | None = None,
        on_problem: Problem | None = None,
        batch_seconds: float = BATCH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        seal: Seal | None = None,
    ) -> None:
        self.path = path
        self._seal = seal
        self.name = name
        self.capacity = capacity
        self._given_fd = 1 if path == STDOUT else fd  # written to where there is one, in place of the path
        self.lost = 0  # lines dropped since the start
        self.problem = ""  # why the last write failed; empty while writing works
        self._on_problem = on_problem
        self._batch_seconds = batch_seconds
        self._retry_seconds = retry_seconds
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._put_bytes = 0  # written by put only
        self._put_lines = 0
        self._done_bytes = 0  # written by the thread only
        self._done_lines = 0
        self._fd = -1
        self._left: tuple[int, int, int] | None = None  # the file whose writing failed last, and where it ended
        self._closing = threading.Event()
        self._give_up_at = 0.0  # monotonic seconds, set by close
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are not on the disk yet."""
        return self._put_bytes - self._done_bytes

    @property
    def waiting_lines(self) -> int:
        """Lines that are not, or not whole, on the disk yet."""
        return self._put_lines - self._done_lines

    def has_room(self, size: int = 1) -> bool:
        """Whether a line of this many bytes would be taken now."""
        return self._put_bytes - self._done_bytes + size <= self.capacity

    def put(self, line: bytes) -> bool:
        """Queue a line (with its newline). False where it was dropped, and counted, for want of room."""
        size = len(line)
        if self._put_bytes - self._done_bytes + size > self.capacity or self._closing.is_set():
            self.lost += 1
            return False
        self._put_bytes += size
        self._put_lines += 1
        self._queue.put(line)
        if self._thread is None:
            self._start()
        return True

    def close(self, timeout: float = 2.0) -> int:
        """Write what waits and stop; returns how many lines could not be written within `timeout` seconds."""
        self._give_up_at = time.monotonic() + timeout
        self._closing.set()
        thread = self._thread
        if thread is not None:
            self._queue.put(_STOP)
            thread.join(timeout)
        return self.waiting_lines

    def _start(self) -> None:
        # A daemon: a thread stuck in a write to a dead disk must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"mesh-{self.name}", daemon=True)
        self._thread.start()

    # ---- on the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                lines, stop = self._take()
                if lines and not self._write(lines):
                    break
                if stop:
                    break
        finally:
            if self._seal is not None:
                self._seal.keep(self._fd)
            self._close_file()

    def _take(self) -> tuple[list[bytes], bool]:
        first = self._queue.get()
        if first is _STOP:
            return [], True
        lines, size = [first], len(first)
        if self._batch_seconds and self._queue.empty():
            self._closing.wait(self._batch_seconds)
        while size < _BATCH_BYTES:
            try:
                line = self._queue.get_nowait()
            except Empty:
                return lines, False
            if line is _STOP:
                return lines, True
            lines.append(line)
            size += len(line)
        return lines, False

    def _write(self, lines: list[bytes]) -> bool:
        """Write this batch, however long it takes. False where closing came first."""
        texts = lines if self._seal is None else self._seal.seal(lines)
        whole = b"".join(texts)
        rest = memoryview(whole)
        total = len(rest)
        while rest:
            try:
                if (self._fd < 0 or self._moved()) and not self._open():
                    rest = memoryview(whole)[whole.rfind(b"\n", 0, total - len(rest)) + 1 :]  # no line in two files
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                if self._wait_writable():
                    continue
                self._account(lines, texts, total - len(rest))
                return False
            except OSError as error:
                self._failed(error)
                if self._closing.is_set():
                    self._account(lines, texts, total - len(rest))
                    return False
                self._closing.wait(self._retry_seconds)
        self.problem = ""
        self._done_lines += len(lines)
        self._done_bytes += total if self._seal is None else sum(map(len, lines))
        if self._seal is not None:
            self._seal.done(self._fd)
        return True

    def _wait_writable(self) -> bool:
        """Wait for a pipe that is full. False where closing ran out of time."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(100)
        return not self._closing.is_set() or time.monotonic() < self._give_up_at

    def _account(self, lines: list[bytes], texts: list[bytes], written: int) -> None:
        for line, text in zip(lines, texts, strict=True):
            if written < len(text):
                return
            written -= len(text)
            self._done_lines += 1
            self._done_bytes += len(line)

    def _failed(self, error: OSError) -> None:
        message = error.strerror or type(error).__name__
        self._left = self._end()
        self._close_file()
        if message != self.problem:
            self.problem = message
            if self._on_problem is not None:
                self._on_problem(message)

    def _open(self) -> bool:
        """Open the file; whether it ends where we stopped."""
        self._close_file()
        if self._given_fd is not None:
            self._fd = os.dup(self._given_fd)
            return True
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._left is not None and self._end() == self._left:
            return True
        self._end_half_line()
        return False

    def _end(self) -> tuple[int, int, int] | None:
        """Which file is open, and where it ends."""
        if self._fd < 0:
            return self._left
        with suppress(OSError):
            found = os.fstat(self._fd)
            return found.st_dev, found.st_ino, found.st_size
        return None

    def _end_half_line(self) -> None:
        """Where a crashed writer left a line without its end, end it, so that ours stands alone."""
        with suppress(OSError):
            if not Path(self.path).is_file() or os.fstat(self._fd).st_size == 0:
                return
            with Path(self.path).open("rb") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) == b"\n":
                    return
            os.write(self._fd, b"\n")

    def _moved(self) -> bool:
        if self._given_fd is not None:
            return False
        try:
            there, ours = Path(self.path).stat(), os.fstat(self._fd)
        except OSError:
            return True
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)

    def _close_file(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1
