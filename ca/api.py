"""The CA's HTTP API, version 1: what each path does, and the one table that turns errors into statuses.

    GET  /v1/time       the CA's clock               POST /v1/challenge   a nonce for an enrolment key to sign
    GET  /v1/bundle     the trust bundle, JWKS       POST /v1/enrol       a proof and a CSR for the first certificate
    GET  /v1/health     ready or not, and why        POST /v1/renew       the next one, over mTLS with the current one
    GET  /v1/metrics    for Prometheus               POST /v1/watch       bundle and time, as they change (`ca.watch`)
    GET  /v1/crl        revoked serials, RFC 5280    GET  /v1/log/head    the signed end of the log (`ca.checkpoints`)
    POST /v1/jwt        a JWT-SVID, over mTLS        POST /v1/audit/heads   ends of a sidecar's audit, to be witnessed,
                                                     over mTLS (`ca.witness`)

Bodies are JSON objects. An error is `{"error": short name, "detail": what to do}`; refusals hold nothing secret, and
what is a fault of ours is told to the log, not to the caller.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509

from ca.attest.proof import parse_proof
from ca.attest.socket_peer import SocketPeer
from ca.authority import Authority, Issued
from ca.checkpoints import export_head
from ca.errors import (
    BadRequest,
    CaError,
    ClientCertificateNeeded,
    IssuerUnusable,
    ProofRefused,
    RenewalRefused,
    Revoked,
    StoreUnavailable,
    TemplateViolation,
    TokenUsed,
    TooManyIssuances,
    UnknownEntry,
)
from ca.federating import Federated
from ca.health import Health
from ca.https import OutsideUnavailable
from ca.metrics import CONTENT_TYPE, CaMetrics
from ca.revocation import SignedDenylist
from ca.rotating import RenewOrder
from ca.store.threads import StoreThreads
from ca.watch import BEAT_SECONDS, Watch, Watcher
from ca.witness import Witness
from certs.bundle import BundleSet, TrustBundle
from certs.enrolment import InvalidEnrolment, check_entry_name
from certs.errors import InvalidCsr, MeshError
from certs.jwt import InvalidJwt
from certs.source import Source
from certs.spiffe import SpiffeId
from sidecar.net.clock import Clock
from sidecar.net.http_message import JSON, BadJson, Headers
from sidecar.net.http_server import Channel, DuplexHandler, Request, Response

MAX_CSR_TEXT = 32 * 1024  # base64 of the largest CSR that certs.csr reads
WATCH = "/v1/watch"
STATUS: Mapping[type[MeshError], int] = {
    BadJson: 400,
    BadRequest: 400,
    InvalidCsr: 400,
    InvalidEnrolment: 400,
    InvalidJwt: 400,
    ProofRefused: 401,
    ClientCertificateNeeded: 401,
    RenewalRefused: 403,
    Revoked: 403,
    UnknownEntry: 404,
    TokenUsed: 409,
    TooManyIssuances: 429,
    IssuerUnusable: 503,
    StoreUnavailable: 503,
    OutsideUnavailable: 503,
    TemplateViolation: 500,
    CaError: 500,
}
_OURS = 500  # statuses from here on are faults of ours: logged in full; the caller learns the name alone

_FAILED = ("the CA failed; its log says why", "the CA cannot verify this proof now; its log says why")

_log = logging.getLogger("mesh.ca")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end: the verified chain and identity, or nobody."""

    chain: tuple[x509.Certificate, ...] = ()
    spiffe_id: SpiffeId | None = None
    on_socket: SocketPeer | None = None
    """Who it is by the kernel's word, on the CA's own Unix socket."""


