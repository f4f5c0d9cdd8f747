"""The key sets of issuers: fetched, kept fresh, kept on disk, and fetched once more for a key that nobody knows yet.

Theory of operation. Each issuer has a *follower*, a trio task that fetches its set now and then (`refresh`), more often
while that fails. A set that came well replaces the one before whole; one that did not leaves it standing, with an
alarm: what is signed by yesterday's keys is verified by yesterday's keys, however long the issuer is away (semantics
S22, pain 26). The last good set is kept in the state folder as well, so a sidecar that restarts during an outage still
verifies. A file is only looked at each second; of JWT-SVIDs the keys are in the trust bundle, which is there already.

A request whose token names a key that the set does not have may wait, for at most `PATIENCE`, for one more fetch, which
all who come meanwhile share. Such fetches have a small allowance for each issuer, so that whoever invents keys cannot
make us flood it: `want` returns None when it is used up. What a request is told then, `fresh` decides: with a set that
was fetched a moment ago the key does not exist, with any other nobody can tell.

Everything here runs in the reactor's thread; who waits does so on a signal of the port, and is woken by `nudge`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import trio

from certs.errors import IdentityError
from certs.store import read_private, write_private
from sidecar.answer.key_fetch import CannotFetch, fetch
from sidecar.net.port import Signal
from sidecar.policy.jwk import BadKeySet, KeySet
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from certs.bundle import BundleSet
    from certs.source import Source
    from sidecar.config.schema_tokens import Issuer
    from sidecar.net.clock import Clock
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds after failures, doubling
LOOK_SECONDS: Final = 1.0  # at a file
EXTRA: Final = 2  # fetches for unknown keys that an issuer may get at once
EXTRA_SECONDS: Final = 10.0  # until another one is allowed; also for how long a fetched set counts as that of now
OLD: Final = 3.0  # times `refresh`: a set of this age is an alarm


class Follower:
    """One issuer, and its keys as of the last time that they could be had."""

    def __init__(
        self, issuer: Issuer, folder: Path, *, clock: Clock, log: Log, dice: Callable[[], float]
    ) -> None:
        self.issuer = issuer
        self.keys: KeySet | None = None
        self.heard_at = 0.0  # seconds since the epoch: when they were had; 0 for never
        self.problem = ""  # why the last fetch has failed
        self.nudge: Callable[[], None] = lambda: None
        self._path = folder / f"keys.{issuer.name}.json"
        self._clock = clock
        self._log = log
        self._dice = dice
        self._wanted = trio.Event()
        self._signal: Signal | None = Signal()  # of the fetch that is under way or about to be; None between them
        self._allowance, self._allowed_at = float(EXTRA), clock.monotonic()
        self._fresh_at = -EXTRA_SECONDS  # monotonic: when the fetch of the set in force began

    # ---- what requests ask -----------------------------------------------------------------------------------------

    def want(self) -> Signal | None:
        """What happens when a fetch has ended that begins now or is under way; None where none may begin."""
        if self._signal is not None:
            return self._signal
        now = self._clock.monotonic()
        allowance = min(float(EXTRA), self._allowance + (now - self._allowed_at) / EXTRA_SECONDS)
        self._allowance, self._allowed_at = allowance, now
        if allowance < 1.0 or self.issuer.file:
            return None
        self._allowance -= 1.0
        self._signal = Signal()
        self._wanted.set()
        return self._signal

    @property
    def underway(self) -> Signal | None:
        """What happens when the fetch has ended that is under way or about to be; None where none is."""
        return self._signal

    @property
    def fresh(self) -> bool:
        """Whether what the set does not have, the issuer has not either."""
        return not self.problem and self._clock.monotonic() - self._fresh_at < max(EXTRA_SECONDS, LOOK_SECONDS)

    # ---- the task ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow, until cancelled."""
        await self._remember()
        pause = FIRST_PAUSE
        while True:
            self._wanted = trio.Event()
            if await self._fetch():
                pause = FIRST_PAUSE
                wait = LOOK_SECONDS if self.issuer.file else self.issuer.refresh * (0.9 + 0.2 * self._dice())
            else:
                wait = LOOK_SECONDS if self.issuer.file else pause * (0.75 + 0.5 * self._dice())
                pause = min(LONGEST_PAUSE, 2.0 * pause)
            with trio.move_on_after(wait):
                await self._wanted.wait()

    async def _fetch(self) -> bool:
        self._signal = self._signal or Signal()
        began = self._clock.monotonic()
        keys: KeySet | None = None
        try:
            keys = await fetch(self.issuer)
        except CannotFetch as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - an issuer's answer must not end the sidecar, whatever it is
            self._failed(f"{type(error).__name__}: {error}")
        if keys is not None:
            self.heard_at, self._fresh_at = self._clock.wall(), began
            self._take(keys)
        self._tell_waiting()
        if keys is not None and not self.issuer.file:
            await self._keep()
        return keys is not None

    def _take(self, keys: KeySet) -> None:
        if self.problem:
            self._log.info("the keys of an issuer are to be had again", issuer=self.issuer.name)
            self.problem = ""
        changed = self.keys is None or self.keys.document != keys.document
        if changed:
            left_out = {"left_out": keys.left_out} if keys.left_out else {}
            self._log.info("an issuer has other keys", issuer=self.issuer.name, keys=len(keys.keys), **left_out)
            self.keys = keys

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            effect = "tokens are verified by the keys known before" if self.keys is not None else "no token is believed"
            self._log.warning(
                "the keys of an issuer cannot be had", issuer=self.issuer.name, problem=problem, effect=effect
            )

    # ---- the state folder --------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Keep the set for the next life, as of now."""
        assert self.keys is not None
        kept = {"issuer": _origin(self.issuer), "heard_at": self.heard_at, "set": json.loads(self.keys.document)}
        try:
            await trio.to_thread.run_sync(write_private, self._path, json.dumps(kept).encode("ascii"))
        except OSError as error:
            self._log.warning("the keys of an issuer cannot be kept", issuer=self.issuer.name, problem=str(error))

    async def _remember(self) -> None:
        """What an earlier life has kept of the same issuer, from the same place."""
        if self.issuer.file:
            return
        try:
            found = await trio.to_thread.run_sync(_remembered, self._path, _origin(self.issuer))
        except (IdentityError, OSError, ValueError, KeyError, TypeError) as error:
            self._log.warning("the kept keys of an issuer cannot be read", issuer=self.issuer.name, problem=str(error))
            return
        if found is not None:
            self.keys, self.heard_at = found
            self._tell_waiting()
            self._signal = Signal()  # of the fetch that follows: for whose key is not in what was kept

    def _tell_waiting(self) -> None:
        """Let all look again who wait for a set."""
        signal, self._signal = self._signal, None
        if signal is not None:
            signal.fire()
            self.nudge()


