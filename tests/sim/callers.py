"""A labelled data set of traffic, made from a seed: callers as they are, and attacks whose place and time is known.

The callers are those that detectors usually trip over: a web shop with a day's curve, pagination, a batch job each
night, a job at each full hour, a large customer, who fetches each new order by its number, retries after a deploy, a
release that answers 403 for a while, keys that are rotated, a credential that has expired, with a client that goes on
and with one that tries each call four times, a partner that begins and grows, a new deployment that takes half of the
traffic at once, an index that is made anew by walking all pages, a report that is made for the first time.

Nothing here knows the detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi, sin
from random import Random

MINUTES = 3 * 1440  # that are simulated
LEARNED = 1440  # of these without attacks
HOUR, DAY = 60, 1440


@dataclass(frozen=True, slots=True)
class Call:
    """One request that has ended."""

    at: float  # seconds
    caller: str
    route: str
    path: tuple[str, ...]
    status: int


@dataclass(frozen=True, slots=True)
class Attack:
    """What was done, by whom, when: the label."""

    kind: str  # stuffing, enumeration or spikes
    name: str  # how it was done
    caller: str
    start: int  # minutes since the beginning
    end: int
    strength: int  # requests a minute


Maker = Callable[[int, Random], list[tuple[str, tuple[str, ...], int]]]  # minute → route, path, status
LOGIN, ORDER, ITEM, PAGE, REPORT = "/login", "/orders/{id}", "/items/{id}", "/catalog/{page}", "/reports/{id}"


def _curve(minute: int, low: float, high: float) -> float:
    """The curve of a day: low at night, high in the afternoon."""
    return low + (high - low) * max(0.0, sin((minute % DAY - 6 * HOUR) * pi / (16 * HOUR))) ** 2


def _some(dice: Random, mean: float) -> int:
    return max(0, round(dice.gauss(mean, mean**0.5)))


def uuid(dice: Random) -> str:
    """A random id, in the looks of version 4."""
    text = f"{dice.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _order(minute: int, dice: Random) -> tuple[str, ...]:
    """A person looks at an order of the last days; most look at a few."""
    return ("orders", str(max(1, 200_000 + 20 * minute - int(dice.expovariate(1 / 20_000)))))


class _Shop:
    """Callers with a memory of their own."""

    def __init__(self, dice: Random) -> None:
        self.customers = [uuid(dice) for _ in range(4000)]
        self.bad_release = LEARNED + dice.randrange(8 * HOUR, 20 * HOUR)
        self.deploys = [LEARNED + dice.randrange(DAY) for _ in range(4)]
        self.rotation = LEARNED + dice.randrange(6 * HOUR, 20 * HOUR)
        self.expired = LEARNED + dice.randrange(DAY)
        self.first_report = LEARNED + dice.randrange(DAY)
        self.stale = LEARNED + dice.randrange(DAY)
        self.released = LEARNED + dice.randrange(DAY)
        self.next_order = 200_000
        self.known: list[tuple[str, ...]] = []

    def web(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """People at a shop: they log in, some wrongly, and look at their orders. Deploys make them try again."""
        many = _curve(minute, 8, 60) * (3 if any(0 <= minute - at < 3 for at in self.deploys) else 1)
        broken = self.bad_release <= minute < self.bad_release + 40
        calls = [(ORDER, _order(minute, dice), 403 if broken else 200) for _ in range(_some(dice, many))]
        asked = [(LOGIN, ("login",), 401 if dice.random() < 0.06 else 200) for _ in range(_some(dice, many / 3))]
        if self.rotation <= minute < self.rotation + 2:
            asked += [(LOGIN, ("login",), 401) for _ in asked]
        return calls + asked

    def mobile(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """An app that goes through pages, from the first on."""
        found = []
        for _ in range(_some(dice, _curve(minute, 1, 8))):
            found += [(PAGE, ("catalog", str(page)), 200) for page in range(1, dice.randrange(3, 24))]
        return found

    def batch(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """Each night the orders of a day, one after the other, in twenty minutes."""
        at = minute % DAY - 2 * HOUR
        if not 0 <= at < 20:
            return []
        first = 200_000 + 20 * (minute - at) - 6000
        return [(ORDER, ("orders", str(first + 300 * at + number)), 200) for number in range(300)]

    def cron(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """At each full hour all at once, and now and then in between."""
        many = dice.randrange(400, 700) if minute % HOUR == 0 else _some(dice, 2)
        return [("/stock", ("stock",), 200)] * many

    def fulfil(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """Each order that is new, by its number."""
        found = []
        for _ in range(_some(dice, _curve(minute, 4, 25))):
            self.next_order += 1
            found.append((ORDER, ("orders", str(self.next_order)), 200))
        return found

    def large(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """A customer with thousands of customers of its own."""
        many = _some(dice, _curve(minute, 40, 160))
        return [(ITEM, ("items", dice.choice(self.customers)), 200) for _ in range(many)]

    def partner(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """One that begins on the second day, and grows over hours."""
        since = minute - DAY - 3 * HOUR
        many = _some(dice, min(since / 8, 60)) if since >= 0 else 0
        return [(ITEM, ("items", dice.choice(self.customers[:150])), 200) for _ in range(many)]

    def billing(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """A service whose credential has expired, for an hour."""
        expired = self.expired <= minute < self.expired + HOUR
        return [("/invoices", ("invoices",), 401 if expired else 200)] * _some(dice, 45)

    def sync(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """A client that tries again three times whatever has failed; for 25 minutes its token is out of date."""
        stale = self.stale <= minute < self.stale + 25
        return [("/changes", ("changes",), 401 if stale else 200)] * (_some(dice, 30) * (4 if stale else 1))

    def canary(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """A new version of the shop, under a name of its own: from one minute to the next with half of the traffic."""
        if minute < self.released:
            return []
        return [(ORDER, _order(minute, dice), 200) for _ in range(_some(dice, _curve(minute, 4, 30)))]

    def indexer(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """Every six hours all pages, one after the other."""
        at = minute % (6 * HOUR) - 17
        return [(PAGE, ("catalog", str(80 * at + number)), 200) for number in range(80)] if 0 <= at < 5 else []

    def audit(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """A report that nobody has asked for before: hundreds of documents in ten minutes."""
        if not self.first_report <= minute < self.first_report + 10:
            return [(REPORT, ("reports", "latest"), 200)] if minute % 7 == 0 else []
        return [(REPORT, ("reports", uuid(dice)), 200) for _ in range(90)]

    def probe(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """A monitor, that is never silent."""
        return [("/health", ("health",), 200)] * 6

    def desk(self, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
        """People who serve others: few, and now and then many."""
        many = _curve(minute, 0, 6) * (4 if dice.random() < 0.02 else 1)
        return [(ORDER, _order(minute, dice), 404 if dice.random() < 0.1 else 200) for _ in range(_some(dice, many))]


CALLERS = (
    "web", "mobile", "batch", "cron", "fulfil", "large", "partner", "billing", "audit", "probe", "desk", "sync",
    "canary", "indexer",
)  # fmt: skip
# whose credentials somebody has stolen, and what they ask for in a minute at their busiest
TARGETS = {"web": 80, "mobile": 110, "partner": 60, "billing": 45, "desk": 8, "probe": 6, "large": 160, "sync": 30}


def attacks(dice: Random, each: int) -> list[Attack]:
    """So many of each kind, of any strength, none of which shares its caller's hour with another."""
    found: list[Attack] = []
    names = {
        "stuffing": ("one login after the other", "with a few that work", "tokens against an object"),
        "enumeration": ("numbers upward", "numbers in any order", "a list of UUIDs"),
        "spikes": ("a flood", "a slow rise", "a pulse"),
    }
    for kind, ways in names.items():
        for number in range(each):
            while True:
                caller, start = dice.choice(list(TARGETS)), LEARNED + dice.randrange(2 * DAY - HOUR)
                if caller == "partner" and start < DAY + 12 * HOUR:
                    continue
                if all(one.caller != caller or abs(one.start - start) > 90 for one in found):
                    break
            strength = round(10 ** dice.uniform(1.0, 2.6))  # 10 to 400 a minute
            if kind == "spikes":
                strength = round(TARGETS[caller] * 10 ** dice.uniform(0.3, 1.3))  # 2 to 20 times the busiest minute
            length = dice.randrange(5, 16)
            found.append(Attack(kind, ways[number % 3], caller, start, start + length, strength))
    return found