class Api:
    """The handlers. `health` looks at the CA now."""

    def __init__(
        self,
        authority: Authority,
        store: StoreThreads,
        bundles: Source[BundleSet],
        clock: Clock,
        health: Callable[[], Awaitable[Health]],
        *,
        beat: float = BEAT_SECONDS,
        metrics: CaMetrics | None = None,
        scrape: Callable[[], Awaitable[bytes]] | None = None,
        denylists: Source[SignedDenylist] | None = None,
        crl: Callable[[str | None], Awaitable[bytes | None]] | None = None,
        orders: Source[RenewOrder] | None = None,
        federation: Source[Federated] | None = None,
    ) -> None:
        self._authority = authority
        self._store = store
        self._bundles = bundles
        self._clock = clock
        self._health = health
        self._scrape = scrape
        self._denylists = denylists
        self._crl = crl
        self._orders = orders
        self._federation = federation
        self._beat = beat
        self._metrics = metrics or CaMetrics()
        self._witness = Witness(store, bundles, clock)
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {
            ("GET", "/v1/time"): self._time,
            ("GET", "/v1/bundle"): self._bundle,
            ("GET", "/v1/health"): self._get_health,
            ("GET", "/v1/metrics"): self._get_metrics,
            ("GET", "/v1/log/head"): self._log_head,
            ("GET", "/v1/crl"): self._get_crl,
            ("POST", "/v1/challenge"): self._challenge,
            ("POST", "/v1/enrol"): self._enrol,
            ("POST", "/v1/renew"): self._renew,
            ("POST", "/v1/jwt"): self._jwt,
            ("POST", "/v1/audit/heads"): self._audit_heads,
        }

    async def handle(self, request: Request) -> Response:
        """Answer one request. Raises only what nobody foresaw."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            return self._no_route(request)
        try:
            return await route(request)
        except MeshError as error:
            self._metrics.refused.labels(error.name).inc()
            return refusal(error, request)

    def duplex(self, request: Request) -> DuplexHandler | None:
        """The watch's handler, if this request is for the watch."""
        return self._watch if (request.method, request.path) == ("POST", WATCH) else None

    async def _time(self, request: Request) -> Response:
        return Response.of_json(200, {"now": self._clock.wall()})

    async def _bundle(self, request: Request) -> Response:
        return Response(200, (JSON,), self._own_bundle().to_jwks())

    async def _get_health(self, request: Request) -> Response:
        health = await self._health()
        return Response.of_json(200 if health.ready else 503, health.as_json())

    async def _get_metrics(self, request: Request) -> Response:
        if self._scrape is None:
            return Response.error(404, "not_found", "this CA keeps no metrics")
        return Response(200, ((b"content-type", CONTENT_TYPE),), await self._scrape())

    async def _get_crl(self, request: Request) -> Response:
        issuer = parse_qs(request.query).get("issuer", [None])[-1]
        crl = None if self._crl is None else await self._crl(issuer)
        if crl is None:
            return Response.error(404, "not_found", "no issuing CA of this serial signs revocation lists here")
        return Response(200, ((b"content-type", b"application/pkix-crl"),), crl)

    async def _log_head(self, request: Request) -> Response:
        statement = await self._store.call(export_head, self._store.store)
        if statement is None:
            return Response.error(404, "not_found", "no head of the log has been signed yet")
        return Response.of_json(200, statement.to_json())

    async def _challenge(self, request: Request) -> Response:
        challenge = self._authority.challenge(check_entry_name(_text(request.json(), "entry")))
        return Response.of_json(200, {"nonce": challenge.nonce, "expires_at": challenge.expires_at})

    async def _enrol(self, request: Request) -> Response:
        document = request.json()
        shown = peer.selectors if (peer := _caller(request).on_socket) is not None else ()
        issued = await self._authority.enrol(_csr(document), parse_proof(document.get("proof"), shown))
        return self._issued(issued)

    async def _renew(self, request: Request) -> Response:
        issued = await self._authority.renew(_csr(request.json()), _caller(request).chain)
        return self._issued(issued)

    async def _jwt(self, request: Request) -> Response:
        token = await self._authority.issue_jwt(request.json().get("audience"), _caller(request).chain)
        self._metrics.tokens.inc()
        return Response.of_json(200, {"token": token, "now": self._clock.wall()}, ((b"cache-control", b"no-store"),))

    async def _audit_heads(self, request: Request) -> Response:
        caller = _caller(request)
        if caller.spiffe_id is None or caller.chain[0].not_valid_after_utc.timestamp() <= self._clock.wall():
            raise ClientCertificateNeeded("heads of an audit are taken only over mTLS with a valid certificate")
        serial, *issuers = (f"{one.serial_number:x}" for one in caller.chain)
        if (revoked := self._authority.why_revoked(caller.spiffe_id, serial, issuers)) is not None:
            raise revoked
        taken = await self._witness.take(request.json(), caller.spiffe_id)
        return Response.of_json(200, {"witnessed": taken, "now": self._clock.wall()})

    async def _watch(self, request: Request, channel: Channel) -> None:
        caller = _caller(request)
        if caller.spiffe_id is None:
            error = ClientCertificateNeeded("the watch is answered only over mTLS with a valid certificate")
            await _refuse_watch(channel, refusal(error, request))
            return
        leaf = caller.chain[0]
        serial, *issuers = (f"{one.serial_number:x}" for one in caller.chain)
        watcher = Watcher(caller.spiffe_id, serial, leaf.not_valid_after_utc.timestamp(), tuple(issuers))
        if watcher.not_after <= self._clock.wall():
            error = ClientCertificateNeeded("the certificate of this connection has expired; connect with a valid one")
            await _refuse_watch(channel, refusal(error, request))
            return
        if (revoked := self._authority.why_revoked(watcher.spiffe_id, serial, issuers)) is not None:
            await _refuse_watch(channel, refusal(revoked, request))
            return
        try:
            watch = Watch(
                watcher, self._bundles, self._store, self._clock, self._beat, self._denylists, self._orders,
                self._federation,
            )  # fmt: skip
            await watch.run(channel)
        except (BadRequest, StoreUnavailable) as error:
            _log.warning("watch of %s ended: %s", caller.spiffe_id, error)

    def _issued(self, issued: Issued) -> Response:
        self._metrics.issued.inc()
        _log.info("issued %s %x", issued.spiffe_id, issued.leaf.serial_number)
        document = {
            "svid": issued.chain_pem.decode("ascii"),
            "bundle": json.loads(self._own_bundle().to_jwks()),
            "now": self._clock.wall(),
            "entry": issued.entry,
            "spiffe_id": issued.spiffe_id.text,
        }
        return Response.of_json(200, document, ((b"cache-control", b"no-store"),))

    def _own_bundle(self) -> TrustBundle:
        bundle = self._bundles.current.of(self._authority.trust_domain)
        assert bundle is not None  # we publish no set without our own
        return bundle

    def _no_route(self, request: Request) -> Response:
        allowed = sorted({method for method, path in self._routes if path == request.path})
        if allowed:
            allow = ((b"allow", ", ".join(allowed).encode()),)
            return Response.error(405, "method_not_allowed", f"use {' or '.join(allowed)}", allow)
        return Response.error(404, "not_found", "see /v1/time, bundle, health, challenge, enrol, renew, jwt and watch")


