"""What an operator may say of rate limits, what is proposed instead, and which of them can never act."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.schema_inbound import RateLimit
from sidecar.config.sentences import sentences
from sidecar.config.terms import Frequency, Per

HTTP = "inbound: [{name: http, app: '127.0.0.1:1'}], allow: [{from: '**'}]"
BOTH = HTTP.replace("}],", "}, {name: raw, protocol: tcp, app: '127.0.0.1:2'}],", 1)


def config(rates: str, rest: str = HTTP) -> str:
    return f"trust_domain: demo.mesh\nservices: {{orders: {{{rest}, rates: {rates}}}}}\n"


def read(rates: str, rest: str = HTTP) -> tuple[RateLimit, ...]:
    return load_text(config(rates, rest)).services["orders"].rates


def mistakes(rates: str, rest: str = HTTP) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigErrors) as caught:
        load_text(config(rates, rest))
    return caught.value.mistakes


def warnings(rates: str, rest: str = HTTP) -> list[tuple[str, str]]:
    loaded = load_bytes(config(rates, rest).encode())
    return [(each.code, each.path.removeprefix("services.orders.")) for each in loaded.warnings]


def test_what_is_not_said_is_filled_in() -> None:
    (one, two) = read("[{limit: 6000/m}, {name: keys, limit: 2/h, burst: 9, per: header X-Key, port: 17443}]")
    assert (one.name, one.limit, one.burst, one.per) == ("rate-1", Frequency(6000, "m"), 6000, Per("listener"))
    assert (two.name, two.burst, two.per, two.ports) == ("keys", 9, Per("header", "x-key"), ("http",))
    assert (one.limit.per_second, str(one.limit), str(two.per)) == (100.0, "6000/m", "header x-key")


@pytest.mark.parametrize(("said", "hint"), [
    ("100", "in which time? write 100/s or 100/m"),
    ("0/s", "a limit that lets nobody in is a rule: use deny:"),
    ("100/sec", "did you mean 100/s?"),
    ("100 / s", "did you mean 100/s?"),
    ("100 per minute", "did you mean 100/m?"),
    ("100rps", "did you mean 100/s?"),
    ("100r/s", "did you mean 100/s?"),
    ("0.5/s", "did you mean 30/m?"),
    ("1.5/m", "did you mean 90/h?"),
    ("0.1/d", "write 100/s, 6000/m, 500/h or 1000/d"),
    ("100/10s", "write 100/s, 6000/m, 500/h or 1000/d"),
    ("-5/s", "write 100/s, 6000/m, 500/h or 1000/d"),
    ("5000000000/s", "write 100/s, 6000/m, 500/h or 1000/d"),
    ("fast", "write 100/s, 6000/m, 500/h or 1000/d"),
])  # fmt: skip
def test_how_often_is_proposed_as_it_was_probably_meant(said: str, hint: str) -> None:
    (mistake,) = mistakes(f"[{{limit: {said}}}]")
    assert (mistake.path, mistake.hint) == ("services.orders.rates[0].limit", hint)


@given(st.text(max_size=12))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        (rate,) = read(f"[{{limit: '{text}'}}]")
    except ConfigErrors:
        return
    assert str(rate.limit) == text


PER_HINT = (
    "one of listener, caller, endpoint, or header and its name: header x-api-key, or claim and its name: claim sub"
)


@pytest.mark.parametrize(("said", "hint"), [
    ("sub", "did you mean claim sub?"),
    ("client", "did you mean caller?"),
    ("route", "did you mean endpoint?"),
    ("x-api-key", "did you mean header x-api-key?"),
    ("header", PER_HINT),
    ("header host", "limit a listener, a caller or an endpoint"),
    ("header 'a b'", PER_HINT),
])  # fmt: skip
def test_for_whom_it_may_be(said: str, hint: str) -> None:
    (mistake,) = mistakes(f'[{{limit: 1/s, per: "{said}"}}]')
    assert (mistake.path, mistake.hint) == ("services.orders.rates[0].per", hint)


@pytest.mark.parametrize(("rates", "path", "message"), [
    ("[{per: caller}]", "rates[0].limit", "is required"),
    ("[{limit: 1/s, name: a}, {limit: 2/s, name: a}]", "rates[1].name", 'duplicate limit name "a"'),
    ("[{limit: 1/s, port: other}]", "rates[0].port", 'orders has no inbound listener "other"'),
    ("[{limit: 1/s, burst: 0}]", "rates[0].burst", "0 is not a count"),
    ("[{limit: 1/s, path: []}]", "rates[0].path", "is empty, and nothing can match that"),
    ("[{limit: 1/s, rate: 5}]", "rates[0].rate", "unknown key"),
])  # fmt: skip
def test_mistakes_stand_where_they_were_made(rates: str, path: str, message: str) -> None:
    (mistake,) = mistakes(rates)
    assert (mistake.path, mistake.message) == (f"services.orders.{path}", message)


ORDERS = "inbound: [{name: http, app: '127.0.0.1:1'}], allow: [{from: web, method: GET, path: ['/orders/{id}', /a/**]}]"
NEVER, FIRST, AROUND = "MESH080", "MESH081", "MESH082"


@pytest.mark.parametrize(("rates", "rest", "code"), [
    ("[{limit: 1/s, path: /refunds}]", ORDERS, NEVER),
    ("[{limit: 1/s, path: /orders}]", ORDERS, NEVER),
    ("[{limit: 1/s, path: /orders/}]", ORDERS, NEVER),
    ("[{limit: 1/s, path: /a}]", ORDERS, NEVER),
    ("[{limit: 1/s, path: /orders/17}]", ORDERS, ""),
    ("[{limit: 1/s, path: '/{any}/b/c'}]", ORDERS, ""),
    ("[{limit: 1/s, path: /**}]", ORDERS, ""),
    ("[{limit: 1/s, method: POST}]", ORDERS, NEVER),
    ("[{limit: 1/s, from: cart}]", ORDERS, NEVER),
    ("[{limit: 1/s, from: '*'}]", ORDERS, ""),
    ("[{limit: 1/s, from: other/web}]", ORDERS, NEVER),
    ("[{limit: 1/s, method: PURGE}]", HTTP, NEVER),
    ("[{limit: 1/s, per: endpoint, port: raw}]", BOTH, NEVER),
    ("[{limit: 1/s, per: caller, port: raw}]", BOTH, ""),
    ("[{limit: 1/s, per: endpoint}]", BOTH, ""),
    ("[{limit: 9/s}, {limit: 9/s, per: caller}]", HTTP, FIRST),
    ("[{limit: 9/s}, {limit: 9/s, per: caller}]", BOTH, ""),  # a caller may use both listeners
    ("[{limit: 9/s}, {limit: 8/s, burst: 10, per: caller}]", HTTP, ""),
    ("[{limit: 9/s, burst: 20}, {limit: 9/s, per: caller}]", HTTP, ""),
    ("[{limit: 540/m}, {limit: 9/s}]", HTTP, FIRST),
    ("[{limit: 9/s}, {limit: 540/m}]", HTTP, FIRST),
    ("[{limit: 539/m}, {limit: 9/s}]", HTTP, ""),
    ("[{limit: 9/s}, {limit: 9/s}]", HTTP, FIRST),
    ("[{limit: 9/s, per: endpoint}, {limit: 9/s, per: endpoint, path: /a}]", HTTP, ""),
    ("[{limit: 9/s, method: GET}, {limit: 9/s, per: caller}]", HTTP, ""),
    ("[{limit: 9/s, method: GET}, {limit: 9/s, per: caller, method: GET, path: /a}]", HTTP, FIRST),
    ("[{limit: 9/s, path: /a/**}, {limit: 9/s, path: /a/b}]", HTTP, FIRST),
    ("[{limit: 9/s, path: /**}, {limit: 9/s, per: caller}]", BOTH, ""),  # raw TCP comes under the second alone
    ("[{limit: 9/s, per: header x-a}]", HTTP, AROUND),
    ("[{limit: 9/s, per: header x-a}, {limit: 99/s, per: caller, method: GET}]", HTTP, AROUND),
    ("[{limit: 9/s, per: header x-a}, {limit: 99/s}]", HTTP, ""),
])  # fmt: skip
def test_a_limit_that_can_never_act_is_told_of(rates: str, rest: str, code: str) -> None:
    found = [each for each, path in warnings(rates, rest) if path.startswith("rates")]
    assert found == ([code] if code else [])


def test_where_a_posture_lets_more_in_than_rules_nothing_is_claimed() -> None:
    inbound = "inbound: [{app: '127.0.0.1:1', posture: observe, until: 2026-01-12}], allow: [{from: web, path: /a}]"
    loaded = load_bytes(config("[{limit: 1/s, path: /b}]", inbound).encode(), now=1_767_614_400.0)
    assert NEVER not in [each.code for each in loaded.warnings]


@pytest.mark.parametrize(("rate", "sentence"), [
    ("limit: 100/s", "all callers together may call anything 100 times a second"),
    ("limit: 6000/m, burst: 50, per: caller", "each caller may call anything 6000 times a minute (50 at once)"),
    ("limit: 1/h, per: caller, from: [web, cart], method: POST, path: /orders",
     "each caller of web or cart may POST /orders once an hour"),
    ("limit: 5/s, per: endpoint, from: web", "web may call any path 5 times a second for each endpoint"),
    ("limit: 5/d, per: header x-key, port: http",
     "all callers may call any path 5 times a day for each value of x-key on http"),
])  # fmt: skip
def test_a_limit_reads_like_prose(rate: str, sentence: str) -> None:
    assert sentences(load_text(config(f"[{{{rate}}}]")))[-1] == f"orders: {sentence}"


def test_a_reload_names_what_has_changed() -> None:
    from sidecar.config.diff import diff

    old, new = (load_text(config(f"[{{name: a, limit: {limit}}}]")) for limit in ("1/s", "2/m"))
    assert [str(change) for change in diff(old, new, "orders")] == [
        "orders.rates.a.limit: 1/s → 2/m", "orders.rates.a.burst: 1 → 2",
    ]  # fmt: skip
