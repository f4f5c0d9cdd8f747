"""Which destination: the first route that holds; and what is changed, split and broken on the way."""

from __future__ import annotations

from collections import Counter
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.hop import Hop
from sidecar.http.changes import HeaderChanges, PrefixRewrite
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate, PatternError, QueryPattern
from sidecar.traffic.faults import FaultRules, Injected
from sidecar.traffic.routes import Route, Routes, Split
from tests.kit.traffic import dice

MESH = TrustDomain.parse("mesh.test")
WEB = SpiffeId.parse("spiffe://mesh.test/ns/default/sa/web")
V1, V2 = Split(("v1",), (1,)), Split(("v2",), (1,))


def a_hop(**facts: Any) -> Hop:
    facts = {"method": "GET", "host": "orders", "segments": ("a",), "target": "/a", "peer": WEB} | facts
    return Hop("inbound", "http", 80, "http", **facts)


def a_route(**conditions: Any) -> Route:
    return Route("r", V1, **conditions)


def caller(text: str) -> IdentityPattern:
    return IdentityPattern.parse(text, MESH, "default")


CONDITIONS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({"methods": frozenset(("GET", "PUT"))}, {}, True),
    ({"methods": frozenset(("GET", "PUT"))}, {"method": "POST"}, False),
    ({"paths": (PathTemplate.parse("/b"), PathTemplate.parse("/{id}"))}, {}, True),
    ({"paths": (PathTemplate.parse("/b"),)}, {}, False),
    ({"paths": (PathTemplate.parse("/b"),)}, {"segments": ()}, False),
    ({"hosts": (HostPattern.parse("*.shop"), HostPattern.parse("orders"))}, {}, True),
    ({"hosts": (HostPattern.parse("*.shop"),)}, {"host": ""}, False),
    ({"callers": (caller("web"),)}, {}, True),
    ({"callers": (caller("orders"),)}, {}, False),
    ({"callers": (caller("**"),)}, {"peer": None}, False),
    ({"headers": (HeaderPattern.parse("x-v", "2"),)}, {"headers": [(b"x-v", b"2")]}, True),
    ({"headers": (HeaderPattern.parse("x-v", "2"),)}, {}, False),
    ({"headers": (HeaderPattern.parse("x-v", "2"),)}, {"headers": [(b"x-v", b"2"), (b"x-v", b"1")]}, False),
]


@pytest.mark.parametrize(("conditions", "facts", "holds"), CONDITIONS)
def test_every_condition_that_is_named_has_to_hold(conditions, facts, holds):
    assert a_route(**conditions).matches(a_hop(**facts)) == holds


@pytest.mark.parametrize(
    ("pattern", "target", "holds"),
    [
        (QueryPattern(b"v", "exact", b"2"), "/a?v=2", True),
        (QueryPattern(b"v", "exact", b"2"), "/a?x=1&v=2&y", True),
        (QueryPattern(b"v", "exact", b"2"), "/a?v=2&v=1", False),
        (QueryPattern(b"v", "exact", b"2"), "/a", False),
        (QueryPattern(b"v", "exact", b"2"), "/a?w=2", False),
        (QueryPattern(b"v", "exact", b"a b"), "/a?%76=a+b", True),
        (QueryPattern(b"v", "exact", b"a b"), "/a?v=a%20b", True),
        (QueryPattern(b"v", "exact", b""), "/a?v", True),
        (QueryPattern(b"v", "prefix", b"be"), "/a?v=beta", True),
        (QueryPattern(b"v", "present"), "/a?v", True),
        (QueryPattern(b"v", "present"), "/a?vv=1", False),
    ],
)
def test_a_query_parameter_is_compared_decoded_and_each_of_its_name_counts(pattern, target, holds):
    assert a_route(query=(pattern,)).matches(a_hop(target=target)) == holds


@pytest.mark.parametrize(("spec", "kind", "value"), [
    ("2", "exact", b"2"), ({"prefix": "be"}, "prefix", b"be"), ({"exact": "ü"}, "exact", "ü".encode()),
    ({"present": True}, "present", b""),
])  # fmt: skip
def test_a_query_parameter_is_written_as_a_header_is(spec, kind, value):
    assert QueryPattern.parse("v", spec) == QueryPattern(b"v", kind, value)


@pytest.mark.parametrize("spec", [{}, {"prefix": ""}, {"present": False}, {"regex": "x"}, {"exact": 2}, 2, None])
def test_what_says_nothing_of_a_parameter_is_refused(spec):
    with pytest.raises(PatternError, match="parameter v"):
        QueryPattern.parse("v", spec)


def test_the_first_that_holds_decides_and_none_is_none():
    beta = Route("beta", V2, headers=(HeaderPattern.parse("x-beta", {"present": True}),))
    rest = Route("rest", V1, methods=frozenset(("GET",)))
    routes = Routes((beta, rest))
    assert routes.find(a_hop(headers=[(b"x-beta", b"")])) is beta
    assert routes.find(a_hop()) is rest
    assert routes.find(a_hop(method="POST")) is None