def refusal(error: MeshError, request: Request) -> Response:
    """The answer for an error, and its line in the log."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    caller = _caller(request).spiffe_id or "a caller without certificate"
    if status >= _OURS:
        known = isinstance(error, StoreUnavailable | IssuerUnusable | OutsideUnavailable)
        surprise = None if known else error  # those explain themselves
        _log.error("%s %s from %s failed: %s", request.method, request.path, caller, error, exc_info=surprise)
        if isinstance(error, StoreUnavailable):
            detail = error.advice
        else:
            detail = str(error) if isinstance(error, IssuerUnusable) else _FAILED[isinstance(error, OutsideUnavailable)]
        return Response.error(status, error.name, detail)
    _log.warning("%s %s from %s refused: %s: %s", request.method, request.path, caller, error.name, error)
    headers: Headers = ()
    if isinstance(error, TooManyIssuances):
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))),)
    return Response.error(status, error.name, str(error), headers)


async def _refuse_watch(channel: Channel, response: Response) -> None:
    await channel.start(response.status, response.headers)
    assert isinstance(response.body, bytes)
    await channel.send(response.body)


def _caller(request: Request) -> Caller:
    return request.peer if isinstance(request.peer, Caller) else Caller()


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"`{key}` must be text")
    return value


def _csr(document: dict[str, Any]) -> bytes:
    text = _text(document, "csr")
    if len(text) > MAX_CSR_TEXT:
        raise BadRequest(f"`csr` is longer than {MAX_CSR_TEXT} characters")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise BadRequest("`csr` must be the DER of a PKCS #10 request in standard base64") from None