def _attack(attack: Attack, minute: int, dice: Random) -> list[tuple[str, tuple[str, ...], int]]:
    many, since = attack.strength, minute - attack.start
    match attack.name:
        case "one login after the other":
            return [(LOGIN, ("login",), 401)] * many
        case "with a few that work":
            return [(LOGIN, ("login",), 200 if dice.random() < 0.03 else 401) for _ in range(many)]
        case "tokens against an object":
            return [(ORDER, ("orders", "17"), 403)] * many
        case "numbers upward":
            first = 3000 * (attack.start % 50) + since * many
            return [(ORDER, ("orders", str(first + number)), 200) for number in range(many)]
        case "numbers in any order":
            first, span = 5000 * (attack.start % 40), many * (attack.end - attack.start)
            return [(ORDER, ("orders", str(first + dice.randrange(span))), 200) for _ in range(many)]
        case "a list of UUIDs":
            return [(ITEM, ("items", uuid(dice)), 200 if dice.random() < 0.5 else 404) for _ in range(many)]
        case "a slow rise":
            return [("/search", ("search",), 200)] * round(many * (since + 1) / (attack.end - attack.start))
        case "a pulse":
            return [("/search", ("search",), 200)] * (many if since % 2 == 0 else 0)
        case _:
            return [("/search", ("search",), 200)] * many


def play(seed: int, each: int) -> tuple[list[Attack], Iterator[Call]]:
    """The attacks, and all calls in the order of time."""
    dice = Random(seed)
    shop, planned = _Shop(dice), attacks(dice, each)
    makers: dict[str, Maker] = {name: getattr(shop, name) for name in CALLERS}
    return planned, _calls(makers, planned, dice)


def _calls(makers: dict[str, Maker], planned: list[Attack], dice: Random) -> Iterator[Call]:
    for minute in range(MINUTES):
        found: list[Call] = []
        under_way = [attack for attack in planned if attack.start <= minute < attack.end]
        for caller, maker in makers.items():
            made = maker(minute, dice)
            for attack in under_way:
                if attack.caller == caller:
                    made = made + _attack(attack, minute, dice)
            found += [Call(60.0 * minute + 60.0 * dice.random(), caller, *call) for call in made]
        found.sort(key=lambda call: call.at)
        yield from found
