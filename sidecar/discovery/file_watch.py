"""Follows a file of endpoints.

Every second we look at its *content*, through whatever symlinks lead to it (see `sidecar.runtime.reload`: Kubernetes
swaps a ConfigMap behind one). What differs is given a moment to settle, for not everybody replaces a file by a rename,
and half a list is a list too. A file with a mistake in it, or one that has gone, leaves the last good list standing.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

import trio

from sidecar.config.document import MAX_BYTES
from sidecar.discovery.file_list import Read, read_list
from sidecar.discovery.quick_list import read_quickly

if TYPE_CHECKING:
    from sidecar.discovery.listing import Listing

LOOK_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 0.2
SHORT: Final = 2048  # bytes; some 30 ms for the strict reader
MOST_MISTAKES: Final = 5  # in one message; the file has the others

Content = bytes | str  # or why it cannot be read


class FileWatch:
    """One file and what it said last."""

    def __init__(self, path: str, listing: Listing) -> None:
        self._path = path
        self._listing = listing
        self._seen: Content | None = None

    def read(self) -> Content:
        """What the file holds, a byte more than we take at most; or why it cannot be read."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for ever
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return "it is no file"
                return file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            return f"cannot read: {getattr(error, 'strerror', None) or error}"

    def begin(self) -> None:
        """Read it for the first time, here and now, where that takes no more than some milliseconds."""
        content = self.read()
        if isinstance(content, str) or len(content) <= SHORT or read_quickly(content) is not None:
            self._take(content, _judged(content, self._path))

    async def run(self) -> None:
        """Look again and again."""
        while True:
            content = await trio.to_thread.run_sync(self.read)
            while content != self._seen and self._seen is not None:
                await trio.sleep(SETTLE_SECONDS)
                before, content = content, await trio.to_thread.run_sync(self.read)
                if content == before:
                    break
            if content != self._seen:
                self._take(content, await trio.to_thread.run_sync(_judged, content, self._path))
            elif not self._listing.error:
                self._listing.heard()
            await trio.sleep(LOOK_SECONDS)

    def _take(self, content: Content, found: Read | None) -> None:
        """Tell the listing what it has come to."""
        self._seen = content
        if found is None:
            self._listing.fail(str(content))
        elif not found.mistakes:
            self._listing.say(found.entries, left_out=found.left_out)
        else:
            shown = [str(each) for each in found.mistakes[:MOST_MISTAKES]]
            if len(found.mistakes) > MOST_MISTAKES:
                shown.append(f"{len(found.mistakes) - MOST_MISTAKES} more")
            self._listing.fail("; ".join(shown))


def _judged(content: Content, path: str) -> Read | None:
    """What it says; None where it could not be read at all. A thread's work: it may take seconds."""
    return None if isinstance(content, str) else read_list(content, path)
