"""A CA that serves on loopback, for one test: `@at_the_desk`."""

from __future__ import annotations

import base64
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ca.config import CaSettings, ServeConfig
from ca.create import create_ca
from ca.enrolling import grant_key, grant_token, register
from ca.entries import Entry, NewEntry, parse_identity
from ca.server import CaServer, open_server
from certs.csr import make_csr
from certs.enrolment import EnrolmentKey, JoinToken
from certs.keys import new_key
from certs.svid import X509Svid
from sidecar.net.contexts import make_context
from sidecar.net.http_client import Answer, HttpClient
from sidecar.net.tls_stream import TlsStream
from tests.ca.office import DEMO, HandClock

PASS = b"correct horse battery staple"
CSR = base64.b64encode(make_csr(new_key())).decode()


@dataclass
class Desk:
    """A running CA and whatever a test needs to talk to it."""

    server: CaServer
    clock: HandClock
    port: int
    folder: Path

    @property
    def roots(self) -> Any:
        return self.server.bundles.current.roots()

    def entry(self, name: str = "orders") -> Entry:
        return register(self.server.store.store, DEMO, NewEntry(parse_identity(name, DEMO)), self.clock.now)

    def key(self, entry: Entry) -> EnrolmentKey:
        proof = grant_key(self.server.store.store, entry, "127.0.0.1:1", self.clock.now).proof
        assert isinstance(proof, EnrolmentKey)
        return proof

    def token(self, entry: Entry) -> dict[str, str]:
        proof = grant_token(self.server.store.store, entry, "127.0.0.1:1", self.clock.now).proof
        assert isinstance(proof, JoinToken)
        public = base64.b64encode(EnrolmentKey.generate().public_bytes).decode()
        return {"type": "join_token", "token": proof.token, "enrolment_public_key": public}

    @asynccontextmanager
    async def connect(self, svid: X509Svid | None = None, at: float | None = None) -> AsyncIterator[HttpClient]:
        now = self.clock.now if at is None else at
        context = make_context(svid, self.roots, server=False, verify="require", now=now)
        stream = TlsStream(await trio.open_tcp_stream("127.0.0.1", self.port), context, server=False)
        try:
            await stream.do_handshake()
            yield HttpClient(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async def post(self, path: str, document: Any, svid: X509Svid | None = None) -> Answer:
        async with self.connect(svid) as client:
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            return await client.request("POST", path, body)

    async def get(self, path: str, at: float | None = None) -> Answer:
        async with self.connect(at=at) as client:
            return await client.request("GET", path)

    async def svid(self, entry: Entry) -> X509Svid:
        key = new_key()
        csr = base64.b64encode(make_csr(key)).decode()
        answer = await self.post("/v1/enrol", {"csr": csr, "proof": self.token(entry)})
        assert answer.status == 200, answer.body
        return X509Svid.parse(answer.json()["svid"].encode(), key)


def at_the_desk(test: Callable[..., Awaitable[None]] | None = None, **changes: Any) -> Callable[..., Any]:
    """Run this test against a CA of its own."""
    if test is None:
        return functools.partial(at_the_desk, **changes)

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        async def whole() -> None:
            clock = HandClock(time.time())
            create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, clock.now)
            config = ServeConfig(tmp_path / "ca", port=0, **changes)
            server = open_server(config, PASS, clock)
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    address = await nursery.start(server.run)
                    await test(Desk(server, clock, int(address.rpartition(":")[2]), tmp_path))
                    nursery.cancel_scope.cancel()
            server.store.store.close()

        trio.run(whole)

    del run.__wrapped__  # pytest would read the inner signature
    return run
