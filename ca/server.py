"""`mesh ca serve`: listener, own certificate, bundle, and their lifetimes, from start to clean end.

In order: the store and the issuing CA are opened (a wrong passphrase ends here), whatever the schedule of the issuing
CAs has missed is made up for, the bundle is published, the CA issues its own certificate (an expired root ends here),
the health is judged, and only then does anybody hear "ready". From then on these tasks run: the listener;
`_keep_own_svid`, which renews our certificate at half of its life; `_keep_schedule`, which prepares, activates and
retires issuing CAs and keys of JWT-SVIDs; `_keep_rotation`, which takes a rotation of the root from phase to phase,
and tells sidecars to renew; `_keep_checkpoints`, which signs the head of the log; `_follow_store`, which picks up what
other processes (`mesh ca …`) change; `_look_after_store`, which notices a full disk and its end; `_warn`, which says
loudly what is about to end. A new certificate or bundle is a new TLS context; connections keep the one they began with.
"""

from __future__ import annotations

import logging
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from OpenSSL import SSL

from ca.api import Api, Caller
from ca.attest.socket_peer import listen_on, peer_of
from ca.authority import Authority
from ca.bucket import Bucket
from ca.checkpoints import checkpoint_if_due
from ca.config import STORE_FILE, CaSettings, ServeConfig, load_settings
from ca.crls import Crls
from ca.errors import CaError, IssuerUnusable
from ca.federating import Federator
from ca.health import Health, judge, warnings
from ca.jwt_keys import JwtKeys
from ca.metrics import CaMetrics, StoreFacts
from ca.revocation import SignedDenylist, draw_up
from ca.roots import active_slot, load_bundle, load_issuer
from ca.rotating import RenewOrder, RootRotation
from ca.schedule import Schedule
from ca.signers import Issuer
from ca.standing import Standing, standing, token_key_warnings
from ca.store.base import Store
from ca.store.sqlite import SqliteStore
from ca.store.threads import StoreThreads
from ca.storekeeper import Storekeeper
from certs.bundle import BundleSet
from certs.errors import MeshError
from certs.keys import new_key
from certs.rotation import Renewal, backoff
from certs.source import Source
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.net.clock import Clock, SystemClock
from sidecar.net.contexts import make_context
from sidecar.net.http_server import HttpLimits, serve_https
from sidecar.net.tls_stream import TlsStream
from sidecar.net.turnstile import Turnstile

LOOK_AGAIN = 30.0  # seconds between two looks at the schedule: a clock that was set is noticed this soon
MIN_SCHEDULE_SECONDS = 0.5
WARN_EVERY = 3600.0  # seconds between two rounds of warnings in the log
ALPN = (b"http/1.1",)
LIMITS = HttpLimits(body_bytes=64 * 1024)  # the largest request, a CSR with a proof, is under 24 KiB

_log = logging.getLogger("mesh.ca")
_dice = random.SystemRandom().random


