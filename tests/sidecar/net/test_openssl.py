"""The short way through pyOpenSSL says and does what the public one does, and whoever comes back is still judged."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import HopError, IdentityRefused
from sidecar.net import openssl
from sidecar.net.contexts import make_context
from sidecar.net.mtls import MOST_PEERS, MtlsGate, Peer
from sidecar.net.reactor import Reactor
from sidecar.net.tls import TlsWire
from sidecar.net.wires import SocketWire
from tests.kit.drivers import loopback_pair, on_reactor
from tests.kit.hops import ORDERS as ORDERS_ID
from tests.kit.hops import WEB as WEB_ID
from tests.kit.identities import DAY, a_bundle_set, a_root, an_svid
from tests.sidecar.net.test_mtls import BAD_CLIENTS, ISSUER, ORDERS, ROOT, WEB, gate, meet

PUBLIC = {
    "read": openssl._public_read,
    "read_on": openssl._no_more,
    "write": openssl._public_write,
    "shake_hands": openssl._public_shake_hands,
    "chain_hashes": openssl._public_chain_hashes,
    "quicken": openssl._leave,
}


@pytest.fixture
def public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, call in PUBLIC.items():
        monkeypatch.setattr(openssl, name, call)
    return


def test_the_short_way_is_taken_with_the_pyopenssl_that_we_lock() -> None:
    assert openssl.SHORT
    assert all(getattr(openssl, name) is not call for name, call in PUBLIC.items())


def test_on_the_public_way_two_know_each_other_by_the_same_hashes(public_way: None) -> None:
    client, server = meet(WEB, ORDERS)
    assert isinstance(client, Peer)
    assert isinstance(server, Peer)
    assert (client.id, server.id) == (ORDERS_ID, WEB_ID)
    assert server.fingerprint == _fingerprint_by_the_short_way()


def _fingerprint_by_the_short_way() -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, call in zip(openssl._ShortWay._fields, openssl._short_way(), strict=True):
            if name != "address":
                patch.setattr(openssl, name, call)
        _, server = meet(WEB, ORDERS)
    assert isinstance(server, Peer)
    return server.fingerprint


@pytest.mark.parametrize("case", BAD_CLIENTS)
def test_the_public_way_refuses_a_client_that_is(case: str, public_way: None) -> None:
    svid, reason = BAD_CLIENTS[case]
    _, server = meet(svid, ORDERS)
    assert isinstance(server, IdentityRefused)
    assert server.reason == reason


class Visits:
    """Handshakes of one client after another with one gate."""

    def __init__(self, *roots: Any) -> None:
        self.gate = gate(ORDERS, a_bundle_set(*roots)) if roots else gate(ORDERS)
        self.chains_read = 0

    def visit(self, monkeypatch: pytest.MonkeyPatch, svid: Any = WEB, *, later: float = 0.0) -> Peer | HopError:
        read = TlsWire.peer_chain

        def counted(wire: TlsWire) -> Any:
            self.chains_read += 1
            return read(wire)

        async def body(reactor: Reactor) -> Peer | HopError:
            left, right = loopback_pair()
            context = make_context(svid, [ROOT.certificate], server=False, verify="require", alpn=(b"http/1.1",))
            client = reactor.spawn(TlsWire(SocketWire(reactor, left), context, server=False).handshake())
            wall = reactor.wall
            reactor.wall = lambda: wall() + later  # type: ignore[method-assign]
            with monkeypatch.context() as patch:
                patch.setattr(TlsWire, "peer_chain", counted)
                try:
                    secure, peer = await self.gate.accept(reactor, SocketWire(reactor, right), http=True, within=5.0)
                except HopError as error:
                    return error
                finally:
                    client.cancel()
            secure.close()
            return peer

        return on_reactor(body)


def test_whoever_comes_back_is_known_without_reading_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = Visits()
    first = visits.visit(monkeypatch)
    assert isinstance(first, Peer)
    assert visits.visit(monkeypatch) is first
    assert visits.chains_read == 1


def test_whoever_comes_back_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = Visits()
    assert isinstance(visits.visit(monkeypatch), Peer)
    for later, reason in ((30 * DAY, "expired"), (-30 * DAY, "not_yet_valid")):
        refused = visits.visit(monkeypatch, later=later)
        assert isinstance(refused, IdentityRefused)
        assert refused.reason == reason


def test_a_renewed_certificate_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = Visits()
    first, renewed = visits.visit(monkeypatch), visits.visit(monkeypatch, an_svid(ISSUER, "web"))
    assert isinstance(first, Peer)
    assert isinstance(renewed, Peer)
    assert (first.id, first.fingerprint != renewed.fingerprint) == (renewed.id, True)


def test_with_two_trust_domains_the_path_is_found_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = Visits(ROOT, a_root("other.mesh"))
    first = visits.visit(monkeypatch)
    assert isinstance(first, Peer)
    assert visits.visit(monkeypatch) is not first
    assert visits.chains_read == 2


def test_what_is_known_has_a_bound_and_goes_with_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = Visits()
    first = visits.visit(monkeypatch)
    generation = visits.gate._current
    assert generation is not None
    assert isinstance(first, Peer)
    for number in range(MOST_PEERS):
        generation.peers[(str(number).encode(),), "", "", ""] = first
    assert isinstance(visits.visit(monkeypatch, an_svid(ISSUER, "web")), Peer)
    assert len(generation.peers) == 1
    MtlsGate._changed(visits.gate, None)
    assert visits.gate._current is not generation
    assert visits.gate._current is not None
    assert visits.gate._current.peers == {}