class InBundle:
    """The keys of JWT-SVIDs, which the trust bundle has."""

    problem = ""
    fresh = True  # the CA tells of new ones before they sign

    def __init__(self, issuer: Issuer, bundles: Source[BundleSet], clock: Clock) -> None:
        self.issuer = issuer
        self._bundles = bundles
        self._clock = clock
        self._number = 0
        self._keys: KeySet | None = None

    @property
    def keys(self) -> KeySet | None:
        """Those of the bundle of now."""
        if self._number != self._bundles.number:
            self._number = self._bundles.number
            assert self.issuer.trust_domain is not None
            bundle = self._bundles.current.of(self.issuer.trust_domain)
            found = tuple((each.kid, each.der) for each in bundle.jwt_keys) if bundle is not None else ()
            try:
                self._keys = KeySet.of_spki(found)
            except BadKeySet:
                self._keys = None
        return self._keys

    @property
    def heard_at(self) -> float:
        """Now: the watch of the CA tells of changes."""
        return self._clock.wall() if self.keys is not None else 0.0

    underway = None

    def want(self) -> None:
        """Nobody has to be asked."""


class KeyDesk:
    """The keys of all issuers that the configuration in force names."""

    def __init__(
        self, folder: Path, bundles: Source[BundleSet], *, clock: Clock, log: Log, metrics: Metrics,
        dice: Callable[[], float],
    ) -> None:  # fmt: skip
        self._folder = folder
        self._bundles = bundles
        self._clock = clock
        self._log = log
        self._dice = dice
        self.nudge: Callable[[], None] = lambda: None  # lets the reactor look whom a signal has woken; set before `use`
        self._followers: dict[Issuer, Follower | InBundle] = {}
        self._scopes: dict[Issuer, trio.CancelScope] = {}
        self._changed = trio.Event()
        metrics.before_scrape(self._show)

    def use(self, issuers: Iterable[Issuer]) -> None:
        """From now on these are followed; of those that stay as they were, the keys stay too."""
        before, self._followers = self._followers, {}
        for issuer in issuers:
            self._followers[issuer] = before.get(issuer) or self._made(issuer)
        for issuer in before.keys() - self._followers.keys():
            if issuer in self._scopes:
                self._scopes.pop(issuer).cancel()
        self._changed.set()

    def _made(self, issuer: Issuer) -> Follower | InBundle:
        if issuer.trust_domain is not None:
            return InBundle(issuer, self._bundles, self._clock)
        made = Follower(issuer, self._folder, clock=self._clock, log=self._log, dice=self._dice)
        made.nudge = self.nudge
        return made

    # ---- what requests ask -----------------------------------------------------------------------------------------

    def current(self, issuer: Issuer) -> KeySet | None:
        """The set in force; None where none was ever had."""
        found = self._followers.get(issuer)
        return found.keys if found is not None else None

    def want(self, issuer: Issuer) -> Signal | None:
        """What happens when a fetch of its keys has ended; None where none may begin now."""
        found = self._followers.get(issuer)
        return found.want() if found is not None else None

    def underway(self, issuer: Issuer) -> Signal | None:
        """What happens when the fetch has ended that is under way or about to be; None where none is."""
        found = self._followers.get(issuer)
        return found.underway if found is not None else None

    def fresh(self, issuer: Issuer) -> bool:
        """Whether the set in force was fetched a moment ago."""
        found = self._followers.get(issuer)
        return found is not None and found.fresh

    # ---- the task ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow all issuers, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for issuer, follower in self._followers.items():
                    if isinstance(follower, Follower) and issuer not in self._scopes:
                        scope = self._scopes[issuer] = trio.CancelScope()
                        nursery.start_soon(_run_in, scope, follower)
                await self._changed.wait()

    # ---- what others see -------------------------------------------------------------------------------------------

    def _show(self, metrics: Metrics) -> None:
        now = self._clock.wall()
        for issuer, follower in self._followers.items():
            if follower.heard_at:
                age = metrics.counter("mesh_token_keys_age_seconds")
                age.set(max(0.0, now - follower.heard_at), (issuer.name,))
            metrics.counter("mesh_token_keys").set(len(follower.keys.keys) if follower.keys else 0, (issuer.name,))

    def to_json(self) -> list[dict[str, Any]]:
        """How each issuer's keys stand; `alarm` is what deserves an eye, empty for nothing."""
        return [self._told(each) for each in self._followers.values()]

    def _told(self, it: Follower | InBundle) -> dict[str, Any]:
        age = max(0.0, self._clock.wall() - it.heard_at) if it.heard_at else None
        old = age is not None and age > OLD * it.issuer.refresh
        return {
            "issuer": it.issuer.name,
            "keys": len(it.keys.keys) if it.keys is not None else 0,
            "heard_at": rfc3339(it.heard_at) if it.heard_at else None,
            "age_seconds": age,
            "problem": it.problem,
            "alarm": "none" if it.keys is None else "old" if old else "failing" if it.problem else "",
        }


async def _run_in(scope: trio.CancelScope, follower: Follower) -> None:
    with scope:
        await follower.run()


def _origin(issuer: Issuer) -> list[str]:
    """What a kept set must have come from to be believed again."""
    return [issuer.issuer, issuer.url]


def _remembered(path: Path, origin: list[str]) -> tuple[KeySet, float] | None:
    """In a thread: the kept set and when it was had. Raises IdentityError, ValueError, KeyError, TypeError."""
    if not path.exists():
        return None
    kept = json.loads(read_private(path))
    if kept["issuer"] != origin:
        return None
    return KeySet.parse(json.dumps(kept["set"]).encode("ascii")), float(kept["heard_at"])
