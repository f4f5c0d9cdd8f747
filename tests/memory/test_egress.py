"""Upstreams outside the mesh: what may be asked of them, a token on every request, and where their names may lead."""

from __future__ import annotations

import json
from typing import Any, cast

from sidecar.errors import HandshakeFailed
from tests.kit import apps
from tests.kit.h1_line import Request
from tests.kit.h2_line import answer_ok, h2_app
from tests.kit.outsiders import MemoryCredentials
from tests.kit.play import Stage, scene

PARTNER = "203.0.113.9:443"
PUBLIC = "93.184.216.34"
TOKEN = ("token: {url: 'https://id.partner.test/token', client_id: us, "
         "secret: {file: /run/secrets/partner}}")  # fmt: skip


def outbound(said: str) -> str:
    """`web` with another upstream, in the place of a mesh.yaml's later `outbound` list."""
    return f'}}\n      - {{to: partner, unmeshed: passthrough, listen: "127.0.0.1:9005", host: api.partner.test, {said}'


def tokened(said: str = "") -> str:
    return outbound(f'endpoints: "127.0.0.1:8443", {TOKEN}{said}')


def get(target: bytes = b"/v1/charges", more: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: api.partner.test\r\n%b\r\n" % (method, target, more)


# ---- what may be asked -------------------------------------------------------------------------------------------


LISTED = 'endpoints: "127.0.0.1:8080", allow: [{method: GET, path: /v1/**}, {method: POST, path: /x}]'


@scene(upstream=outbound(LISTED))
async def test_what_is_not_listed_is_refused_with_the_line_that_would_allow_it(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    table = [(b"GET", b"/v1/a", 200), (b"DELETE", b"/v1/a", 403), (b"GET", b"/v2/a", 403), (b"GET", b"/v1", 403),
             (b"GET", b"/v1/a%2fb", 400), (b"GET", b"/v1/../v2", 400), (b"GET", b"/v1//a", 400),
             (b"GET", b"/v1/;a", 400), (b"POST", b"/x", 200), (b"GET", b"/v1/%61", 200)]  # fmt: skip
    for method, target, status in table:
        more = b"content-length: 0\r\n" if method == b"POST" else b""
        answer = await stage.ask(get(target, more, method), port=9005)
        assert answer.status == status, (method, target)
        if status == 403:
            hint = json.loads(answer.body)["hint"]
            assert f"allow: [{{method: {method.decode()}, path: '{target.decode()}'}}]" in hint
    assert [request.target for request in seen] == [b"/v1/a", b"/x", b"/v1/%61"]  # and those as they were received
    assert {hop.flag for hop in stage.web.books.hops if hop.status == 403} == {"PD"}
    assert stage.web.books.by_express == 0


# ---- a token of ours ---------------------------------------------------------------------------------------------


@scene(upstream=tokened())
async def test_every_request_has_our_token_and_never_the_applications_own(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen), "127.0.0.1:8443")
    line = await stage.call(9005)
    for more in (b"", b"Authorization: Bearer mine\r\n", b"AUTHORIZATION: Basic bWU6bWU=\r\n"):
        await line.say(get(more=more))
        assert (await line.answer()).status == 200
    assert [request.all("authorization") for request in seen] == [[b"Bearer token-1"]] * 3
    assert stage.web.books.by_express == 0


@scene(upstream=tokened())
async def test_without_a_token_nothing_is_asked(stage: Stage) -> None:
    stage.app(apps.always(apps.OK), "127.0.0.1:8443")
    stage.web.outside.credentials("partner", None).tokens.clear()
    answer = await stage.ask(get(more=b"Authorization: Bearer mine\r\n"), port=9005)
    assert (answer.status, answer.get("retry-after")) == (503, b"1")
    hop = stage.web.books.hop
    assert hop.error is not None
    assert (hop.error.name, hop.flag) == ("token_unavailable", "UAEX")
    assert stage.apps == []


def demanding(token: bytes, seen: list[bytes | None], refusal: bytes = b"401 Unauthorized") -> apps.Serve:
    """Answers whoever has this token, and refuses everybody else."""

    def reply(request: Request) -> bytes:
        seen.append(request.get("authorization"))
        if request.get("authorization") == b"Bearer " + token:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body)
        return b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % refusal

    return apps.replying(reply)


