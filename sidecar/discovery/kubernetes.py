"""Follows the EndpointSlices of one Kubernetes service: a list, then a watch from where the list was.

Theory of operation (Kubernetes API concepts, "Efficient detection of changes"). A list has a `resourceVersion`; a watch
from there on tells each change, and now and then a bookmark that moves the version on where nothing of ours changed.
A watch ends by itself after some minutes, or because a connection does; it is taken up where it was. Only where the
server has forgotten that version (410 Gone, as a status or as an event) is everything listed anew, and so it is after
an answer that made no sense. The last list stands meanwhile: an API server that is away takes no endpoint with it.

Nothing that the server sends is unbounded: an answer, and a single event, may
have 4 MiB. The whole is a `Listing`'s: what is odd, and why nothing can be learned now, shows in `mesh endpoints`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from sidecar.discovery.slice_api import CannotAsk, Gone, SliceApi, Surroundings, message, shown
from sidecar.discovery.slices import BadSlice, Slice, merge, read_slice
from sidecar.net.http_client import Duplex
from sidecar.net.http_message import BadJson

if TYPE_CHECKING:
    from sidecar.discovery.listing import Listing
    from sidecar.discovery.sources import FromKubernetes

LIST_SECONDS: Final = 30.0  # to connect, ask and have the whole answer
WATCH_SECONDS: Final = 300.0  # a watch lasts half of it to all of it, by chance: not all sidecars come back at once
GRACE: Final = 15.0  # after which a watch that does not end by itself is ended by us
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before we ask again, of which chance takes up to a half away
SHORTEST_WATCH: Final = 1.0  # one that ends sooner was no good one
MAX_EVENT: Final = 4 * 1024 * 1024  # bytes; a slice has at most 1,000 endpoints, some 500 bytes each
MAX_SLICES: Final = 1000


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
        self._version = ""  # empty: everything has to be listed (again)
        self._opened_at = float("inf")  # monotonic: since when the watch stands

    async def run(self) -> None:
        """Follow until cancelled."""
        wait = FIRST_WAIT
        while True:
            self._opened_at = float("inf")
            failed = False
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Gone:
                self._version = ""
            except CannotAsk as error:
                failed = True
                self._listing.fail(str(error))
            if trio.current_time() - self._opened_at >= SHORTEST_WATCH:
                wait = FIRST_WAIT
                if not failed:
                    continue
            await trio.sleep(wait * (1.0 - 0.5 * self._dice()))
            wait = min(2.0 * wait, LONGEST_WAIT)

    # ---- list, watch -----------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        async with self._api.asking("list", LIST_SECONDS) as (client, fields, url):
            answer = await client.request("GET", self._api.target(url, {}), b"", fields)
        self._api.check(answer, "list")
        try:
            document = answer.json()
        except BadJson as error:
            raise CannotAsk(f"the list of endpointslices: {error}") from None
        if document.get("kind") != "EndpointSliceList" or not isinstance(document.get("items"), list):
            raise CannotAsk(f"a {str(document.get('kind'))[:40]} was answered where an EndpointSliceList should be")
        version = document["metadata"].get("resourceVersion") if isinstance(document.get("metadata"), dict) else None
        if not isinstance(version, str) or not version:
            raise CannotAsk("the list of endpointslices has no resourceVersion")
        slices: dict[str, Slice] = {}
        for each in document["items"]:
            self._put(slices, each)
        self._slices, self._version = slices, version
        self._say()

    async def _watch(self) -> None:
        seconds = WATCH_SECONDS * (1.0 - 0.5 * self._dice())
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version,
            "timeoutSeconds": str(int(seconds)),
        }  # fmt: skip
        async with self._api.asking("watch", LIST_SECONDS) as (client, fields, url):
            with trio.fail_after(LIST_SECONDS):
                opened = await client.watch(self._api.target(url, query), fields)
            if isinstance(opened, Duplex):
                self._opened_at = trio.current_time()
                self._listing.heard()
                await self._events(opened, seconds + GRACE)
                return
        self._api.check(opened, "watch")
        raise CannotAsk(f"a watch was answered with {opened.status}")

    async def _events(self, watch: Duplex, seconds: float) -> None:
        """Take in what comes, to the end of the watch."""
        buffer = bytearray()
        with trio.CancelScope(deadline=trio.current_time() + seconds):
            while (piece := await watch.receive()) is not None:
                searched, told = len(buffer), self._slices
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
                if self._slices is not told:
                    self._say()  # once for all that came together

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
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            slices = dict(self._slices)
            if kind == "DELETED":
                slices.pop(str(document["metadata"].get("name")), None)
            else:
                self._put(slices, document)
            self._slices = slices
        elif kind != "BOOKMARK":
            self._version = ""
            raise CannotAsk(f"an event of the watch of an unknown type: {shown(line)}")
        if isinstance(version, str) and version:
            self._version = version
        self._listing.heard()

    def _told(self, status: Any) -> Exception:
        """What an ERROR event means. After one, a watch is over."""
        self._version = ""
        code = status.get("code") if isinstance(status, dict) else None
        return Gone() if code == 410 else CannotAsk(f"the watch ended: {message(status)}")

    def _put(self, slices: dict[str, Slice], document: Any) -> None:
        try:
            found = read_slice(document)
        except BadSlice as error:
            self._version = ""
            raise CannotAsk(str(error)) from None
        if len(slices) >= MAX_SLICES and found.name not in slices:
            self._version = ""
            raise CannotAsk(f"the service has more than {MAX_SLICES} slices")
        slices[found.name] = found

    def _say(self) -> None:
        merged = merge(self._slices.values(), self._port)
        self._listing.say(merged.declared, left_out=merged.left_out, notes=merged.notes)