# ---- splits ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_a_split_is_exact_over_all_throws(weights):
    names = tuple(f"v{number}" for number in range(len(weights)))
    split, total = Split(names, tuple(weights)), sum(weights)
    found = Counter(split.choose((throw + 0.5) / total) for throw in range(total))
    assert [found[name] for name in names] == weights


def test_a_canary_gets_its_percent():
    throw, split = dice(), Split(("stable", "canary"), (95, 5))
    found = Counter(split.choose(throw()) for _ in range(20_000))
    assert found["canary"] / 20_000 == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(("names", "weights"), [((), ()), (("a",), ()), (("a",), (-1,)), (("a", "b"), (0, 0))])
def test_what_is_no_split_is_refused(names, weights):
    with pytest.raises(PatternError):
        Split(names, weights)


# ---- changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "front", "path", "sent"),
    [
        ("/api", "/v2", b"/api/x", b"/v2/x"),
        ("/api", "/v2", b"/api", b"/v2"),
        ("/api", "/v2", b"/api/", b"/v2/"),
        ("/api/", "/v2/", b"/api/x%2Cy//z", b"/v2/x%2Cy//z"),  # what follows stays as it came
        ("/api/v1", "/", b"/api/v1/x", b"/x"),
        ("/api/v1", "/", b"/api/v1", b"/"),
        ("/api", "/v2", b"/a%70i/x", b"/v2/x"),  # however the prefix was escaped
        ("/", "/v2", b"/x", b"/v2/x"),
        ("/", "/v2", b"/", b"/v2/"),
        ("/", "/", b"/x", b"/x"),
    ],
)
def test_the_front_of_a_path_is_changed_and_no_byte_behind_it(prefix, front, path, sent):
    assert PrefixRewrite.parse(prefix, front).apply(path) == sent


@pytest.mark.parametrize(
    ("prefix", "front"), [("/{id}", "/a"), ("/a/**", "/b"), ("a", "/b"), ("/a", "/é"), ("/a", "/b?c")]
)
def test_what_is_no_prefix_is_refused(prefix, front):
    with pytest.raises(PatternError):
        PrefixRewrite.parse(prefix, front)


def test_fields_are_taken_away_replaced_and_added():
    changes = HeaderChanges.parse(["X-Debug"], {"X-Team": "shop"}, {"Vary": "x-team"})
    before = [(b"accept", b"*/*"), (b"x-debug", b"1"), (b"x-team", b"a"), (b"x-team", b"b"), (b"vary", b"accept")]
    assert changes.apply(before) == [
        (b"accept", b"*/*"), (b"vary", b"accept"), (b"x-team", b"shop"), (b"vary", b"x-team")
    ]  # fmt: skip
    assert HeaderChanges().apply(before) is before


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "content_length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "mesh-deadline",
     "Mesh_Deadline", "X-Forwarded-Client-Cert", "bad name", "", "x:", "é"],
)  # fmt: skip
def test_what_frames_a_message_or_belongs_to_the_mesh_is_left_alone(name):
    for changes in (([name], {}, {}), ([], {name: "x"}, {}), ([], {}, {name: "x"})):
        with pytest.raises(PatternError):
            HeaderChanges.parse(*changes)


@pytest.mark.parametrize("value", ["a\r\nb", "a\x00", " a", "a ", "\x7f"])
def test_no_value_breaks_a_line(value):
    with pytest.raises(PatternError, match="header x"):
        HeaderChanges.parse([], {"x": value}, {})


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_faults_strike_by_share_and_by_caller():
    throw = dice()
    rules = FaultRules(delay=2.0, delay_share=0.1, status=503, abort_share=0.2, callers=(caller("web"),))
    found = Counter(rules.check(WEB, throw) for _ in range(20_000))
    shares = [found[each] / 20_000 for each in (None, Injected(2.0, 0), Injected(0.0, 503), Injected(2.0, 503))]
    assert shares == pytest.approx([0.72, 0.08, 0.18, 0.02], abs=0.01)
    assert rules.check(None, lambda: 0.0) is None
    assert rules.check(SpiffeId.parse("spiffe://mesh.test/ns/default/sa/orders"), lambda: 0.0) is None


def test_no_fault_is_none():
    throws = cycle([0.0])
    assert FaultRules().check(WEB, lambda: next(throws)) is None
    assert FaultRules(status=500, abort_share=1.0).check(None, lambda: 0.999) == Injected(0.0, 500)


def test_a_fault_knows_whom_it_may_meet_and_what_it_does() -> None:
    rules = FaultRules(delay=2.0, delay_share=0.1, status=503, abort_share=0.05, callers=(caller("web"),))
    assert (rules.acts, rules.concerns(WEB), rules.concerns(None)) == (True, True, False)
    assert str(rules) == "0.1 wait 2 s and 0.05 are refused with 503, of requests by web"
    for idle in (FaultRules(), FaultRules(delay=2.0), FaultRules(abort_share=1.0)):
        assert (idle.acts, str(idle)) == (False, "nothing")


@pytest.mark.parametrize(
    "wrong", [{"delay_share": 1.1}, {"abort_share": -0.1}, {"delay": 61.0}, {"delay": -1.0}, {"status": 200}]
)
def test_what_is_no_fault_is_refused(wrong):
    with pytest.raises(ValueError, match="a"):
        FaultRules(**wrong)
