"""HTTPS as the CA's own client: to a cluster's API server, an OIDC issuer, or another trust domain's bundle endpoint.

Strict, small, nothing followed. The server is judged as on the web: by its DNS name, against the certificates that the
operator gave or, without any, those that the system trusts. No redirect is followed: whoever is trusted for keys says
where they are, not somebody else. The whole of an exchange takes at most ten seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from ca.errors import CaError
from sidecar.net.http_client import BadHttp, HttpClient
from sidecar.net.http_message import JSON, Answer, BadJson, Headers, find_header
from sidecar.net.https import HttpsUrl, cause, connect

__all__ = ["HttpsClient", "HttpsUrl", "OutsideUnavailable", "exchange"]

SECONDS = 10.0  # for all of one exchange
LONGEST_STAY = 120.0  # seconds for which a Retry-After is passed on
ACCEPT = (b"accept", b"application/json")


class OutsideUnavailable(CaError):
    """Somebody outside whom the CA has to ask (an API server, an OIDC issuer) cannot be asked now."""

    name = "outside_unavailable"

    def __init__(self, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after  # seconds for which it wants to be left alone; 0 where it did not say


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
        more = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        answer = await exchange(method, url, body, (JSON, ACCEPT, *more), self.ca_pem)
        if not 200 <= answer.status < 300:
            raise OutsideUnavailable(f"{method} {url}: it answered {answer.status}", _retry_after(answer))
        try:
            return answer.json()
        except BadJson as error:
            raise OutsideUnavailable(f"{method} {url}: {error}") from None


def _retry_after(answer: Answer) -> float:
    said = find_header(answer.headers, b"retry-after") or b""
    return min(float(said), LONGEST_STAY) if said.isdigit() and len(said) < 10 else 0.0


async def exchange(method: str, url: HttpsUrl, body: bytes, fields: Headers, roots: str) -> Answer:
    """One exchange on a connection of its own; `roots` (PEM), where there are any, instead of the system's.

    Raises OutsideUnavailable.
    """
    try:
        with trio.fail_after(SECONDS):
            stream = await connect(url, roots)
            try:
                client = HttpClient(stream, url.authority)
                return await client.request(method, url.target, body, (*fields, (b"connection", b"close")))
            finally:
                await trio.aclose_forcefully(stream)
    except trio.TooSlowError:
        raise OutsideUnavailable(f"{url.host} did not answer within {SECONDS:g} s") from None
    except (OSError, BadHttp, UnicodeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise OutsideUnavailable(f"{url.host} cannot be asked: {cause(error)}") from error
