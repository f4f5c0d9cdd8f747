"""The four drills, told on a copy of the mesh: what is done to it, and which calls fail when, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ca.durations import format_duration
from ca.rotation import MEANING, Skip
from sidecar.cli.drill_copy import Agent, Call, Copy

HOUR = 3600.0
JUST_AFTER = 1.5  # seconds past an end, when it is looked at: OpenSSL takes a certificate through its last second
SPREAD = 0.45  # of a life, over which the certificates of a mesh that has run for long were obtained


@dataclass(slots=True)
class Outage:
    """A call that got no connection: from when to when, in seconds since the drill's begin; `ended` None: still."""

    call: Call
    began: float
    why: str
    ended: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As data."""
        return {**asdict(self), "call": str(self.call), "caller": self.call.caller, "called": self.call.called}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator says of the drill. Seconds."""

    lasting: float = 8 * HOUR
    skew: float = 300.0
    lost: str = ""


@dataclass
class Drill:
    """One drill under way: what happened, and which calls fail."""

    copy: Copy
    wish: Wish
    events: list[tuple[float, str]] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    tried: int = 0
    _start: float = 0.0

    @property
    def now(self) -> float:
        """Seconds since the drill's begin."""
        return self.copy.clock.now - self._start

    def say(self, what: str) -> None:
        """Something happened."""
        self.events.append((round(self.now, 3), what))

    async def settle(self) -> None:
        """A mesh that has run for a while: everybody has a certificate, obtained at a moment of their own."""
        agents = list(self.copy.agents.values())
        for number, agent in enumerate(agents):
            agent.due += agent.entry.ttl * SPREAD * number / len(agents)
        await self.copy.run_to(max(agent.due for agent in agents))
        self._start = self.copy.clock.now
        self.look()

    def look(self) -> None:
        """Try every call, and note what has changed."""
        open_ones = {one.call: one for one in self.outages if one.ended is None}
        for call in self.copy.calls():
            why = self.copy.why_not(call)
            self.tried += 1
            if why and call not in open_ones:
                self.outages.append(Outage(call, round(self.now, 3), why))
            elif not why and call in open_ones:
                open_ones[call].ended = round(self.now, 3)

    async def advance(self, until: float, every: Callable[[], None] = lambda: None) -> None:
        """Let time pass to this moment of the drill, looking at whatever may change a call."""
        end = self._start + until
        while self.copy.clock.now < end:
            before = {name: agent.svid for name, agent in self.copy.agents.items()}
            lapsed = self._moments()
            await self.copy.run_to(min([end, *lapsed, *(agent.due for agent in self.copy.agents.values())]))
            every()
            if self.copy.clock.now in lapsed or any(before[n] is not a.svid for n, a in self.copy.agents.items()):
                self._tell_renewals(before)
                self.look()
        self.look()

    def _moments(self) -> list[float]:
        """When certificates end or begin to hold, by the clock of somebody who looks at them."""
        skews = {agent.skew for agent in self.copy.agents.values()}
        svids = [agent.svid for agent in self.copy.agents.values() if agent.svid is not None]
        found = [at - skew + JUST_AFTER for svid in svids for at in (svid.not_before, svid.not_after) for skew in skews]
        return [at for at in found if at > self.copy.clock.now]

    def _tell_renewals(self, before: dict[str, Any]) -> None:
        for name, agent in self.copy.agents.items():
            lapsed = before[name] is None or before[name].not_after <= self.copy.clock.now + agent.skew
            if agent.svid is not before[name] and lapsed:
                self.say(f"{name} has a certificate again")


Story = Callable[[Drill], Awaitable[None]]


async def ca_down(drill: Drill) -> None:
    """The CA does not answer for a while. Certificates hold to their last second; then it comes back."""
    copy, lasting = drill.copy, drill.wish.lasting
    for agent in copy.agents.values():
        assert agent.svid is not None
        left = agent.svid.not_after - copy.clock.now
        drill.say(f"{agent.name} lives for {format_duration(left)} without the CA")
    copy.up = False
    drill.say("the CA is gone")
    await drill.advance(lasting)
    copy.up = True
    drill.say("the CA is back")
    await drill.advance(lasting + 2 * 150.0)  # the longest back-off, and one more


