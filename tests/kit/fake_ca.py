"""A CA for tests: it speaks the CA's API over real TLS on wires in memory, and does whatever a test tells it to.

It has its own clock, a log of every request, and switches: `up`, `answers` (instead of the real answer), `hang`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from trio.testing import memory_stream_pair

from certs.bundle import BundleSet, TrustBundle
from certs.csr import parse_csr
from certs.denylist import Denylist
from certs.enrolment import Enrolment, JoinToken, Proof, signature_is_by
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.net.clock import TestClock
from sidecar.net.contexts import make_context
from sidecar.net.http_server import Channel, Request, Response, serve_https
from sidecar.net.tls_stream import TlsStream
from tests.kit.identities import BACKDATE, DAY, NOW, Authority, a_bundle, a_certificate, a_root, an_issuer, an_svid

TOKEN = "join-token-of-the-tests"
TRUST_DOMAIN = TrustDomain.parse("demo.mesh")
WEB = workload_id(TRUST_DOMAIN, "default", "web")
ROOT = a_root()
ISSUER = an_issuer(ROOT, days=3650)


@dataclass(frozen=True)
class Seen:
    """One request, as the CA saw it."""

    at: float  # trio's clock
    path: str
    peer: SpiffeId | None
    serial: str
    body: bytes


@dataclass(eq=False)
class FakeCa:
    """See the module. `nursery` runs its connections."""

    nursery: trio.Nursery
    clock: TestClock = field(default_factory=lambda: TestClock(NOW))
    root: Authority = ROOT
    issuer: Authority = ISSUER
    identity: str = "spiffe://demo.mesh/mesh/ca"
    ttl: float = DAY
    up: bool = True
    hang: bool = False  # accept, and say nothing
    own_life: tuple[float, float] = (NOW - DAY, NOW + 3650 * DAY)
    spiffe_id: SpiffeId = WEB
    tokens: dict[str, bool] = field(default_factory=lambda: {TOKEN: False})  # token → used
    keys: set[bytes] = field(default_factory=set)
    answers: dict[str, Callable[[Request], Response | None]] = field(default_factory=dict)
    after: Callable[[str], None] = lambda _: None  # called when a request has been served
    dials: list[float] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    acks: list[tuple[str, int]] = field(default_factory=list)  # serial, sequence
    denylist_acks: list[tuple[str, int]] = field(default_factory=list)
    denylist: dict[str, Any] | None = None  # signed; None: a CA that knows of none
    other_acks: list[tuple[str, str, int]] = field(default_factory=list)  # serial, topic, sequence
    issued: list[X509Svid] = field(default_factory=list)
    bundle: TrustBundle = field(init=False)
    watchers: set[Channel] = field(default_factory=set)
    connections: list[trio.CancelScope] = field(default_factory=list)
    beating: bool = True
    issued_by: Authority | None = None  # signs in place of `issuer`

    def __post_init__(self) -> None:
        self.bundle = a_bundle(self.root)

    def enrolment(self, proof: Proof | None = None) -> Enrolment:
        """The file that an operator would hand out."""
        return Enrolment(
            TRUST_DOMAIN, "ca.test:17012", self.bundle.root_hashes(), "web-1", self.spiffe_id, proof or JoinToken(TOKEN)
        )

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [seen.path for seen in self.seen]

    async def dial(self, address: str) -> trio.abc.Stream:
        """The other side's way here."""
        assert address == "ca.test:17012"
        self.dials.append(trio.current_time())
        if not self.up:
            raise ConnectionRefusedError("connection refused")
        mine, theirs = memory_stream_pair()
        if not self.hang:
            self.nursery.start_soon(self._serve, theirs)
        return mine

    def break_connections(self) -> None:
        """Cut every wire."""
        for scope in self.connections:
            scope.cancel()

    async def publish(self, bundle: TrustBundle) -> None:
        """Change the bundle and tell every watch."""
        self.bundle = bundle
        for channel in list(self.watchers):
            await channel.send(self._bundle_line())

    async def deny(self, denylist: Denylist, signer: Authority | None = None) -> None:
        """Sign this denylist and tell every watch."""
        by = signer or self.issuer
        await self.send_denylist(denylist.sequence, denylist.sign(by.key, by.chain).to_json())

    async def send_denylist(self, sequence: int, document: dict[str, Any]) -> None:
        """Tell every watch, now and to come, this document."""
        self.denylist = {"topic": "denylist", "sequence": sequence, "denylist": document}
        for channel in list(self.watchers):
            await channel.send(self._denylist_line())

    async def _serve(self, wire: trio.abc.Stream) -> None:
        own = an_svid(self.issuer, self.identity, not_before=self.own_life[0], not_after=self.own_life[1])
        context = make_context(
            own,
            [self.root.certificate],
            server=True,
            verify="optional",
            extra_chain=(self.root.certificate,),
            now=self.clock.wall(),
        )
        with trio.CancelScope() as scope:
            self.connections.append(scope)
            await serve_https(wire, context, self._handle, identify=self._identify, duplex=self._duplex)

    def _identify(self, stream: TlsStream) -> tuple[SpiffeId | None, str]:
        chain = stream.peer_chain()
        if not chain:
            return None, ""
        return verify_chain(chain, BundleSet((self.bundle,)), self.clock.wall()), f"{chain[0].serial_number:x}"

    async def _handle(self, request: Request) -> Response:
        self._note(request)
        answer = self.answers.get(request.path, lambda _: None)(request)
        if answer is None:
            route = {
                "/v1/time": self._time,
                "/v1/bundle": self._bundle,
                "/v1/challenge": self._challenge,
                "/v1/enrol": self._enrol,
                "/v1/renew": self._renew,
            }[request.path]
            answer = route(request)
        self.after(request.path)
        return answer

    def _note(self, request: Request) -> None:
        self.seen.append(Seen(trio.current_time(), request.path, *request.peer, request.body))

    def _time(self, _: Request) -> Response:
        return Response.of_json(200, {"now": self.clock.wall()})

    def _bundle(self, _: Request) -> Response:
        return Response(200, (), self.bundle.to_jwks())

    def _challenge(self, request: Request) -> Response:
        return Response.of_json(200, {"nonce": f"nonce-{len(self.seen)}", "expires_at": self.clock.wall() + 60})

    def _enrol(self, request: Request) -> Response:
        body = request.json()
        csr, proof = base64.b64decode(body["csr"]), body["proof"]
        if proof["type"] == "join_token":
            if self.tokens.get(proof["token"], True):
                known = proof["token"] in self.tokens
                return Response.error(409 if known else 401, "token_used" if known else "proof_refused", "no")
            self.tokens[proof["token"]] = True
            self.keys.add(base64.b64decode(proof["enrolment_public_key"]))
        elif not any(self._signed(key, proof, csr) for key in self.keys):
            return Response.error(401, "proof_refused", "no live key made this signature")
        return self._issue(csr)

    def _signed(self, key: bytes, proof: dict[str, Any], csr: bytes) -> bool:
        signature = base64.b64decode(proof["signature"])
        return signature_is_by(key, signature, TRUST_DOMAIN, proof["entry"], proof["nonce"], csr)

    def _renew(self, request: Request) -> Response:
        if request.peer[0] is None:
            return Response.error(401, "client_certificate_needed", "no")
        return self._issue(base64.b64decode(request.json()["csr"]))

    def _issue(self, csr: bytes) -> Response:
        now = self.clock.wall()
        shape: dict[str, Any] = {"uris": [str(self.spiffe_id)], "not_before": now - BACKDATE}
        subject: Any = _PublicOnly(parse_csr(csr).public_key)
        issuer = self.issued_by or self.issuer
        leaf = a_certificate(subject, issuer.certificate, issuer.key, not_after=now + self.ttl, **shape)
        svid = X509Svid(self.spiffe_id, leaf, (leaf, *issuer.chain), subject)
        self.issued.append(svid)
        return Response.of_json(200, self.answer_of(svid))

    def answer_of(self, svid: X509Svid) -> dict[str, Any]:
        """The API's answer that brings this certificate."""
        return {
            "svid": svid.chain_pem().decode(),
            "bundle": json.loads(self.bundle.to_jwks()),
            "now": self.clock.wall(),
            "entry": "web-1",
            "spiffe_id": str(svid.spiffe_id),
        }

    def _duplex(self, request: Request) -> Any:
        return self._watch if request.path == "/v1/watch" else None

    async def _watch(self, request: Request, channel: Channel) -> None:
        self._note(request)
        if (answer := self.answers.get("/v1/watch", lambda _: None)(request)) is not None:
            assert isinstance(answer.body, bytes)
            await channel.start(answer.status, answer.headers)
            await channel.send(answer.body)
            return
        await channel.start()
        await channel.send(self._time_line() + self._bundle_line() + self._denylist_line())
        self.watchers.add(channel)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, channel)
                await self._take_acks(request.peer[1], channel)
                nursery.cancel_scope.cancel()
        finally:
            self.watchers.discard(channel)

    async def _take_acks(self, serial: str, channel: Channel) -> None:
        while (piece := await channel.receive()) is not None:
            for line in piece.splitlines():
                ack = json.loads(line)
                if ack["ack"] == "bundle":
                    self.acks.append((serial, ack["sequence"]))
                elif ack["ack"] == "denylist":
                    self.denylist_acks.append((serial, ack["sequence"]))
                else:
                    self.other_acks.append((serial, ack["ack"], ack["sequence"]))

    async def _beat(self, channel: Channel) -> None:
        while True:
            await trio.sleep(30)
            if self.beating:
                await channel.send(self._time_line())

    def _time_line(self) -> bytes:
        return json.dumps({"topic": "time", "sequence": 1, "now": self.clock.wall()}).encode() + b"\n"

    def _denylist_line(self) -> bytes:
        return b"" if self.denylist is None else json.dumps(self.denylist).encode() + b"\n"

    def _bundle_line(self) -> bytes:
        bundle = json.loads(self.bundle.to_jwks())
        return json.dumps({"topic": "bundle", "sequence": self.bundle.sequence, "bundle": bundle}).encode() + b"\n"


class _PublicOnly:
    """Stands for a key of which only the public half is known."""

    def __init__(self, public_key: Any) -> None:
        self._public_key = public_key

    def public_key(self) -> Any:
        return self._public_key


async def on_the_spot(work: Callable[[], Any]) -> Any:
    """In place of a worker thread: virtual time does not wait for threads."""
    await trio.lowlevel.checkpoint()
    return work()
