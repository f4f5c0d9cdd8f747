"""The CA over real TLS on loopback: what it shows, answers, refuses, and tells on a watch."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ca.bucket import Bucket
from ca.config import CaSettings, ServeConfig
from ca.create import create_ca
from ca.errors import BadRequest, IssuerUnusable
from ca.roots import renew_issuer, slot_of
from ca.rotating import RenewOrder
from ca.server import open_server
from ca.signers import make_root
from ca.store.base import Ack
from ca.watch import Watch, Watcher
from certs.bundle import TrustBundle, root_hash
from certs.csr import make_csr
from certs.keys import new_key
from certs.source import Source
from certs.spiffe import ca_id
from certs.svid import X509Svid
from certs.verify import verify_chain, verify_pinned
from sidecar.net.http_client import Answer, Duplex
from sidecar.net.tls_stream import TlsStream
from tests.ca.desk import CSR, PASS, Desk, at_the_desk
from tests.ca.office import DEMO, HandClock, an_issuer, open_office

# ---- what it shows -----------------------------------------------------------------------------------------------


@at_the_desk
async def test_it_shows_its_own_svid_with_the_root_for_a_first_contact(desk: Desk) -> None:
    async with desk.connect() as client:
        assert isinstance(client.stream, TlsStream)
        chain = client.stream.peer_chain()
        facts = client.stream.facts()
    assert len(chain) == 3
    assert (facts.version, facts.group) == ("TLSv1.3", "X25519MLKEM768")
    assert verify_chain(chain, desk.server.bundles.current, desk.clock.now) == ca_id(DEMO)
    assert verify_pinned(chain, {root_hash(desk.roots[0])}, DEMO, desk.clock.now) == ca_id(DEMO)


@at_the_desk
async def test_time_bundle_and_health_are_for_everyone(desk: Desk) -> None:
    assert (await desk.get("/v1/time")).json() == {"now": desk.clock.now}
    answer = await desk.get("/v1/bundle")
    assert answer.header(b"content-type") == b"application/json"
    assert TrustBundle.parse_jwks(DEMO, answer.body).roots == desk.roots
    assert answer.json()["spiffe_sequence"] == 1
    assert answer.json()["spiffe_refresh_hint"] == 300
    health = await desk.get("/v1/health")
    assert (health.status, health.json()["ready"], health.json()["warnings"]) == (200, True, [])


@at_the_desk
async def test_enrol_then_renew_over_mtls(desk: Desk) -> None:
    entry = desk.entry()
    svid = await desk.svid(entry)
    assert svid.spiffe_id == entry.spiffe_id
    key = new_key()
    answer = await desk.post("/v1/renew", {"csr": base64.b64encode(make_csr(key)).decode()}, svid)
    document = answer.json()
    assert answer.status == 200
    assert document["entry"] == entry.id
    assert document["spiffe_id"] == entry.spiffe_id.text
    assert document["now"] == desk.clock.now
    assert TrustBundle.parse_jwks(DEMO, json.dumps(document["bundle"]).encode()).roots == desk.roots
    renewed = X509Svid.parse(document["svid"].encode(), key)
    assert verify_chain(renewed.chain, desk.server.bundles.current, desk.clock.now) == entry.spiffe_id
    assert len(renewed.chain) == 2


@at_the_desk
async def test_a_challenge_is_answered_once(desk: Desk) -> None:
    entry = desk.entry()
    key = desk.key(entry)
    challenge = (await desk.post("/v1/challenge", {"entry": entry.id})).json()
    assert challenge["expires_at"] == desk.clock.now + 60
    signature = base64.b64encode(key.sign(DEMO, entry.id, challenge["nonce"], base64.b64decode(CSR))).decode()
    proof = {"type": "enrolment_key", "entry": entry.id, "nonce": challenge["nonce"], "signature": signature}
    assert (await desk.post("/v1/enrol", {"csr": CSR, "proof": proof})).status == 200
    again = await desk.post("/v1/enrol", {"csr": CSR, "proof": proof})
    assert (again.status, again.json()["error"]) == (401, "proof_refused")
    stranger = await desk.post("/v1/challenge", {"entry": "nobody-1"})
    assert stranger.status == 200  # whether an entry exists is nobody's business


# ---- what it refuses ---------------------------------------------------------------------------------------------


@at_the_desk
async def test_refusals_have_a_status_a_name_and_a_detail_without_secrets(desk: Desk) -> None:
    entry = desk.entry()
    used, unknown = desk.token(entry), {**desk.token(entry), "token": "x" * 43}
    assert (await desk.post("/v1/enrol", {"csr": CSR, "proof": used})).status == 200
    svid = await desk.svid(entry)
    desk.server.store.store.remove_entry(desk.entry("web").id, desk.clock.now)
    table: list[tuple[str, Any, X509Svid | None, int, str]] = [
        ("/v1/enrol", {"csr": CSR, "proof": used}, None, 409, "token_used"),
        ("/v1/enrol", {"csr": CSR, "proof": unknown}, None, 401, "proof_refused"),
        ("/v1/enrol", {"csr": "AAAA", "proof": unknown}, None, 400, "invalid_csr"),
        ("/v1/enrol", {"csr": "!", "proof": unknown}, None, 400, "bad_request"),
        ("/v1/enrol", {"csr": "A" * 40_000, "proof": unknown}, None, 400, "bad_request"),
        ("/v1/enrol", {"csr": CSR}, None, 400, "bad_request"),
        ("/v1/enrol", {"proof": used}, None, 400, "bad_request"),
        ("/v1/enrol", b"not json", None, 400, "bad_json"),
        ("/v1/enrol", [], None, 400, "bad_json"),
        ("/v1/challenge", {"entry": "a/b"}, None, 400, "invalid_enrolment"),
        ("/v1/challenge", {"entry": 1}, None, 400, "bad_request"),
        ("/v1/renew", {"csr": CSR}, None, 401, "client_certificate_needed"),
        ("/v1/renew", {"csr": 1}, svid, 400, "bad_request"),
        ("/v1/time", {}, None, 405, "method_not_allowed"),
        ("/v2/enrol", {}, None, 404, "not_found"),
        ("/v1/enrol/", {}, None, 404, "not_found"),
    ]
    for path, document, shown, status, name in table:
        answer = await desk.post(path, document, shown)
        assert (answer.status, answer.json()["error"]) == (status, name), (path, document)
        assert answer.json()["detail"]
        assert used["token"] not in answer.body.decode()
    lines = len(desk.server.store.store.issuances(1000))
    desk.server.store.store.remove_entry(entry.id, desk.clock.now)
    answer = await desk.post("/v1/renew", {"csr": CSR}, svid)
    assert (answer.status, answer.json()["error"]) == (403, "renewal_refused")
    assert len(desk.server.store.store.issuances(1000)) == lines


@at_the_desk
async def test_over_the_bucket_it_is_429_with_retry_after(desk: Desk) -> None:
    entry = desk.entry()
    svid = await desk.svid(entry)
    desk.server.authority._bucket = Bucket(rate=0.5, burst=1)
    assert (await desk.post("/v1/renew", {"csr": CSR}, svid)).status == 200
    answer = await desk.post("/v1/renew", {"csr": CSR}, svid)
    assert (answer.status, answer.json()["error"]) == (429, "too_many_issuances")
    assert answer.header(b"retry-after") == b"2"


@at_the_desk
async def test_a_client_certificate_that_does_not_hold_ends_the_connection(desk: Desk) -> None:
    office = open_office(an_issuer(time.time()))
    office.clock.now = time.time()
    key = new_key()
    csr = make_csr(key)
    entry = office.entry()
    issued = await office.authority.enrol(csr, office.answer(entry.id, office.key(entry), csr))
    stranger = X509Svid.parse(issued.chain_pem, key)
    with pytest.raises(trio.BrokenResourceError):
        await desk.post("/v1/renew", {"csr": CSR}, stranger)
    assert (await desk.get("/v1/time")).status == 200


@at_the_desk
async def test_a_certificate_that_expires_on_an_open_connection_renews_nothing(desk: Desk) -> None:
    svid = await desk.svid(desk.entry())
    async with desk.connect(svid) as client:
        body = json.dumps({"csr": CSR}).encode()
        assert (await client.request("POST", "/v1/renew", body)).status == 200
        desk.clock.now = svid.not_after + 1
        answer = await client.request("POST", "/v1/renew", body)
        assert answer.status == 403
        assert "expired" in answer.json()["detail"]


@at_the_desk(connections=1)
async def test_connections_are_bounded(desk: Desk) -> None:
    async with desk.connect() as client:
        with pytest.raises(trio.BrokenResourceError):
            await desk.get("/v1/time")
        assert (await client.request("GET", "/v1/time")).status == 200


# ---- the watch ---------------------------------------------------------------------------------------------------


class Lines:
    """What the CA says on a watch, line by line."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._buffer = b""

    async def next(self) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            piece = await self._duplex.receive()
            if piece is None:
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    async def another(self, topic: str) -> dict[str, Any]:
        while (line := await self.next()) is not None:
            if line["topic"] == topic:
                return line
        raise AssertionError("the watch ended")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