async def clock_skew(drill: Drill) -> None:
    """Each service in turn has a clock that is wrong, ahead and behind, for the life of a certificate."""
    at = 0.0
    for agent in drill.copy.agents.values():
        for skew in (drill.wish.skew, -drill.wish.skew):
            known, before = len(drill.outages), drill.now
            agent.skew = skew
            drill.look()
            at += drill.copy.lifetimes.longest
            await drill.advance(at)
            agent.skew = 0.0
            await drill.advance(at := at + 1.0)
            word = "ahead" if skew > 0 else "behind"
            failed = {str(one.call) for one in drill.outages[known:]}
            result = f"these fail at times: {', '.join(sorted(failed))}" if failed else "nothing fails"
            drill.events.append((before, f"{agent.name}'s clock is {format_duration(abs(skew))} {word}: {result}"))


async def expired_issuer(drill: Drill) -> None:
    """The CA answers, but nobody keeps its issuing CA on schedule: it ends; then `mesh ca serve` is itself again."""
    copy = drill.copy
    copy.scheduled = False
    end = copy.authority.issuer.not_after - drill._start
    drill.say(f"the issuing CA is replaced by nobody, and ends in {format_duration(end)}")
    await copy.run_to(drill._start + end - 2 * copy.lifetimes.longest)  # until then nothing is special
    told = False

    def tell_cut() -> None:
        nonlocal told
        if not told and any(_is_cut(agent) for agent in copy.agents.values()):
            told = True
            drill.say("certificates are being cut short: none outlives the issuing CA")

    await drill.advance(end + HOUR, tell_cut)
    for agent in copy.agents.values():
        drill.say(f"{agent.name}: {agent.problem or 'well'}")
    copy.scheduled = True
    copy.keep_ca()
    drill.say("the schedule is kept again: another issuing CA has taken over at once")
    await drill.advance(end + HOUR + 2 * 150.0)


def _is_cut(agent: Agent) -> bool:
    return agent.svid is not None and agent.svid.not_after - agent.renewed_at < 0.9 * agent.entry.ttl


async def root_rotation(drill: Drill) -> None:
    """`mesh ca rotate-root --go`, to its end; one sidecar may be lost before it begins."""
    copy, rotation = drill.copy, drill.copy.rotation
    if drill.wish.lost:
        copy.agents[drill.wish.lost].lost = True
        drill.say(f"{drill.wish.lost} is out of reach of the CA; nobody knows whether it lives")
    copy.watch()
    rotation.begin(copy.clock.now)
    phase = ""
    while (found := copy.store.rotation()) is not None and found.under_way:
        if found.phase != phase:
            phase = found.phase
            drill.say(f"{phase}: {MEANING[found.phase]}")
            drill.look()
        copy.keep_ca()
        copy.watch()
        if not rotation.round(copy.clock.now):
            await drill.advance(drill.now + 1.0)
            late = [one for one in rotation.laggards(found, copy.clock.now) if not one.skipped]
            if late and all(one.leaf.spiffe_id == _identity(copy, drill.wish.lost) for one in late):
                ends = format_duration(late[0].leaf.not_after - copy.clock.now)
                drill.say(f"it waits for {drill.wish.lost} alone, until its certificate ends in {ends}; or --skip")
                rotation.skip([Skip(late[0].leaf.spiffe_id, "the drill goes on")], copy.clock.now)
                drill.say(f"{drill.wish.lost} is skipped")
    drill.say("done: the old root is gone")
    copy.keep_ca()
    drill.look()
    if drill.wish.lost:
        copy.agents[drill.wish.lost].lost = False
        drill.say(f"{drill.wish.lost} reaches the CA again; what it trusts is of before")


def _identity(copy: Copy, name: str) -> str:
    return copy.agents[name].service.identity.text if name else ""


STORIES: dict[str, Story] = {
    "ca-down": ca_down,
    "clock-skew": clock_skew,
    "expired-issuer": expired_issuer,
    "root-rotation": root_rotation,
}