def two_tokens(stage: Stage) -> MemoryCredentials:
    credentials = stage.web.outside.credentials("partner", None)
    credentials.tokens.append(b"token-2")
    return credentials


@scene(upstream=tokened())
async def test_a_refused_token_is_replaced_once_and_the_request_sent_again(stage: Stage) -> None:
    seen: list[bytes | None] = []
    stage.app(demanding(b"token-2", seen), "127.0.0.1:8443")
    credentials = two_tokens(stage)
    request = get(more=b"content-length: 5\r\n", method=b"PUT") + b"hello"
    answer = await stage.ask(request, port=9005)
    assert (answer.status, answer.body) == (200, b"hello")
    assert seen == [b"Bearer token-1", b"Bearer token-2"]
    assert credentials.refused == [b"token-1"]
    hop = stage.web.books.hop
    assert (hop.attempts, hop.flag) == (2, "-")
    assert "answered 401 (token_renewed" in hop.tried[0]


@scene(upstream=tokened())
async def test_what_may_not_be_sent_twice_is_not(stage: Stage) -> None:
    seen: list[bytes | None] = []
    stage.app(demanding(b"token-2", seen), "127.0.0.1:8443")
    credentials = two_tokens(stage)
    request = get(more=b"content-length: 5\r\n", method=b"POST") + b"hello"
    assert (await stage.ask(request, "POST", 9005)).status == 401
    assert (seen, credentials.refused) == ([b"Bearer token-1"], [])


@scene(upstream=tokened())
async def test_a_second_refusal_and_one_without_another_token_are_the_applications(stage: Stage) -> None:
    seen: list[bytes | None] = []
    stage.app(demanding(b"token-9", seen), "127.0.0.1:8443")
    credentials = two_tokens(stage)
    assert (await stage.ask(get(), port=9005)).status == 401
    assert seen == [b"Bearer token-1", b"Bearer token-2"]
    assert (await stage.ask(get(), port=9005)).status == 401  # token-2 is refused, and there is no other
    assert len(seen) == 3
    assert credentials.refused == [b"token-1", b"token-2"]


@scene(upstream=tokened())
async def test_other_refusals_are_not_the_tokens_fault(stage: Stage) -> None:
    seen: list[bytes | None] = []
    stage.app(demanding(b"token-2", seen, b"403 Forbidden"), "127.0.0.1:8443")
    two_tokens(stage)
    assert (await stage.ask(get(), port=9005)).status == 403
    assert len(seen) == 1


@scene(upstream=tokened(", routes: [{path: /other, split: [{to: orders.http, weight: 1}]}]"))
async def test_a_route_that_leads_elsewhere_takes_no_token_there(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    stage.app(apps.keeping(seen), "127.0.0.1:8443")
    line = await stage.call(9005)
    for target in (b"/other", b"/v1", b"/other"):
        await line.say(get(target))
        assert (await line.answer()).status == 200
    assert [request.get("authorization") for request in seen] == [None, b"Bearer token-1", None]


@scene(upstream='}\n      - {to: partner, unmeshed: passthrough, endpoints: "127.0.0.1:8443", ' + TOKEN)
async def test_the_forward_proxy_puts_the_token_on_too(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen), "127.0.0.1:8443")
    answer = await stage.ask(b"GET http://partner/a HTTP/1.1\r\nHost: partner\r\n\r\n", port=9000)
    assert answer.status == 200
    assert seen[0].get("authorization") == b"Bearer token-1"


# ---- where names lead --------------------------------------------------------------------------------------------

WILD = '}\n      - {to: partners, unmeshed: passthrough, host: "*.partner.test"%s'


def wild(host: bytes) -> bytes:
    return b"GET http://%b/a HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host)