@at_the_desk(bundle_poll=0.05, watch_beat=0.2)
async def test_a_watch_tells_bundle_and_time_at_once_and_each_change_and_keeps_acks(desk: Desk) -> None:
    svid, store = await desk.svid(desk.entry()), desk.server.store.store
    async with desk.connect(svid) as client:
        duplex = await client.duplex("POST", "/v1/watch")
        assert isinstance(duplex, Duplex)
        lines = Lines(duplex)
        second, first, denied, others = [await lines.next() for _ in range(4)]
        assert others == {"topic": "federation", "sequence": 1, "bundles": {}}
        assert first is not None
        assert denied is not None
        assert (denied["topic"], denied["sequence"]) == ("denylist", 1)
        assert (first["topic"], first["sequence"]) == ("bundle", 1)
        assert TrustBundle.parse_jwks(DEMO, json.dumps(first["bundle"]).encode()).roots == desk.roots
        assert second == {"topic": "time", "sequence": 1, "now": desk.clock.now}
        await duplex.send(b'{"ack":"bundle",')
        await duplex.send(b'"sequence":1}\n{"ack":"time","sequence":1}\n')
        await until(lambda: len(store.acks()) == 3)
        expected = Ack(svid.spiffe_id.text, svid.serial, "bundle", 1, desk.clock.now)
        assert set(store.acks()) == {expected, replace(expected, topic="time"), replace(expected, topic="watch")}

        beat = await lines.another("time")
        assert beat["sequence"] == 2
        other = make_root(DEMO, new_key(), desk.clock.now, 86400.0)
        store.add_slot(slot_of(other, "root", desk.clock.now, "prepared"))
        line = await lines.another("bundle")
        assert line["sequence"] == 2
        assert other in TrustBundle.parse_jwks(DEMO, json.dumps(line["bundle"]).encode()).roots
        assert other in desk.roots


