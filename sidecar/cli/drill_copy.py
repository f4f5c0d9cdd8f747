"""A throwaway copy of a mesh for drills: a real CA in a temporary folder, the identities of its sidecars, and a clock.

The CA's store, keys, schedule and authority are the real ones. A sidecar is what holds a certificate: it enrols by its
key, renews by the arithmetic of `certs.rotation` with the same jitter and back-off, and obeys an order to renew early.
Whether a call gets through is never computed: each is a TLS handshake in memory, with the contexts of a sidecar and the
clock of each end, and both ends judge the other as a sidecar does. Time goes from event to event: a day takes a second.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

from ca.attest.proof import KeyProof
from ca.authority import Authority
from ca.config import STORE_FILE, CaSettings
from ca.create import create_ca
from ca.enrolling import grant_key, register
from ca.entries import Entry, NewEntry
from ca.errors import CaError
from ca.rehearsal import peer_chain, shake
from ca.roots import load_bundle, load_issuer
from ca.rotating import RootRotation
from ca.schedule import Schedule
from ca.store.base import Ack
from ca.store.sqlite import SqliteStore
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet, TrustBundle
from certs.csr import make_csr
from certs.enrolment import EnrolmentKey
from certs.errors import MeshError
from certs.keys import RANDOM_KDF_ROUNDS, make_key
from certs.rotation import MIN_RENEWAL_SECONDS, Renewal, retry_wait
from certs.source import Source
from certs.spiffe import SpiffeId
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.cli.drill_lifetimes import Lifetimes
from sidecar.config.schema import MeshConfig, Service
from sidecar.net.contexts import make_context

SEED = 20  # of the dice: a drill says the same each time


@dataclass
class DrillClock:
    """The time of the copy, in seconds since the epoch; it only moves when it is moved."""

    now: float

    def wall(self) -> float:
        """The CA's clock."""
        return self.now

    def monotonic(self) -> float:
        """The same: nobody sleeps here."""
        return self.now