@scene(upstream=WILD % "")
async def test_each_host_of_a_wildcard_is_looked_up_by_its_own_name(stage: Stage) -> None:
    seen: list[Request] = []
    for number, name in enumerate(("a", "b")):
        stage.port.names[f"{name}.partner.test"] = [[f"93.184.216.{number}"]]
        stage.app(apps.keeping(seen), f"93.184.216.{number}:80")
    line = await stage.call(9000)
    for host in (b"a.partner.test", b"b.partner.test", b"a.partner.test"):
        await line.say(wild(host))
        assert (await line.answer()).status == 200
    assert [request.get("host") for request in seen] == [b"a.partner.test", b"b.partner.test", b"a.partner.test"]
    assert {hop.listener for hop in stage.web.books.hops} == {"partners"}
    for host in (b"partner.test", b"x.y.partner.test", b".partner.test", b"evilpartner.test"):
        answer = await stage.ask(wild(host), port=9000)
        assert answer.status in (400, 403), host


@scene(upstream=WILD % "")
async def test_a_name_that_leads_inside_is_refused(stage: Stage) -> None:
    stage.app(apps.always(apps.OK), "127.0.0.1:80")
    inside = ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
              "::1", "fd00::1", "fe80::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]  # fmt: skip
    for number, address in enumerate(inside):
        host = f"h{number}.partner.test"
        stage.port.names[host] = [[address]]
        answer = await stage.ask(wild(host.encode()), port=9000)
        assert answer.status == 403, address
        assert address.encode() not in answer.body
    errors = [hop.error for hop in stage.web.books.hops]
    assert {error.name for error in errors if error is not None} == {"private_address"}
    assert {hop.flag for hop in stage.web.books.hops} == {"PD"}
    assert stage.apps == []


@scene(upstream=WILD % "")
async def test_a_name_that_leads_to_both_is_asked_outside_alone(stage: Stage) -> None:
    stage.app(apps.always(apps.OK), f"{PUBLIC}:80")
    stage.port.names["a.partner.test"] = [["127.0.0.1", PUBLIC]]
    assert (await stage.ask(wild(b"a.partner.test"), port=9000)).status == 200


