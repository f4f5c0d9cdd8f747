"""Conditions of rules: what each comparison means for text, numbers, lists and what is not there, in both effects."""

from __future__ import annotations

import calendar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe import SpiffeId
from sidecar.config.conditions import Condition, ConditionError
from sidecar.config.load import ConfigErrors, load_text
from sidecar.errors import PolicyDenied, ScopeMissing, TokenMissing
from sidecar.hop import Deny, Hop, Permit, Token
from sidecar.patterns import PathTemplate
from sidecar.policy.authz import RuleSet
from sidecar.policy.conditions import holds
from sidecar.policy.explain import explain

WEB = SpiffeId.parse("spiffe://demo.mesh/ns/shop/sa/web")
PATH = PathTemplate.parse("/customers/{customer}/orders/{order}")


def token(*scopes: str, **claims: Any) -> Token:
    return Token("idp", str(claims.get("sub", "")), claims, frozenset(scopes), 2e9, "0" * 16)


def hop(path: str = "/customers/c7/orders/12", at: float = 0.0, **claims: Any) -> Hop:
    return Hop(
        "inbound", "http", 8443, "http", peer=WEB, method="GET", host="orders",
        target=f"{path}?team=a&team=b&x=%C3%A9+1",
        segments=tuple(path.split("/")[1:]), headers=[(b"x-tenant", b"acme"), (b"x-two", b"a"), (b"x-two", b"b")],
        token=token(**claims) if claims else None, judged=at,
    )  # fmt: skip


CLAIMS: dict[str, Any] = {
    "customer": "c7", "order": 12, "roles": ["clerk", "admin"], "admin": True, "ratio": 12.0, "sub": "ann", "empty": [],
    "only": ["c7"],
    "address": {"country": "de"}, "https://x/role": "boss", "half": 0.5, "none": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "allow", "deny"),
    [
        ("path customer is claim customer", True, True),
        ("{customer} is claim customer", True, True),
        ("path customer is c7", True, True),
        ("path customer is c8", False, False),
        ("path customer is claim only", False, True),
        ("path order is claim order", True, True),
        ("path order is 12", True, True),
        ("path order is claim ratio", False, False),
        ("path customer is not c8", True, True),
        ("path customer in [c6, c7]", True, True),
        ("path customer not in [c6, c7]", False, False),
        ("path customer begins with c", True, True),
        ("path nobody exists", False, False),
        ("claim customer is 'c7'", True, True),
        ("claim order is 12", True, True),
        ("claim order is '12'", True, True),
        ("claim order is '012'", False, False),
        ("claim admin is true", True, True),
        ("claim admin is 1", False, False),
        ("claim admin is 'true'", False, False),
        ("claim ratio is 12", False, False),
        ("claim half exists", False, False),
        ("claim none exists", False, False),
        ("claim roles is admin", False, True),
        ("claim roles has admin", True, True),
        ("claim roles has boss", False, False),
        ("claim roles is not admin", False, True),
        ("claim customer has c7", False, True),
        ("claim empty has c7", False, False),
        ("claim missing is x", False, False),
        ("claim missing is not x", False, True),
        ("claim missing not in [x]", False, True),
        ("claim missing exists", False, False),
        ("claim customer is not claim missing", False, True),
        ("claim address.country is de", True, True),
        ("claim https://x/role is boss", True, True),
        ("header x-tenant is acme", True, True),
        ("header X-Tenant begins with ac", True, True),
        ("header x-two is a", False, True),
        ("header x-two in [a, b]", True, True),
        ("header x-two is not a", False, True),
        ("header x-none is a", False, False),
        ("query team is a", False, True),
        ("query team in [a, b]", True, True),
        ("query x is 'é 1'", True, True),
        ("caller is spiffe://demo.mesh/ns/shop/sa/web", True, True),
        ("service is web", True, True),
        ("namespace is not shop", False, False),
        ("method in [GET, HEAD]", True, True),
        ("subject is ann", True, True),
        ("issuer is idp", True, True),
        ("service is claim customer", False, False),
    ],
)
def test_what_each_means(text: str, allow: bool, deny: bool) -> None:
    condition = Condition.parse(text)
    asked = hop(**CLAIMS)
    assert holds(condition, asked, PATH, denies=False) is allow
    assert holds(condition, asked, PATH, denies=True) is deny