@at_the_desk
async def test_a_watch_is_for_those_who_have_an_identity(desk: Desk) -> None:
    async with desk.connect() as client:
        answer = await client.duplex("POST", "/v1/watch")
        assert isinstance(answer, Answer)
        assert (answer.status, answer.json()["error"]) == (401, "client_certificate_needed")
    svid = await desk.svid(desk.entry())
    desk.clock.now = time.time()
    async with desk.connect(svid) as client:
        await client.request("GET", "/v1/time")
        desk.clock.now = svid.not_after + 1
        answer = await client.duplex("POST", "/v1/watch")
        assert isinstance(answer, Answer)
        assert "expired" in answer.json()["detail"]


NO_ACKS = [
    b"nonsense\n",
    b"[]\n",
    b'{"ack":"bundle"}\n',
    b'{"ack":"bundle","sequence":2}\n',
    b'{"ack":"bundle","sequence":-1}\n',
    b'{"ack":"bundle","sequence":true}\n',
    b'{"ack":"denylist","sequence":2}\n',
    b'{"ack":"policy","sequence":0}\n',
    b'{"ack":"watch","sequence":0}\n',
    b'{"ack":["bundle"],"sequence":1}\n',
    b"x" * 5000,
    b"x" * 5000 + b"\n",
]