@dataclass(slots=True)
class CaServer:
    """A CA that serves. Build it with `open_server`."""

    config: ServeConfig
    settings: CaSettings
    issuer: Issuer
    store: StoreThreads
    clock: Clock
    authority: Authority
    schedule: Schedule
    jwt_keys: JwtKeys
    bundles: Source[BundleSet] = field(default_factory=lambda: Source("trust bundle"))
    svids: Source[X509Svid] = field(default_factory=lambda: Source("certificate of the CA"))
    denylists: Source[SignedDenylist] = field(default_factory=lambda: Source("denylist"))
    orders: Source[RenewOrder] = field(default_factory=lambda: Source("order to renew"))
    metrics: CaMetrics = field(default_factory=CaMetrics)
    keeper: Storekeeper = field(init=False)
    rotation: RootRotation = field(init=False)
    federator: Federator = field(init=False)
    _following: trio.Lock = field(default_factory=trio.Lock)
    _crls: Crls = field(init=False)
    _svid_root: x509.Certificate | None = None
    _context: SSL.Context | None = None
    _connections: int = 0
    _turnstile: Turnstile = field(default_factory=Turnstile)

    def __post_init__(self) -> None:
        self.keeper = Storekeeper(self.store, self.config.directory, self.clock)
        self._crls = Crls(self.store, self.config.directory, self.schedule.passphrase)
        self.rotation = RootRotation(
            self.config.directory, self.store.store, self.settings.trust_domain, self.schedule.passphrase,
            self.settings.issuer_ttl,
        )  # fmt: skip
        self.rotation.refresh_files()
        self.federator = Federator(self.settings.trust_domain, self.store, self.clock, self.config.bundle_poll)
        self.orders.publish(self.rotation.order(self.clock.wall()))

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; report `host:port` once ready. Raises CaError where the CA cannot become ready."""
        await self.renew_own_svid()
        health = await self.health()
        if not health.ready:
            raise IssuerUnusable("; ".join(health.reasons))
        await self.federator.publish()
        doors = await self._open_doors()
        api = Api(
            self.authority, self.store, self.bundles, self.clock, self.health,
            beat=self.config.watch_beat, metrics=self.metrics, scrape=self.scrape, denylists=self.denylists,
            crl=self.crl, orders=self.orders, federation=self.federator.told,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_own_svid)
            nursery.start_soon(self._keep_schedule)
            nursery.start_soon(self._keep_rotation)
            nursery.start_soon(self.federator.run)
            nursery.start_soon(self._keep_checkpoints)
            nursery.start_soon(self._follow_store)
            nursery.start_soon(self._warn)
            nursery.start_soon(self._look_after_store)
            await nursery.start(trio.serve_listeners, lambda stream: self._serve(stream, api), doors)
            task_status.started(_address_of(doors[0]))

    async def _open_doors(self) -> list[trio.SocketListener]:
        """TCP first, then the Unix socket, if there is to be one. Raises OSError."""
        doors = await trio.open_tcp_listeners(self.config.port, host=self.config.host)
        if self.config.socket is not None:
            try:
                doors.append(trio.SocketListener(trio.socket.from_stdlib_socket(listen_on(self.config.socket))))
            except BaseException:
                for door in doors:
                    door.socket.close()
                raise
        return doors

    async def health(self) -> Health:
        """The CA's health now, store included."""
        now, problem = self.clock.wall(), await self.keeper.look()
        known = await self._standing()
        svid = self.svids.current if self.svids.number else None
        return judge(
            self.issuer, svid, self.bundles.current, now,
            trust_domain=self.settings.trust_domain.name, store_error=problem, schedule_problem=self.schedule.problem,
            store_warnings=(*self._further_warnings(), *(token_key_warnings(known.jwt_keys, now) if known else ())),
            standing=known,
        )  # fmt: skip

    async def _standing(self) -> Standing | None:
        try:
            return await self.store.call(standing, self.store.store, self.clock.wall(), dict(self.federator.problems))
        except CaError:
            return None  # `keeper.look` says why

    async def scrape(self) -> bytes:
        """The metrics, as they are now."""
        health, keeper = await self.health(), self.keeper
        facts = StoreFacts(keeper.problem is None, self.store.failures, keeper.free_bytes(), keeper.store_bytes())
        return self.metrics.render(health, facts, connections=self._connections, waiting=self._turnstile.waiting)

    async def renew_own_svid(self) -> None:
        """Issue the CA's own next certificate and serve under it from now on. Raises CaError."""
        root = self.issuer.root
        self.svids.publish(await self.authority.issue_own(new_key(), self.config.svid_ttl))
        self._svid_root = root
        self._rebuild_context()

    def _rebuild_context(self) -> None:
        roots, shown = self.bundles.current.roots(), self._svid_root
        assert shown is not None
        self._context = make_context(
            self.svids.current, roots, server=True, verify="optional", alpn=ALPN, extra_chain=(shown,)
        )

    async def _serve(self, transport: trio.SocketStream, api: Api) -> None:
        if self._connections >= self.config.connections:
            _log.warning("a connection was refused: %d are open", self._connections)
            await trio.aclose_forcefully(transport)
            return
        assert self._context is not None
        self._connections += 1
        try:
            await serve_https(
                transport,
                self._context,
                api.handle,
                identify=partial(self._identify, transport.socket),
                duplex=api.duplex,
                limits=LIMITS,
                handshake_seconds=self.config.handshake_timeout,
                turnstile=self._turnstile,
            )
        finally:
            self._connections -= 1

    def _identify(self, connection: trio.socket.SocketType, stream: TlsStream) -> Caller:
        """Who finished this handshake. Raises InvalidSvid, UntrustedSvid; nobody at all is fine."""
        chain = stream.peer_chain()
        spiffe_id = verify_chain(chain, self.bundles.current, self.clock.wall()) if chain else None
        return Caller(chain, spiffe_id, peer_of(connection) if connection.family == socket.AF_UNIX else None)

    async def _keep_own_svid(self) -> None:
        failures = 0
        while True:
            svid = self.svids.current
            plan = Renewal.plan(
                svid.not_before, svid.not_after, now=self.clock.wall(), monotonic=self.clock.monotonic(), dice=_dice()
            )
            while plan.wait(self.clock.wall(), self.clock.monotonic()) > 0:  # noqa: ASYNC110 - no event for wall time
                await trio.sleep(plan.next_look(self.clock.wall(), self.clock.monotonic()))
            try:
                await self.renew_own_svid()
                failures = 0
            except CaError as error:
                _log.error("the CA cannot renew its own certificate: %s", error)
                await trio.sleep(backoff(failures, _dice()))
                failures += 1

    async def _follow_store(self) -> None:
        while True:
            await trio.sleep(self.config.bundle_poll)
            try:
                await self.follow_store_once()
            except MeshError as error:
                _log.error("the CA cannot follow its store: %s", error)

    async def _keep_schedule(self) -> None:
        while True:
            try:
                await self.keep_schedule_once()
                due = await self.store.call(self.schedule.next_date, self.clock.wall())
            except MeshError as error:
                _log.error("the issuing CAs cannot be kept on their schedule: %s", error)
                due = None
            left = LOOK_AGAIN if due is None else due - self.clock.wall()
            await trio.sleep(min(LOOK_AGAIN, max(left, MIN_SCHEDULE_SECONDS)))

    async def keep_schedule_once(self) -> None:
        """Prepare, activate and retire what is due; sign with what is active now. Raises CaError, KeyUnavailable."""
        now = self.clock.wall()
        moved = [*await self.store.call(self.schedule.round, now), *await self.store.call(self.jwt_keys.round, now)]
        if moved:
            await self.follow_store_once()

    async def _keep_rotation(self) -> None:
        while True:
            try:
                await self.keep_rotation_once()
            except MeshError as error:
                _log.error("the rotation of the root cannot go on: %s", error)
            await trio.sleep(self.config.bundle_poll)

    async def keep_rotation_once(self) -> None:
        """Take a rotation of the root one phase on, if nobody is waited for; tell who has to renew. Raises CaError."""
        if await self.store.call(self.rotation.round, self.clock.wall()):
            await self.follow_store_once()
        order = await self.store.call(self.rotation.order, self.clock.wall())
        if order.sequence != self.orders.current.sequence:
            self.orders.publish(order)

    async def _keep_checkpoints(self) -> None:
        while True:
            await trio.sleep(self.config.checkpoint_every)
            try:
                await self.store.call(self.checkpoint)
            except CaError as error:
                _log.error("the head of the log cannot be signed: %s", error)

    def checkpoint(self) -> None:
        """Sign the head of the log, if it has moved (blocks on disk). Raises StoreUnavailable."""
        checkpoint_if_due(self.store.store, self.settings.trust_domain, self.issuer, self.clock.wall())

    async def follow_store_once(self) -> None:
        """Publish the bundle if it changed; sign with another issuing CA once it is active. Raises CaError."""
        async with self._following:  # the schedule asks as well
            await self._follow()

    async def _follow(self) -> None:
        store, trust_domain = self.store.store, self.settings.trust_domain
        bundle = await self.store.call(load_bundle, store, trust_domain)
        current = self.bundles.current.of(trust_domain)
        if current is None or bundle.sequence != current.sequence:
            self.bundles.publish(BundleSet((bundle,)))
            self._rebuild_context()
            _log.info("trust bundle %d with %d roots is published", bundle.sequence, len(bundle.roots))
        if await self.store.call(active_slot, store, "issuer") != self.issuer.certificate:
            passphrase = self.schedule.passphrase
            self.issuer = await self.store.call(load_issuer, self.config.directory, store, passphrase)
            self.authority.issuer = self.issuer
            self._crls = Crls(self.store, self.config.directory, passphrase)  # the revoked sign no more of them
            await self.renew_own_svid()  # the one we serve under may be signed by a CA that was just revoked
            _log.info("issuing CA %s is loaded", self.issuer.serial)
        await self._follow_denylist()

    async def _follow_denylist(self) -> None:
        """Publish the denylist where it changed, another issuing CA signs, or it is getting old. Raises CaError."""
        known, now = self.denylists.current, self.clock.wall()
        sequence = await self.store.call(self.store.store.denylist_sequence)
        same = (sequence, self.issuer.serial) == (known.denylist.sequence, known.signer)
        if same and 0 <= now - known.denylist.at < self.config.denylist_every:
            return
        drawn = await self.store.call(draw_up, self.store.store, self.settings.trust_domain, self.issuer, now)
        self.denylists.publish(drawn)
        if sequence != known.denylist.sequence:
            _log.info("denylist %d is published: %d denied", sequence, len(drawn.denylist))

    async def crl(self, issuer_serial: str | None) -> bytes | None:
        """The CRL (DER) of the active issuing CA, or of one that retires; None where it is not one of ours."""
        await self._follow_denylist()
        sequence, now = self.denylists.current.denylist.sequence, self.clock.wall()
        return await self._crls.of(issuer_serial, self.issuer, sequence, now)

    def _warnings(self) -> tuple[str, ...]:
        issuer = self.issuer
        ends = warnings(issuer.certificate, issuer.root, self.clock.wall(), problem=self.schedule.problem)
        return (*ends, *self._further_warnings())

    def _further_warnings(self) -> tuple[str, ...]:
        """What of the store, the rotation of the root and other trust domains an operator should hear."""
        stuck = () if self.rotation.problem is None else (f"the root's rotation is stuck: {self.rotation.problem}",)
        away = (f"the bundle of {name} is not fresh: {why}" for name, why in self.federator.problems.items())
        return (*self.keeper.warnings(), *stuck, *away)

    async def _warn(self) -> None:
        while True:
            for warning in self._warnings():
                _log.warning("%s", warning)
            await trio.sleep(WARN_EVERY)

    async def _look_after_store(self) -> None:
        while True:
            await trio.sleep(self.config.store_check)
            await self.keeper.look()


