"""Protocols, PROXY headers and Unix listeners in a config: every mistake at its place, and what can never act."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.terms import Address

HEAD = "trust_domain: demo.mesh\nservices:\n"


def inbound(keys: str, service: str = "allow: [{from: b}]") -> str:
    """A service whose listener has these keys, in line 3, and one that may call it."""
    return f"{HEAD}  a: {{inbound: [{{app: '127.0.0.1:1', {keys}}}], {service}}}\n  b: {{}}\n"


def outbound(keys: str, protocol: str = "http") -> str:
    """A service with one upstream, in line 4, that leads to a listener of this protocol."""
    a = f"{{inbound: [{{app: '127.0.0.1:1', protocol: {protocol}}}], allow: [{{from: b}}]}}"
    return f"{HEAD}  a: {a}\n  b: {{forward_proxy: '127.0.0.1:9', outbound: [{{to: a, {keys}}}]}}\n"


MISTAKES = [
    (inbound("protocol: htpp"), 3, "protocol", '"htpp" is not valid', 'did you mean "http"?'),
    (inbound("protocol: detect"), 3, "protocol", '"detect" is not valid', "one of: http, tcp, auto"),
    (inbound("proxy_protocl: {from: 10.0.0.7/32}"), 3, "proxy_protocl", "unknown key", '"proxy_protocol"?'),
    (inbound("proxy_protocol: {form: 10.0.0.7/32}"), 3, "proxy_protocol.form", "unknown key", 'did you mean "from"?'),
    (inbound("proxy_protocol: {}"), 3, "proxy_protocol.from", "is required", "Networks of the load balancers"),
    (inbound("proxy_protocol: true"), 3, "proxy_protocol", "expected a mapping", "from"),
    (inbound("proxy_protocol: {from: []}"), 3, "proxy_protocol.from", "is empty", ""),
    (inbound("proxy_protocol: {from: 10.0.0.7/8}"), 3, "proxy_protocol.from", "not a network", "mean 10.0.0.0/8?"),
    (inbound("proxy_protocol: {from: lb.example}"), 3, "proxy_protocol.from", "not a network", "10.0.0.0/8"),
    (inbound("protocol: tcp, app_proxy_protocol: 2"), 3, "app_proxy_protocol", '"2" is not valid', "v2"),
    (inbound("protocol: tcp, app_proxy_protocol: V1"), 3, "app_proxy_protocol", '"V1" is not valid', '"v1"'),
    (inbound("app_proxy_protocol: v1"), 3, "app_proxy_protocol", "is http, whose connections", "protocol: tcp"),
    (inbound("protocol: auto, app_proxy_protocol: v2"), 3, "app_proxy_protocol", "is auto, whose", "protocol: tcp"),
    (inbound("protocol: auto", "timeouts: {detect: 0s}, allow: [{from: b}]"), 3, "timeouts.detect", "", "1ms"),
    (outbound("listen: /run/a.sock"), 4, "listen", "not host:port", "did you mean unix:/run/a.sock?"),
    (outbound("listen: 'unix:run/a.sock'"), 4, "listen", "not an absolute path", "unix:/run/app.sock"),
    (outbound(f"listen: 'unix:/{'a' * 107}'"), 4, "listen", "108 bytes", "107 at most"),
    (outbound("listen: 'unix:/run/a.sock', listen_mode: gruop"), 4, "listen_mode", '"gruop"', 'did you mean "group"?'),
    (outbound("listen: 'unix:/run/a.sock', listen_mode: 0777"), 4, "listen_mode", '"0777"', "one of: owner, group"),
    (outbound("protocol: tcp"), 4, "protocol", "speaks http", "remove the key"),
    (outbound("protocol: auto"), 4, "protocol", "speaks http", "remove the key"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "path", "message", "hint"), MISTAKES)
def test_each_mistake_is_told_at_its_place_with_a_way_out(
    text: str, line: int, path: str, message: str, hint: str
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_text(text)
    found = [each for each in caught.value.mistakes if each.path.endswith(path)]
    assert len(found) == len(caught.value.mistakes) == 1, caught.value.mistakes
    assert found[0].where.line == line
    assert message in found[0].message
    assert hint in found[0].hint


TWO = f"{HEAD}  a: {{inbound: [{{app: '127.0.0.1:1'}}], allow: [{{from: b}}]}}\n"


@pytest.mark.parametrize(("others", "message"), [
    ("{to: a, listen: 'unix:/run/a.sock'}, {to: x, unmeshed: passthrough, endpoints: '10.0.0.1:1', "
     "listen: 'unix:/run/a.sock'}", "unix:/run/a.sock is the local listener for a of b already"),
    ("{to: x, unmeshed: passthrough, endpoints: '10.0.0.1:1', listen: 'unix:/run/a.sock'}", ""),
])  # fmt: skip
def test_one_socket_has_one_listener(others: str, message: str) -> None:
    text = f"{TWO}  b: {{outbound: [{others}]}}\n"
    if not message:
        listen = load_text(text).services["b"].outbound[0].listen
        assert listen == Address("unix:/run/a.sock", 0)
        return
    with pytest.raises(ConfigErrors, match=message):
        load_text(text)


def test_an_upstream_speaks_what_its_listener_does_and_may_be_more_definite_than_auto() -> None:
    for said, protocol in (("", "auto"), ("protocol: http", "http"), ("protocol: tcp", "tcp")):
        assert load_text(outbound(said, "auto")).services["b"].outbound[0].protocol == protocol


HTTP_RULE = "allow: [{from: b, path: /a}]"
WARNINGS = [
    (inbound("protocol: auto", HTTP_RULE), "MESH064", "inbound[0].protocol"),
    (inbound("protocol: auto", "allow: [{from: b}], deny: [{from: b, method: PUT}]"), "MESH064", "inbound[0].protocol"),
    (inbound("protocol: auto, routes: [{path: /a}]"), "MESH064", "inbound[0].protocol"),
    (inbound("protocol: auto", "allow: [{from: b}], deny: [{from: b, path: /a, shadow: true}]"), "", ""),
    (inbound("protocol: auto"), "", ""),
    (inbound("protocol: auto", "timeouts: {detect: 1s, tcp_idle: 1h}, allow: [{from: b}]"), "", ""),
    (inbound("protocol: http", "timeouts: {detect: 1s}, allow: [{from: b}]"), "MESH050", "timeouts.detect"),
    (inbound("protocol: tcp, app_http: auto"), "MESH065", "inbound[0].app_http"),
    (inbound("protocol: auto, app_http: http2"), "", ""),
    (outbound("upgrade: h2", "tcp"), "MESH065", "outbound[0].upgrade"),
    (outbound("upgrade: h2", "auto"), "", ""),
    (outbound("listen_mode: group"), "MESH067", "outbound[0].listen_mode"),
    (outbound("listen: '127.0.0.1:5', listen_mode: owner"), "MESH067", "outbound[0].listen_mode"),
    (outbound("listen: 'unix:/run/a.sock', listen_mode: owner"), "", ""),
    (inbound("proxy_protocol: {from: '::/0'}"), "MESH066", "inbound[0].proxy_protocol.from"),
    (inbound("proxy_protocol: {from: [10.0.0.7/32, 0.0.0.0/0]}"), "MESH066", "inbound[0].proxy_protocol.from"),
    (inbound("proxy_protocol: {from: [10.0.0.7/32, 'fd00::/8']}"), "MESH068", "inbound[0].proxy_protocol.from"),
    (inbound("proxy_protocol: {from: [10.0.0.7/32, 127.0.0.0/8]}"), "", ""),
    (inbound("bind: '::1', proxy_protocol: {from: '::1/128'}"), "", ""),
    (inbound("bind: '::', proxy_protocol: {from: 10.0.0.7/32}"), "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "path"), WARNINGS)
def test_what_can_never_act_or_lets_too_many_in_is_told(text: str, code: str, path: str) -> None:
    found = [(each.code, each.path) for each in load_bytes(text.encode()).warnings]
    assert [each for each, _ in found] == ([code] if code else [])
    assert all(where.endswith(path) for _, where in found)
