"""Patterns match exactly what decision D3 says, and refuse to be written in any way that would mean something else."""

from __future__ import annotations

import pytest

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate, PatternError

TD = TrustDomain("demo.mesh")

IDENTITIES = [
    # pattern, seen from demo.mesh/default; identity; does it match
    ("orders", "spiffe://demo.mesh/ns/default/sa/orders", True),
    ("orders", "spiffe://demo.mesh/ns/default/sa/Orders", False),
    ("orders", "spiffe://demo.mesh/ns/shop/sa/orders", False),
    ("orders", "spiffe://other.mesh/ns/default/sa/orders", False),
    ("orders", "spiffe://demo.mesh/ns/default/sa/orders/x", False),
    ("shop/orders", "spiffe://demo.mesh/ns/shop/sa/orders", True),
    ("shop/orders", "spiffe://demo.mesh/ns/default/sa/orders", False),
    ("shop/*", "spiffe://demo.mesh/ns/shop/sa/orders", True),
    ("shop/*", "spiffe://demo.mesh/ns/default/sa/orders", False),
    ("*/orders", "spiffe://demo.mesh/ns/shop/sa/orders", True),
    ("*/orders", "spiffe://demo.mesh/ns/shop/sa/web", False),
    ("*", "spiffe://demo.mesh/ns/default/sa/web", True),
    ("*", "spiffe://demo.mesh/ns/shop/sa/web", False),
    ("*", "spiffe://other.mesh/ns/default/sa/web", False),
    ("*", "spiffe://demo.mesh/ns/default/sa/web/sub", False),
    ("*", "spiffe://demo.mesh/mesh/ca", False),
    ("**", "spiffe://demo.mesh/ns/shop/sa/web", True),
    ("**", "spiffe://demo.mesh/mesh/ca", True),
    ("**", "spiffe://demo.mesh", False),
    ("**", "spiffe://other.mesh/ns/default/sa/web", False),
    ("spiffe://other.mesh/ns/default/sa/web", "spiffe://other.mesh/ns/default/sa/web", True),
    ("spiffe://demo.mesh/ns/*/sa/**", "spiffe://demo.mesh/ns/shop/sa/a/b", True),
    ("spiffe://demo.mesh/ns/*/sa/**", "spiffe://demo.mesh/ns/shop/sa", False),
    ("spiffe://demo.mesh/ns/*/sa/**", "spiffe://demo.mesh/ns/shop/xx/a", False),
    ("spiffe://other.mesh/**", "spiffe://other.mesh/x", True),
    ("spiffe://other.mesh/**", "spiffe://demo.mesh/x", False),
]


@pytest.mark.parametrize(("pattern", "identity", "expected"), IDENTITIES)
def test_an_identity_pattern_means_whole_segments_of_one_trust_domain(
    pattern: str, identity: str, expected: bool
) -> None:
    parsed = IdentityPattern.parse(pattern, TD, "default")
    assert parsed.matches(SpiffeId.parse(identity)) is expected
    assert str(parsed) == pattern


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", "empty segment"),
        ("spiffe://demo.mesh", "no path"),
        ("spiffe://demo.mesh/", "no path"),
        ("spiffe://*/ns/default/sa/web", "trust domain must be written out"),
        ("spiffe://Demo.mesh/x", "only a-z"),
        ("spiffe://demo.mesh/**/web", "may only stand last"),
        ("spiffe://demo.mesh/ns/we*/sa/x", "one whole segment"),
        ("spiffe://demo.mesh//x", "empty segment"),
        ("spiffe://demo.mesh/..", "may only have"),
        ("https://demo.mesh/x", "starts with spiffe://"),
        ("a/b/c", "namespace/service"),
        ("shop/**", "stands alone or last"),
        ("**/web", "stands alone or last"),
        ("we*", "one whole segment"),
        ("we b", "may only have"),
        ("shop/", "empty segment"),
        (".", "may only have"),
        ("caf\u00e9", "may only have"),
    ],
)
def test_an_identity_pattern_that_could_mislead_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        IdentityPattern.parse(pattern, TD, "default")


