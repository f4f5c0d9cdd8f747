"""The life of one sidecar, in order: identity before listeners, listeners before readiness, drain before exit.

    starting   the admin socket and the health port stand; we ask the CA for an identity until it gives one
    ready      identity, policy and listeners stand; `ready` has been called
    draining   not ready; see `sidecar.runtime.drain` for its phases
    stopped    everything is closed, what telemetry still held is written

While it is starting or ready, `sidecar.runtime.reload` puts changed configurations in force.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from certs.bundle import BundleSet
from certs.denylist import Denylist
from certs.source import Source
from certs.store import ensure_private_dir
from certs.svid import X509Svid
from sidecar import __version__
from sidecar.answer.bridge import Around
from sidecar.answer.quota_desk import QuotaDesk
from sidecar.answer.redis import RedisAnswers
from sidecar.config.diff import RESTART, Change, diff, fixed
from sidecar.discovery.follow import Follower, look_up_as_we_do
from sidecar.identity.rotator import Rotator
from sidecar.identity.status import IdentityStatus
from sidecar.identity.survival import first_end
from sidecar.net.clock import Clock, SystemClock
from sidecar.net.mtls import MtlsGate
from sidecar.net.reactor import Reactor
from sidecar.runtime import keeping
from sidecar.runtime.build import CannotListen, Proxy
from sidecar.runtime.bypass import BypassCheck
from sidecar.runtime.drain import Drain
from sidecar.runtime.hygiene import of_this_process
from sidecar.runtime.keeper import keeper_of
from sidecar.runtime.orders import Orders
from sidecar.runtime.outside import Outside
from sidecar.runtime.recording import Recording
from sidecar.runtime.reload import CannotReload, Reloader
from sidecar.runtime.routing import addresses_of
from sidecar.runtime.served import ServedCheck
from sidecar.runtime.windows import open_windows
from sidecar.telemetry.edges import Edges
from sidecar.telemetry.log import Log
from sidecar.telemetry.setup import make_recorder, new_instance
from sidecar.traffic.declared import faults_in

if TYPE_CHECKING:
    from sidecar.admin.pod_health import PodHealth
    from sidecar.answer.keys import KeyDesk
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_redis import Redis
    from sidecar.identity.workload_api import FetchJwt
    from sidecar.telemetry.metrics import Metrics

SWEEP_SECONDS = 0.5  # pooled connections
FIRST_LIST_SECONDS = 5.0  # that a start waits at most for the sources of endpoints to speak; files do at once
QUOTA_FILE = "quotas.sqlite"  # in the state folder
EDGES_FILE = "edges.json"  # likewise
DENYLIST_SECONDS = 5.0  # that a start waits at most for the CA to say who was revoked; usually some milliseconds


async def run_sidecar(
    config: MeshConfig,
    service: str,
    *,
    enrolment: Path | None,
    state_dir: Path,
    run_dir: Path,
    ready: Callable[[], None] | None = None,
    orders: Orders | None = None,
    config_path: Path | None = None,
    clock: Clock | None = None,
    log: Log | None = None,
    pod: PodHealth | None = None,
) -> None:
    """Run one service's sidecar until it is ordered to drain and all that was in flight has ended, or until cancelled.

    With `config_path` it follows changes of that file and of those it includes. With `pod` its health port is there.

    Raises MeshError where it cannot start: no enrolment, a port that is taken, a state folder that others can read.
    """
    worker = Worker(
        config, service, enrolment=enrolment, state_dir=state_dir, config_path=config_path, clock=clock, log=log,
        pod=pod,
    )  # fmt: skip
    await worker.run(run_dir, ready or (lambda: None), orders or Orders())


class Worker:
    """One sidecar, and the state that its admin socket shows."""

    def __init__(
        self,
        config: MeshConfig,
        service: str,
        *,
        enrolment: Path | None,
        state_dir: Path,
        config_path: Path | None = None,
        clock: Clock | None = None,
        log: Log | None = None,
        pod: PodHealth | None = None,
    ) -> None:
        self.config = config
        self.service = config.services[service]
        self._pod = pod
        self.clock = clock or SystemClock()
        self.log = log or Log()
        self.instance = new_instance()
        self.version = __version__
        self.state = "starting"
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("trust bundle")
        self.denylists: Source[Denylist] = Source("denylist")
        self.identity_status: Source[IdentityStatus] = Source("identity status")
        self.proxy: Proxy | None = None
        self.orders = Orders()
        self.drain: Drain | None = None  # once it is under way
        self.served: ServedCheck | None = None  # once there are listeners
        self.bypass: BypassCheck | None = None
        self.answers: RedisAnswers | None = None  # where limits are counted together
        self.keys: KeyDesk | None = None  # of issuers, where a listener asks for tokens, or has asked
        self._gate: MtlsGate | None = None
        self._rotator = keeper_of(
            config, self.service, enrolment, state_dir, svids=self.svids, bundles=self.bundles,
            denylists=self.denylists, status=self.identity_status, clock=self.clock,
        )  # fmt: skip
        self.state_dir = state_dir
        ensure_private_dir(state_dir)
        self.recorder = make_recorder(
            self.service,
            instance=self.instance,
            state_dir=state_dir,
            log=self.log,
            clock=self.clock,
            version=self.version,
        )
        self.edges = Edges.load(state_dir / EDGES_FILE, self.clock.wall())
        self.quotas = QuotaDesk(
            state_dir / QUOTA_FILE, clock=self.clock, log=self.log, metrics=self.recorder.metrics
        )
        self.witness = self._rotator.witness if isinstance(self._rotator, Rotator) else None
        self.recording = Recording(self)
        self.renew_soon = self._rotator.renew_soon
        self.fetch_jwt: FetchJwt = self._rotator.fetch_jwt
        self._follower = Follower(look_up_as_we_do(), self.log, self.recorder.metrics)
        self.reloader = (
            Reloader(
                config_path, config, self.apply, self.log, self.recorder.metrics, self.clock,
                self.recording.config_refused,
            )
            if config_path is not None
            else None
        )

    # ---- what others ask -------------------------------------------------------------------------------------------

    @property
    def policy_generation(self) -> int:
        """Which configuration's policy is in force, counted from 1; 0 while none is."""
        if self.proxy is None:
            return 0
        return self.reloader.generation if self.reloader is not None else 1

    def lists(self) -> list[dict[str, object]]:
        """Where endpoints are learned from, how old each list is, and what went wrong last."""
        return self._follower.to_json()

    def begin_drain(self, why: str) -> None:
        """Ask for the drain; `run` does it."""
        if self.state == "ready":
            self.state = "draining"
        if not self.orders.drain.is_set():
            self.recording.drain(why)
        self.orders.begin_drain(why)

    def apply(self, config: MeshConfig) -> tuple[Change, ...]:
        """Put another configuration in force, whole, and say what has changed; or raise CannotReload."""
        name = self.service.name
        if name not in config.services:
            raise CannotReload(
                [f"services.{name} is gone; a sidecar ends by a signal, not by its file: stop it, or put it back"]
            )
        changes = diff(self.config, config, name)
        if found := fixed(changes):
            raise CannotReload([f"{change}; {RESTART}" for change in found])
        service = config.services[name]
        if self.proxy is not None:
            try:
                self.proxy.reload(service)
            except CannotListen as error:
                raise CannotReload([str(error)]) from None
            self._follower.look(self.proxy.followed)  # before any request sees a new upstream
        if service.tls.key != self.service.tls.key and isinstance(self._rotator, Rotator):
            self._rotator.use_key_kind(service.tls.key)
        self.config, self.service = config, service
        self.recording.use(service.audit)
        if self.answers is not None:
            self.answers.use(redis_of(service))
            self.quotas.use(quota_redis_of(service), service.identity.text)
        if self.keys is not None:
            self.keys.use(service.issuers)
        if self._gate is not None:
            self._gate.tls12 = service.tls.unsafe_tls12
            self._gate.denials.max_age = service.revocation.max_age
        self._show_policy()
        if changes:  # the reloader counts them after this
            self.recording.config(self.policy_generation + (self.reloader is not None), changes)
        return changes

    def not_ready(self) -> list[str]:
        """Why we are not ready; empty where we are."""
        if self.state == "draining":
            return ["draining"]
        if self.state == "starting":
            error = self.identity_status.current.last_error
            return (
                ["no identity yet" + (f": {error}" if error else "")]
                if not self.svids.number
                else ["listeners do not stand yet"]
            )
        if self.clock.wall() > self.svids.current.not_after:
            return ["our certificate has expired: " + (self.identity_status.current.last_error or "not renewed")]
        if self.identity_status.current.revoked:
            return [f"our certificate was revoked, by {self.identity_status.current.revoked}"]
        if self._gate is not None and self._gate.denials.stale:
            return ["the denylist is missing or older than revocation.max_age, so no peer is believed"]
        if self.served is not None and self.served.latest.confirmed:
            return [f"what we serve is not what we were given: {self.served.latest.problem}"]
        if self.bypass is not None and self.bypass.latest.refuses:
            return [self.bypass.latest.problem]
        return []

    # ---- the life --------------------------------------------------------------------------------------------------

    async def run(self, run_dir: Path, ready: Callable[[], None], orders: Orders) -> None:
        """Live, from starting to stopped."""
        self.orders = orders
        try:
            async with trio.open_nursery() as nursery:
                await open_windows(self, nursery, run_dir, self._pod)
                self._take_note()
                nursery.start_soon(self.recorder.run)
                nursery.start_soon(keeping.keep, self)
                nursery.start_soon(self.recording.run)
                nursery.start_soon(self._rotator.run)
                if self.reloader is not None:
                    nursery.start_soon(self.reloader.run, orders)
                await self._get_identity()
                if not orders.drain.is_set():
                    nursery.start_soon(self.quotas.run)
                    await self._open_listeners(nursery)
                    self.state = "ready"
                    self.log.info(
                        "ready", service=self.service.name, spiffe_id=self.service.identity.text, **self._tls_line()
                    )
                    ready()
                    await orders.drain.wait()
                    await self._do_drain()
                    await self.quotas.give_back()
                    await self.recording.finish()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._write_out)

    def _write_out(self) -> None:
        self.quotas.close()
        keeping.finish(self)
        self.recorder.close()
        self.log.close()

    def _tls_line(self) -> dict[str, object]:
        listeners = self.proxy.show.listeners() if self.proxy is not None else []
        return {"expires": self.svids.current.not_after, "listeners": len(listeners)}

    def _take_note(self) -> None:
        """Begin to tell of ourselves what is not asked of any part."""
        self.identity_status.subscribe(self._show_identity)
        self.recorder.metrics.before_scrape(self._show_survival)
        self.log.capture()
        if (confined := of_this_process()) is not None:
            tell = self.log.warning if confined.note() else self.log.info
            tell("process hygiene", **confined.in_force, **confined.lacking())

    def _show_identity(self, status: IdentityStatus) -> None:
        self.recorder.metrics.identity(status)

    def survival(self) -> float | None:
        """Seconds until the first link of our chain ends, if the CA stays away; None while there is no chain."""
        end, _ = first_end(self.identity_status.current, self.service.revocation.max_age)
        return max(0.0, end - self.clock.wall()) if end else None

    def _show_survival(self, metrics: Metrics) -> None:
        if (left := self.survival()) is not None:
            metrics.counter("mesh_ca_survival_seconds").set(left)

    async def _get_identity(self) -> None:
        """Wait for the first SVID and bundle, or for a drain."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, self.orders.drain.wait, nursery.cancel_scope)
            await self.svids.wait_past(0)
            await self.bundles.wait_past(0)
            await self._hear_of_revoked()
            nursery.cancel_scope.cancel()

    async def _hear_of_revoked(self) -> None:
        """Let the CA, which answered a moment ago, say who was revoked while we were away, before anybody comes in.

        It is the first thing on the watch. A CA that does not say it (it has gone, or is older than that) keeps nobody
        down: what an earlier life has kept is in force, and `revocation.max_age` is for those who want more. Whose
        identity comes from elsewhere has no watch.
        """
        if self.service.identity_source is not None:
            return
        status = self.identity_status
        with trio.move_on_after(DENYLIST_SECONDS) as waiting:
            while not status.current.denylist_heard_at:
                await status.wait_past(status.number)
        if waiting.cancelled_caught:
            known = f"denylist {status.current.denylist_sequence}" if self.denylists.number else "none"
            self.log.warning("the CA does not say who was revoked", in_force=known, waited=DENYLIST_SECONDS)

    async def _open_listeners(self, nursery: trio.Nursery) -> None:
        reactor = Reactor(self.clock)
        reactor.on_crash = lambda error: self.log.fault("a connection failed inside the sidecar", error)
        await nursery.start(reactor.run)
        gate = self._gate = MtlsGate(
            self.svids, self.bundles, self.denylists, tls12=self.service.tls.unsafe_tls12
        )
        gate.denials.max_age = self.service.revocation.max_age
        gate.denials.look(self.clock.wall())
        around = Around(reactor, self.clock, self.recorder.metrics, self.log, random.random)
        answers = self.answers = RedisAnswers(around)
        answers.use(redis_of(self.service))
        self.quotas.use(quota_redis_of(self.service), self.service.identity.text)
        nursery.start_soon(answers.run)
        outside = Outside(around)
        await nursery.start(outside.run)
        proxy = Proxy(
            self.service, reactor=reactor, gate=gate, recorder=self.recorder, instance=self.instance,
            desk=self.quotas, asker=answers, keys=partial(self._key_desk, nursery, reactor),
            outside=outside,
        )
        gate.on_change.append(proxy.renew)
        gate.on_denied.append(proxy.evict)
        await nursery.start(self._follower.run)
        self._follower.look(proxy.followed)
        # Whose connections are captured must know from the first on whom an address means.
        await self._follower.settled(FIRST_LIST_SECONDS, names=self.service.redirect is not None)
        if proxy.service is self.service:
            proxy.listen()
        else:
            proxy.reload(self.service)  # there was a reload meanwhile; this opens all that it wants
        self.proxy = proxy
        self._show_policy()
        self._look_for_sockets()
        nursery.start_soon(self._sweep, proxy, gate)
        self.served = ServedCheck(
            self.svids, self.bundles, proxy.mirror, lambda: self.service.inbound, self.log, self.recorder.metrics,
            self.clock,
        )  # fmt: skip
        nursery.start_soon(self.served.run)
        self.bypass = BypassCheck(lambda: self.service, proxy.mirror, self.log, self.recorder.metrics, self.clock)
        await self.bypass.look()
        nursery.start_soon(self.bypass.run)

    def _key_desk(self, nursery: trio.Nursery, reactor: Reactor) -> KeyDesk:
        """The desk of issuers' keys, made when a listener asks for tokens for the first time."""
        if self.keys is None:
            from sidecar.answer.keys import KeyDesk

            self.keys = KeyDesk(
                self.state_dir, self.bundles, clock=self.clock, log=self.log, metrics=self.recorder.metrics,
                dice=random.random,
            )  # fmt: skip
            self.keys.nudge = reactor.nudge
            self.keys.use(self.service.issuers)
            nursery.start_soon(self.keys.run)
        return self.keys

    def _look_for_sockets(self) -> None:
        """Say which Unix sockets are not there yet. The application may come later; until then callers get a 503."""
        for inbound in self.service.inbound:
            for app in (inbound.app, *addresses_of(inbound)):
                if app.unix and not Path(app.path).is_socket():
                    self.log.warning("no socket of the application's yet", listener=inbound.name, app=str(app))

    async def _sweep(self, proxy: Proxy, gate: MtlsGate) -> None:
        while True:
            self._follower.look(proxy.followed)
            await trio.sleep(SWEEP_SECONDS)
            gate.denials.look(self.clock.wall())
            proxy.sweep()

    async def _do_drain(self) -> None:
        """Go through the phases of the end."""
        assert self.proxy is not None
        self.state = "draining"
        self.drain = Drain(
            self.proxy, self.service.timeouts, self.orders, self.log, self.recorder.metrics, self.clock
        )
        await self.drain.run()

    def _show_policy(self) -> None:
        rules = (*self.service.allow, *self.service.deny)
        self.recorder.metrics.counter("mesh_policy_rules").set(len(rules))
        read = {header.name for rule in rules for header in rule.headers}
        asked = (subject for rule in rules for condition in rule.when for subject in condition.subjects())
        self.recorder.reads_headers(read | {subject.name.encode() for subject in asked if subject.kind == "header"})
        for where in faults_in(self.service):
            self.log.warning("faults are injected on purpose", **where)


def redis_of(service: Service) -> Redis | None:
    """The Redis that this service needs; None where no limit of it is shared."""
    return service.redis if any(rate.shared == "redis" for rate in service.rates) else None


def quota_redis_of(service: Service) -> Redis | None:
    """The same for its quotas, which keep a connection of their own."""
    return service.redis if any(quota.shared == "redis" for quota in service.quotas) else None


async def _cancel_after(wait: Callable[[], object], scope: trio.CancelScope) -> None:
    await wait()  # type: ignore[misc]
    scope.cancel()
