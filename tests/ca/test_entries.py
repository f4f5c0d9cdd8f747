"""Entries, durations and the bucket: small values with hard edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.bucket import Bucket
from ca.config import DEFAULT_ADDRESS, CaSettings
from ca.durations import format_duration, parse_duration
from ca.entries import NewEntry, check_dns_name, check_entry, entry_id, find_entry, parse_identity
from ca.errors import DamagedCa, InvalidEntry, UnknownEntry
from certs.spiffe import SpiffeId
from sidecar.config import ports
from tests.ca.office import DEMO, open_office

ORDERS = parse_identity("orders", DEMO)

REFUSED = [
    (NewEntry(SpiffeId.parse("spiffe://other.mesh/ns/default/sa/a")), "trust domain"),
    (NewEntry(SpiffeId.parse("spiffe://demo.mesh")), "needs a path"),
    (NewEntry(SpiffeId.parse("spiffe://demo.mesh/mesh/ca")), "reserved"),
    (NewEntry(SpiffeId.parse("spiffe://demo.mesh/mesh")), "reserved"),
    (NewEntry(ORDERS, ttl=19.0), "lifetime"),
    (NewEntry(ORDERS, ttl=-1.0), "lifetime"),
    (NewEntry(ORDERS, ttl=7 * 86400 + 1.0), "lifetime"),
    (NewEntry(ORDERS, ttl=math.inf), "lifetime"),
    (NewEntry(ORDERS, ttl=math.nan), "lifetime"),
    (NewEntry(ORDERS, ("a.b", "a.b")), "twice"),
    (NewEntry(ORDERS, tuple(f"a{n}.b" for n in range(65))), "at most 64"),
    (NewEntry(ORDERS, ("*.b",)), "lower-case labels"),
]


@pytest.mark.parametrize(("new", "says"), REFUSED)
def test_an_entry_that_breaks_a_rule_is_refused(new: NewEntry, says: str) -> None:
    with pytest.raises(InvalidEntry, match=says):
        check_entry(new, DEMO)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "A.b", "*.b", "a_b", "-a", "a-", "a b", "a\n", "10.0.0.1", "1", "é", "a" * 64, "::1"]
)
def test_what_is_no_dns_name(name: str) -> None:
    with pytest.raises(InvalidEntry):
        check_dns_name(name)


@pytest.mark.parametrize("name", ["a", "orders", "orders.shop.internal", "x" * 63, "1a.b2"])
def test_what_is_one(name: str) -> None:
    assert check_dns_name(name) == name


def test_people_name_services_in_three_ways() -> None:
    assert parse_identity("orders", DEMO).text == "spiffe://demo.mesh/ns/default/sa/orders"
    assert parse_identity("shop/orders", DEMO).text == "spiffe://demo.mesh/ns/shop/sa/orders"
    assert parse_identity("spiffe://demo.mesh/a", DEMO).text == "spiffe://demo.mesh/a"
    for bad in ("", "a b", "/orders", "shop/", "spiffe://", "spiffe://Demo.mesh/a"):
        with pytest.raises(InvalidEntry):
            parse_identity(bad, DEMO)


def test_an_entry_is_found_by_id_name_and_spiffe_id() -> None:
    office = open_office()
    entry = office.entry("shop/orders")
    for name in (entry.id, "shop/orders", entry.spiffe_id.text):
        assert find_entry(name, office.store.entries(), DEMO) == entry
    with pytest.raises(UnknownEntry, match="mesh ca entry add"):
        find_entry("orders", office.store.entries(), DEMO)


def test_ids_are_readable_and_differ() -> None:
    assert entry_id(ORDERS, bytes(4)) == "orders-00000000"
    assert entry_id(parse_identity("shop/Orders_2", DEMO), b"\xff" * 4) == "shop-orders-2-ffffffff"
    assert entry_id(SpiffeId.parse("spiffe://demo.mesh/..."), bytes(4)) == "entry-00000000"


DURATIONS = [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86400), ("1h30m", 5400), ("30d", 2592000), ("1y", 31536000)]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "1w", "-1h", "1.5h", "1h ", " 1h", "1H", "٣h", "1h1", "1" * 10 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_durations_are_told_in_two_units() -> None:
    story = [(0.9, "0s"), (45, "45s"), (3600, "1h"), (3661, "1h 1m"), (86400 * 29 + 3 * 3600, "29d 3h"), (-60, "-1m")]
    assert [format_duration(seconds) for seconds, _ in story] == [text for _, text in story]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=2, burst=3)
    story = [(5, 0.0), (5.0, 0.0), (5.0, 0.0), (5.0, 0.5), (5.25, 0.25), (5.5, 0.0), (5.5, 0.5), (4.0, 0.5), (99, 0.0)]
    assert [bucket.take(now) for now, _ in story] == [pytest.approx(wait) for _, wait in story]


@given(st.lists(st.floats(0, 50), max_size=200))
def test_no_story_of_times_gives_more_than_burst_and_rate(times: list[float]) -> None:
    bucket = Bucket(rate=2, burst=3)
    given_out = sum(bucket.take(now) == 0.0 for now in times)
    span = max(times, default=0) - min(times, default=0)
    assert given_out <= 3 + 2 * span + 1e-6


def test_the_default_address_has_the_port_of_the_table() -> None:
    assert f"127.0.0.1:{ports.CA}" == DEFAULT_ADDRESS


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version":2}', b'{"version":1,"trust_domain":"A","address":"x:1"}']
)
def test_settings_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(DamagedCa):
        CaSettings.parse(data)
    assert CaSettings.parse(CaSettings(DEMO).to_json()) == CaSettings(DEMO)
