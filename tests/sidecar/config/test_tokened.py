"""Issuers and tokens in the config: each mistake with its place and hint, each warning, and what a reload says."""

from __future__ import annotations

import pytest

from sidecar.config.diff import diff
from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.sentences import needs_http
from sidecar.config.tokened import LONGEST_LEEWAY
from sidecar.policy.jwt import MAX_LEEWAY

MESH = """\
trust_domain: demo.mesh
issuers: {login: {%s}}
services:
  web: {outbound: [{to: orders, listen: "127.0.0.1:9001"}]}
  orders:
    inbound: [{app: "127.0.0.1:8080", protocol: %s, tokens: {%s}}]
    allow: [{from: web}]
"""
LOGIN = "issuer: 'https://login.example.org', audience: orders"


def text(issuer: str = LOGIN, tokens: str = "from: login", protocol: str = "http") -> str:
    return MESH % (issuer, protocol, tokens)


@pytest.mark.parametrize(
    ("issuer", "tokens", "message"),
    [
        ("", "from: login", "tokens are those of an issuer, or JWT-SVIDs"),
        (f"{LOGIN}, trust_domain: demo.mesh", "from: login", "name one of the two: issuer"),
        (LOGIN, "from: logn", 'did you mean "login"?'),
        (LOGIN, "from: []", "is empty"),
        (LOGIN, "required: true", "is required"),
        (f"{LOGIN}, url: 'https://a/k', file: k.json", "from: login", "a key set comes from one place"),
        ("issuer: 'urn:x', audience: a", "from: login", "say where its keys are"),
        ("issuer: 'http://a', audience: a", "from: login", "anybody on the way could give his own keys"),
        (f"{LOGIN}, url: 'http://a/k'", "from: login", "write https://a/k"),
        (f"{LOGIN}, url: 'https://user:pw@a/k'", "from: login", "has a user or a password in it"),
        (f"{LOGIN}, url: 'https://a/k#x'", "from: login", "has a fragment, which is not sent"),
        (f"{LOGIN}, url: 'https://a/k\\x'", "from: login", "is no URL"),
        (f"{LOGIN}, url: 'https://'", "from: login", "is no URL"),
        (f"{LOGIN}, url: 'https://a:port/'", "from: login", "is no URL"),
        (f"{LOGIN}, leeway: 6m", "from: login", "at most 5m"),
        (f"{LOGIN}, algorithms: HS256", "from: login", '"HS256" is not valid'),
        (f"{LOGIN}, algorithms: none", "from: login", '"none" is not valid'),
        (f"{LOGIN}, algorithms: []", "from: login", "is empty"),
        ("trust_domain: demo.mesh, url: 'https://a/k'", "from: login", "a trust domain has no other key set"),
        ("trust_domain: demo.mesh, file: k.json", "from: login", "a trust domain has no other key set"),
        ("trust_domain: demo.mesh, type: at+jwt", "from: login", "no JWT-SVID is of this type"),
        ("issuer: 'a b', file: k, audience: a", "from: login", "is not allowed"),
    ],
)
def test_mistakes(issuer: str, tokens: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as found:
        load_text(text(issuer, tokens))
    assert message in str(found.value)
    assert "pw" not in str(found.value)


def test_one_listener_has_one_issuer_of_a_name() -> None:
    twice = text(f"{LOGIN}}}, again: {{{LOGIN}", "from: [login, again]")
    with pytest.raises(ConfigErrors, match="again and login both mean"):
        load_text(twice)


def test_raw_tcp_has_no_tokens_and_does_not_get_around_them() -> None:
    with pytest.raises(ConfigErrors, match="MESH014"):
        load_text(text(protocol="tcp"))
    orders = load_text(text(protocol="auto")).services["orders"]
    assert needs_http(orders, orders.inbound[0])


@pytest.mark.parametrize(
    ("issuer", "tokens", "codes"),
    [
        (LOGIN, "from: login", []),
        ("issuer: 'https://login.example.org'", "from: login", ["MESH151"]),
        ("issuer: 'https://login.example.org'", "from: login, audience: orders", []),
        (f"{LOGIN}, refresh: 2d", "from: login", ["MESH152"]),
        (f"{LOGIN}, file: k, ca_file: r", "from: login", ["MESH153"]),
        ("trust_domain: demo.mesh, ca_file: r", "from: login", ["MESH153"]),
        ("trust_domain: demo.mesh", "from: login, bound: true", ["MESH154"]),
        (f"{LOGIN}}}, other: {{{LOGIN}", "from: login", ["MESH150"]),
    ],
)
def test_warnings(issuer: str, tokens: str, codes: list[str]) -> None:
    warnings = load_bytes(text(issuer, tokens).encode()).warnings
    assert [each.code for each in warnings if each.code.startswith("MESH15")] == codes


def test_a_service_knows_the_issuers_that_it_asks_for_and_a_reload_says_what_changed() -> None:
    before = load_text(text(f"{LOGIN}}}, other: {{{LOGIN}"))
    after = load_text(text(f"{LOGIN}, refresh: 1h"))
    assert [each.name for each in before.services["orders"].issuers] == ["login"]
    assert before.services["web"].issuers == ()
    assert [str(change) for change in diff(before, after, "orders")] == ["issuers: another value for login"]
    assert diff(before, after, "web") == ()


def test_the_longest_leeway_is_the_verifiers() -> None:
    assert LONGEST_LEEWAY == MAX_LEEWAY