PATHS = [
    ("/", ("",), True),
    ("/", (), False),
    ("/", ("a",), False),
    ("/orders", ("orders",), True),
    ("/orders", ("Orders",), False),
    ("/orders", ("orders", ""), False),
    ("/orders/", ("orders", ""), True),
    ("/orders/", ("orders",), False),
    ("/orders/{id}", ("orders", "7"), True),
    ("/orders/{id}", ("orders", ""), False),
    ("/orders/{id}", ("orders",), False),
    ("/orders/{id}", ("orders", "7", ""), False),
    ("/orders/{id}", ("orders", "7", "items"), False),
    ("/orders/{id}/items", ("orders", "7", "items"), True),
    ("/orders/{id}/", ("orders", "7", ""), True),
    ("/{a}/{b}", ("x", "y"), True),
    ("/static/**", ("static", "a", "b"), True),
    ("/static/**", ("static", ""), True),
    ("/static/**", ("static",), False),
    ("/static/**", ("statics", "a"), False),
    ("/{tenant}/**", ("t", "x"), True),
    ("/{tenant}/**", ("", "x"), False),
    ("/**", ("",), True),
    ("/**", ("a", "b", ""), True),
    ("/**", (), False),  # `OPTIONS *` has no path
    ("/a%2Ab", ("a*b",), True),
    ("/100%25", ("100%",), True),
    ("/caf%C3%A9", ("caf\u00e9",), True),
    ("/caf\u00e9", ("caf\u00e9",), True),
    ("/a%2Fb", ("a/b",), True),
    ("/a%2Fb", ("a", "b"), False),
    ("/a.b", ("axb",), False),  # no regular expressions
]


@pytest.mark.parametrize(("template", "segments", "expected"), PATHS)
def test_a_path_template_means_whole_decoded_segments(template: str, segments: tuple[str, ...], expected: bool) -> None:
    parsed = PathTemplate.parse(template)
    assert parsed.matches(segments) is expected
    assert str(parsed) == template


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", "begins with"),
        ("orders", "begins with"),
        ("/a?b=1", "query is never judged"),
        ("/a#b", "fragment"),
        ("/a\\b", "backslash"),
        ("/a//b", "empty_segments"),
        ("/*", "write {id}"),
        ("/**/a", "write {id}"),
        ("/a*b", "mixes text"),
        ("/v{n}", "mixes text"),
        ("/{}", "mixes text"),
        ("/{a b}", "mixes text"),
        ("/a%", "two hexadecimal"),
        ("/a%2", "two hexadecimal"),
        ("/a%zz", "two hexadecimal"),
        ("/%ff", "valid UTF-8"),
        ("/\ud800", "valid UTF-8"),
        ("/a/..", "never match"),
        ("/%2e%2E/a", "never match"),
        ("/a%00", "never match"),
        ("/a%5Cb", "never match"),
        ("/a\n", "never match"),
    ],
)
def test_a_path_template_that_could_never_match_or_mislead_is_refused(template: str, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        PathTemplate.parse(template)


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        (("",), "/"),
        (("orders", "7"), "/orders/7"),
        (("a", ""), "/a/"),
        (("{id}", "**", "100%", "caf\u00e9 x"), "/%7Bid%7D/%2A%2A/100%25/caf%C3%A9%20x"),
        (("a/b", ";x"), "/a%2Fb/;x"),
    ],
)
def test_a_template_can_be_made_that_means_exactly_one_path(segments: tuple[str, ...], text: str) -> None:
    template = PathTemplate.naming(segments)
    assert template.text == text
    assert template.literal == segments
    assert PathTemplate.parse(text) == template


@pytest.mark.parametrize(("segments", "text"), [(("a", "", "b"), "/a/**"), (("", ""), "/**")])
def test_a_path_with_an_empty_segment_is_named_by_what_stands_before_it(segments: tuple[str, ...], text: str) -> None:
    assert PathTemplate.naming(segments).text == text
    assert PathTemplate.naming(segments).matches(segments)


HOSTS = [
    ("orders", "orders", True),
    ("Orders.Example", "orders.example", True),
    ("orders", "orders.example", False),
    ("*.example.com", "a.example.com", True),
    ("*.example.com", "a.b.example.com", False),
    ("*.example.com", "example.com", False),
    ("*.example.com", ".example.com", False),
    ("*.example.com", "", False),
    ("orders", "", False),
    ("10.0.0.1", "10.0.0.1", True),
    ("::1", "::1", True),
    ("[0:0::1]", "::1", True),
]


