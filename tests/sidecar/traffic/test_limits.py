"""Which limits a hop comes under, by which keys; and the promise of `mesh check` that some change nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe import TrustDomain
from sidecar.config.assemble import Placed
from sidecar.config.limited import _first
from sidecar.config.schema_inbound import Inbound, RateLimit
from sidecar.config.terms import Frequency, Per
from sidecar.errors import RateLimited
from sidecar.hop import Hop
from sidecar.patterns import IdentityPattern, PathTemplate
from sidecar.traffic.gcra import MOST_KEYS
from sidecar.traffic.limits import LONGEST, RateLimits, Rates, value_of
from tests.kit.hops import MALLORY, ORDERS, WEB

TD = TrustDomain("demo.mesh")
CALLERS = (WEB, ORDERS, MALLORY, None)
ROUTES = ("/a/{id}", "/a/**", "/b", "/**")
PATHS = ("/a/1", "/a/2", "/b", "/c/d/e")
FROM = tuple(IdentityPattern.parse(text, TD, "default") for text in ("web", "*", "**"))
TEMPLATES = tuple(PathTemplate.parse(text) for text in ("/a/{id}", "/a/1", "/b", "/**", "/a/**"))


def a_hop(dice: random.Random) -> tuple[Hop, str]:
    """A hop and the route of the rules that it is on, which fits its path."""
    raw = dice.random() < 0.1
    path = dice.choice(PATHS)
    segments = tuple(path.split("/")[1:])
    routes = [route for route in ROUTES if PathTemplate.parse(route).matches(segments)]
    hop = Hop("inbound", "http", 17443, "tcp" if raw else "http", peer=dice.choice(CALLERS))
    if not raw:
        hop.method, hop.segments = dice.choice(("GET", "POST")), segments
        hop.headers = [(b"x-key", value) for value in dice.sample([b"1", b"2"], dice.randint(0, 2))]
    return hop, "" if raw else dice.choice(routes)


def a_limit(dice: random.Random, number: int) -> RateLimit:
    per = dice.choice([Per("listener"), Per("caller"), Per("endpoint"), Per("header", "x-key")])
    return RateLimit(
        name=f"rate-{number}", limit=Frequency(dice.choice((1, 2, 5, 60)), dice.choice("sm")), burst=dice.randint(1, 4),
        per=per, callers=tuple(dice.sample(FROM, dice.choice((0, 0, 1, 2)))),
        methods=tuple(dice.sample(["GET", "POST"], dice.choice((0, 0, 1)))),
        paths=tuple(dice.sample(TEMPLATES, dice.choice((0, 0, 1, 2)))),
    )  # fmt: skip


def expected(spec: RateLimit, hop: Hop, route: str) -> str | None:
    """The key by which a hop comes under a limit, said once more and without any memory."""
    if hop.protocol == "tcp" and (spec.methods or spec.paths or spec.per.kind in ("endpoint", "header")):
        return None
    if spec.callers and (hop.peer is None or not any(each.matches(hop.peer) for each in spec.callers)):
        return None
    if spec.methods and hop.method not in spec.methods:
        return None
    matching = [path.text for path in spec.paths if path.matches(hop.segments)]
    if spec.paths and not matching:
        return None
    keys = {
        "listener": "http", "caller": hop.peer.text if hop.peer else "-",
        "endpoint": f"http {hop.method} {matching[0] if matching else route}",
        "header": value_of(hop.headers, b"x-key"),
    }  # fmt: skip
    return keys[spec.per.kind]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_what_was_found_once_is_what_would_be_found_each_time(seed: int) -> None:
    dice = random.Random(seed)
    specs = [a_limit(dice, number) for number in range(dice.randint(1, 5))]
    limits = Rates(specs).limits("http")
    assert limits is not None
    for _ in range(40):
        hop, route = a_hop(dice)
        dues = limits.dues(hop, route)
        want = {spec.name: key for spec in specs if (key := expected(spec, hop, route)) is not None}
        if dues is None:
            assert not want
            continue
        keys = dues.keys if dues.fixed else dues.keys_of(hop.headers)
        got = dict(zip((rate.name for rate in dues.levels.rates), keys, strict=True))
        assert got == want
        assert limits.dues(hop, route) is dues


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_without_the_limits_that_are_said_to_change_nothing_the_same_are_let_in(seed: int) -> None:
    dice = random.Random(seed)
    specs = [a_limit(dice, number) for number in range(4)]
    placed, listeners = [Placed(spec, "") for spec in specs], [Inbound(name="http", protocol="http")]
    needed = [spec for index, spec in enumerate(specs) if _first(index, placed, listeners) is None]
    assert needed
    all_of_them, fewer = Rates(specs).limits("http"), Rates(needed).limits("http")
    assert all_of_them is not None
    assert fewer is not None
    now = 0.0
    for _ in range(200):
        now += dice.choice((0.0, 0.0, 0.01, 0.3, 2.0))
        hop, route = a_hop(dice)
        if hop.protocol == "tcp":
            continue
        assert bool(_refuses(all_of_them, hop, route, now)) == bool(_refuses(fewer, hop, route, now))


def _refuses(limits: RateLimits, hop: Hop, route: str, now: float) -> str:
    """The limit that refuses; empty where none does."""
    try:
        limits.check(hop, route, now)
    except RateLimited as error:
        return error.limit
    return ""


def test_a_flood_of_values_leaves_those_who_are_known_alone_and_is_bounded() -> None:
    spec = RateLimit(name="keys", limit=Frequency(1, "m"), burst=2, per=Per("header", "x-key"))
    limits = Rates([spec]).limits("http")
    assert limits is not None

    def ask(value: bytes, now: float) -> bool:
        hop = Hop("inbound", "http", 17443, "http", peer=WEB, method="GET", headers=[(b"x-key", value)])
        try:
            limits.check(hop, "/**", now)
        except RateLimited:
            return False
        return True

    assert ask(b"known", 0.0)
    let_in = sum(ask(b"%d" % number, 0.0) for number in range(MOST_KEYS + 500))
    assert let_in == MOST_KEYS - 1 + 2  # those for whom there was room, and two of all the others together
    assert ask(b"known", 0.0)
    assert not ask(b"known", 0.0)
    (rate,) = limits.dues(Hop("inbound", "http", 1, "http", peer=WEB, method="GET"), "/**").levels.rates  # type: ignore[union-attr]
    assert rate.keys <= MOST_KEYS + 1


@pytest.mark.parametrize("values", [[], [b""], [b"a"], [b"a", b"b"], [b"x" * LONGEST], [b"x" * 30_000], [b"(others)"]])
def test_the_value_of_a_header_is_a_short_key_and_different_ones_differ(values: list[bytes]) -> None:
    key = value_of([(b"x-key", value) for value in values] + [(b"other", b"y")], b"x-key")
    assert len(key) <= LONGEST + 1
    others = [value_of([(b"x-key", value)], b"x-key") for value in (b"c", b"x" * 29_999, b"#", b"=", b"=a")]
    assert key not in (*others, "(others)")
    assert (key == "") == (not values)


def test_a_limit_that_stays_keeps_what_it_knows() -> None:
    a, b = (RateLimit(name=name, limit=Frequency(1, "m"), burst=1) for name in "ab")
    hop = Hop("inbound", "http", 17443, "http", peer=WEB, method="GET")
    first = Rates([a])
    first.limits("http").check(hop, "/**", 0.0)  # type: ignore[union-attr]
    with pytest.raises(RateLimited) as refused:
        Rates([b, a], first).limits("http").check(hop, "/**", 1.0)  # type: ignore[union-attr]
    assert (refused.value.limit, refused.value.per, round(refused.value.wait)) == ("a", "listener", 59)