@at_the_desk
async def test_what_is_no_acknowledgement_ends_the_watch(desk: Desk) -> None:
    svid = await desk.svid(desk.entry())
    for line in NO_ACKS:
        async with desk.connect(svid) as client:
            duplex = await client.duplex("POST", "/v1/watch")
            assert isinstance(duplex, Duplex)
            await duplex.send(line)
            lines = Lines(duplex)
            try:
                while await lines.next() is not None:
                    pass
            except trio.BrokenResourceError:
                pass  # a watch that ends while it is telling something ends without a goodbye
    assert {(ack.topic, ack.sequence) for ack in desk.server.store.store.acks()} == {("watch", 0)}


class StillChannel:
    """A sidecar that listens and says nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, dict[str, Any]]] = []

    async def start(self, status: int = 200, headers: Any = ()) -> None:
        assert status == 200

    async def send(self, data: bytes) -> None:
        self.sent.append((trio.current_time(), json.loads(data)))

    async def receive(self) -> bytes | None:
        await trio.sleep_forever()


class JumpClock(HandClock):
    """Wall time that follows trio's."""

    def wall(self) -> float:
        return self.now + trio.current_time()


def test_a_watch_beats_every_thirty_seconds_and_ends_with_its_certificate() -> None:
    office, channel = open_office(), StillChannel()
    clock = JumpClock()

    async def watch() -> None:
        began = trio.current_time()
        end = clock.wall() + 100
        watcher = Watcher(DEMO.id("a"), "1", end)
        await Watch(watcher, office.bundles, office.threads, clock).run(channel)  # type: ignore[arg-type]
        assert trio.current_time() - began == pytest.approx(100)
        told = [(round(at - began), line["topic"], line["sequence"]) for at, line in channel.sent]
        assert told == [(0, "time", 1), (0, "bundle", 1), (30, "time", 2), (60, "time", 3), (90, "time", 4)]

    trio.run(watch, clock=trio.testing.MockClock(autojump_threshold=0))


def test_only_who_holds_a_certificate_of_a_leaving_ca_is_told_to_renew() -> None:
    office = open_office()
    orders: Source[RenewOrder] = Source("order")
    orders.publish(RenewOrder())
    channels = {name: StillChannel() for name in ("old", "new")}

    async def watch(name: str) -> None:
        watcher = Watcher(DEMO.id(name), name, office.clock.now + 1000, (f"issuer-{name}",))
        one = Watch(watcher, office.bundles, office.threads, office.clock, orders=orders)
        await one.run(channels[name])  # type: ignore[arg-type]

    async def story() -> None:
        async with trio.open_nursery() as nursery:
            for name in channels:
                nursery.start_soon(watch, name)
            await trio.sleep(1)
            orders.publish(RenewOrder(5, frozenset({"issuer-old"}), 4.0))
            await trio.sleep(1)
            nursery.start_soon(watch, "old")  # a watch that broke is told again
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))
    told = {
        name: [(line["sequence"], line["within"]) for _, line in channel.sent if line["topic"] == "renew"]
        for name, channel in channels.items()
    }
    assert told == {"old": [(5, 4.0), (5, 4.0)], "new": []}


def test_a_bad_acknowledgement_comes_out_as_itself() -> None:
    office = open_office()

    class Liar(StillChannel):
        async def receive(self) -> bytes | None:
            await trio.sleep(1)
            return b'{"ack":"bundle","sequence":7}\n'

    async def watch() -> None:
        watcher = Watcher(DEMO.id("a"), "1", office.clock.now + 100)
        await Watch(watcher, office.bundles, office.threads, office.clock).run(Liar())  # type: ignore[arg-type]

    with pytest.raises(BadRequest, match="never sent"):
        trio.run(watch, clock=trio.testing.MockClock(autojump_threshold=0))


# ---- its own life ------------------------------------------------------------------------------------------------


@at_the_desk
async def test_its_own_certificate_is_renewed_hot(desk: Desk) -> None:
    async with desk.connect() as old:
        assert isinstance(old.stream, TlsStream)
        before = old.stream.peer_chain()[0]
        await desk.server.renew_own_svid()
        async with desk.connect() as new:
            assert isinstance(new.stream, TlsStream)
            assert new.stream.peer_chain()[0] != before
            assert new.stream.peer_chain()[0] == desk.server.svids.current.leaf
        assert (await old.request("GET", "/v1/time")).status == 200