MONDAY = calendar.timegm((2026, 1, 5, 0, 0, 0))


@pytest.mark.parametrize(
    ("text", "hour", "held"),
    [
        ("time between 08:00 and 18:00", 8.0, True),
        ("time between 08:00 and 18:00", 17.99, True),
        ("time between 08:00 and 18:00", 18.0, False),
        ("time between 08:00 and 18:00", 7.99, False),
        ("time between 22:00 and 06:00", 23.0, True),
        ("time between 22:00 and 06:00", 5.0, True),
        ("time between 22:00 and 06:00", 6.0, False),
        ("time between 18:00 and 24:00", 23.99, True),
        ("time between 09:00 and 10:00 Europe/Berlin", 8.5, True),
        ("time between 09:00 and 10:00 Europe/Berlin", 9.5, False),
        ("day in [mon, tue]", 12.0, True),
        ("day in [sat, sun]", 12.0, False),
        ("day in [tue] Europe/Berlin", 23.5, True),
    ],
)
def test_time_is_that_of_its_zone(text: str, hour: float, held: bool) -> None:
    assert holds(Condition.parse(text), hop(at=MONDAY + hour * 3600), PATH, denies=False) is held


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends too soon"),
        ("claim", "a name"),
        ("clam role is x", "did you mean 'claim'?"),
        ("claim role", "after `claim role` comes"),
        ("claim role equals x", "no comparison"),
        ("claim role is", "a value"),
        ("claim role is a b", "'b' is too much"),
        ("claim role in a", "in brackets"),
        ("claim role in [a b]", "a comma is missing"),
        ("claim role in [a, ]", "without empty places"),
        ("claim role in []", "without empty places"),
        ("claim role in [a", "its end"),
        ("claim role begins with ''", "write `exists`"),
        ("claim role is 'a", "not closed"),
        ("header x has a", "no comparison"),
        ("time is 08:00", "has a `between`"),
        ("time between 8 and 9", "no time of day"),
        ("time between 08:00 and 25:00", "no time of day"),
        ("time between 08:00 and 08:00", "so is never"),
        ("time between 08:00 and 18:00 Europe/Berlinn", "no time zone"),
        ("day in [monday]", "did you mean 'mon'?"),
        ("day is mon", "no comparison"),
        ("x" * 600, "at most 512"),
    ],
)
def test_what_is_no_condition(text: str, why: str) -> None:
    with pytest.raises(ConditionError) as raised:
        Condition.parse(text)
    assert why in str(raised.value)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_mistake(text: str) -> None:
    try:
        condition = Condition.parse(text)
    except ConditionError:
        return
    for denies in (True, False):
        assert holds(condition, hop(**CLAIMS), PATH, denies=denies) in (True, False)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@given(_ANY, st.sampled_from(["claim a is x", "claim a.b has 1", "claim a is not claim b", "claim a in [x, true, 3]",
                              "path customer is claim a", "claim a begins with x"]))  # fmt: skip
def test_no_claim_is_too_odd_for_an_answer(value: Any, text: str) -> None:
    assert holds(Condition.parse(text), hop(a=value, b=value), PATH, denies=False) in (True, False)


# ---- in rules ------------------------------------------------------------------------------------------------------

RULES = """
trust_domain: demo.mesh
namespace: shop
services:
  web: {outbound: [{to: orders, listen: "127.0.0.1:9001"}]}
  orders:
    inbound: [{}]
    allow:
      - {name: own, from: web, path: "/customers/{customer}/orders/{order}", when: [path customer is claim customer]}
      - {name: staff, from: web, path: /customers/**, scopes: [read, "orders:all"], when: [claim roles has clerk]}
      - {name: made, from: web, path: /made, operation: [makeOrder]}
      - {name: open, from: web, path: "/{a}/{b}", when: [path a is open, path b is door]}
    deny:
      - {name: closed, from: "**", path: /night/**, when: [time between 22:00 and 06:00]}
      - {name: suspended, from: "**", when: [claim state is not active, path p is x], path: "/active/{p}"}
"""


