"""What an operator may say of quotas and TCP limits, what is proposed instead, and which of them can never act."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.schema_amounts import QuotaLimit, TcpLimit
from sidecar.config.sentences import sentences
from sidecar.config.terms import Amount, Frequency, Per

HTTP = "inbound: [{name: http, app: '127.0.0.1:1'}], allow: [{from: '**'}]"
TCP = "inbound: [{name: raw, protocol: tcp, app: '127.0.0.1:2', tcp_limits: %s}], allow: [{from: web}]"


def config(quotas: str, rest: str = HTTP) -> str:
    said = f", quotas: {quotas}" if quotas else ""
    return f"trust_domain: demo.mesh\nservices: {{web: {{}}, orders: {{{rest}{said}}}}}\n"


def read(quotas: str, rest: str = HTTP) -> tuple[QuotaLimit, ...]:
    return load_text(config(quotas, rest)).services["orders"].quotas


def read_tcp(limits: str) -> tuple[TcpLimit, ...]:
    return load_text(config("", TCP % limits)).services["orders"].inbound[0].tcp_limits


def mistakes(quotas: str, rest: str = HTTP) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigErrors) as caught:
        load_text(config(quotas, rest))
    return caught.value.mistakes


def warnings(quotas: str, rest: str = HTTP) -> list[tuple[str, str]]:
    loaded = load_bytes(config(quotas, rest).encode())
    return [(each.code, each.path.removeprefix("services.orders.")) for each in loaded.warnings]


def test_what_is_not_said_is_filled_in() -> None:
    (one, two) = read(
        "[{limit: 10000/d}, {name: keys, limit: 2/month, per: header X-Key, port: 17443, time_zone: Europe/Berlin}]"
    )
    assert (one.name, one.limit, one.time_zone, one.per) == ("quota-1", Amount(10000, "d"), "UTC", Per("caller"))
    assert (two.name, two.limit, two.per, two.ports) == ("keys", Amount(2, "month"), Per("header", "x-key"), ("http",))
    assert (str(one.limit), two.time_zone, two.http_only, one.http_only) == ("10000/d", "Europe/Berlin", True, False)


@pytest.mark.parametrize(("said", "hint"), [
    ("100", "in which window? write 100/h, 100/d or 100/month"),
    ("0/d", "a quota that lets nobody in is a rule: use deny:"),
    ("100/day", "did you mean 100/d?"),
    ("100 per hour", "did you mean 100/h?"),
    ("100 a month", "did you mean 100/month?"),
    ("100/m", "did you mean 100/month? What is by the minute belongs under rates:"),
    ("100/s", "a quota is by the hour, day or month; put what is faster under rates:"),
    ("100/week", "write 500/h, 10000/d or 200000/month"),
    ("-5/d", "write 500/h, 10000/d or 200000/month"),
    ("many", "write 500/h, 10000/d or 200000/month"),
])  # fmt: skip
def test_how_many_is_proposed_as_it_was_probably_meant(said: str, hint: str) -> None:
    (mistake,) = mistakes(f"[{{limit: {said}}}]")
    assert (mistake.path, mistake.hint) == ("services.orders.quotas[0].limit", hint)


@given(st.text(max_size=12))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        (quota,) = read(f"[{{limit: '{text}'}}]")
    except ConfigErrors:
        return
    assert str(quota.limit) == text


@pytest.mark.parametrize(("said", "hint"), [
    ("Europe/Berln", "did you mean Europe/Berlin?"),
    ("europe/berlin", "did you mean Europe/Berlin?"),
    ("Berlin", "did you mean Europe/Berlin?"),
    ("New York", "did you mean America/New_York?"),
    ("utc", "did you mean UTC?"),
    ("Middle/Earth", "write a name of the IANA database: UTC, Europe/Berlin"),
    ("../etc/passwd", "write a name of the IANA database: UTC, Europe/Berlin"),
])  # fmt: skip
def test_a_zone_that_is_none_is_answered_with_the_nearest(said: str, hint: str) -> None:
    (mistake,) = mistakes(f"[{{limit: 1/d, time_zone: {said}}}]")
    assert mistake.hint is not None
    assert mistake.hint.replace("Etc/UTC", "UTC") == hint


def test_a_shared_quota_needs_a_redis_and_names_are_unique_among_all_limits() -> None:
    (mistake,) = mistakes("[{limit: 1/d, shared: redis}]")
    assert (mistake.path, "has no Redis" in mistake.message) == ("services.orders.quotas[0].shared", True)
    (mistake,) = mistakes("[{name: a, limit: 1/d}]", HTTP + ", rates: [{name: a, limit: 1/s}]")
    assert mistake.code == "MESH010"


@pytest.mark.parametrize(("quotas", "rest", "found"), [
    ("[{limit: 100/d}]", "", []),
    ("[{limit: 100/d, from: cart}]", "", [("MESH075", "quotas[0]")]),
    ("[{limit: 100/d, path: /a}]", "", []),
    ("[{limit: 90001/d}]", ", rates: [{limit: 1/s, per: caller}]", []),
    ("[{limit: 90002/d}]", ", rates: [{limit: 1/s, per: caller}]", [("MESH076", "quotas[0].limit")]),
    ("[{limit: 90002/d}]", ", rates: [{limit: 1/s}]", [("MESH076", "quotas[0].limit")]),
    ("[{limit: 90002/d, per: listener}]", ", rates: [{limit: 1/s, per: caller}]", []),
    ("[{limit: 90002/d}]", ", rates: [{limit: 1/s, per: caller, path: /a}]", []),
    ("[{limit: 3602/h}]", ", rates: [{limit: 1/s, per: caller}]", [("MESH076", "quotas[0].limit")]),
    ("[{limit: 100/d, per: header x-key}]", "", [("MESH077", "quotas[0].per")]),
    ("[{limit: 100/d, per: header x-key}]", ", rates: [{limit: 1/s, per: caller}]", []),
])  # fmt: skip
def test_what_never_acts_is_told(quotas: str, rest: str, found: list[tuple[str, str]]) -> None:
    http = HTTP.replace("'**'", "web")
    assert warnings(quotas, http + rest) == found


def test_a_quota_for_endpoints_never_acts_where_only_raw_tcp_passes() -> None:
    assert warnings("[{limit: 1/d, per: endpoint}]", TCP % "[]") == [("MESH075", "quotas[0]")]


def test_what_a_tcp_limit_says() -> None:
    (one, two) = read_tcp("[{connections_per_second: 20/s}, {name: b, bandwidth: 10MiB/s, connections: 3, from: web}]")
    assert (one.name, one.connections_per_second, one.per) == ("tcp-1", Frequency(20, "s"), "caller")
    assert (two.bandwidth, two.connections, [str(each) for each in two.callers]) == (10 << 20, 3, ["web"])


@pytest.mark.parametrize(("said", "hint"), [
    ("10MiB", "write 512KiB/s, 10MiB/s or 1GiB/s"),
    ("10mb/s", "did you mean 10MiB/s? Eight bits are a byte"),
    ("10MiBps", "did you mean 10MiB/s?"),
    ("80mbit/s", "did you mean 80MiB/s? Eight bits are a byte"),
    ("100B/s", "at least 1KiB/s; to let nobody in, use deny:"),
    ("fast", "write 512KiB/s, 10MiB/s or 1GiB/s"),
])  # fmt: skip
def test_bandwidth_is_proposed_as_it_was_probably_meant(said: str, hint: str) -> None:
    (mistake,) = mistakes("", TCP % f"[{{bandwidth: {said}}}]")
    assert mistake.hint == hint


def test_a_tcp_limit_that_limits_nothing_or_is_there_twice_is_a_mistake() -> None:
    (mistake,) = mistakes("", TCP % "[{per: caller}]")
    assert mistake.message == "tcp-1 limits nothing"
    (mistake,) = mistakes("", TCP % "[{name: a, connections: 1}, {name: a, connections: 2}]")
    assert mistake.code == "MESH010"


@pytest.mark.parametrize(("rest", "found"), [
    (TCP % "[{connections: 511}]", []),
    (TCP % "[{connections: 512}]", [("MESH079", "inbound[0].tcp_limits[0].connections")]),
    (TCP % "[{connections: 512, per: listener}]", []),
    (TCP % "[{connections: 5, from: cart}]", [("MESH078", "inbound[0].tcp_limits[0]")]),
    (HTTP.replace("app:", "tcp_limits: [{connections: 5}], app:"), [("MESH078", "inbound[0].tcp_limits[0]")]),
])  # fmt: skip
def test_what_a_tcp_limit_never_does_is_told(rest: str, found: list[tuple[str, str]]) -> None:
    assert warnings("", rest) == found


def test_a_quota_is_read_back_as_a_sentence() -> None:
    said = sentences(load_text(config("[{limit: 10/d, time_zone: Europe/Berlin}, {limit: 1/month, per: header a}]")))
    assert "orders: each caller may call anything 10 times in a day of Europe/Berlin" in said
    assert "orders: all callers may call any path once in a month of UTC for each value of a" in said
