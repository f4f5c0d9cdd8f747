"""Who is held by a detector for a time: blocked, or down to a rate. Never by what somebody else did: the key is the
verified SPIFFE ID with the user of a verified token, where there was one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from sidecar.errors import CallerBlocked
from sidecar.traffic.fields import retry_after
from sidecar.traffic.gcra import Rate

if TYPE_CHECKING:
    from sidecar.hop import Hop

Who = tuple[str, str]  # SPIFFE ID; issuer and subject of the token, empty without one
MOST: Final = 4096
DETECTORS: Final = ("stuffing", "enumeration", "spikes")  # that may hold somebody


def who_of(hop: Hop) -> Who:
    """Whose traffic this is."""
    token, peer = hop.token, hop.peer
    return (peer.text if peer is not None else "", f"{token.issuer}:{token.subject}" if token is not None else "")


@dataclass(slots=True)
class Hold:
    """One caller that is held."""

    who: Who
    detector: str
    what: str  # it did, for people
    action: Literal["throttle", "block"]
    since: float  # monotonic seconds
    until: float
    rate: Rate | None = None  # with `throttle`
    refused: int = field(default=0)


class Holds:
    """All callers that are held at one service."""

    def __init__(self) -> None:
        self._held: dict[tuple[Who, str], Hold] = {}  # by caller and detector
        self.peers: dict[str, float] = {}  # SPIFFE ID → until when anything of it is held; read by each plain request

    def put(self, hold: Hold) -> None:
        """Hold a caller from now on; the oldest makes room where there are too many."""
        if len(self._held) >= MOST:
            del self._held[next(iter(self._held))]
        self._held[(hold.who, hold.detector)] = hold
        self._look(hold.since)

    def check(self, hop: Hop, now: float) -> None:
        """Let a hop pass, at monotonic `now`, or raise CallerBlocked."""
        if hop.peer is None or hop.peer.text not in self.peers:
            return
        who, over = who_of(hop), False
        for detector in DETECTORS:
            hold = self._held.get((who, detector))
            if hold is None:
                continue
            if hold.until <= now:
                over = True
                continue
            wait = hold.until - now if hold.rate is None else hold.rate.take(now)
            if wait > 0.0:
                hold.refused += 1
                raise _refused(hold, wait)
        if over or self.peers[who[0]] <= now:
            self._look(now)

    def lift(self, caller: str, user: str | None, now: float) -> list[Hold]:
        """Let a caller go, of all detectors; of this user alone where one is named. Returns what was held."""
        gone = [
            key for key, hold in self._held.items() if hold.who[0] == caller and user in (None, hold.who[1])
        ]
        lifted = [self._held.pop(key) for key in gone]
        self._look(now)
        return [each for each in lifted if each.until > now]

    def in_force(self, now: float) -> list[Hold]:
        """Those that are held at this moment."""
        self._look(now)
        return list(self._held.values())

    def _look(self, now: float) -> None:
        """Forget what is over."""
        self._held = {key: hold for key, hold in self._held.items() if hold.until > now}
        self.peers.clear()
        for hold in self._held.values():
            self.peers[hold.who[0]] = max(hold.until, self.peers.get(hold.who[0], 0.0))


def _refused(hold: Hold, wait: float) -> CallerBlocked:
    how = "blocked" if hold.rate is None else f"held to {hold.rate.name}"
    user = f", user {hold.who[1]}" if hold.who[1] else ""
    return CallerBlocked(
        f"{how} by the detector {hold.detector}{user}: {hold.what}", limit=f"detector {hold.detector}", per="caller",
        wait=wait, told=(retry_after(wait),),
    )  # fmt: skip