def rules(text: str = RULES) -> RuleSet:
    service = load_text(text).services["orders"]
    return RuleSet.compile(service.allow, service.deny)


def said(asked: Hop, now: float = 0.0) -> str:
    verdict = rules().check(asked, now)
    return verdict.rule if isinstance(verdict, Permit) else verdict.rule or verdict.error.name


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (hop(customer="c7"), "own"),
        (hop(customer="c8"), "policy_denied"),
        (hop(), "token_missing"),
        (hop("/customers"), "policy_denied"),
        (hop("/open/door"), "open"),
        (hop("/open/gate"), "policy_denied"),
        (hop("/made"), "policy_denied"),
        (hop("/active/x", state="active"), "policy_denied"),
        (hop("/active/x", state="gone"), "suspended"),
        (hop("/active/x"), "suspended"),
    ],
)
def test_objects_belong_to_somebody(asked: Hop, answer: str) -> None:
    assert said(asked) == answer


def test_a_function_is_known_by_its_operation() -> None:
    asked = hop("/made")
    asked.operation = "makeOrder"
    assert said(asked) == "made"


def test_a_scope_that_is_missing_is_said_to_whom_the_rule_names() -> None:
    asked = hop(roles=["clerk"])
    asked.token = token("read", roles=["clerk"])
    verdict = rules().check(asked, 0.0)
    assert isinstance(verdict, Deny)
    assert isinstance(verdict.error, ScopeMissing)
    assert verdict.error.scopes == ("read", "orders:all")
    asked.token = token("read", "orders:all", roles=["clerk"])
    assert said(asked) == "staff"
    asked.token = token("read", roles=["porter"])  # the scope is not all that it lacks
    assert said(asked) == "policy_denied"
    asked.peer = SpiffeId.parse("spiffe://demo.mesh/ns/shop/sa/cart")
    asked.token = token("read", roles=["clerk"])
    assert type(rules().check(asked, 0.0).error) is PolicyDenied  # type: ignore[union-attr]
    asked.token = None
    assert type(rules().check(asked, 0.0).error) is PolicyDenied  # type: ignore[union-attr]
    asked.peer = WEB
    assert type(rules().check(asked, 0.0).error) is TokenMissing  # type: ignore[union-attr]


def test_the_hour_counts() -> None:
    assert said(hop("/night/owl"), MONDAY + 23 * 3600) == "closed"
    assert said(hop("/night/owl"), MONDAY + 12 * 3600) == "policy_denied"


def test_rules_that_ask_for_more_keep_no_verdict() -> None:
    assert "more" in rules().looks_at(WEB)
    plain = RULES[: RULES.index("    allow:")] + "    allow: [{from: web}]\n"
    assert not rules(plain).looks_at(WEB)


def test_explained_by_the_condition_that_does_not_hold() -> None:
    told = explain(rules(), hop(customer="c8", roles=["porter"]))
    assert told.nearest is not None
    assert told.nearest.rule == "own"
    (missed,) = told.nearest.differences
    assert (missed.field, missed.wanted) == ("when", "path customer is claim customer")
    assert "c8" not in missed.seen, "claims may be about people"
    assert "'c7'" in missed.seen


def test_a_parameter_that_no_path_has_is_a_mistake() -> None:
    with pytest.raises(ConfigErrors) as raised:
        load_text(RULES.replace("when: [path customer is claim customer]", "when: [path costumer is claim customer]"))
    assert "did you mean {customer}?" in str(raised.value)
    assert "MESH003" in str(raised.value)


def test_a_mistake_in_a_condition_has_its_line() -> None:
    with pytest.raises(ConfigErrors) as raised:
        load_text(RULES.replace("claim roles has clerk", "clam roles has clerk"))
    assert "did you mean 'claim'?" in str(raised.value)
    assert ":10:" in str(raised.value)


def test_a_decision_whose_token_is_not_kept_says_so_in_the_place_of_its_claims() -> None:
    asked = hop(customer="c7")
    asked.token = Token("idp", "", {}, frozenset(), 0.0, "0" * 16, forgotten=True)
    near = explain(rules(), asked).nearest
    assert near is not None
    assert [each.seen for each in near.differences] == ["'c7', nothing: the token is not kept"]
