"""HTTPS as the CA's own client: to a cluster's API server, or to an OIDC issuer. Strict, small, nothing followed.

The server is judged as on the web: by its name, against the certificates that the operator gave or, without any, those
that the system trusts. No redirect is followed: whoever is trusted for keys says where they are, not somebody else.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import trio

from ca.errors import CaError
from sidecar.net.http_client import BadHttp, HttpClient
from sidecar.net.http_message import JSON, BadJson

SECONDS = 10.0  # for all of one exchange


class OutsideUnavailable(CaError):
    """Somebody outside whom the CA has to ask (an API server, an OIDC issuer) cannot be asked now."""

    name = "outside_unavailable"


@dataclass(frozen=True, slots=True)
class HttpsUrl:
    """An https URL, taken apart."""

    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> HttpsUrl:
        """Read an https URL without user, query or fragment. Raises ValueError, in words."""
        parts = urlsplit(text)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"{text[:120]!r} is not an https:// URL")
        if parts.username is not None or parts.query or parts.fragment or not text.isascii() or not text.isprintable():
            raise ValueError(f"{text[:120]!r}: a URL here has no user, query or fragment")
        return cls(parts.hostname, parts.port or 443, parts.path.rstrip("/"))

    def __truediv__(self, path: str) -> HttpsUrl:
        return HttpsUrl(self.host, self.port, f"{self.path}/{path}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}{'' if self.port == 443 else f':{self.port}'}{self.path}"


@dataclass(frozen=True, slots=True)
class HttpsClient:
    """Exchanges of JSON. `ca_pem` are the certificates to trust; without any, the system's."""

    ca_pem: str = field(default="", repr=False)

    async def get(self, url: HttpsUrl, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object at this URL. Raises OutsideUnavailable."""
        return await self._exchange("GET", url, b"", headers or {})

    async def post(self, url: HttpsUrl, document: Any, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What is answered to this JSON. Raises OutsideUnavailable."""
        return await self._exchange("POST", url, json.dumps(document).encode(), headers or {})

    async def _exchange(self, method: str, url: HttpsUrl, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        fields = [JSON, (b"accept", b"application/json")]
        fields += [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        try:
            with trio.fail_after(SECONDS):
                stream = await self._connect(url)
                try:
                    answer = await HttpClient(stream, _authority(url)).request(method, url.path or "/", body, fields)
                finally:
                    await trio.aclose_forcefully(stream)
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.TooSlowError, BadHttp, UnicodeError) as error:
            why = _cause(error)
            raise OutsideUnavailable(f"{method} {url}: {why}") from None
        if not 200 <= answer.status < 300:
            raise OutsideUnavailable(f"{method} {url}: it answered {answer.status}")
        try:
            return answer.json()
        except BadJson as error:
            raise OutsideUnavailable(f"{method} {url}: {error}") from None

    async def _connect(self, url: HttpsUrl) -> trio.SSLStream[trio.SocketStream]:
        context = ssl.create_default_context(cadata=self.ca_pem or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        transport = await trio.open_tcp_stream(url.host, url.port)
        stream = trio.SSLStream(transport, context, server_hostname=url.host, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


def _authority(url: HttpsUrl) -> str:
    return str(HttpsUrl(url.host, url.port, "")).removeprefix("https://")


def _cause(error: BaseException) -> str:
    """In words, with what trio's wrapper hides."""
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {SECONDS:g} s"
    inner = error.__cause__ or error.__context__ if isinstance(error, trio.BrokenResourceError) else error
    return str(inner or error) or type(error).__name__
