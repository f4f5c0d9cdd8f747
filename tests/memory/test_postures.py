"""Postures on the wire (decision D12): whom a listener that is not strict lets in, what that leaves behind, its end."""

from __future__ import annotations

import pytest

from sidecar.config.posture import show_moment
from sidecar.net.memory import EPOCH
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.hops import MALLORY, ORDERS, WEB
from tests.kit.play import Stage, scene

LASTS = 3600.0  # seconds
UNTIL = f"until: '{show_moment(EPOCH + LASTS)}'"
PERMISSIVE = f", posture: permissive, {UNTIL}"
OBSERVE = f", posture: observe, {UNTIL}"
NOBODY = """
    deny:
      - {name: no-secrets, from: "**", path: /secrets/**, port: http}
      - {name: not-web, from: web, path: /no, port: http}
"""
GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TCP_APP = "127.0.0.1:5432"


def get(path: str, *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: orders", *lines, "")).encode()


async def echo(line: Line) -> None:
    while data := await line.wire.read():
        await line.say(data)


def metric(stage: Stage, name: str) -> list[str]:
    """The lines of a metric of the sidecar of orders, without its name and zeros."""
    lines = stage.orders.books.metrics.render().decode().splitlines()
    found = [line.removeprefix(name) for line in lines if line.startswith(name + "{")]
    return [line for line in found if not line.endswith(" 0")]


# ---- strict --------------------------------------------------------------------------------------------------------


@scene()
async def test_a_strict_listener_lets_no_plaintext_in(stage: Stage) -> None:
    stage.app(apps.always(OK))
    stranger = await stage.stranger()
    await stranger.say(GET)
    assert await stranger.is_reset()
    assert stage.orders.books.hops == []
    assert [shake.reason for shake in stage.orders.books.handshakes] == ["plaintext"]
    assert metric(stage, "mesh_posture") == [
        '{listener="http",posture="strict"} 1', '{listener="raw",posture="strict"} 1'
    ]  # fmt: skip


# ---- permissive ----------------------------------------------------------------------------------------------------


@scene(http=PERMISSIVE)
async def test_a_caller_without_tls_is_let_in_judged_and_counted(stage: Stage) -> None:
    stage.app(apps.always(OK))
    stranger = await stage.stranger()
    for _ in range(2):
        await stranger.say(GET)
        assert (await stranger.answer()).status == 200
    hop, other = stage.orders.books.hops
    assert (hop.peer, hop.tls, hop.error, hop.flag, hop.route) == (None, None, None, "-", "")
    assert hop.rule == "posture:permissive"
    assert hop.waived is not None
    assert (hop.waived.error, hop.waived.flag, hop.waived.reason) == ("identity_refused", "ID", "plaintext")
    assert hop.decision_id not in ("", other.decision_id)
    assert stage.orders.books.handshakes == []
    labels = 'listener="http",posture="permissive",source="-",rule="-",flag="ID",error="identity_refused"'
    assert metric(stage, "mesh_posture_would_refuse_total") == [f"{{{labels}}} 2"]
    assert metric(stage, "mesh_posture_until_seconds") == [
        f'{{listener="http",posture="permissive"}} {EPOCH + LASTS}'
    ]  # fmt: skip
    assert metric(stage, "mesh_refusals_total") == []
    assert stage.orders.books.metrics.would_refuse == {"http": 2}


@scene(http=PERMISSIVE)
async def test_who_speaks_mtls_is_judged_as_ever(stage: Stage) -> None:
    stage.app(apps.always(OK))
    for who, status in ((WEB, 200), (MALLORY, 403)):
        peer = await stage.peer(who)
        await peer.say(GET)
        assert (await peer.answer()).status == status
    assert [hop.rule for hop in stage.orders.books.hops] == ["web-may", ""]
    assert [hop.waived for hop in stage.orders.books.hops] == [None, None]
    assert stage.orders.books.metrics.would_refuse == {}


@scene(http=PERMISSIVE, raw=PERMISSIVE)
async def test_a_bad_certificate_is_not_let_in_as_nobody(stage: Stage) -> None:
    stage.app(apps.always(OK))
    stage.gates[ORDERS].refuses[MALLORY] = "expired"
    for port in (17443, 17444):
        peer = await stage.peer(MALLORY, port)
        assert await peer.is_reset()
    assert [shake.reason for shake in stage.orders.books.handshakes] == ["expired", "expired"]
    assert stage.orders.books.hops == []


FORGED = [
    "x-forwarded-client-cert: URI=spiffe://demo.mesh/ns/default/sa/admin",
    "X-Forwarded-Client-Cert: By=a;URI=b",
    "x_forwarded_client_cert: URI=spiffe://demo.mesh/ns/default/sa/admin",
    "x-forwarded_client-cert: a",
    "mesh-via: 0123abcd",
    "mesh-decision-id: 0123abcd-1",
    "mesh-anything: a",
    "mesh_anything: a",
]


@scene(http=f"{PERMISSIVE}, xfcc_forwarders: '**'")
async def test_a_caller_without_tls_says_nothing_that_only_the_mesh_may_say(stage: Stage) -> None:
    got = []

    async def app(line: Line) -> None:
        got.append(await line.request())
        await line.say(OK)

    stage.app(app)
    stranger = await stage.stranger()
    await stranger.say(get("/", *FORGED, "x-plain: kept"))
    assert (await stranger.answer()).status == 200
    (request,) = got
    names = [name.replace(b"_", b"-") for name, _ in request.headers]
    assert b"x-forwarded-client-cert" not in names  # not theirs, and there is nobody whom ours could name
    assert [name for name in names if name.startswith(b"mesh-")] == [b"mesh-via"]
    assert request.get("mesh-via") == stage.orders.books.instance.encode()  # ours alone
    assert request.get("x-plain") == b"kept"
    assert stage.orders.books.hop.peer is None


@scene(http=PERMISSIVE, orders=NOBODY)
async def test_what_is_forbidden_to_everybody_is_forbidden_without_tls_too(stage: Stage) -> None:
    stage.app(apps.always(OK))
    stranger = await stage.stranger()
    await stranger.say(get("/secrets/1"))
    answer = await stranger.answer()
    assert answer.status == 403
    assert answer.get("mesh-decision-id") is None  # that is for verified peers (decision D7)
    assert b"decision" not in answer.body
    await stranger.say(get("/no"))  # a deny rule that names its callers does not mean whoever names none
    assert (await stranger.answer()).status == 200
    refused, passed = stage.orders.books.hops
    assert (refused.rule, refused.flag, refused.waived) == ("no-secrets", "PD", None)
    assert passed.waived is not None


@scene(http=PERMISSIVE)
async def test_plaintext_is_read_as_strictly_as_anything(stage: Stage) -> None:
    stage.app(apps.always(OK))
    for request, status in (
        (get("/a/../b"), 400),
        (b"\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n", 501),
        (get("/"), 200),
    ):
        stranger = await stage.stranger()
        await stranger.say(request)
        assert (await stranger.answer()).status == status


@scene(http=PERMISSIVE)
async def test_a_silent_caller_has_the_handshake_time_and_no_more(stage: Stage) -> None:
    silent = await stage.stranger()
    assert await silent.is_closed()
    assert stage.now == 5.0
    assert [shake.reason for shake in stage.orders.books.handshakes] == ["handshake_timeout"]
    assert stage.orders.books.hops == []


@scene(http=PERMISSIVE)
async def test_a_caller_that_leaves_without_a_byte_costs_nothing(stage: Stage) -> None:
    for end in ("close", "abort"):
        stranger = await stage.stranger()
        getattr(stranger, end)()
        await stage.quiet()
    assert stage.orders.books.hops == []
    assert [shake.reason for shake in stage.orders.books.handshakes] == ["reset", "reset"]


@scene(http=PERMISSIVE, orders_limits=", connections: 8, connections_per_peer: 2")
async def test_all_without_identity_share_the_places_of_one(stage: Stage) -> None:
    stage.app(apps.always(OK))
    lines = [await stage.stranger() for _ in range(3)]
    for line in lines:
        await line.say(GET)
    assert [(await line.answer()).status for line in lines[:2]] == [200, 200]
    assert await lines[2].is_reset()
    peer = await stage.peer(WEB)
    await peer.say(GET)
    assert (await peer.answer()).status == 200


@scene(raw=PERMISSIVE)
async def test_raw_bytes_without_tls(stage: Stage) -> None:
    stage.app(echo, TCP_APP)
    stranger = await stage.stranger(17444)
    await stranger.say(b"hello")
    assert await stranger.hear(5) == b"hello"
    stranger.close()
    await stage.quiet()
    hop = stage.orders.books.hop
    assert (hop.protocol, hop.peer, hop.rule, hop.error) == ("tcp", None, "posture:permissive", None)
    assert hop.waived is not None
    assert (hop.waived.flag, hop.waived.error) == ("ID", "identity_refused")


# ---- observe -------------------------------------------------------------------------------------------------------


@scene(http=OBSERVE, raw=OBSERVE, orders=NOBODY)
async def test_rules_are_judged_and_counted_and_refuse_nobody(stage: Stage) -> None:
    stage.app(apps.always(OK))
    stage.app(echo, TCP_APP)
    for who, path, status in ((WEB, "/", 200), (WEB, "/no", 200), (MALLORY, "/", 200), (MALLORY, "/secrets/1", 200)):
        peer = await stage.peer(who)
        await peer.say(get(path))
        assert (await peer.answer()).status == status
        peer.close()
    raw = await stage.peer(MALLORY, 17444)
    await raw.say(b"hi")
    assert await raw.hear(2) == b"hi"
    raw.close()
    await stage.quiet()
    seen = [
        (hop.rule, hop.flag, hop.waived and (hop.waived.flag, hop.waived.error, hop.waived.rule))
        for hop in stage.orders.books.hops
    ]
    assert seen == [
        ("web-may", "-", None),
        ("posture:observe", "-", ("PD", "policy_denied", "not-web")),
        ("posture:observe", "-", ("PD", "policy_denied", "")),
        ("posture:observe", "-", ("PD", "policy_denied", "no-secrets")),
        ("posture:observe", "-", ("PD", "policy_denied", "")),
    ]
    assert stage.orders.books.metrics.would_refuse == {"http": 3, "raw": 1}
    assert metric(stage, "mesh_refusals_total") == []
    labels = f'listener="http",posture="observe",source="{MALLORY}",rule="no-secrets",flag="PD",error="policy_denied"'
    assert f"{{{labels}}} 1" in metric(stage, "mesh_posture_would_refuse_total")


@scene(http=OBSERVE)
async def test_observing_is_no_reason_to_let_plaintext_in(stage: Stage) -> None:
    stranger = await stage.stranger()
    await stranger.say(GET)
    assert await stranger.is_reset()
    assert [shake.reason for shake in stage.orders.books.handshakes] == ["plaintext"]
    assert stage.orders.books.hops == []


@scene(http=f"{OBSERVE}, routes: [{{path: /up, max_body: 1B}}]")
async def test_what_is_not_a_rule_is_in_force_while_rules_are_observed(stage: Stage) -> None:
    stage.app(apps.always(OK))
    peer = await stage.peer(MALLORY)
    await peer.say(b"POST /up HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nab")
    assert (await peer.answer()).status == 413
    await peer.say(get("/a%2fb"))
    assert (await peer.answer()).status == 400


# ---- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("http", "who"), [(PERMISSIVE, None), (OBSERVE, MALLORY)])
def test_at_the_end_the_very_next_request_is_refused(http: str, who: object) -> None:
    """Nothing was reloaded and nothing swept; a connection from before gets nothing, and a new one neither."""

    @scene(http=http)
    async def story(stage: Stage) -> None:
        stage.app(apps.always(OK))
        before = await (stage.stranger() if who is None else stage.peer(MALLORY))
        late = [await (stage.stranger() if who is None else stage.peer(MALLORY)) for _ in range(1)]
        while stage.now < LASTS - 100.0:
            await before.say(GET)
            assert (await before.answer()).status == 200
            await stage.sleep(100.0)
        await stage.sleep(LASTS - 0.001 - stage.now)
        await before.say(GET)
        assert (await before.answer()).status == 200
        await stage.sleep(0.001)
        assert stage.now == LASTS
        await before.say(GET)
        answer = await before.answer()
        assert answer.status == 403
        hop = stage.orders.books.hops[-1]
        if who is None:
            assert answer.get("connection") == b"close"
            assert answer.get("mesh-decision-id") is None
            assert (hop.flag, hop.error and hop.error.name) == ("ID", "identity_refused")
            assert await late[0].is_closed()  # it had said nothing
            stranger = await stage.stranger()
            await stranger.say(GET)
            assert await stranger.is_reset()
        else:
            assert (hop.flag, hop.error and hop.error.name, hop.rule) == ("PD", "policy_denied", "")
            peer = await stage.peer(MALLORY)
            await peer.say(GET)
            assert (await peer.answer()).status == 403
        assert hop.waived is None
        assert '{listener="http",posture="strict"} 1' in metric(stage, "mesh_posture")
        assert metric(stage, "mesh_posture_until_seconds") == []

    story()


@pytest.mark.parametrize(("raw", "who", "flag"), [(PERMISSIVE, None, "ID"), (OBSERVE, MALLORY, "PD")])
def test_raw_connections_are_cut_when_the_posture_has_ended(raw: str, who: object, flag: str) -> None:
    @scene(raw=raw)
    async def story(stage: Stage) -> None:
        stage.app(echo, TCP_APP)
        line = await (stage.stranger(17444) if who is None else stage.peer(MALLORY, 17444))
        web = await stage.peer(WEB, 17444)
        for each in (line, web):
            await each.say(b"hi")
            assert await each.hear(2) == b"hi"
        while stage.now < LASTS - 1.0:
            await stage.sleep(1000.0 if stage.now + 1000.0 < LASTS - 1.0 else LASTS - 1.0 - stage.now)
            stage.sweep()
            await line.say(b"hi")
            await web.say(b"hi")
            assert await line.hear(2) == b"hi"
            assert await web.hear(2) == b"hi"
        await stage.sleep(1.0)
        stage.sweep()
        assert await line.is_reset()
        hop = stage.orders.books.hop
        assert hop.error is not None
        assert (hop.flag, hop.error.midway) == (flag, "identity" if who is None else "policy")
        await web.say(b"hi")  # whom a rule allows is not touched
        assert await web.hear(2) == b"hi"
        web.close()

    story()


@scene(http=PERMISSIVE)
async def test_an_answer_without_end_ends_with_the_posture_that_let_it_in(stage: Stage) -> None:
    async def for_ever(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await line.say(b"5\r\nevent\r\n")
            await stage.sleep(60.0)

    stage.app(for_ever)
    stranger = await stage.stranger()
    await stranger.say(GET)
    assert await stranger.is_reset()
    assert stage.now == pytest.approx(LASTS)
    hop = stage.orders.books.hop
    assert (hop.status, hop.flag, hop.error and hop.error.midway) == (200, "PD", "policy")


@scene(http=PERMISSIVE)
async def test_an_answer_with_a_length_comes_to_its_end(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await stage.sleep(20.0)
        await line.say(b"cd")

    stage.app(slow)
    await stage.sleep(LASTS - 10.0)
    stranger = await stage.stranger()
    await stranger.say(GET)
    assert (await stranger.answer()).body == b"abcd"
    await stranger.say(GET)
    assert (await stranger.answer()).status == 403


@scene(http=PERMISSIVE)
async def test_a_clock_that_is_set_back_far_makes_the_listener_strict(stage: Stage) -> None:
    stage.app(apps.always(OK))
    line = await stage.stranger()
    await line.say(GET)
    assert (await line.answer()).status == 200
    stage.port.clock.jump(-20 * 86400.0)
    await line.say(GET)
    assert (await line.answer()).status == 403