def open_server(
    config: ServeConfig, passphrase: bytes, clock: Clock | None = None, store: Store | None = None
) -> CaServer:
    """Open a CA's directory for serving (blocks on disk). Raises NoCa, DamagedCa, KeyUnavailable, StoreUnavailable."""
    settings = load_settings(config.directory)
    opened = store or SqliteStore(config.directory / STORE_FILE)
    try:
        issuer, clock = load_issuer(config.directory, opened, passphrase), clock or SystemClock()
        schedule = Schedule(config.directory, opened, settings.trust_domain, passphrase, settings.issuer_ttl)
        turned = make_up_for(config.directory, opened, settings, passphrase, clock.wall())
        if schedule.round(clock.wall()) or turned:
            issuer = load_issuer(config.directory, opened, passphrase)
        schedule.destroy_keys()
        jwt_keys = JwtKeys(config.directory, opened, passphrase)
        jwt_keys.round(clock.wall())
        threads = StoreThreads(opened)
        bundles: Source[BundleSet] = Source("trust bundle")
        bundles.publish(BundleSet((load_bundle(opened, settings.trust_domain),)))
        opened.acknowledge([replace(ack, sequence=0) for ack in opened.acks() if ack.topic == "watch"])  # none is open
        denylists: Source[SignedDenylist] = Source("denylist")
        denylists.publish(draw_up(opened, settings.trust_domain, issuer, clock.wall()))
        authority = Authority(
            settings.trust_domain, issuer, threads, bundles, clock, bucket=Bucket(), denylists=denylists,
            jwt_keys=jwt_keys, jwt_ttl=config.jwt_ttl,
        )  # fmt: skip
        return CaServer(
            config, settings, issuer, threads, clock, authority, schedule, jwt_keys, bundles, denylists=denylists
        )
    except BaseException:
        opened.close()
        raise


def make_up_for(directory: Path, store: Store, settings: CaSettings, passphrase: bytes, now: float) -> bool:
    """Take a rotation of the root as far as it goes while nobody is connected; whether it went anywhere.

    Past the end of the old root nobody lives, and nothing can be served before the new one signs.
    """
    rotation = RootRotation(directory, store, settings.trust_domain, passphrase, settings.issuer_ttl)
    turned = False
    while rotation.round(now):
        turned = True
    return turned


async def serve(config: ServeConfig, passphrase: bytes, on_ready: Callable[[CaServer, str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises CaError, KeyUnavailable, OSError (the port is taken)."""
    server = open_server(config, passphrase)
    failure: Exception | None = None
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def until_signalled() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(until_signalled)
                try:
                    on_ready(server, await nursery.start(server.run))
                except (MeshError, OSError) as error:
                    failure = error  # raised outside, so that it comes out as itself and not in a group
                    nursery.cancel_scope.cancel()
        server.checkpoint()
    finally:
        server.store.store.close()
    if failure is not None:
        raise failure


def _address_of(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
