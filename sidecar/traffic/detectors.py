"""Three detectors over the hops that have ended: tried passwords, objects asked for one by one, spikes (S22).

Theory of operation. What is counted is counted for one *caller*: a verified SPIFFE ID, with the user of a verified
token where there was one; and there for one *route*: the operation of the contract, else the path template of the
rule. What is usual is learned when a window is over (`history`); each is judged while it is open. The three ask:

- stuffing: how many requests were answered 401 or 403 on top of the requests that are usual? What a minute has beyond a
  tenth of `refusals` is added up over the minutes (a cumulative sum: Page 1954, "Continuous inspection schemes"), so a
  slow trickle is found too, and it makes no difference where a minute begins. Where good answers, which are usual, have
  ceased altogether, the caller's own credential or the service is broken: nobody tries passwords.
- enumeration: are `ids` different objects asked for within this window of five minutes and the one before, or
  `sequential` numbers side by side? Each has its own history, so a walk is seen beside all that a busy caller asks for.
- spikes: are it `least` requests within this minute, and `times` as many as usual? Is this the first call ever of this
  caller to this route? That alone is never acted upon: whether a rule allows it has been asked already.

Memory is bounded: tracks (a caller on a route) and callers each have a most; over it the half that was silent for
longest is forgotten, and with it what was usual. Time is that of the hops, monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.errors import CallerBlocked
from sidecar.traffic.gcra import Rate
from sidecar.traffic.holds import Hold, Holds, Who, who_of
from sidecar.traffic.ids import ids_of
from sidecar.traffic.tracks import FIVE, MINUTE, Place, Track, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema_detectors import Detector, Enumeration, Spikes, Stuffing
    from sidecar.config.schema_detectors import Detectors as Spec
    from sidecar.hop import Hop

MOST_TRACKS: Final = 8192  # about 700 bytes each, and 2.4 KiB for each place of ids
MOST_CALLERS: Final = 4096
MOST_EDGES: Final = 16_384
MOST_PLACES: Final = 16  # of ids on one track
MOST_FOUND: Final = 200
MORE_IDS: Final = 1.5  # times the usual
ALLOWED: Final = 0.1  # of `refusals`: so many in each minute never add up
NOISE: Final = 6.0  # deviations of a minute's requests that refusals must exceed
STORM: Final = 10.0  # times its requests that a caller may repeat what fails
MISSING: Final = frozenset((401, 403, 404, 410))  # answers of which an object that is not the caller's may be told
FRESH: Final = 4.0  # of what is conspicuous, a quarter has to be of this window
LEARNING: Final = 3600.0  # seconds, at first, for which nothing is known of how many ids are usual
REFUSED: Final = frozenset((401, 403))
REFUSED_CALLS: Final = frozenset(("UNAUTHENTICATED", "PERMISSION_DENIED"))  # what gRPC says in their place


@dataclass(frozen=True, slots=True)
class Detection:
    """Something conspicuous that one caller did."""

    detector: str
    who: Who
    route: str  # or operation; empty for all of them
    what: str  # it did, for people; names nothing that the caller has written
    action: str  # record, throttle or block
    at: float  # monotonic seconds
    until: float


K = TypeVar("K")
T = TypeVar("T", Track, Volume)


class Detectors:
    """What one service's configuration asks to be looked for. `tell` hears of each detection."""

    def __init__(self, spec: Spec, tell: Callable[[Detection], None], began: float) -> None:
        self.spec = spec
        self.holds = Holds()
        self.found: deque[Detection] = deque(maxlen=MOST_FOUND)
        self.tell = tell
        self._began = began
        self._stuffing, self._enumeration, self._spikes = spec.stuffing, spec.enumeration, spec.spikes
        self._tracks: dict[tuple[str, str, str], Track] = {}  # SPIFFE ID, user, route
        self._volumes: dict[Who, Volume] = {}
        self._edges: set[tuple[str, str]] = set()  # SPIFFE ID, route
        self._quiet: dict[tuple[str, Who, str], float] = {}  # detector, caller, route → when it may be told again

    @property
    def acts(self) -> bool:
        """Whether any of them may do more than record."""
        return any(spec.action != "record" for _, spec in self.spec.named)

    def observe(self, hop: Hop) -> None:
        """Look at a hop that has ended."""
        peer = hop.peer
        if peer is None or hop.direction != "inbound" or isinstance(hop.error, CallerBlocked):
            return
        now, route = hop.ended, hop.operation or hop.route
        token = hop.token
        user = f"{token.issuer}:{token.subject}" if token is not None else ""
        track = self._tracks.get((peer.text, user, route))
        if track is None:
            track = self._learn(hop, (peer.text, user), route, now)
        minute = int(now / MINUTE)
        asked = track.asked
        if minute > asked.number:
            number = self._stuffing.refusals if self._stuffing is not None else 0
            track.move(minute, now, ALLOWED * number, number)
        asked.count += 1
        if hop.status in REFUSED or hop.grpc_status in REFUSED_CALLS:
            track.refused += 1
            if self._stuffing is not None:
                self._judge_refusals(self._stuffing, track, hop, route)
        else:
            track.good(now)
        if self._spikes is not None:
            self._judge_volume(self._spikes, track.volume, hop, minute)
        if self._enumeration is not None and hop.segments:
            self._judge_ids(self._enumeration, track, hop, route)

    # ---- the three -------------------------------------------------------------------------------------------------

    def _judge_refusals(self, spec: Stuffing, track: Track, hop: Hop, route: str) -> None:
        history, count = track.asked.history, track.asked.count
        allowed = ALLOWED * spec.refusals
        beyond = track.beyond(allowed)
        if beyond <= 0.0 or track.tried + beyond + allowed < max(spec.refusals, NOISE * history.deviation):
            return
        if track.fails(hop.ended) and count < STORM * (history.mean + spec.refusals):
            track.tried = 0.0
            return
        what = f"{track.refused} answers 401 or 403 within a minute, of {count:.0f} requests"
        more = f", {track.tried:.0f} in the minutes before" if track.tried >= 1.0 else ""
        self._detect("stuffing", spec, hop, route, f"{what} where {history.mean:.0f} are usual{more}")

    def _judge_ids(self, spec: Enumeration, track: Track, hop: Hop, route: str) -> None:
        where, ids = ids_of(hop.route, hop.segments)
        if not ids:
            return
        number = int(hop.ended / FIVE)
        place = track.places.get(where)
        if place is None:
            if len(track.places) >= MOST_PLACES:
                del track.places[next(iter(track.places))]
            place = track.places[where] = Place(number)
        if number > place.number:
            place.move(number, spec.ids, spec.sequential, young=track.volume.young(hop.ended))
        if not place.distinct.add(ids, hop.status in MISSING and not track.fails(hop.ended)):
            return
        distinct = place.distinct
        if distinct.pairs < spec.sequential - 1 and 2.0 * (distinct.set + distinct.missing) < spec.ids:
            return
        if self._quiet.get(("enumeration", who_of(hop), route), 0.0) > hop.ended:
            return
        fresh, pairs = distinct.fresh
        many, usual, how = distinct.sequential + 1.0, place.walk.usual, "numbers side by side"
        if many < spec.sequential or FRESH * pairs < many - FRESH or many <= MORE_IDS * usual:
            many, usual, how = place.weight, place.ids.usual, "different ids"
            known = hop.ended - self._began >= LEARNING
            if many < spec.ids or FRESH * fresh < many or many <= MORE_IDS * usual or not known:
                return
        what = f"{many:.0f} {how} within ten minutes where {usual:.0f} are usual"
        self._detect("enumeration", spec, hop, route, what)

    def _judge_volume(self, spec: Spikes, volume: Volume, hop: Hop, minute: int) -> None:
        asked = volume.asked
        if minute > asked.number:
            asked.move(minute, spec.least, young=volume.young(hop.ended))
        asked.count += 1
        usual = asked.history.usual
        if asked.count >= spec.least and asked.count > spec.times * usual and hop.ended - volume.since >= spec.warm_up:
            what = f"{asked.count:.0f} requests within a minute where {usual:.0f} are usual"
            self._detect("spikes", spec, hop, "", what)

    def _judge_edge(self, spec: Spikes, hop: Hop, route: str, now: float) -> None:
        """Take note of the first call of a caller to a route; tell of it where all that is usual was seen already."""
        assert hop.peer is not None
        if hop.error is not None and not hop.attempts:  # it was refused, so there is no edge
            return
        edge = (hop.peer.text, route)
        if edge in self._edges or len(self._edges) >= MOST_EDGES:
            return
        self._edges.add(edge)
        if now - self._began >= spec.warm_up and spec.new_edges and not _spared(spec, hop):
            self._say(Detection("new_edge", who_of(hop), route, "its first call to this route", "record", now, now))

    # ---- what comes of it ------------------------------------------------------------------------------------------

    def _detect(self, detector: str, spec: Detector, hop: Hop, route: str, what: str) -> None:
        """Tell of a caller, once in a while, and hold it where that was asked for."""
        who, now = who_of(hop), hop.ended
        key = (detector, who, route)
        if self._quiet.get(key, 0.0) > now or _spared(spec, hop):
            return
        if len(self._quiet) >= MOST_CALLERS:
            self._quiet = {each: until for each, until in self._quiet.items() if until > now}
        self._quiet[key] = until = now + spec.seconds
        if spec.action != "record":
            rate = spec.rate if spec.action == "throttle" else None
            held = Rate(str(rate), rate.per_second, rate.count) if rate is not None else None
            on = f"{what}, on {route}" if route else what
            self.holds.put(Hold(who, detector, on, spec.action, now, until, held))
        self._say(Detection(detector, who, route, what, spec.action, now, until))

    def _say(self, detection: Detection) -> None:
        self.found.append(detection)
        self.tell(detection)

    def lift(self, caller: str, user: str | None, now: float) -> list[Hold]:
        """Let a caller go, and begin to count it anew. Returns what was held."""
        for (text, whose, _), track in self._tracks.items():
            if text == caller and user in (None, whose):
                track.refused, track.asked.count = 0, 0.0
                track.places.clear()
                track.volume.asked.count = 0.0
        self._quiet = {
            key: until for key, until in self._quiet.items() if not (key[1][0] == caller and user in (None, key[1][1]))
        }
        return self.holds.lift(caller, user, now)

    # ---- who is known ----------------------------------------------------------------------------------------------

    def _learn(self, hop: Hop, who: Who, route: str, now: float) -> Track:
        minute = int(now / MINUTE)
        volume = self._volumes.get(who)
        if volume is None:
            if len(self._volumes) >= MOST_CALLERS:
                self._volumes = _younger(self._volumes)
            volume = self._volumes[who] = Volume(minute, now)
        if len(self._tracks) >= MOST_TRACKS:
            self._tracks = _younger(self._tracks)
        track = self._tracks[(*who, route)] = Track(minute, volume)
        if self._spikes is not None:
            self._judge_edge(self._spikes, hop, route, now)
        return track

    def size(self) -> tuple[int, int]:
        """How many tracks and callers are known."""
        return len(self._tracks), len(self._volumes)


def _younger(known: dict[K, T]) -> dict[K, T]:
    """The half that was heard of last."""
    order = sorted(known, key=lambda key: known[key].asked.number)
    kept = set(order[len(order) // 2 :])
    return {key: each for key, each in known.items() if key in kept}


def _spared(spec: Detector, hop: Hop) -> bool:
    return hop.peer is not None and any(pattern.matches(hop.peer) for pattern in spec.exempt)
