"""Follows the EndpointSlices of one Kubernetes service: a list, then a watch from where the list was.

Theory of operation (Kubernetes API concepts, "Efficient detection of changes"). A list has a `resourceVersion`; a watch
from there on tells each change, and now and then a bookmark that moves the version on where nothing of ours changed.
A watch ends by itself after some minutes, or because a connection does; it is taken up where it was. Only where the
server has forgotten that version (410 Gone, as a status or as an event) is everything listed anew, and so it is after
an answer that made no sense. The last list stands meanwhile: an API server that is away takes no endpoint with it.

We ask for nothing but `get`, `list` and `watch` of endpointslices. Token and certificates are read again for each
request, since Kubernetes replaces them. Nothing that the server sends is unbounded: an answer, and a single event, may
have 4 MiB. The whole is a `Listing`'s: what is odd, and why nothing can be learned now, shows in `mesh endpoints`.
"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio

from sidecar.discovery.slices import SERVICE_LABEL, BadSlice, Slice, merge, read_slice
from sidecar.net.http_client import BadHttp, Duplex, HttpClient
from sidecar.net.http_message import Answer, BadJson
from sidecar.net.https import HttpsUrl, cause, connect

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
MAX_TOKEN: Final = 16 * 1024
MAX_CA: Final = 1024 * 1024
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class CannotAsk(Exception):
    """The API server cannot tell now, in words. What was listed stands."""


class Gone(Exception):
    """The server has forgotten the version from which we watch."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod knows of its cluster without being told."""

    host: str
    port: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Surroundings:
        """As Kubernetes tells every container."""
        return cls(environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", ""))

    def api(self) -> HttpsUrl:
        """Where the API server is. Raises CannotAsk."""
        if not self.host or not self.port.isdigit():
            raise CannotAsk("this is no pod (KUBERNETES_SERVICE_HOST is not set): name the API server with api:")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return HttpsUrl.parse(f"https://{host}:{self.port}")


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
        self._source = source
        self._listing = listing
        self._dice = dice
        self._surroundings = surroundings or Surroundings.of(os.environ)
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
        async with self._asking("list", LIST_SECONDS) as (client, fields, url):
            answer = await client.request("GET", self._target(url, {}), b"", fields)
        self._check(answer, "list")
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
        async with self._asking("watch", LIST_SECONDS) as (client, fields, url):
            with trio.fail_after(LIST_SECONDS):
                opened = await client.watch(self._target(url, query), fields)
            if isinstance(opened, Duplex):
                self._opened_at = trio.current_time()
                self._listing.heard()
                await self._events(opened, seconds + GRACE)
                return
        self._check(opened, "watch")
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
            raise CannotAsk(f"an event of the watch that makes no sense: {_shown(line)}") from None
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
            raise CannotAsk(f"an event of the watch of an unknown type: {_shown(line)}")
        if isinstance(version, str) and version:
            self._version = version
        self._listing.heard()

    def _told(self, status: Any) -> Exception:
        """What an ERROR event means. After one, a watch is over."""
        self._version = ""
        code = status.get("code") if isinstance(status, dict) else None
        return Gone() if code == 410 else CannotAsk(f"the watch ended: {_message(status)}")

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
        merged = merge(self._slices.values(), self._source.port)
        self._listing.say(merged.declared, left_out=merged.left_out, notes=merged.notes)

    # ---- asking ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _asking(
        self, verb: str, within: float
    ) -> AsyncIterator[tuple[HttpClient, list[tuple[bytes, bytes]], HttpsUrl]]:
        """A connection for one request. What goes wrong in the block is a CannotAsk that says where."""
        url = self._url()
        fields = await trio.to_thread.run_sync(self._fields)
        ca_pem = await trio.to_thread.run_sync(self._ca)
        try:
            with trio.fail_after(within) as scope:
                stream = await connect(url, ca_pem)
                _keep_alive(stream)
                try:
                    if verb == "watch":
                        scope.deadline = float("inf")  # the watch has its own
                    yield HttpClient(stream, url.authority), fields, url
                finally:
                    await trio.aclose_forcefully(stream)
        except trio.TooSlowError:
            raise CannotAsk(f"{url}: no answer within {within:g} s") from None
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError, BadHttp) as error:
            raise CannotAsk(f"{url}: {cause(error)}") from None

    def _url(self) -> HttpsUrl:
        return HttpsUrl.parse(self._source.api) if self._source.api else self._surroundings.api()

    def _target(self, url: HttpsUrl, query: Mapping[str, str]) -> str:
        asked = {"labelSelector": f"{SERVICE_LABEL}={self._source.service}", **query}
        fields = "&".join(f"{key}={quote(value, safe='')}" for key, value in asked.items())
        namespace = quote(self._source.namespace, safe="")
        return f"{url.path}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{fields}"

    def _fields(self) -> list[tuple[bytes, bytes]]:
        return [(b"accept", b"application/json"), (b"authorization", b"Bearer " + self._token())]

    def _token(self) -> bytes:
        """Our token, as it is now. Raises CannotAsk."""
        path = self._source.token_file
        token = _read(path, MAX_TOKEN, "the service account's token").strip()
        if not token or not token.isascii() or not token.decode().isprintable() or b" " in token:
            raise CannotAsk(f"{path} holds no token")
        return token

    def _ca(self) -> str:
        """The certificates to judge it by, as they are now. Raises CannotAsk."""
        path = self._source.ca_file
        text = _read(path, MAX_CA, "the API server's certificates").decode("ascii", "replace")
        if "BEGIN CERTIFICATE" not in text:
            raise CannotAsk(f"{path} holds no certificate")
        return text

    def _check(self, answer: Answer, verb: str) -> None:
        """Raises CannotAsk or Gone for what is no success."""
        if answer.status == 200:
            return
        try:
            said = _message(answer.json())
        except BadJson:
            said = "it says no more"
        source = self._source
        match answer.status:
            case 401:
                why = f"the token in {source.token_file} is not accepted (401)"
            case 403:
                why = (
                    f"our service account may not {verb} endpointslices in namespace {source.namespace} (403): grant "
                    "get, list and watch, see deploy/k8s/endpointslices.yaml"
                )
            case 404:
                why = "there is no discovery.k8s.io/v1 (404): it is not a Kubernetes API server of 1.21 or later"
            case 410:
                raise Gone
            case status:
                why = f"the API server answered {verb} with {status}"
        raise CannotAsk(f"{why}; {said}")


def _keep_alive(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Notice within a minute that the other side has gone without a word."""
    sock = stream.transport_stream.socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _read(path: str, most: int, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(most)
    except (OSError, ValueError) as error:
        raise CannotAsk(f"{what} cannot be read: {path}: {getattr(error, 'strerror', None) or error}") from None


def _message(status: Any) -> str:
    """What a `Status` says, in one line."""
    said = status.get("message") if isinstance(status, dict) else None
    return f"it says: {_shown(said.encode())}" if isinstance(said, str) and said else "it says no more"


def _shown(data: bytes) -> str:
    text = data[:300].decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)