async def inline(method: Callable[..., Any], *args: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return method(*args)


def test_it_renews_itself_at_half_life(tmp_path: Path) -> None:
    async def whole() -> None:
        clock = JumpClock()
        create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, clock.now)
        server = open_server(ServeConfig(tmp_path / "ca", port=0, bundle_poll=1e9), PASS, clock)
        server.store.call = inline  # type: ignore[assignment, method-assign]  # virtual time would run on while a thread works
        clock.monotonic = trio.current_time  # type: ignore[method-assign]
        await server.renew_own_svid()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._keep_own_svid)
            first = server.svids.number
            began = trio.current_time()
            while server.svids.number == first:
                await trio.sleep(60)
            assert 0.44 * 86400 < trio.current_time() - began < 0.56 * 86400
            nursery.cancel_scope.cancel()
        server.store.store.close()

    trio.run(whole, clock=trio.testing.MockClock(autojump_threshold=0))


@at_the_desk
async def test_it_is_not_ready_once_its_chain_has_expired(desk: Desk) -> None:
    desk.clock.now += 27 * 86400
    await desk.server.renew_own_svid()
    health = await desk.get("/v1/health")
    assert health.status == 200
    assert "ISSUING CA EXPIRES" in health.json()["warnings"][0]
    earlier = desk.clock.now
    desk.clock.now += 4 * 86400
    health = await desk.get("/v1/health", at=earlier)
    assert (health.status, health.json()["ready"]) == (503, False)
    assert "expired" in health.json()["reasons"][0]
    token = desk.token(desk.entry("web"))
    async with desk.connect(at=earlier) as client:
        body = json.dumps({"csr": CSR, "proof": token}).encode()
        answer = await client.request("POST", "/v1/enrol", body)
    assert (answer.status, answer.json()["error"]) == (503, "issuer_unusable")


def test_with_an_expired_root_it_never_becomes_ready(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, time.time() - 31 * 86400, root_ttl=30 * 86400.0)

    async def start() -> None:
        server = open_server(ServeConfig(tmp_path / "ca", port=0), PASS)
        try:
            await server.run()
        finally:
            server.store.store.close()

    with pytest.raises(IssuerUnusable, match="expired 1 d ago"):
        trio.run(start)


@at_the_desk
async def test_an_issuing_ca_that_another_process_activates_signs_from_then_on(desk: Desk) -> None:
    store, entry = desk.server.store.store, desk.entry()
    before = await desk.svid(entry)
    new = renew_issuer(desk.server.config.directory, store, DEMO, PASS, desk.clock.now)
    await desk.server.follow_store_once()
    after = await desk.svid(entry)
    assert [svid.chain[1] == new.certificate for svid in (before, after)] == [False, True]
    for svid in (before, after):  # both are as good as ever
        assert (await desk.post("/v1/renew", {"csr": CSR}, svid)).status == 200
    assert (await desk.get("/v1/health")).json()["warnings"] == []


@at_the_desk
async def test_a_store_that_takes_no_write_is_not_ready_and_issues_nothing(desk: Desk) -> None:
    entry = desk.entry()
    token = desk.token(entry)
    desk.server.store.store._db.execute("PRAGMA query_only = 1")  # type: ignore[attr-defined]
    assert (await desk.get("/v1/health")).status == 503
    answer = await desk.post("/v1/enrol", {"csr": CSR, "proof": token})
    assert (answer.status, answer.json()["error"]) == (503, "store_unavailable")
    assert "its log says why" in answer.json()["detail"]
    desk.server.store.store._db.execute("PRAGMA query_only = 0")  # type: ignore[attr-defined]
    assert (await desk.post("/v1/enrol", {"csr": CSR, "proof": token})).status == 200


def test_a_taken_port_is_an_os_error(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, time.time())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = open_server(ServeConfig(tmp_path / "ca", port=taken.getsockname()[1]), PASS)
        with pytest.raises(OSError, match="in use"):
            trio.run(server.run)
        server.store.store.close()


