"""Bearer tokens at the inbound hop: who is refused and how, what goes on, and who waits for keys."""

from __future__ import annotations

import hashlib
import json
from functools import partial

from sidecar.config.posture import show_moment
from sidecar.net.memory import EPOCH
from sidecar.policy.jwk import KeySet
from sidecar.proxy.bearer import PATIENCE
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.h2_line import ORDERS_POST, H2Line, answer_ok, h2_app, h2_peer
from tests.kit.h2_wire import data, headers
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene
from tests.kit.tokens import AUDIENCE, ISSUER, Signer, fingerprint_claim, key_set

ISSUERS = f"issuers: {{login: {{issuer: '{ISSUER}', audience: '{AUDIENCE}'}}}}"
TOKENS = ", tokens: {from: login}"
SIGNER = Signer()
guarded = partial(scene, issuers=ISSUERS, http=TOKENS)


def get(token: bytes = b"", *, more: bytes = b"", path: bytes = b"/") -> bytes:
    bearer = b"Authorization: Bearer " + token + b"\r\n" if token else b""
    return b"GET " + path + b" HTTP/1.1\r\nHost: orders\r\n" + bearer + more + b"\r\n"


def good(stage: Stage, **claims: object) -> bytes:
    """A token that is good now, by a key that is at hand."""
    stage.keys.sets["login"] = KeySet.parse(key_set(SIGNER))
    return SIGNER.token(at=stage.port.wall(), **claims)


@guarded()
async def test_a_good_token_names_the_user_and_ends_here(stage: Stage) -> None:
    received: list[Request] = []
    stage.app(apps.keeping(received))
    token = good(stage, scope="read")
    for _ in range(2):
        assert (await stage.ask(get(token, more=b"X-A: 1\r\n"))).status == 200
    for hop in stage.orders.books.hops:
        assert hop.token is not None
        assert (hop.token.issuer, hop.token.subject, hop.token.scopes) == ("login", "user-1", {"read"})
    assert stage.orders.books.by_express == 0
    assert [(each.get("authorization"), each.get("x-a")) for each in received] == [(None, b"1")] * 2


@guarded(http=", tokens: {from: login, forward: true}")
async def test_it_goes_on_where_the_listener_says_so(stage: Stage) -> None:
    received: list[Request] = []
    stage.app(apps.keeping(received))
    token = good(stage)
    assert (await stage.ask(get(token))).status == 200
    assert [each.get("authorization") for each in received] == [b"Bearer " + token]


@guarded()
async def test_without_a_token_there_is_a_challenge_and_no_reason(stage: Stage) -> None:
    peer = await stage.peer()
    await peer.say(get(path=b"/orders?access_token=" + good(stage)))
    answer = await peer.answer()
    hop = stage.orders.books.hop
    assert (answer.status, answer.get("www-authenticate")) == (401, b'Bearer realm="mesh"')
    assert json.loads(answer.body) == {"title": "Unauthorized", "status": 401, "decision": hop.decision_id}
    assert (hop.flag, hop.segments, hop.host, hop.token) == ("PD", ("orders",), "orders", None)


