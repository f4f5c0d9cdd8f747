"""HTTP/1.1 toward somebody who is asked on behalf of hops: OPA, a token endpoint. On trio; answers are bounded.

A connection is kept for the next question. One that was kept may be dead without our knowing: then the question is
asked once more, on a new one. No redirect is followed, no proxy is asked, and nothing of the environment is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from certs.errors import MeshError
from sidecar.net import https
from sidecar.net.http_client import HttpClient
from sidecar.net.http_message import AnswerTooLarge, BadHttp

if TYPE_CHECKING:
    from sidecar.config.urls import WebUrl
    from sidecar.net.http_message import Answer, Headers

SYSTEM: Final = ("", "system")  # instead of a file of roots


class WebFailed(MeshError):
    """No answer. The text says why, for the operator; nothing secret stands in it."""

    name = "web_failed"


class WebClient:
    """One connection to one server at a time, made anew where it is gone."""

    def __init__(self, url: WebUrl, *, roots: str = "", most: int) -> None:
        self.url = url
        self._roots = "" if roots in SYSTEM else roots
        self._most = most  # bytes of an answer
        self._client: HttpClient | None = None

    async def post(self, path: str, body: bytes, headers: Headers) -> Answer:
        """Ask. Raises WebFailed; time-outs are the caller's, and whoever runs into one has to `drop` the connection."""
        kept = self._client
        if kept is not None:
            try:
                return await self._exchange(kept, path, body, headers)
            except (BadHttp, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await self.drop()
                if isinstance(error, AnswerTooLarge):
                    raise WebFailed(str(error)) from None
        client = await self._connect()
        try:
            return await self._exchange(client, path, body, headers)
        except (BadHttp, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await self.drop()
            raise WebFailed(https.cause(error)) from None

    async def _exchange(self, client: HttpClient, path: str, body: bytes, headers: Headers) -> Answer:
        answer = await client.request("POST", path, body, headers)
        if not client.reusable:
            await self.drop()
        return answer

    async def _connect(self) -> HttpClient:
        url = self.url
        stream: trio.abc.Stream
        try:
            if url.tls:
                pem = await trio.to_thread.run_sync(_read, self._roots) if self._roots else ""
                to = https.HttpsUrl(url.address.host, url.address.port, "")
                stream = await https.connect(to, pem)
            else:
                stream = await trio.open_tcp_stream(url.address.host, url.address.port)
        except (OSError, ValueError, trio.BrokenResourceError) as error:
            raise WebFailed(https.cause(error)) from None
        self._client = HttpClient(stream, url.authority, most=self._most)
        return self._client

    async def drop(self) -> None:
        """Let go of the connection, if there is one; at once."""
        client, self._client = self._client, None
        if client is not None:
            await trio.aclose_forcefully(client.stream)


def _read(path: str) -> str:
    return Path(path).read_text("ascii")
