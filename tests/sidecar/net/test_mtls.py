"""The gate on real sockets: who is let in, who is connected to, and what either side says of a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from OpenSSL import SSL

from certs.denylist import Denylist
from certs.source import Source
from certs.svid import X509Svid
from sidecar.errors import (
    HandshakeFailed,
    HopError,
    IdentityRefused,
    IdentityRevoked,
    NoIdentity,
    PeerIdentityMismatch,
)
from sidecar.net import mtls
from sidecar.net.mtls import ALPN_SERVED, MtlsGate, Peer
from sidecar.net.port import WireBroken, WireCut
from sidecar.net.reactor import Reactor
from sidecar.net.tls import AlertReceived
from sidecar.net.wires import SocketWire
from tests.kit.drivers import loopback_pair, on_reactor
from tests.kit.hops import ORDERS as ORDERS_ID
from tests.kit.hops import WEB as WEB_ID
from tests.kit.identities import DAY, NOW, a_bundle_set, a_root, an_issuer, an_svid

ROOT = a_root()
ISSUER = an_issuer(ROOT)
WEB, ORDERS = an_svid(ISSUER, "web"), an_svid(ISSUER, "orders")
FOREIGN_ROOT = a_root("other.mesh")
BUNDLES = a_bundle_set(ROOT)


class Careless(MtlsGate):
    """Shows its certificate even where it has expired."""

    def _valid(self, wall: float) -> Any:
        return self._current


def gate(svid: X509Svid, bundles: Any = BUNDLES) -> MtlsGate:
    svids: Source[X509Svid] = Source("SVID")
    sources: Source[Any] = Source("bundle")
    svids.publish(svid)
    sources.publish(bundles)
    return Careless(svids, sources)


def meet(client: X509Svid, server: X509Svid) -> tuple[Peer | HopError | WireBroken, Peer | HopError]:
    """What the client, with the first byte it reads, and what the server make of each other."""

    async def body(reactor: Reactor) -> tuple[Peer | HopError | WireBroken, Peer | HopError]:
        left, right = loopback_pair()
        outcome: list[Peer | HopError] = []

        async def serve() -> None:
            try:
                secure, peer = await gate(server).accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
            except HopError as error:
                outcome.append(error)
                return
            outcome.append(peer)
            try:
                await secure.write(b"!")
                await secure.read()
            except WireBroken:
                pass
            secure.close()

        other = reactor.spawn(serve())
        found: Peer | HopError | WireBroken
        try:
            secure, found = await gate(client).connect(
                reactor, SocketWire(reactor, left), http=True, server_name="orders", expected=ORDERS_ID, within=5.0
            )
        except HopError as error:
            found = error
        else:
            try:
                await secure.read()
            except WireBroken as error:
                found = error
            secure.close()
        await reactor.wait(other)
        return found, outcome[0]

    return on_reactor(body)


def test_two_who_trust_each_other_know_each_other() -> None:
    client, server = meet(WEB, ORDERS)
    assert isinstance(client, Peer)
    assert isinstance(server, Peer)
    assert (client.id, server.id) == (ORDERS_ID, WEB_ID)
    assert client.tls.group == server.tls.group == "X25519MLKEM768"
    assert (server.tls.serial, server.tls.not_after) == (WEB.serial, WEB.not_after)
    assert len(server.fingerprint) == 64


BAD_CLIENTS: dict[str, tuple[X509Svid, str]] = {
    "expired": (an_svid(ISSUER, "web", not_before=NOW - 2 * DAY, not_after=NOW - DAY), "expired"),
    "not yet valid": (an_svid(ISSUER, "web", not_before=NOW + DAY, not_after=NOW + 2 * DAY), "not_yet_valid"),
    "of another root": (an_svid(an_issuer(a_root()), "web"), "unknown_ca"),
    "of another trust domain": (an_svid(an_issuer(FOREIGN_ROOT), "web"), "unknown_ca"),
    "with a foreign name under our root": (
        an_svid(ISSUER, "web", uris=["spiffe://other.mesh/x"]),
        "wrong_trust_domain",
    ),
    "with two names": (an_svid(ISSUER, "web", uris=["spiffe://demo.mesh/a", "spiffe://demo.mesh/b"]), "one_uri_san"),
    "without a name": (an_svid(ISSUER, "web", uris=[]), "one_uri_san"),
}


@pytest.mark.parametrize("case", BAD_CLIENTS)
def test_a_client_with_a_certificate_that_is(case: str) -> None:
    svid, reason = BAD_CLIENTS[case]
    client, server = meet(svid, ORDERS)
    assert isinstance(server, IdentityRefused)
    assert server.reason == reason
    assert not isinstance(client, Peer) or reason in ("wrong_trust_domain", "one_uri_san", "not_yet_valid")
    if isinstance(client, AlertReceived):
        assert client.detail


@pytest.mark.parametrize("case", BAD_CLIENTS)
def test_a_server_with_a_certificate_that_is(case: str) -> None:
    svid, reason = BAD_CLIENTS[case]
    client, _ = meet(WEB, svid)
    assert isinstance(client, PeerIdentityMismatch)
    assert client.reason == reason


def test_a_server_that_is_somebody_else() -> None:
    client, _ = meet(WEB, an_svid(ISSUER, "payments"))
    assert isinstance(client, PeerIdentityMismatch)
    assert client.reason == "other_identity"
    assert "payments" in client.detail


def test_without_an_svid_nobody_is_met() -> None:
    svids: Source[X509Svid] = Source("SVID")
    bundles: Source[Any] = Source("bundle")
    empty = MtlsGate(svids, bundles)
    with pytest.raises(NoIdentity):
        empty.check_ready(NOW)
    bundles.publish(BUNDLES)
    svids.publish(an_svid(ISSUER, "web", not_after=NOW + 60.0))
    empty.check_ready(NOW)
    with pytest.raises(NoIdentity, match="own certificate"):
        empty.check_ready(NOW + 61.0)


def test_each_new_svid_or_bundle_is_a_generation_and_is_told() -> None:
    svids: Source[X509Svid] = Source("SVID")
    bundles: Source[Any] = Source("bundle")
    made = MtlsGate(svids, bundles)
    heard: list[int] = []
    made.on_change.append(lambda: heard.append(made.generation))
    svids.publish(WEB)
    assert made.generation == 0  # half an identity is none
    bundles.publish(BUNDLES)
    svids.publish(an_svid(ISSUER, "web"))
    bundles.publish(a_bundle_set(ROOT, FOREIGN_ROOT))
    assert heard == [1, 2, 3]


def test_the_roots_that_a_server_names_are_those_of_its_generation() -> None:
    bundles: Source[Any] = Source("bundle")
    svids: Source[X509Svid] = Source("SVID")
    made = MtlsGate(svids, bundles)
    svids.publish(WEB)

    def named() -> list[str]:
        assert made._current is not None
        context = made._current.context(server=True, alpn=ALPN_SERVED)
        return [name.CN for name in SSL.Connection(context, None).get_client_ca_list()]

    bundles.publish(a_bundle_set(ROOT))
    assert named() == ["demo.mesh root"]
    following = a_root(name="next")
    bundles.publish(a_bundle_set(ROOT, following))
    assert named() == ["demo.mesh root", "demo.mesh next"]
    bundles.publish(a_bundle_set(following))
    assert named() == ["demo.mesh next"]


def test_with_two_trust_domains_each_root_vouches_only_for_its_own() -> None:
    """OpenSSL's store is the union then; the path is found again in the peer's own domain (decision D18)."""

    async def body(reactor: Reactor) -> HopError:
        left, right = loopback_pair()
        both = a_bundle_set(ROOT, FOREIGN_ROOT)
        impostor = an_svid(an_issuer(FOREIGN_ROOT), "web", uris=[WEB_ID.text])
        near = SocketWire(reactor, left)
        client = reactor.spawn(
            gate(impostor).connect(reactor, near, http=True, server_name="", expected=ORDERS_ID, within=5.0)
        )
        try:
            await gate(ORDERS, both).accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
        except HopError as error:
            client.cancel()
            return error
        raise AssertionError("let in")

    refused = on_reactor(body)
    assert isinstance(refused, IdentityRefused)
    assert refused.reason == "signer_trust_domain"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"SSH-2.0-OpenSSH\r\n"])
def test_a_client_that_speaks_no_tls(data: bytes) -> None:
    async def body(reactor: Reactor) -> HopError:
        left, right = loopback_pair()
        left.send(data)
        try:
            await gate(ORDERS).accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
        except HopError as error:
            return error
        finally:
            left.close()
        raise AssertionError("let in")

    refused = on_reactor(body)
    assert isinstance(refused, IdentityRefused)
    assert refused.reason == "plaintext"


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01"])
def test_patience_with_a_handshake_has_an_end(says: bytes) -> None:
    async def body(reactor: Reactor) -> tuple[HopError, HopError]:
        left, right = loopback_pair()
        left.send(says) if says else None
        found: list[HopError] = []
        try:
            await gate(ORDERS).accept(reactor, SocketWire(reactor, right), http=True, within=0.05)
        except HopError as error:
            found.append(error)
        left.close()
        left, right = loopback_pair()
        try:
            await gate(WEB).connect(
                reactor, SocketWire(reactor, left), http=True, server_name="a", expected=ORDERS_ID, within=0.05
            )
        except HopError as error:
            found.append(error)
        right.close()
        return found[0], found[1]

    server, client = on_reactor(body)
    assert isinstance(server, IdentityRefused)
    assert server.reason == "handshake_timeout"
    assert isinstance(client, HandshakeFailed)


# ---- the denylist ------------------------------------------------------------------------------------------------


def listed(**denied: Any) -> Denylist:
    return Denylist(WEB_ID.trust_domain, 7, NOW, **{name: frozenset(values) for name, values in denied.items()})


def denying(svid: X509Svid, denylist: Denylist | None, max_age: float | None = None) -> tuple[MtlsGate, Any]:
    svids: Source[X509Svid] = Source("SVID")
    bundles: Source[Any] = Source("bundle")
    denylists: Source[Denylist] = Source("denylist")
    svids.publish(svid)
    bundles.publish(BUNDLES)
    made = MtlsGate(svids, bundles, denylists)
    made.denials.max_age = max_age
    if denylist is not None:
        denylists.publish(denylist)
    return made, denylists


WEB_ISSUER = f"{WEB.chain[1].serial_number:x}"
REVOKED = {
    "by SPIFFE ID": listed(spiffe_ids=[WEB_ID]),
    "by serial": listed(serials=[WEB.serial]),
    "by its issuing CA": listed(issuers=[WEB_ISSUER]),
}


def knock(server: MtlsGate, client: MtlsGate) -> tuple[Peer | HopError, Peer | HopError]:
    """What the server and the client of one handshake make of each other."""

    async def body(reactor: Reactor) -> tuple[Peer | HopError, Peer | HopError]:
        left, right = loopback_pair()
        found: list[Peer | HopError] = []

        async def dial() -> None:
            try:
                wire = SocketWire(reactor, left)
                secure, peer = await client.connect(
                    reactor, wire, http=True, server_name="", expected=ORDERS_ID, within=5.0
                )
            except HopError as error:
                found.append(error)
            else:
                found.append(peer)
                secure.close()

        task = reactor.spawn(dial())
        served: Peer | HopError
        try:
            secure, served = await server.accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
            secure.close()
        except HopError as error:
            served = error
        await reactor.wait(task)
        return served, found[0]

    return on_reactor(body)


@pytest.mark.parametrize("how", REVOKED)
def test_a_revoked_caller_is_refused_after_the_handshake(how: str) -> None:
    server, _ = denying(an_svid(an_issuer(ROOT), "orders"), REVOKED[how])
    served, _ = knock(server, gate(WEB))
    assert isinstance(served, IdentityRefused)
    assert (served.reason, served.presented) == ("revoked", WEB_ID)
    assert "denylist 7" in served.detail


def test_a_revoked_upstream_is_not_called() -> None:
    client, _ = denying(an_svid(an_issuer(ROOT), "web"), listed(spiffe_ids=[ORDERS_ID]))
    _, called = knock(gate(ORDERS), client)
    assert isinstance(called, PeerIdentityMismatch)
    assert called.reason == "revoked"


def test_one_that_was_let_in_a_moment_ago_is_not_remembered_as_good() -> None:
    server, denylists = denying(ORDERS, listed())
    assert isinstance(knock(server, gate(WEB))[0], Peer)
    trust, generation = server.trust, server.generation
    denylists.publish(listed(serials=[WEB.serial]))
    assert (server.trust, server.generation) == (trust + 1, generation), "open connections are judged, none replaced"
    assert isinstance(knock(server, gate(WEB))[0], IdentityRefused)
    denylists.publish(listed())
    assert server.trust == trust + 1, "to deny less is no reason to look at anybody"
    assert isinstance(knock(server, gate(WEB))[0], Peer)


def test_only_more_that_is_denied_is_told() -> None:
    heard: list[int] = []
    made, denylists = denying(ORDERS, None)
    made.on_denied.append(lambda: heard.append(made.trust))
    for denylist in (listed(), listed(), listed(serials=["a1"]), replace(listed(serials=["a1"]), at=NOW + 600)):
        denylists.publish(denylist)
    assert len(heard) == 1
    denylists.publish(listed(spiffe_ids=[WEB_ID]))
    denylists.publish(listed(issuers=["b2"]))
    assert len(heard) == 3


def test_with_our_own_certificate_revoked_we_call_nobody() -> None:
    made, denylists = denying(WEB, listed(serials=[WEB.serial]))
    with pytest.raises(NoIdentity, match=r"holds no more: the certificate .* was revoked"):
        made.check_ready(NOW)
    denylists.publish(listed())
    made.check_ready(NOW)


def test_an_old_denylist_closes_only_where_that_is_asked_for() -> None:
    cases = [(None, NOW + 90_000, False), (3600.0, NOW + 3600, False), (3600.0, NOW + 3601, True)]
    for max_age, wall, refused in cases:
        server, denylists = denying(ORDERS, listed(), max_age)
        told: list[int] = []
        server.on_denied.append(lambda told=told: told.append(1))  # type: ignore[misc]
        server.denials.look(wall)
        assert bool(told) == refused
        served, _ = knock(server, gate(WEB))
        assert isinstance(served, IdentityRefused if refused else Peer)
        if refused:
            assert served.reason == "denylist_stale"  # type: ignore[union-attr]
            denylists.publish(replace(listed(), at=wall))
            server.denials.look(wall)
            assert isinstance(knock(server, gate(WEB))[0], Peer)
    none_at_all, _ = denying(ORDERS, None, 3600.0)
    none_at_all.denials.look(NOW)
    assert isinstance(knock(none_at_all, gate(WEB))[0], IdentityRefused)


def test_a_wire_that_is_cut_ends_for_both_sides_and_says_why_to_ours() -> None:
    async def body(reactor: Reactor) -> tuple[Any, Any]:
        left, right = loopback_pair()
        outcome: list[Any] = []

        async def dial() -> None:
            secure, _ = await gate(WEB).connect(
                reactor, SocketWire(reactor, left), http=True, server_name="", expected=ORDERS_ID, within=5.0
            )
            try:
                outcome.append(await secure.read())
            except WireBroken as error:
                outcome.append(error)
            secure.close()

        task = reactor.spawn(dial())
        server = gate(ORDERS)
        secure, peer = await server.accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
        server.cut(secure, IdentityRevoked("revoked", "web was revoked", peer.id))
        with pytest.raises(WireCut, match="web was revoked") as caught:
            await secure.read()
        with pytest.raises(WireBroken):
            await secure.write(bytes(1 << 20))
        secure.close()
        await reactor.wait(task)
        return caught.value.reason, outcome[0]

    reason, theirs = on_reactor(body)
    assert reason == "revoked"
    assert isinstance(theirs, WireBroken)


def test_a_denylist_asks_no_root_again_and_a_root_that_left_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open tunnels are judged at each of both; building a path takes a hundred times as long as a look at a list."""
    asked: list[Any] = []
    monkeypatch.setattr(mtls, "verify_chain", lambda *judged: asked.append(judged))

    async def body(reactor: Reactor) -> None:
        left, right = loopback_pair()
        server, denylists = denying(ORDERS, listed())
        wire = SocketWire(reactor, left)
        client = reactor.spawn(
            gate(WEB).connect(reactor, wire, http=True, server_name="", expected=ORDERS_ID, within=5.0)
        )
        secure, peer = await server.accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
        denylists.publish(listed(serials=["a1"]))
        server.judge_again(secure, peer, reactor.wall())
        assert not asked
        server._bundles.publish(a_bundle_set(ROOT, a_root()))
        server.judge_again(secure, peer, reactor.wall())
        assert len(asked) == 1
        denylists.publish(listed(serials=["a1", WEB.serial]))
        with pytest.raises(IdentityRefused, match="was revoked"):
            server.judge_again(secure, peer, reactor.wall())
        client.cancel()
        secure.close()

    on_reactor(body)
