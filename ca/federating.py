"""Keeps the bundles of other trust domains fresh while the CA serves, and says what is to be told of them.

Each endpoint is asked by its own hint; one that is away, or says what we do not accept, is asked again after a
back-off, and costs nothing but a line in the log: the last bundle stays in force, here and in every sidecar.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from ca.errors import CaError, FederationRefused
from ca.federation import MIN_REFRESH, Partner, accept
from ca.fetch import fetch_bundle
from ca.roots import load_bundle
from ca.store.base import Store
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet, TrustBundle
from certs.rotation import backoff
from certs.source import Source
from certs.spiffe import TrustDomain
from sidecar.net.clock import Clock

Fetch = Callable[[str, bytes], Awaitable[bytes]]

_log = logging.getLogger("mesh.ca")


@dataclass(frozen=True, slots=True)
class Federated:
    """What sidecars are told: every other trust domain whose bundle we hold. `sequence` grows with each change."""

    sequence: int = 0
    bundles: BundleSet = field(default_factory=BundleSet)


def federated(store: Store) -> Federated:
    """What is to be told now. Raises StoreUnavailable."""
    sequence = store.federation_sequence()  # read first: a change in between is told again, never missed
    known = (partner.bundle for partner in store.partners())
    return Federated(sequence, BundleSet.of_all(bundle for bundle in known if bundle is not None))


def take(store: Store, own: TrustDomain, partner: Partner, data: bytes, now: float) -> TrustBundle:
    """Accept this document as the partner's bundle, if it keeps every rule. Raises FederationRefused."""
    others = [other.bundle for other in store.partners() if other.trust_domain != partner.trust_domain]
    bundle = accept(partner, data, (load_bundle(store, own), *(other for other in others if other is not None)))
    if not store.accept_bundle(partner, bundle, now):
        raise FederationRefused(f"the federation with {partner.trust_domain} was changed meanwhile; try again")
    return bundle


@dataclass(slots=True)
class Federator:
    """Asks endpoints when they are due. `poll` is how soon a partner that was added is noticed, in seconds."""

    trust_domain: TrustDomain
    store: StoreThreads
    clock: Clock
    poll: float = 1.0
    fetch: Fetch = fetch_bundle
    dice: Callable[[], float] = random.SystemRandom().random
    told: Source[Federated] = field(default_factory=lambda: Source("federation"))
    problems: dict[TrustDomain, str] = field(default_factory=dict)
    """Why the last try of an endpoint failed, for those where it did."""
    _due: dict[tuple[TrustDomain, str, float], float] = field(default_factory=dict)  # by partner; monotonic
    _failures: dict[TrustDomain, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Go on until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await self._look(nursery)
                except CaError as error:
                    _log.error("the federation cannot be followed: %s", error)
                await trio.sleep(self.poll)

    async def _look(self, nursery: trio.Nursery) -> None:
        """Publish what is new; begin to ask whoever is due, which nobody waits for."""
        await self.publish()
        partners = await self.store.call(self.store.store.partners)
        known = {(one.trust_domain, one.url, one.added_at): one for one in partners if one.url}
        self._due = {key: self._due.get(key, 0.0) for key in known}
        self.problems = {name: why for name, why in self.problems.items() if name in {key[0] for key in known}}
        for key, partner in known.items():
            if self.clock.monotonic() >= self._due[key]:
                self._due[key] = math.inf  # until it has been asked
                nursery.start_soon(self._ask, key, partner)

    async def publish(self) -> None:
        """Publish what sidecars are told, where it has changed. Raises StoreUnavailable."""
        now = await self.store.call(federated, self.store.store)
        if not self.told.number or now.sequence != self.told.current.sequence:
            self.told.publish(now)

    async def _ask(self, key: tuple[TrustDomain, str, float], partner: Partner) -> None:
        name, now = partner.trust_domain, self.clock.wall()
        try:
            data = await self.fetch(partner.url, partner.web_roots)
            bundle = await self.store.call(take, self.store.store, self.trust_domain, partner, data, now)
        except CaError as error:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            if self.problems.get(name) != str(error):
                _log.warning("the bundle of %s stays as it is: %s", name, error)
            self.problems[name] = str(error)
            wait = min(partner.next_fetch(0.5), MIN_REFRESH + backoff(failures, self.dice()))
        else:
            if partner.bundle != bundle:
                _log.warning("trust domain %s: bundle %d with %d roots", name, bundle.sequence, len(bundle.roots))
            self._failures.pop(name, None)
            self.problems.pop(name, None)
            wait = Partner(name, partner.url, bundle=bundle).next_fetch(self.dice())
        self._due[key] = self.clock.monotonic() + wait
