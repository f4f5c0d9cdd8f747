"""Upstreams outside the mesh, and OPA: what contradicts itself is refused with its place."""

from __future__ import annotations

import pytest

from sidecar.config.diff import diff
from sidecar.config.load import load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema import MeshConfig

OUT = "to: partner, unmeshed: passthrough, listen: '127.0.0.1:9001', endpoints: 'api.partner.test:443'"
TOKEN = "token: {url: 'https://id.partner.test/token', client_id: us, secret: {file: /s}}"
WILD = "to: partner, unmeshed: passthrough, host: '*.partner.test'"


def loaded(outbound: str, more: str = "forward_proxy: 127.0.0.1:9000") -> MeshConfig:
    text = f"trust_domain: demo.mesh\nservices:\n  web:\n    outbound: [{{{outbound}}}]\n    {more}\n"
    return load_text(text, now=1.7e9)


@pytest.mark.parametrize("outbound", [
    OUT, f"{OUT}, tls: {{}}", f"{OUT}, tls: {{}}, {TOKEN}", WILD, f"{WILD}, tls: {{}}, {TOKEN}, host_port: 8443",
    f"{OUT}, private: []", f"{OUT}, private: 10.0.0.0/8", f"{OUT}, allow: [{{method: GET}}]",
    f"to: partner, unmeshed: passthrough, endpoints: '127.0.0.1:9', {TOKEN}",
    f"{OUT}, protocol: tcp, tls: {{}}",
])  # fmt: skip
def test_what_can_be_said(outbound: str) -> None:
    loaded(outbound)


MESHED = "to: partner, identity: partner, endpoints: '10.0.0.1:17443'"


@pytest.mark.parametrize(("outbound", "key", "words"), [
    (f"{MESHED}, tls: {{}}", "tls", "hosts outside the mesh"),
    (f"{MESHED}, {TOKEN}", "token", "hosts outside the mesh"),
    (f"{MESHED}, private: [10.0.0.0/8]", "private", "hosts outside the mesh"),
    (f"{MESHED}, host: '*.partner.test'", "host", "many hosts"),
    (f"{OUT}, {TOKEN}", "token", "in the clear"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('https', 'http')}", "token.url", "in the clear"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('file: /s', '')}", "token.secret", "one place"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('file: /s', 'file: /s, command: cat')}", "token.secret", "one place"),
    (f"{OUT}, protocol: tcp, tls: {{}}, {TOKEN}", "token", "no header"),
    (f"{OUT}, protocol: auto, tls: {{}}", "protocol", "one protocol"),
    (f"{OUT}, protocol: auto, allow: [{{method: GET}}]", "allow", "no methods and paths"),
    (f"{OUT}, tls: {{certificate: a.pem}}", "tls", "needs its key"),
    (f"{OUT}, tls: {{key: a.pem}}", "tls", "needs its key"),
    (f"{OUT}, tls: {{pins: [abc]}}", "tls.pins[0]", "not allowed"),
    (f"{OUT}, allow: []", "allow", "is empty"),
    (f"{OUT}, host_port: 443", "host_port", "host *. alone"),
    ("to: db, unmeshed: passthrough, endpoints: 'unix:/run/x.sock', tls: {}", "tls", "Unix socket"),
    (f"{WILD}, listen: '127.0.0.1:9001'", "listen", "one host"),
    (f"{WILD}, endpoints: '10.0.0.1:80'", "endpoints", "its own name"),
    (f"{WILD}, protocol: tcp", "protocol", "only HTTP"),
    (f"{WILD}, tls: {{name: api.partner.test}}", "tls.name", "its own name"),
    (f"{WILD}, routes: [{{path: /, split: [{{to: partner, weight: 1}}]}}]", "routes", "many hosts"),
    ("to: partner, unmeshed: passthrough, host: '*.test'", "host", "one label"),
    ("to: partner, unmeshed: passthrough, host: '*'", "host", "neither"),
    ("to: partner, unmeshed: passthrough, host: 'a.*.test'", "host", "neither"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('https://', 'https://us:pw@')}", "token.url", "has a user or a password"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('/token', '/token?a=b')}", "token.url", "a query"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('https', 'ftp')}", "token.url", "no URL"),
    (f"{OUT}, tls: {{}}, {TOKEN.replace('}}', '}, scopes: [a b]}')}", "token.scopes[0]", "not allowed"),
])  # fmt: skip
def test_what_cannot_be_meant(outbound: str, key: str, words: str) -> None:
    with pytest.raises(ConfigErrors) as raised:
        loaded(outbound)
    found = [(each.path, each.message) for each in raised.value.mistakes]
    here = [message for path, message in found if path.startswith(f"services.web.outbound[0].{key}")]
    assert here, found
    assert any(words in message for message in here), found
    assert "pw" not in str(raised.value)


def test_only_the_forward_proxy_tells_hosts_apart() -> None:
    with pytest.raises(ConfigErrors, match="only the forward proxy"):
        loaded(WILD, "address: 10.0.0.1")


def test_credentials_are_no_headers_for_opa() -> None:
    text = (
        "trust_domain: demo.mesh\nservices:\n  orders:\n    inbound: [{app: '127.0.0.1:8080'}]\n"
        "    allow: [{from: web}]\n    opa: {url: 'http://127.0.0.1:8181', headers: [x-team, Authorization]}\n"
    )
    with pytest.raises(ConfigErrors, match="is a credential"):
        load_text(text, now=1.7e9)


PARTNER = """\
trust_domain: demo.mesh
services:
  web:
    outbound:
      - {to: partner, unmeshed: passthrough, endpoints: "api.partner.test:443", tls: {%s}, allow: [%s]}
    inbound: [{app: "127.0.0.1:8080"}]
    allow: [{from: web}]
    opa: {url: "http://127.0.0.1:8181", for: [%s]}
"""


def test_what_a_reload_says_it_changes() -> None:
    before = load_text(PARTNER % ("", "{method: GET}", "{method: POST, path: /orders/**}"), now=1.7e9)
    after = load_text(PARTNER % ("roots: /x", "{method: GET, path: /a}", "{path: /x}"), now=1.7e9)
    assert [str(change) for change in diff(before, after, "web")] == [
        "web.outbound.partner.tls.roots: system → /x",
        "web.outbound.partner.allow: - request GET",
        "web.outbound.partner.allow: + request GET /a {method: [GET], path: [/a]}",
        "web.opa.for: - request POST /orders/**",
        "web.opa.for: + request /x {path: [/x]}",
    ]
    assert diff(before, before, "web") == ()