@dataclass
class Agent:
    """One service's sidecar, as far as its identity goes. `skew` is its clock minus the CA's."""

    service: Service
    entry: Entry
    key: EnrolmentKey
    svid: X509Svid | None = None
    bundle: TrustBundle | None = None
    due: float = 0.0
    failures: int = 0
    renewed_at: float = 0.0
    skew: float = 0.0
    lost: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls whom, by the outbound blocks of the mesh.yaml."""

    caller: str
    called: str

    def __str__(self) -> str:
        return f"{self.caller} → {self.called}"


@dataclass
class Copy:
    """The copy. `up` says whether the CA answers, `scheduled` whether it keeps its issuing CAs on schedule."""

    config: MeshConfig
    directory: Path
    clock: DrillClock
    lifetimes: Lifetimes
    up: bool = True
    scheduled: bool = True
    agents: dict[str, Agent] = field(default_factory=dict)
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))  # noqa: S311 - chooses no secret

    def __post_init__(self) -> None:
        self.passphrase = secrets.token_urlsafe(32).encode()
        domain, issuer_ttl = self.config.trust_domain, self.lifetimes.issuer
        settings = CaSettings(domain, key_kind=self.lifetimes.key_kind, kdf_rounds=RANDOM_KDF_ROUNDS)
        create_ca(self.directory, settings, self.passphrase, self.clock.now, issuer_ttl=issuer_ttl)
        self.store = SqliteStore(self.directory / STORE_FILE)
        self.schedule = Schedule(self.directory, self.store, domain, self.passphrase, issuer_ttl)
        self.rotation = RootRotation(self.directory, self.store, domain, self.passphrase, issuer_ttl)
        self.bundles: Source[BundleSet] = Source("bundle")
        self.bundles.publish(BundleSet((load_bundle(self.store, domain),)))
        issuer = load_issuer(self.directory, self.store, self.passphrase)
        self.authority = Authority(domain, issuer, StoreThreads(self.store), self.bundles, self.clock)
        for service in self.config.services.values():
            wanted = NewEntry(service.identity, (service.name,), self.lifetimes.leaf[service.name])
            entry = register(self.store, domain, wanted, self.clock.now)
            proof = grant_key(self.store, entry, "127.0.0.1:1", self.clock.now).proof
            assert isinstance(proof, EnrolmentKey)
            self.agents[service.name] = Agent(service, entry, proof, due=self.clock.now)

    # ---- time --------------------------------------------------------------------------------------------------------

    async def run_to(self, until: float) -> None:
        """Let time pass: schedule, renewals and back-offs happen when they are due."""
        while True:
            agent = min(self.agents.values(), key=lambda one: one.due)
            if agent.due > until:
                break
            self.clock.now = max(self.clock.now, agent.due)
            self.keep_ca()
            await self.obtain(agent)
        self.clock.now = max(self.clock.now, until)
        self.keep_ca()

    def keep_ca(self) -> None:
        """What a running CA does by itself: keep its schedule, publish its bundle, sign with what is active."""
        if not self.up:
            return
        if self.scheduled:
            self.schedule.round(self.clock.now)
        bundle = load_bundle(self.store, self.config.trust_domain)
        if bundle != self.bundles.current.of(self.config.trust_domain):
            self.bundles.publish(BundleSet((bundle,)))
        self.authority.issuer = load_issuer(self.directory, self.store, self.passphrase)

    async def obtain(self, agent: Agent) -> None:
        """One try of one sidecar to get its next certificate, and when the next try is due."""
        now = self.clock.now
        try:
            agent.svid = await self._issue(agent)
        except MeshError as error:
            agent.failures += 1
            agent.problem = str(error)
            end = None if agent.svid is None else agent.svid.not_after
            agent.due = now + max(0.1, retry_wait(agent.failures - 1, self.dice.random(), now, end))
            return
        agent.failures, agent.problem, agent.renewed_at = 0, "", now
        agent.bundle = self.bundles.current.of(self.config.trust_domain)
        plan = Renewal.plan(
            agent.svid.not_before, agent.svid.not_after, now=now + agent.skew, monotonic=now, dice=self.dice.random()
        )
        agent.due = now + plan.wait(now + agent.skew, now)

    async def _issue(self, agent: Agent) -> X509Svid:
        if not self.up or agent.lost:
            raise CaError("the CA is out of reach")
        key = make_key(agent.service.tls.key)
        csr = make_csr(key)
        if agent.svid is not None and self.clock.now + agent.skew < agent.svid.not_after:
            try:
                issued = await self.authority.renew(csr, agent.svid.chain)
                return X509Svid.parse(issued.chain_pem, key)
            except CaError as error:
                if error.name in ("issuer_unusable", "too_many_issuances"):
                    raise
        nonce = self.authority.challenge(agent.entry.id).nonce
        signature = agent.key.sign(self.config.trust_domain, agent.entry.id, nonce, csr)
        issued = await self.authority.enrol(csr, KeyProof(agent.entry.id, nonce, signature))
        return X509Svid.parse(issued.chain_pem, key)

    def watch(self) -> None:
        """What the watch brings to every sidecar that is connected: the bundle, acknowledged; an order to renew."""
        order = self.rotation.order(self.clock.now)
        for agent in self.agents.values():
            if agent.svid is None or agent.lost or not self.up:
                continue
            agent.bundle = self.bundles.current.of(self.config.trust_domain)
            assert agent.bundle is not None
            identity, serial = agent.service.identity.text, agent.svid.serial
            acks = (("bundle", agent.bundle.sequence), ("watch", 1))
            self.store.acknowledge([Ack(identity, serial, topic, number, self.clock.now) for topic, number in acks])
            if order.issuers.intersection(f"{one.serial_number:x}" for one in agent.svid.chain[1:]):
                wanted = self.clock.now + order.within * self.dice.random()
                agent.due = min(agent.due, max(wanted, agent.renewed_at + MIN_RENEWAL_SECONDS))

    # ---- calls -------------------------------------------------------------------------------------------------------

    def calls(self) -> tuple[Call, ...]:
        """Every call between two services of the file."""
        known = self.config.services
        found = [Call(name, out.to) for name, one in known.items() for out in one.outbound if out.to in known]
        return tuple(dict.fromkeys(found))

    def why_not(self, call: Call) -> str:
        """Why this call gets no connection now; empty where it does."""
        caller, called = self.agents[call.caller], self.agents[call.called]
        for agent in (caller, called):
            if agent.svid is None or agent.bundle is None:
                return f"{agent.name} has no certificate"
        ends = self._end(caller, server=False), self._end(called, server=True)
        if failure := shake(*ends):
            return _by_name(failure, call)
        for end, agent, other in ((ends[0], caller, called), (ends[1], called, caller)):
            try:
                shown: SpiffeId = verify_chain(peer_chain(end), BundleSet(_one(agent.bundle)), self._clock_of(agent))
            except MeshError as error:
                return f"{agent.name}: {error}"
            if shown != other.service.identity:
                return f"{agent.name}: {shown} is not {other.service.identity}"
        return ""

    def _end(self, agent: Agent, *, server: bool) -> SSL.Connection:
        (bundle,) = _one(agent.bundle)
        now = self._clock_of(agent)
        context = make_context(agent.svid, bundle.roots, server=server, verify="require", now=now)
        connection = SSL.Connection(context, None)
        (connection.set_accept_state if server else connection.set_connect_state)()
        return connection

    def _clock_of(self, agent: Agent) -> float:
        return self.clock.now + agent.skew


@contextmanager
def a_copy(config: MeshConfig, folder: Path, now: float, lifetimes: Lifetimes) -> Iterator[Copy]:
    """A copy that is gone with its folder."""
    copy = Copy(config, folder / "ca", DrillClock(now), lifetimes)
    try:
        yield copy
    finally:
        copy.store.close()


def _one(bundle: TrustBundle | None) -> tuple[TrustBundle]:
    assert bundle is not None
    return (bundle,)


def _by_name(failure: str, call: Call) -> str:
    """`client` and `server` by the names of the services."""
    side, _, what = failure.partition(": ")
    return f"{ {'client': call.caller, 'server': call.called}.get(side, side)}: {what}"
