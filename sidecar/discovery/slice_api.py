"""Asking a cluster's API server for EndpointSlices, and for nothing else: where it is, who we are, what it refuses.

Token and certificates are read again for each request, since Kubernetes replaces them. Whatever goes wrong is a
`CannotAsk` in words that say what to do.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import trio

from sidecar.discovery.slices import SERVICE_LABEL
from sidecar.net.http_client import BadHttp, Duplex, HttpClient
from sidecar.net.http_message import Answer, AnswerTooLarge
from sidecar.net.https import HttpsUrl, cause, connect
from sidecar.net.kube_api import (
    CannotAsk,
    Gone,
    forgotten,
    keep_alive,
    load_ca,
    load_token,
    message,
    retry_after,
    told,
)

if TYPE_CHECKING:
    from sidecar.discovery.sources import FromKubernetes

__all__ = ["Asking", "CannotAsk", "Gone", "SliceApi", "Surroundings", "message"]


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
class Asking:
    """A connection to the API server, good for some requests one after another."""

    api: SliceApi
    client: HttpClient
    url: HttpsUrl
    scope: trio.CancelScope

    async def list(self, query: Mapping[str, str], within: float) -> Answer:
        """One page, whole. Raises CannotAsk, Gone, AnswerTooLarge."""
        self.scope.deadline = trio.current_time() + within
        target, fields = self.api.target(self.url, query), await self.api.fields()
        answer = await self.client.request("GET", target, b"", fields)
        self.api.check(answer, "list")
        return answer

    async def watch(self, query: Mapping[str, str], within: float) -> Duplex:
        """A watch that has begun; how long it lasts is the caller's to say. Raises CannotAsk, Gone."""
        self.scope.deadline = trio.current_time() + within
        opened = await self.client.watch(self.api.target(self.url, query), await self.api.fields())
        if not isinstance(opened, Duplex):
            self.api.check(opened, "watch")
            raise CannotAsk(f"a watch was answered with {opened.status}")
        self.scope.deadline = float("inf")
        return opened


@dataclass(frozen=True, slots=True)
class SliceApi:
    """The slices of one service, as its API server has them."""

    source: FromKubernetes
    surroundings: Surroundings

    @asynccontextmanager
    async def asking(self, within: float) -> AsyncIterator[Asking]:
        """A connection. What goes wrong in the block is a CannotAsk that says where (or AnswerTooLarge)."""
        url = self._url()
        await self.fields()  # before anybody is asked
        ca_pem = await trio.to_thread.run_sync(load_ca, self.source.ca_file)
        try:
            with trio.fail_after(within) as scope:
                stream = await connect(url, ca_pem)
                keep_alive(stream)
                try:
                    yield Asking(self, HttpClient(stream, url.authority), url, scope)
                finally:
                    await trio.aclose_forcefully(stream)
        except trio.TooSlowError:
            raise CannotAsk(f"{url}: no answer within {within:g} s") from None
        except AnswerTooLarge:
            raise
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError, BadHttp) as error:
            raise CannotAsk(f"{url}: {cause(error)}") from None

    def _url(self) -> HttpsUrl:
        return HttpsUrl.parse(self.source.api) if self.source.api else self.surroundings.api()

    def target(self, url: HttpsUrl, query: Mapping[str, str]) -> str:
        """Where the slices are, to be asked for with this query."""
        asked = {"labelSelector": f"{SERVICE_LABEL}={self.source.service}", **query}
        fields = "&".join(f"{key}={quote(value, safe='')}" for key, value in asked.items())
        namespace = quote(self.source.namespace, safe="")
        return f"{(url / 'apis/discovery.k8s.io/v1/namespaces').path}/{namespace}/endpointslices?{fields}"

    async def fields(self) -> list[tuple[bytes, bytes]]:
        """What every request says of us, with our token as it is now. Raises CannotAsk."""
        token = await trio.to_thread.run_sync(load_token, self.source.token_file)
        return [(b"accept", b"application/json"), (b"authorization", b"Bearer " + token)]

    def check(self, answer: Answer, verb: str) -> None:
        """Raises CannotAsk or Gone for what is no success."""
        if answer.status == 200:
            return
        if forgotten(answer, verb):
            raise Gone
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
            case 429:
                why = f"the API server is too busy for a {verb} (429)"
            case status:
                why = f"the API server answered {verb} with {status}"
        raise CannotAsk(f"{why}; {told(answer)}", retry_after(answer))
