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
from sidecar.discovery.file_list import read_list

if TYPE_CHECKING:
    from sidecar.discovery.listing import Listing

LOOK_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 0.2
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

    def look(self, content: Content) -> None:
        """Tell the listing, if this is something else than it was."""
        if content == self._seen:
            if not self._listing.error:
                self._listing.heard()
            return
        self._seen = content
        if isinstance(content, str):
            self._listing.fail(content)
            return
        found = read_list(content, self._path)
        if not found.mistakes:
            self._listing.say(found.entries, left_out=found.left_out)
            return
        shown = [str(each) for each in found.mistakes[:MOST_MISTAKES]]
        if len(found.mistakes) > MOST_MISTAKES:
            shown.append(f"{len(found.mistakes) - MOST_MISTAKES} more")
        self._listing.fail("; ".join(shown))

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            content = await self._read()
            while content != self._seen:
                await trio.sleep(SETTLE_SECONDS)
                before, content = content, await self._read()
                if content == before:
                    break
            self.look(content)

    async def _read(self) -> Content:
        return await trio.to_thread.run_sync(self.read)
