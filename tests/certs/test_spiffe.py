"""SPIFFE IDs: what is one, what is none, and that nothing is repaired on the way."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import InvalidSpiffeId
from certs.spiffe import MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, SpiffeId, TrustDomain, ca_id, workload_id

DEMO = TrustDomain.parse("demo.mesh")

DOMAIN_LETTERS = string.ascii_lowercase + string.digits + ".-_"
SEGMENT_LETTERS = string.ascii_letters + string.digits + ".-_"
domains = st.text(DOMAIN_LETTERS, min_size=1, max_size=MAX_TRUST_DOMAIN_BYTES)
segments = st.text(SEGMENT_LETTERS, min_size=1, max_size=40).filter(lambda text: text not in (".", ".."))


@pytest.mark.parametrize(
    ("text", "domain", "path"),
    [
        ("spiffe://demo.mesh", "demo.mesh", ()),
        ("spiffe://demo.mesh/web", "demo.mesh", ("web",)),
        ("spiffe://demo.mesh/ns/default/sa/web", "demo.mesh", ("ns", "default", "sa", "web")),
        ("spiffe://a/B/c-D_e.F", "a", ("B", "c-D_e.F")),
        ("spiffe://1.2.3.4/x", "1.2.3.4", ("x",)),
        ("spiffe://_-./...", "_-.", ("...",)),
        ("spiffe://" + "a" * 255 + "/x", "a" * 255, ("x",)),
    ],
)
def test_what_is_a_spiffe_id(text: str, domain: str, path: tuple[str, ...]) -> None:
    parsed = SpiffeId.parse(text)
    assert (parsed.trust_domain.name, parsed.segments, str(parsed)) == (domain, path, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe",
        "spiffe:",
        "spiffe://",
        "spiffe:///web",
        "spiffe:/demo.mesh/web",
        "Spiffe://demo.mesh/web",
        "SPIFFE://demo.mesh/web",
        " spiffe://demo.mesh/web",
        "spiffe://demo.mesh/web ",
        "spiffe://demo.mesh/web\n",
        "spiffe://demo.mesh\n/web",
        "https://demo.mesh/web",
        "spiffe://Demo.mesh/web",
        "spiffe://démo.mesh/web",
        "spiffe://demo.mesh:443/web",
        "spiffe://user@demo.mesh/web",
        "spiffe://user:secret@demo.mesh/web",
        "spiffe://[::1]/web",
        "spiffe://demo%2emesh/web",
        "spiffe://demo.mesh?x",
        "spiffe://demo.mesh#x",
        "spiffe://demo.mesh/",
        "spiffe://demo.mesh/web/",
        "spiffe://demo.mesh//web",
        "spiffe://demo.mesh/a//b",
        "spiffe://demo.mesh/.",
        "spiffe://demo.mesh/..",
        "spiffe://demo.mesh/a/./b",
        "spiffe://demo.mesh/a/../b",
        "spiffe://demo.mesh/a?x=1",
        "spiffe://demo.mesh/a#b",
        "spiffe://demo.mesh/a%2fb",
        "spiffe://demo.mesh/a%41",
        "spiffe://demo.mesh/a b",
        "spiffe://demo.mesh/a\0b",
        "spiffe://demo.mesh/a\\b",
        "spiffe://demo.mesh/a;b",
        "spiffe://demo.mesh/a*",
        "spiffe://demo.mesh/wéb",
        "spiffe://demo.mesh/١",
        "spiffe://demo.mesh/\udc80",
        "spiffe://" + "a" * 256 + "/web",
        "spiffe://demo.mesh/" + "a" * 2048,
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    "text", ["", " ", "Demo", "demo.mesh/", "demo mesh", "demo.mesh:1", "a@b", "é", "a" * 256, "a\n", "spiffe://demo"]
)
def test_what_is_no_trust_domain(text: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        TrustDomain.parse(text)


def test_the_longest_id_is_2048_bytes() -> None:
    longest = "spiffe://demo.mesh/" + "a" * (MAX_ID_BYTES - len("spiffe://demo.mesh/"))
    assert SpiffeId.parse(longest).text == longest
    with pytest.raises(InvalidSpiffeId, match="longer than 2048"):
        SpiffeId.parse(longest + "a")


@given(domains, st.lists(segments, max_size=20))
def test_an_id_that_was_made_is_read_back_equal(domain: str, path: list[str]) -> None:
    made = TrustDomain.parse(domain).id(*path)
    again = SpiffeId.parse(made.text)
    assert again == made
    assert hash(again) == hash(made)
    assert again.segments == tuple(path)


@given(st.text(max_size=60))
def test_any_text_is_either_refused_or_kept_as_it_was(tail: str) -> None:
    for text in (tail, "spiffe://" + tail, "spiffe://demo.mesh" + tail, "spiffe://demo.mesh/" + tail):
        try:
            parsed = SpiffeId.parse(text)
        except InvalidSpiffeId:
            continue
        assert parsed.text == text
        assert set(parsed.trust_domain.name) <= set(DOMAIN_LETTERS)
        assert all(segment and set(segment) <= set(SEGMENT_LETTERS) for segment in parsed.segments)


@given(segments, st.characters().filter(lambda letter: letter not in SEGMENT_LETTERS + "/"))
def test_one_foreign_character_anywhere_is_refused(segment: str, foreign: str) -> None:
    for text in (f"{foreign}{segment}", f"{segment}{foreign}", f"{segment}{foreign}{segment}"):
        with pytest.raises(InvalidSpiffeId):
            DEMO.id("ns", text)


def test_paths_and_domains_are_compared_with_case_and_as_values() -> None:
    assert SpiffeId.parse("spiffe://a/x") == SpiffeId.parse("spiffe://a/x")
    assert SpiffeId.parse("spiffe://a/x") != SpiffeId.parse("spiffe://a/X")
    assert SpiffeId.parse("spiffe://a/x") != SpiffeId.parse("spiffe://b/x")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("spiffe://demo.mesh/ns/default/sa/web", "web"),
        ("spiffe://demo.mesh/ns/shop/sa/web", "shop/web"),
        ("spiffe://demo.mesh/mesh/ca", "mesh/ca"),
        ("spiffe://demo.mesh/ns/shop/sa/web/more", "ns/shop/sa/web/more"),
        ("spiffe://demo.mesh", "demo.mesh"),
    ],
)
def test_what_people_call_it(text: str, short: str) -> None:
    assert SpiffeId.parse(text).short == short


def test_the_ids_of_services_and_of_the_ca() -> None:
    assert str(workload_id(DEMO, "shop", "web")) == "spiffe://demo.mesh/ns/shop/sa/web"
    assert str(ca_id(DEMO)) == "spiffe://demo.mesh/mesh/ca"
    assert str(DEMO) == "demo.mesh"


@pytest.mark.parametrize(
    ("namespace", "service"), [("", "web"), ("shop", ""), ("..", "web"), ("shop", "a b"), ("*", "x")]
)
def test_a_service_whose_name_is_no_segment_has_no_id(namespace: str, service: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        workload_id(DEMO, namespace, service)


def test_a_slash_in_a_name_never_makes_two_names_one() -> None:
    assert workload_id(DEMO, "a", "b/sa/c").segments == ("ns", "a", "sa", "b", "sa", "c")
