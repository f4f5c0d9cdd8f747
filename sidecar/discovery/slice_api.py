"""Asking a cluster's API server for EndpointSlices, and for nothing else: where it is, who we are, what it refuses.

Token and certificates are read again for each request, since Kubernetes replaces them. Whatever goes wrong is a
`CannotAsk` in words that say what to do.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio

from sidecar.discovery.slices import SERVICE_LABEL
from sidecar.net.http_client import BadHttp, HttpClient
from sidecar.net.http_message import Answer, BadJson
from sidecar.net.https import HttpsUrl, cause, connect

if TYPE_CHECKING:
    from sidecar.discovery.sources import FromKubernetes

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


@dataclass(frozen=True, slots=True)
class SliceApi:
    """The slices of one service, as its API server has them."""

    source: FromKubernetes
    surroundings: Surroundings

    @asynccontextmanager
    async def asking(
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
        return HttpsUrl.parse(self.source.api) if self.source.api else self.surroundings.api()

    def target(self, url: HttpsUrl, query: Mapping[str, str]) -> str:
        asked = {"labelSelector": f"{SERVICE_LABEL}={self.source.service}", **query}
        fields = "&".join(f"{key}={quote(value, safe='')}" for key, value in asked.items())
        namespace = quote(self.source.namespace, safe="")
        return f"{url.path}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{fields}"

    def _fields(self) -> list[tuple[bytes, bytes]]:
        return [(b"accept", b"application/json"), (b"authorization", b"Bearer " + self._token())]

    def _token(self) -> bytes:
        """Our token, as it is now. Raises CannotAsk."""
        path = self.source.token_file
        token = _read(path, MAX_TOKEN, "the service account's token").strip()
        if not token or not token.isascii() or not token.decode().isprintable() or b" " in token:
            raise CannotAsk(f"{path} holds no token")
        return token

    def _ca(self) -> str:
        """The certificates to judge it by, as they are now. Raises CannotAsk."""
        path = self.source.ca_file
        if not path:
            return ""  # those that the system trusts
        text = _read(path, MAX_CA, "the API server's certificates").decode("ascii", "replace")
        if "BEGIN CERTIFICATE" not in text:
            raise CannotAsk(f"{path} holds no certificate")
        return text

    def check(self, answer: Answer, verb: str) -> None:
        """Raises CannotAsk or Gone for what is no success."""
        if answer.status == 200:
            return
        try:
            said = message(answer.json())
        except BadJson:
            said = "it says no more"
        source = self.source
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


def message(status: Any) -> str:
    """What a `Status` says, in one line."""
    said = status.get("message") if isinstance(status, dict) else None
    return f"it says: {shown(said.encode())}" if isinstance(said, str) and said else "it says no more"


def shown(data: bytes) -> str:
    text = data[:300].decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)
