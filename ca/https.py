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

import trio

from ca.errors import CaError
from sidecar.net.http_client import BadHttp, HttpClient
from sidecar.net.http_message import JSON, BadJson
from sidecar.net.https import HttpsUrl, cause, connect

__all__ = ["HttpsClient", "HttpsUrl", "OutsideUnavailable"]

SECONDS = 10.0  # for all of one exchange


class OutsideUnavailable(CaError):
    """Somebody outside whom the CA has to ask (an API server, an OIDC issuer) cannot be asked now."""

    name = "outside_unavailable"


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
                stream = await connect(url, self.ca_pem)
                try:
                    answer = await HttpClient(stream, url.authority).request(method, url.path or "/", body, fields)
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


def _cause(error: BaseException) -> str:
    return f"no answer within {SECONDS:g} s" if isinstance(error, trio.TooSlowError) else cause(error)
