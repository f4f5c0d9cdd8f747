"""Follows the EndpointSlices of one Kubernetes service: a list, then a watch from where the list was.

Theory of operation (Kubernetes API concepts, "Efficient detection of changes"). A list comes in pages and has a
`resourceVersion`; a watch from there on tells each change, and now and then a bookmark that moves the version on where
nothing of ours changed. A watch ends by itself after some minutes, or because a connection does; it is taken up where
it was. One that has had bookmarks and then says nothing for so long that two must have been lost is given up and taken
up likewise; one without any at its own end. Only where the server does not know our version (410 Gone, as a status or
as an event; or a version higher than its own, after a restore) is everything listed anew, and so it is after an answer
that made no sense. The last list stands meanwhile: an API server that is away takes no endpoint with it.

Nothing that the server sends is unbounded, and nothing of it keeps this process from its requests for long: a page has
few slices, fewer where they are large; after each few others get their turn; a large whole is put together in a thread,
and while much changes it is told the less often the longer that takes. It is a `Listing`'s: what is odd, and why
nothing can be learned now, shows in `mesh endpoints`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from sidecar.discovery.slice_api import SliceApi, Surroundings
from sidecar.discovery.slices import BadSlice, Slice, merge, read_slice
from sidecar.net.http_client import Duplex
from sidecar.net.http_message import AnswerTooLarge
from sidecar.net.kube_api import CannotAsk, Gone, message, read_page, shown

if TYPE_CHECKING:
    from sidecar.discovery.listing import Listing
    from sidecar.discovery.sources import FromKubernetes

LIST_SECONDS: Final = 30.0  # to connect, ask and have a whole page
WATCH_SECONDS: Final = 300.0  # a watch lasts half of it to all of it, by chance: not all sidecars come back at once
GRACE: Final = 15.0  # after which a watch that does not end by itself is ended by us
SILENCE: Final = 130.0  # without a word, after a bookmark: API servers send one about each minute
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before we ask again, of which chance takes up to a half away
SHORTEST_WATCH: Final = 1.0  # one that ends sooner was no good one
MAX_EVENT: Final = 4 * 1024 * 1024  # bytes; a slice has at most 1,000 endpoints, some 500 bytes each
PAGE: Final = 20  # slices; of the usual 100 endpoints each some 800 KiB, which take 10 ms to read
MAX_SLICES: Final = 10_000
MAX_PODS: Final = 100_000  # of one service; some 15 MiB here
AT_ONCE: Final = 10  # slices, before others get their turn
INLINE: Final = 1000  # pods that are put together without a thread
PAUSE_SHARE, LONGEST_PAUSE = 20.0, 2.0  # telling a change may take a twentieth of the time; seconds


class SliceWatch:
    """One service's slices."""

    def __init__(
        self,
        source: FromKubernetes,
        listing: Listing,
        *,
        dice: Callable[[], float] = random.random,  # no secret: who waits how long
        surroundings: Surroundings | None = None,
    ) -> None:
        self._port = source.port
        self._listing = listing
        self._dice = dice
        self._api = SliceApi(source, surroundings or Surroundings.of(os.environ))
        self._slices: dict[str, Slice] = {}
        self._pods = 0  # in all of them
        self._version = ""  # empty: everything has to be listed (again)
        self._opened_at = float("inf")  # monotonic: since when the watch stands
        self._due = float("inf")  # monotonic: when to tell what has changed
        self._told_until = 0.0  # monotonic: not before
        self._bookmarks = False  # this watch has had one

    async def run(self) -> None:
        """Follow until cancelled."""
        wait = FIRST_WAIT
        while True:
            self._opened_at = float("inf")
            failed, stay = False, 0.0
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Gone:
                self._version = ""
            except CannotAsk as error:
                failed, stay = True, error.retry_after
                self._listing.fail(str(error))
            if self._due < float("inf"):
                await self._say(failed=self._listing.error)
            if trio.current_time() - self._opened_at >= SHORTEST_WATCH:
                wait = FIRST_WAIT
                if not failed:
                    continue
            await trio.sleep(max(wait * (1.0 - 0.5 * self._dice()), stay))
            wait = min(2.0 * wait, LONGEST_WAIT)

    # ---- list ------------------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        limit = PAGE
        while True:
            try:
                await self._pages(limit)
                break
            except AnswerTooLarge as error:
                if limit == 1:
                    raise CannotAsk(f"a single endpointslice: {error}") from None
                limit = max(1, limit // 4)
        await self._say()

    async def _pages(self, limit: int) -> None:
        slices: dict[str, Slice] = {}
        after, version = "", ""
        while after or not version:
            async with self._api.asking(LIST_SECONDS) as asking:
                while after or not version:
                    query = {"limit": str(limit), **({"continue": after} if after else {})}
                    page = read_page(await asking.list(query, LIST_SECONDS), "EndpointSlice")
                    if after and page.after == after:
                        raise CannotAsk("the API server answers the same page of endpointslices again and again")
                    await self._take(slices, page.items)
                    after, version = page.after, version or page.version
                    if not asking.client.reusable:
                        break  # it closes its connections; the next page needs another one
        self._slices, self._version = slices, version
        self._pods = sum(len(each.pods) for each in slices.values())

    async def _take(self, slices: dict[str, Slice], items: list[Any]) -> None:
        for number, each in enumerate(items):
            found = _read(each)
            if len(slices) >= MAX_SLICES:
                raise CannotAsk(f"the service has more than {MAX_SLICES} slices")
            slices[found.name] = found
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        if sum(len(each.pods) for each in slices.values()) > MAX_PODS:
            raise CannotAsk(f"the service has more than {MAX_PODS} endpoints")

    # ---- watch -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        seconds = WATCH_SECONDS * (1.0 - 0.5 * self._dice())
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version,
            "timeoutSeconds": str(int(seconds)),
        }  # fmt: skip
        self._bookmarks = False
        async with self._api.asking(LIST_SECONDS) as asking:
            opened = await asking.watch(query, LIST_SECONDS)
            self._opened_at = trio.current_time()
            self._listing.heard()
            await self._events(opened, self._opened_at + seconds + GRACE)

    async def _events(self, watch: Duplex, end: float) -> None:
        """Take in what comes, to the end of the watch, at the latest at monotonic `end`."""
        buffer = bytearray()
        heard_at = trio.current_time()
        while True:
            silent_at = heard_at + SILENCE if self._bookmarks else end
            with trio.CancelScope(deadline=min(self._due, silent_at, end)) as pause:
                if (piece := await watch.receive()) is None:
                    return
                heard_at = trio.current_time()
                self._lines(buffer, piece)
            if trio.current_time() >= self._due:
                await self._say()  # once for all that came together
            elif pause.cancelled_caught:
                return  # it is over, or nobody is there any more

    def _lines(self, buffer: bytearray, piece: bytes) -> None:
        searched = len(buffer)
        buffer += piece
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
            if line.strip():
                self._event(line)
        if len(buffer) > MAX_EVENT:
            self._version = ""
            raise CannotAsk(f"an event of the watch has more than {MAX_EVENT} bytes")

    def _event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind, document = event["type"], event["object"]
            version = document["metadata"]["resourceVersion"] if kind != "ERROR" else ""
        except (ValueError, KeyError, TypeError, RecursionError):
            self._version = ""  # whatever that was, it is lost to us
            raise CannotAsk(f"an event of the watch that makes no sense: {shown(line)}") from None
        if kind == "ERROR":
            raise self._told(document)
        if kind == "DELETED":
            self._change(str(document["metadata"].get("name")), None)
        elif kind in ("ADDED", "MODIFIED"):
            try:
                found = _read(document)
            except CannotAsk:
                self._version = ""
                raise
            self._change(found.name, found)
        elif kind == "BOOKMARK":
            self._bookmarks = True
        else:
            self._version = ""
            raise CannotAsk(f"an event of the watch of an unknown type: {shown(line)}")
        if isinstance(version, str) and version:
            self._version = version
        self._listing.heard()

    def _change(self, name: str, found: Slice | None) -> None:
        """One slice is there, another one, or gone."""
        before = self._slices.get(name)
        pods = self._pods + (len(found.pods) if found else 0) - (len(before.pods) if before else 0)
        if found is not None and (pods > MAX_PODS or (before is None and len(self._slices) >= MAX_SLICES)):
            self._version = ""
            raise CannotAsk(f"the service has more than {MAX_SLICES} slices or {MAX_PODS} endpoints")
        if found is not None:
            self._slices[name] = found
        else:
            self._slices.pop(name, None)
        self._pods = pods
        self._due = min(self._due, max(trio.current_time(), self._told_until))

    def _told(self, status: Any) -> Exception:
        """What an ERROR event means. After one, a watch is over."""
        self._version = ""
        code = status.get("code") if isinstance(status, dict) else None
        return Gone() if code == 410 else CannotAsk(f"the watch ended: {message(status)}")

    # ---- both ------------------------------------------------------------------------------------------------------

    async def _say(self, *, failed: str = "") -> None:
        """Tell what all slices come to; `failed` is what went wrong since, and stays said."""
        began, self._due = trio.current_time(), float("inf")
        slices = tuple(self._slices.values())
        if self._pods <= INLINE:
            merged = merge(slices, self._port)
        else:
            merged = await trio.to_thread.run_sync(merge, slices, self._port)
        now = trio.current_time()
        self._told_until = now + min(LONGEST_PAUSE, PAUSE_SHARE * (now - began))
        self._listing.say(merged.declared, left_out=merged.left_out, notes=merged.notes)
        if failed:
            self._listing.error = failed


def _read(document: Any) -> Slice:
    """One slice. Raises CannotAsk."""
    try:
        return read_slice(document)
    except BadSlice as error:
        raise CannotAsk(str(error)) from None