@pytest.mark.parametrize(("pattern", "host", "expected"), HOSTS)
def test_a_host_pattern_is_exact_or_one_label_wide(pattern: str, host: str, expected: bool) -> None:
    assert HostPattern.parse(pattern).matches(host) is expected
    assert str(HostPattern.parse(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", "empty"),
        ("orders:8080", "without port"),
        ("[::1]:80", "without port"),
        ("*", "label"),
        ("*.", "empty"),
        ("**.example.com", "label"),
        ("a.*.example.com", "label"),
        ("example.com.", "trailing dot"),
        ("*.10.0.0.1", "not with an address"),
        ("*.::1", "not with an address"),
        ("exa mple", "label"),
        ("\ud800", "label"),
        ("127.1", "ends in a number"),
    ],
)
def test_a_host_pattern_that_cannot_match_a_canonical_host_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        HostPattern.parse(pattern)


Lines = list[tuple[bytes, bytes]]
HEADERS: list[tuple[object, Lines, bool, bool]] = [
    # spec of x-env; lines; does an allow rule match; does a deny rule match
    ("prod", [(b"x-env", b"prod")], True, True),
    ("prod", [(b"x-env", b"PROD")], False, False),
    ("prod", [], False, False),
    ("prod", [(b"x-other", b"prod")], False, False),
    ("prod", [(b"x-env", b"prod"), (b"x-env", b"dev")], False, True),  # each line is judged; S21
    ("prod", [(b"x-env", b"dev"), (b"x-env", b"prod")], False, True),
    ("prod", [(b"x-env", b"prod"), (b"x-env", b"prod")], True, True),
    ("prod", [(b"x-env", b"prod, dev")], False, False),  # never split at commas
    ("", [(b"x-env", b"")], True, True),
    ({"exact": "prod"}, [(b"x-env", b"prod")], True, True),
    ({"prefix": "pr"}, [(b"x-env", b"prod")], True, True),
    ({"prefix": "pr"}, [(b"x-env", b"xpr")], False, False),
    ({"prefix": "Bearer "}, [(b"x-env", b"Bearer x")], True, True),
    ({"prefix": "pr"}, [(b"x-env", b"prod"), (b"x-env", b"x")], False, True),
    ({"present": True}, [(b"x-env", b"")], True, True),
    ({"present": True}, [], False, False),
]


@pytest.mark.parametrize(("spec", "lines", "allow", "deny"), HEADERS)
def test_a_header_pattern_judges_every_line(spec: object, lines: Lines, allow: bool, deny: bool) -> None:
    pattern = HeaderPattern.parse("X-Env", spec)
    assert pattern.matches(lines) is allow
    assert pattern.matches_any(lines) is deny
    assert HeaderPattern.parse("x-env", pattern.spec()) == pattern
    assert str(pattern).startswith("x-env ")


@pytest.mark.parametrize(
    ("name", "spec", "complaint"),
    [
        ("x env", "a", "not a header name"),
        (":method", "GET", "not a header name"),
        ("", "a", "not a header name"),
        ("Host", "a", "use `host:`"),
        ("x", {"present": False}, "only be true"),
        ("x", {"present": "yes"}, "only be true"),
        ("x", {"regex": "a"}, "not one of"),
        ("x", {"exact": "a", "prefix": "b"}, "exactly one"),
        ("x", {}, "exactly one"),
        ("x", 5, "quotes"),
        ("x", True, "quotes"),
        ("x", {"prefix": ""}, "present: true"),
        ("x", " a", "never match"),
        ("x", "a ", "never match"),
        ("x", {"prefix": " a"}, "never match"),
        ("x", {"prefix": " "}, "never match"),
        ("x", "a\r\n", "never match"),
        ("x", "a\x00b", "never match"),
        ("x", "\ud800", "never match"),
    ],
)
def test_a_header_pattern_that_cannot_match_is_refused(name: str, spec: object, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        HeaderPattern.parse(name, spec)