@scene(upstream=WILD % "")
async def test_a_name_that_leads_elsewhere_the_next_time_gains_nothing(stage: Stage) -> None:
    """DNS rebinding: what was judged is what is connected to, and each look-up is judged."""
    stage.app(apps.once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"), f"{PUBLIC}:80")
    stage.app(apps.always(apps.OK), "127.0.0.1:80")
    stage.port.names["a.partner.test"] = [[PUBLIC], ["127.0.0.1"]]
    assert (await stage.ask(wild(b"a.partner.test"), port=9000)).status == 200
    assert (await stage.ask(wild(b"a.partner.test"), port=9000)).status == 403
    assert len(stage.apps) == 1


@scene(upstream=WILD % ", private: [10.1.0.0/16]")
async def test_an_entry_lists_its_exceptions(stage: Stage) -> None:
    stage.app(apps.always(apps.OK), "10.1.2.3:80")
    stage.port.names["a.partner.test"] = [["10.1.2.3"]]
    stage.port.names["b.partner.test"] = [["10.2.2.3"]]
    assert (await stage.ask(wild(b"a.partner.test"), port=9000)).status == 200
    assert (await stage.ask(wild(b"b.partner.test"), port=9000)).status == 403


@scene(upstream=WILD % "")
async def test_the_hosts_of_a_wildcard_are_bounded_and_idle_ones_make_room(stage: Stage) -> None:
    for number in range(70):
        stage.port.names[f"h{number}.partner.test"] = [[PUBLIC]]
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    stage.app(apps.once(closing), f"{PUBLIC}:80")
    for number in range(70):
        assert (await stage.ask(wild(b"h%d.partner.test" % number), port=9000)).status == 200
    assert len(stage.web.upstreams) < 70


@scene(upstream=WILD % "")
async def test_connect_to_a_host_of_a_wildcard_is_for_that_host_alone(stage: Stage) -> None:
    seen: list[Request] = []
    stage.port.names["a.partner.test"] = stage.port.names["b.partner.test"] = [[PUBLIC]]
    stage.app(apps.keeping(seen), f"{PUBLIC}:80")
    line = await stage.call(9000)
    await line.say(b"CONNECT a.partner.test:80 HTTP/1.1\r\nHost: a.partner.test\r\n\r\n")
    await line.until(b"\r\n\r\n")
    for host, status in ((b"a.partner.test", 200), (b"b.partner.test", 403)):
        await line.say(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert (await line.answer()).status == status
    assert len(seen) == 1


@scene(upstream=outbound('endpoints: "db.internal:5432"'))
async def test_a_name_of_our_own_network_may_be_private_but_never_a_clouds_metadata(stage: Stage) -> None:
    stage.app(apps.always(apps.OK), "10.1.2.3:5432")
    stage.port.names["db.internal"] = [["10.1.2.3"], ["169.254.169.254"]]
    assert (await stage.ask(get(), port=9005)).status == 200
    stage.apps[0].close()
    await stage.sleep(10.0)
    stage.sweep()
    assert (await stage.ask(get(), port=9005)).status == 403


@scene(upstream=WILD % "")
async def test_a_reload_keeps_the_hosts_of_a_wildcard_and_their_connections(stage: Stage) -> None:
    stage.port.names["a.partner.test"] = [[PUBLIC]]
    stage.app(apps.always(apps.OK), f"{PUBLIC}:80")
    assert (await stage.ask(wild(b"a.partner.test"), port=9000)).status == 200
    stage.reload(web_limits=", requests: 99")
    stage.reload(web_limits=", retries: 99")
    assert (await stage.ask(wild(b"a.partner.test"), port=9000)).status == 200
    assert len([upstream for upstream in stage.web.upstreams if upstream.name == "partners"]) == 1


# ---- which version of HTTP ---------------------------------------------------------------------------------------


class OneVersion:
    """A host of the web that shakes hands for one version of HTTP."""

    def __init__(self, *, h2: bool) -> None:
        self.h2 = h2
        self.offered: list[str] = []

    async def connect(self, port: object, wire: Any, *, http: bool, h2: bool, within: float) -> tuple[Any, None]:
        self.offered.append("h2" if h2 else "http/1.1")
        if h2 != self.h2:
            wire.close()
            raise HandshakeFailed("the host does not speak it", "alpn")
        return wire, None


def speaking(stage: Stage, *, h2: bool) -> OneVersion:
    host = OneVersion(h2=h2)
    upstream = next(each for each in stage.web.upstreams if each.name == "partner")
    assert upstream.outsider is not None
    assert upstream.outsider.way is not None
    object.__setattr__(upstream.outsider.way, "tls", cast(Any, host))
    return host


POST = b"POST /v1/charges HTTP/1.1\r\nHost: api.partner.test\r\nContent-Length: 2\r\n\r\nhi"


@scene(upstream=outbound('endpoints: "127.0.0.1:8080", tls: {}, upgrade: h2'))
async def test_a_host_without_http2_is_asked_by_http1(stage: Stage) -> None:
    host, seen = speaking(stage, h2=False), []  # type: tuple[OneVersion, list[Request]]
    stage.app(apps.keeping(seen))
    line = await stage.call(9005)
    for request in (POST, get(), POST):
        await line.say(request)
        assert (await line.answer()).status == 200
    assert [request.target for request in seen] == [b"/v1/charges"] * 3
    assert host.offered == ["h2", "http/1.1"], "one try of the other version, and one connection"
    await stage.sleep(700)
    stage.sweep()
    assert (await stage.ask(get(), port=9005)).status == 200
    assert host.offered[2:] == ["h2", "http/1.1"], "it is asked again one day"


@scene(upstream=outbound('endpoints: "127.0.0.1:8080", tls: {}'))
async def test_a_host_with_http2_alone_is_asked_by_that(stage: Stage) -> None:
    host = speaking(stage, h2=True)
    stage.app(h2_app(answer_ok))
    for _ in range(3):
        assert (await stage.ask(get(), port=9005)).status == 200
    assert host.offered == ["http/1.1", "h2"]


@scene(upstream=outbound('endpoints: "127.0.0.1:8080", tls: {}, upgrade: h2'))
async def test_a_host_that_speaks_neither_is_asked_for_both_and_no_more(stage: Stage) -> None:
    host = speaking(stage, h2=False)
    stage.app(apps.always(apps.OK))
    host.h2 = cast(Any, None)
    assert (await stage.ask(get(), port=9005)).status == 503
    assert host.offered == ["h2", "http/1.1"]
    assert [hop.flag for hop in stage.web.books.hops] == ["UF"]