@guarded()
async def test_a_bad_one_is_an_invalid_token_and_the_connection_goes_on(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    token = good(stage)
    peer = await stage.peer()
    bad = (token[:-4] + b"AAAA", SIGNER.token(at=0.0), good(stage, aud="bills"), b"x.y.z", b"a" * 9000)
    for each in bad:
        await peer.say(get(each))
        answer = await peer.answer()
        assert (answer.status, answer.get("www-authenticate")) == (401, b'Bearer realm="mesh", error="invalid_token"')
        assert stage.orders.books.hops[-1].error is not None
    await peer.say(get(token))
    assert (await peer.answer()).status == 200
    assert [getattr(hop.error, "reason", "") for hop in stage.orders.books.hops] == [
        "signature", "expired", "audience", "malformed", "size", "",
    ]  # fmt: skip
    for hop in stage.orders.books.hops[:-1]:
        assert hop.error is not None
        assert token.decode() not in str(hop.error)


@guarded()
async def test_who_may_not_call_may_not_call_with_a_token_either(stage: Stage) -> None:
    mallory = await stage.peer(MALLORY)
    await mallory.say(get(good(stage)))
    assert (await mallory.answer()).status == 403
    assert stage.orders.books.hop.token is not None


@guarded()
async def test_what_can_be_read_two_ways_says_so_first(stage: Stage) -> None:
    peer = await stage.peer()
    await peer.say(get(b"bad", path=b"/a/%2e%2e/b"))
    assert (await peer.answer()).status == 400


@guarded(http=", tokens: {from: login, required: false}")
async def test_where_none_is_needed_other_credentials_pass_untouched(stage: Stage) -> None:
    received: list[Request] = []
    stage.app(apps.keeping(received))
    assert (await stage.ask(get(more=b"Authorization: Basic dTpw\r\n"))).status == 200
    assert [each.get("authorization") for each in received] == [b"Basic dTpw"]
    assert (await stage.ask(get(b"bad"))).status == 401
    assert (await stage.ask(get())).status == 200


@guarded()
async def test_an_unknown_key_is_fetched_once_for_all_who_wait(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    good(stage)
    other = Signer(kid="new")
    peers = [await stage.peer() for _ in range(3)]
    for peer in peers:
        await peer.say(get(other.token(at=stage.port.wall())))
    await stage.quiet()
    assert stage.keys.wanted == ["login"]
    stage.keys.bring("login", key_set(SIGNER, other))
    for peer in peers:
        assert (await peer.answer()).status == 200


@guarded()
async def test_a_key_that_is_not_in_the_new_set_either_does_not_exist(stage: Stage) -> None:
    good(stage)
    peer = await stage.peer()
    await peer.say(get(Signer(kid="new").token(at=stage.port.wall())))
    await stage.quiet()
    stage.keys.bring("login", key_set(SIGNER))
    assert (await peer.answer()).status == 401
    await peer.say(get(Signer(kid="newer").token(at=stage.port.wall())))
    stage.keys.allowed = False
    assert (await peer.answer()).status == 401
    assert stage.keys.wanted == ["login"]


@guarded()
async def test_where_nobody_can_tell_it_is_a_503_and_may_be_tried_again(stage: Stage) -> None:
    peer = await stage.peer()
    token = SIGNER.token(at=stage.port.wall())
    await peer.say(get(token))
    await stage.quiet()
    stage.keys.bring("login", None)
    answer = await peer.answer()
    assert (answer.status, answer.get("retry-after"), answer.get("www-authenticate")) == (503, b"1", None)
    stage.keys.allowed = False
    await peer.say(get(token))
    assert (await peer.answer()).status == 503
    assert stage.orders.books.flags == ["UAEX", "UAEX"]


@guarded()
async def test_nobody_waits_for_keys_for_ever(stage: Stage) -> None:
    peer = await stage.peer()
    began = stage.now
    await peer.say(get(SIGNER.token(at=stage.port.wall())))
    assert (await peer.answer()).status == 503
    assert began + PATIENCE <= stage.now < began + PATIENCE + 1.0


@guarded()
async def test_who_waits_may_look_at_kept_keys_and_then_wait_on(stage: Stage) -> None:
    """The set of the disk comes first; whose key is not in it waits for the fetch behind that."""
    stage.app(apps.always(apps.OK))
    new = Signer(kid="new")
    old, newer = await stage.peer(), await stage.peer()
    await old.say(get(SIGNER.token(at=stage.port.wall())))
    await newer.say(get(new.token(at=stage.port.wall())))
    await stage.quiet()
    first, stage.keys.signal = stage.keys.signal, None
    stage.keys.sets["login"] = KeySet.parse(key_set(SIGNER))
    stage.keys.signal = type(first)() if first is not None else None
    assert first is not None
    first.fire()
    assert (await old.answer()).status == 200
    stage.keys.bring("login", key_set(SIGNER, new))
    assert (await newer.answer()).status == 200


@guarded(http=", tokens: {from: login, bound: true}")
async def test_a_bound_token_is_the_callers_alone(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(get(good(stage)))
    assert (await peer.answer()).status == 401
    await peer.say(get(good(stage, cnf=fingerprint_claim(hashlib.sha256(WEB.text.encode()).hexdigest()))))
    assert (await peer.answer()).status == 200
    await peer.say(get(good(stage, cnf=fingerprint_claim("ab" * 32))))
    assert (await peer.answer()).status == 401


@guarded(http=f", tokens: {{from: login}}, posture: observe, until: '{show_moment(EPOCH + 3600.0)}'")
async def test_to_observe_is_to_refuse_nobody(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(get(b"bad"))).status == 200
    waived = stage.orders.books.hop.waived
    assert waived is not None
    assert (waived.error, waived.flag) == ("token_invalid", "PD")


@guarded()
async def test_a_call_learns_it_in_its_own_language(stage: Stage) -> None:
    stage.app(h2_app(answer_ok))
    fields = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"))

    async def status(*more: tuple[bytes, bytes]) -> bytes:
        peer = await h2_peer(stage, headers(1, (*fields, *more), end=False) + data(1, b"", end=True))
        return (await peer.answer(1)).headers.get(b"grpc-status", b"")

    assert await status() == b"16"
    assert await status((b"authorization", b"Bearer bad")) == b"16"
    assert await status((b"authorization", b"Bearer " + SIGNER.token(at=stage.port.wall()))) == b"14"
    assert [hop.grpc_status for hop in stage.orders.books.hops] == ["UNAUTHENTICATED"] * 2 + ["UNAVAILABLE"]
    assert await status((b"authorization", b"Bearer " + good(stage))) == b""


# ---- what lasts ends with its token ---------------------------------------------------------------------------------

ASK = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LIVES = 300.0 + 60.0  # the token of `good`, and the leeway



async def chat(line: Line) -> None:
    await line.request_head()
    await line.say(AGREED)
    while said := await line.wire.read():
        await line.say(said)


def ticking(stage: Stage, head: bytes, piece: bytes, *, every: float = 30.0, times: int = 30) -> apps.Serve:
    async def serve(line: Line) -> None:
        await line.request_head()
        await line.say(head)
        for _ in range(times):
            await stage.sleep(every)
            await line.say(piece)

    return serve


async def talk(stage: Stage, line: Line, *, until: float) -> None:
    while stage.now < until:
        await line.say(b"ping")
        assert await line.hear(4) == b"ping"
        await stage.sleep(30.0)


def ended_by_token(stage: Stage) -> None:
    hop = stage.orders.books.hop
    assert (hop.flag, hop.error and hop.error.name) == ("PD", "token_ended")
    early = b'mesh_connections_ended_early_total{direction="inbound",reason="token_end"} 1'
    assert early in stage.orders.books.metrics.render()


@guarded()
async def test_a_websocket_ends_with_its_token(stage: Stage) -> None:
    stage.app(chat)
    peer = await stage.peer()
    await peer.say(get(good(stage), more=ASK))
    assert (await peer.answer_head()).status == 101
    await talk(stage, peer, until=LIVES - 5.0)
    assert await peer.is_reset()
    assert stage.now == LIVES
    ended_by_token(stage)


@guarded()
async def test_an_answer_without_a_length_ends_with_its_token(stage: Stage) -> None:
    stage.app(ticking(stage, EVENTS, b"1\r\n.\r\n"))
    peer = await stage.peer()
    await peer.say(get(good(stage)))
    assert (await peer.answer_head()).status == 200
    assert await peer.is_reset()
    assert stage.now == LIVES
    ended_by_token(stage)


@guarded()
async def test_an_answer_with_a_length_comes_to_its_own_end(stage: Stage) -> None:
    stage.app(ticking(stage, b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", b".", times=20))
    peer = await stage.peer()
    await peer.say(get(good(stage)))
    assert (await peer.answer()).body == b"." * 20
    assert stage.now > LIVES
    assert stage.orders.books.hop.error is None


@guarded(http=", tokens: {from: login, streams: stay}")
async def test_where_streams_stay_the_token_s_end_is_none_of_theirs(stage: Stage) -> None:
    stage.app(chat)
    peer = await stage.peer()
    await peer.say(get(good(stage), more=ASK))
    assert (await peer.answer_head()).status == 101
    await talk(stage, peer, until=3 * LIVES)
    peer.close()


@guarded()
async def test_a_token_in_its_leeway_opens_no_stream_that_lasts_longer(stage: Stage) -> None:
    stage.app(chat)
    peer = await stage.peer()
    now = int(stage.port.wall())
    await peer.say(get(good(stage, iat=now - 100, exp=now - 30), more=ASK))
    assert (await peer.answer_head()).status == 101
    assert await peer.is_reset()
    assert stage.now == 30.0
    ended_by_token(stage)


@guarded()
async def test_a_stream_of_http2_ends_with_its_token_and_the_connection_goes_on(stage: Stage) -> None:
    async def endless(line: H2Line, stream: int) -> None:
        if stream != 1:
            await answer_ok(line, stream)
            return
        await line.say(headers(1, ((b":status", b"200"), (b"content-type", b"application/grpc")), end=False))

        async def ticks() -> None:
            for _ in range(11):
                await stage.sleep(30.0)
                await line.say(data(1, b"\0\0\0\0\0", end=False))

        stage.port.spawn(ticks())

    stage.app(h2_app(endless))
    fields = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"))

    def ask(stream: int) -> bytes:
        bearer = (b"authorization", b"Bearer " + good(stage))
        return headers(stream, (*fields, bearer), end=False) + data(stream, b"", end=True)

    peer = await h2_peer(stage, ask(1))
    ended = await peer.answer(1)
    assert stage.now == LIVES
    assert ended.status == 200
    assert ended.reset is not None or ended.headers.get(b"grpc-status") not in (None, b"0")
    ended_by_token(stage)
    await peer.say(ask(3))
    assert (await peer.answer(3)).status == 200


@guarded()
async def test_a_token_anywhere_else_is_no_token(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    token = good(stage)
    form = b"access_token=" + token
    kind = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n" % len(form)
    post = b"POST / HTTP/1.1\r\nHost: orders\r\n" + kind + b"\r\n" + form
    elsewhere = (b"Cookie: access_token=", b"Proxy-Authorization: Bearer ", b"X-Authorization: Bearer ",
                 b"X-Forwarded-Access-Token: ", b"Sec-WebSocket-Protocol: bearer, ")  # fmt: skip
    for request in (post, get(path=b"/?" + form), *(get(more=name + token + b"\r\n") for name in elsewhere)):
        assert (await stage.ask(request)).status == 401
    for twice in (b"Authorization: Bearer " + token, b"Authorization: Basic dTpw", b"authorization: bearer x"):
        assert (await stage.ask(get(token, more=twice + b"\r\n"))).status == 400, "two readers may take two"
    refused = [hop.error.name for hop in stage.orders.books.hops if hop.status == 401 and hop.error is not None]
    assert refused == ["token_missing"] * 7
