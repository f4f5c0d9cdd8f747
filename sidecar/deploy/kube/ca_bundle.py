"""Keeping the `caBundle` of our MutatingWebhookConfiguration current, through the API server.

The API server believes a webhook only if its certificate leads to a root in `caBundle`. Ours are the roots of the
mesh, and they change: a rotation first adds the new root everywhere, so whoever is told at each change of the bundle is
never without the one that counts. Others write that object too (an upgrade applies it anew, empty), so it is looked
at again every minute. What is changed is `caBundle` and nothing else, and only in the version that was read.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trio

from sidecar.discovery.slice_api import CannotAsk, Surroundings, message
from sidecar.net.http_client import HttpClient
from sidecar.net.http_message import Answer, BadHttp, BadJson
from sidecar.net.https import HttpsUrl, cause, connect

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes puts a pod's own token
LOOK_AGAIN: Final = 60.0  # seconds
WITHIN: Final = 10.0  # seconds for one exchange
FIRST_REST, LONGEST_REST = 1.0, 30.0  # seconds after a failure, doubling
_PATH: Final = "apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach the API server. Token and certificates are read again for each request: Kubernetes replaces them."""

    api: HttpsUrl
    token_file: Path
    ca_file: Path

    @classmethod
    def of(cls, api: str, token_file: Path, ca_file: Path, surroundings: Surroundings) -> Cluster:
        """As told, or as a pod knows it. Raises CannotAsk, ValueError."""
        return cls(HttpsUrl.parse(api) if api else surroundings.api(), token_file, ca_file)

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One exchange. Raises CannotAsk."""
        ca_pem, token = await trio.to_thread.run_sync(self._read)
        fields = [(b"accept", b"application/json"), (b"authorization", b"Bearer " + token.encode())]
        sent = b""
        if body is not None:
            fields.append((b"content-type", b"application/json-patch+json"))
            sent = json.dumps(body).encode()
        try:
            with trio.fail_after(WITHIN):
                stream = await connect(self.api, ca_pem)
                try:
                    client = HttpClient(stream, self.api.authority)
                    return await client.request(method, (self.api / path).path, sent, fields)
                finally:
                    await trio.aclose_forcefully(stream)
        except trio.TooSlowError:
            raise CannotAsk(f"{self.api}: no answer within {WITHIN:g} s") from None
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError, BadHttp) as error:
            raise CannotAsk(f"{self.api}: {cause(error)}") from None

    def _read(self) -> tuple[str, str]:
        try:
            ca_pem, token = self.ca_file.read_text("ascii"), self.token_file.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise CannotAsk(f"the service account's files cannot be read: {error}") from None
        if not token or not token.isprintable() or " " in token:
            raise CannotAsk(f"{self.token_file} holds no token")
        return ca_pem, token


@dataclass(slots=True)
class CaBundle:
    """One configuration, and what is to stand in it. `problem` says why it is not known to be so; empty where it is."""

    cluster: Cluster
    name: str
    wanted: Callable[[], bytes]  # the roots as PEM
    problem: str = "the webhook's configuration was not looked at yet"

    async def keep(self, changed: Callable[[], Any], tell: Callable[[str], None]) -> None:
        """Keep it current until cancelled. `changed()` returns an awaitable that ends when the roots have changed."""
        rest = FIRST_REST
        while True:
            try:
                if await self.once():
                    tell(f"caBundle of {self.name} is current now")
                wait, rest = LOOK_AGAIN, FIRST_REST
                self.problem = ""
            except CannotAsk as error:
                if str(error) != self.problem:
                    tell(f"caBundle of {self.name} cannot be kept: {error}")
                self.problem = str(error)
                wait, rest = rest, min(LONGEST_REST, rest * 2)
            with trio.move_on_after(wait):
                await changed()

    async def once(self) -> bool:
        """Look, and change what is not as it should be; whether anything was changed. Raises CannotAsk."""
        path = f"{_PATH}/{quote(self.name, safe='')}"
        document = self._document(await self.cluster.ask("GET", path), "get")
        operations = self._operations(document)
        if not operations:
            return False
        version = (document.get("metadata") or {}).get("resourceVersion")
        test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
        self._document(await self.cluster.ask("PATCH", path, [test, *operations]), "patch")
        return True

    def _operations(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = base64.b64encode(self.wanted()).decode()
        webhooks = document.get("webhooks")
        if not isinstance(webhooks, list) or not webhooks:
            raise CannotAsk(f"MutatingWebhookConfiguration {self.name} has no webhooks: apply our manifests again")
        return [
            {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": wanted}
            for index, each in enumerate(webhooks)
            if isinstance(each, dict)
            and isinstance(each.get("clientConfig"), dict)
            and each["clientConfig"].get("caBundle") != wanted
        ]

    def _document(self, answer: Answer, verb: str) -> dict[str, Any]:
        """The object in a good answer. Raises CannotAsk."""
        try:
            document = answer.json()
        except BadJson:
            document = {}
        if answer.status == 200 and document:
            return document
        match answer.status:
            case 401:
                why = f"the token in {self.cluster.token_file} is not accepted (401)"
            case 403:
                why = f"our service account may not {verb} mutatingwebhookconfigurations (403): grant get and patch"
            case 404:
                why = f"there is no MutatingWebhookConfiguration {self.name} (404): apply our manifests"
            case 409 | 422:
                why = f"somebody else has just changed it ({answer.status})"
            case status:
                why = f"the API server answered {verb} with {status}"
        raise CannotAsk(f"{why}; {message(document)}")
