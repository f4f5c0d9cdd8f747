"""The gate of the hop: who we are and whom we trust, as one generation, and the judgement of a handshake.

A generation is made of one SVID and one set of bundles. Its TLS contexts are built once and shared by all connections
that begin under it. When either changes, the next connection gets the next generation; those that are open keep
theirs.

OpenSSL builds and checks the path, with exactly the roots of our bundle (decision D18). Everything that makes a
certificate an SVID, and makes this SVID the right one, is checked here, after the handshake, on both sides
(X509-SVID.md section 5): profile, trust domain, the denylist, and the wall clock once more, because a timer alone has
missed many an expiry.

`trust` is the number that open connections compare at each request: it grows when roots or denylist take something
away, and then they are judged again. A denylist changes neither contexts nor connections of those whom it leaves alone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from cryptography import x509

from certs.bundle import BundleSet
from certs.errors import InvalidSpiffeId, InvalidSvid, UntrustedSvid
from certs.svid import X509Svid, check_leaf, check_signer
from certs.verify import verify_chain
from sidecar.errors import HandshakeFailed, IdentityRefused, IdentityRevoked, NoIdentity, PeerIdentityMismatch
from sidecar.hop import TlsInfo
from sidecar.net.contexts import make_context
from sidecar.net.denials import Denials
from sidecar.net.port import Expired, Port, Wire, WireBroken, WireCut
from sidecar.net.tls import AlertReceived, PeerKey, TlsBroken, TlsWire
from sidecar.net.wires import TLS_HANDSHAKE, EpollWire, SocketWire

if TYPE_CHECKING:
    from OpenSSL import SSL

    from certs.denylist import Denylist
    from certs.source import Source
    from certs.spiffe import SpiffeId

ALPN_HTTP, ALPN_H2 = (b"http/1.1",), (b"h2",)
ALPN_SERVED = ALPN_H2 + ALPN_HTTP  # the server's choice of what a client offers
# Alerts by which an upstream refuses our certificate, and findings of ours that are not about its; what else fails in
# a handshake is an identity that we refuse, or a road that leads nowhere.
_ALERTS_ABOUT_US = frozenset((
    "expired", "unknown_ca", "bad_certificate", "no_certificate", "unsupported_certificate", "certificate_revoked",
    "certificate_unknown", "access_denied",
))  # fmt: skip
_FINDINGS_ABOUT_THE_ROAD = frozenset((
    "plaintext", "truncated", "closed", "protocol_version", "alpn", "handshake_failure", "tls",
))  # fmt: skip
MOST_PEERS = 1024  # of a generation, that are known again
REFUSED_LINGER = 1.0  # seconds that a refused peer has to read our alert


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller or an upstream whose identity a handshake has proved."""

    id: SpiffeId
    tls: TlsInfo
    fingerprint: str  # SHA-256 of its leaf, lower-case hex
    trust: int = 0  # the gate's `trust` at that moment
    issuers: tuple[str, ...] = ()  # serials of the CAs that it was shown with, lower-case hex


class Gate(Protocol):
    """Turns plain wires into wires whose other end is known. The memory driver has one of its own."""

    generation: int
    trust: int  # grows whenever the roots that we trust become others, or the denylist denies more

    def check_ready(self, wall: float) -> None:
        """Raise NoIdentity while we have no valid SVID."""
        ...

    def judge_again(self, wire: Wire, peer: Peer, wall: float) -> None:
        """Judge the peer of an open connection by the roots of today (decision D17). Raises IdentityRefused."""
        ...

    def why_denied(self, peer: Peer) -> IdentityRevoked | None:
        """Why this peer, who was let in once, holds no more by the denylist of now; None where it does."""
        ...

    def cut(self, wire: Wire, why: IdentityRevoked) -> None:
        """End a connection that stands, whatever is on it; whoever of ours uses it finds WireCut."""
        ...

    async def speaks_tls(self, wire: Wire) -> bool:
        """Wait for a caller's first byte, and say whether it may begin a handshake; nothing is read.

        Also true where none comes any more: `accept` finds the words. Raises WireBroken; the deadline is the caller's.
        """
        ...

    async def accept(self, port: Port, wire: Wire, *, http: bool, within: float) -> tuple[Wire, Peer]:
        """Be the server. Raises IdentityRefused."""
        ...

    async def connect(
        self, port: Port, wire: Wire, *, http: bool, server_name: str, expected: SpiffeId, within: float,
        h2: bool = False,
    ) -> tuple[Wire, Peer]:  # fmt: skip
        """Be the client; with `h2`, of HTTP/2 and nothing else. Raises HandshakeFailed or PeerIdentityMismatch."""
        ...


@dataclass(slots=True)
class _Generation:
    svid: X509Svid
    bundles: BundleSet
    trust: int
    tls12: bool
    contexts: dict[tuple[bool, tuple[bytes, ...]], SSL.Context] = field(default_factory=dict)
    revoked: str = ""  # why our own certificate holds no more, as of this many denylists:
    judged: int = 0
    peers: dict[PeerKey, Peer] = field(default_factory=dict)  # whose chain has been judged well: they come back

    def context(self, *, server: bool, alpn: tuple[bytes, ...]) -> SSL.Context:
        found = self.contexts.get((server, alpn))
        if found is None:
            roots = [root for bundle in self.bundles for root in bundle.roots]
            found = self.contexts[server, alpn] = make_context(
                self.svid, roots, server=server, verify="require", alpn=alpn, tls12=self.tls12
            )
        return found


class MtlsGate:
    """The gate on real sockets. `on_change` hears of each new generation, `on_denied` of more that is denied."""

    def __init__(
        self, svids: Source[X509Svid], bundles: Source[BundleSet], denylists: Source[Denylist] | None = None, *,
        tls12: bool = False,
    ) -> None:  # fmt: skip
        self.generation = 0
        self.trust = 0
        self._rooted = 0  # `trust` when the roots became others last
        self.on_change: list[Callable[[], None]] = []
        self.on_denied: list[Callable[[], None]] = []
        self._svids = svids
        self._bundles = bundles
        self._tls12 = tls12
        self._current: _Generation | None = None
        svids.subscribe(self._changed)
        bundles.subscribe(self._changed)
        self._changed(None)
        self.denials = Denials(denylists, self._deny_more)

    def _changed(self, _: object) -> None:
        if self._svids.number == 0 or self._bundles.number == 0:
            return
        before, bundles = self._current, self._bundles.current
        if before is None or _roots(before.bundles) != _roots(bundles):
            self.trust += 1
            self._rooted = self.trust
        self._current = _Generation(self._svids.current, bundles, self.trust, self._tls12)
        self.generation += 1
        for listener in self.on_change:
            listener()

    def _deny_more(self) -> None:
        """Somebody who was let in may hold no more."""
        self.trust += 1
        if self._current is not None:
            self._current.trust = self.trust
            self._current.peers.clear()
        for listener in self.on_denied:
            listener()

    @property
    def tls12(self) -> bool:
        """Whether TLS 1.2 is accepted too (`tls.unsafe_tls12`)."""
        return self._tls12

    @tls12.setter
    def tls12(self, accepted: bool) -> None:
        if accepted != self._tls12:
            self._tls12 = accepted
            self._changed(None)

    def check_ready(self, wall: float) -> None:
        """Raise NoIdentity while we have no valid SVID."""
        self._valid(wall)

    def judge_again(self, wire: Wire, peer: Peer, wall: float) -> None:
        """Judge the peer of an open connection by the roots of today. Raises IdentityRefused."""
        assert isinstance(wire, TlsWire)
        assert self._current is not None
        if (denied := self.why_denied(peer)) is not None:
            raise denied
        if peer.trust >= self._rooted:
            return  # these very roots have vouched for it
        try:
            verify_chain(wire.peer_chain()[:-1], self._current.bundles, wall)
        except (InvalidSvid, UntrustedSvid) as error:
            reason = error.rule if isinstance(error, InvalidSvid) else error.reason
            raise IdentityRefused(
                reason, f"the roots that we trust have changed since the connection began: {error}", peer.id
            ) from None

    def why_denied(self, peer: Peer) -> IdentityRevoked | None:
        """Why this peer, who was let in once, holds no more by the denylist of now; None where it does."""
        found = self.denials.why(peer.id, peer.tls.serial, peer.issuers)
        return IdentityRevoked(*found, peer.id) if found is not None else None

    def cut(self, wire: Wire, why: IdentityRevoked) -> None:
        """End a connection that stands, whatever is on it; whoever of ours uses it finds WireCut."""
        assert isinstance(wire, TlsWire)
        wire.cut(WireCut(why.reason, why.detail))

    def _valid(self, wall: float) -> _Generation:
        current = self._current
        if current is None:
            raise NoIdentity("no certificate has been issued to this sidecar yet")
        if wall > current.svid.not_after:
            ended = datetime.fromtimestamp(current.svid.not_after, UTC)
            raise NoIdentity(f"our own certificate ended at {ended:%Y-%m-%dT%H:%M:%SZ} and was not renewed")
        denials = self.denials
        if current.judged != denials.lists:
            current.judged, current.revoked = denials.lists, denials.why_ours(current.svid)
        if current.revoked:
            raise NoIdentity(f"our own certificate holds no more: {current.revoked}")
        return current

    async def speaks_tls(self, wire: Wire) -> bool:
        """Wait for a caller's first byte, and say whether it may begin a handshake (RFC 8446 section 5.1).

        It is looked at where it is, in the kernel. Raises WireBroken.
        """
        assert isinstance(wire, SocketWire)
        while True:
            try:
                first = wire.sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                await wire._readable()
                if wire.closed:
                    raise WireBroken("closed by ourselves") from None
            except OSError as error:
                raise WireBroken(error.strerror or "reset") from None
            else:
                return not first or first[0] == TLS_HANDSHAKE

    async def accept(self, port: Port, wire: Wire, *, http: bool, within: float) -> tuple[Wire, Peer]:
        """Be the server. Raises IdentityRefused or NoIdentity; the wire is closed then."""
        assert isinstance(wire, SocketWire)
        try:
            generation = self._valid(port.wall())
        except NoIdentity:
            await _part_in_peace(port, wire)
            raise
        secure = TlsWire(wire, generation.context(server=True, alpn=ALPN_SERVED if http else ()), server=True)
        try:
            port.deadline(port.now + within)
            try:
                await secure.handshake()
            except AlertReceived as error:
                raise IdentityRefused(f"alert_{error.reason}", error.detail) from None
            except TlsBroken as error:
                await _part_in_peace(port, secure)
                raise IdentityRefused(error.reason, error.detail) from None
            except Expired:
                raise IdentityRefused("handshake_timeout", f"no handshake within {within:g} s") from None
            except WireBroken:
                raise IdentityRefused("reset", "the peer left during the handshake") from None
            return secure, self._peer(secure, generation, port.wall())
        except BaseException:
            secure.close()
            raise

    async def connect(
        self, port: Port, wire: Wire, *, http: bool, server_name: str, expected: SpiffeId, within: float,
        h2: bool = False,
    ) -> tuple[Wire, Peer]:  # fmt: skip
        """Be the client. Raises HandshakeFailed, PeerIdentityMismatch or NoIdentity; the wire is closed then."""
        assert isinstance(wire, SocketWire)
        generation = self._valid(port.wall())
        context = generation.context(server=False, alpn=ALPN_H2 if h2 else ALPN_HTTP if http else ())
        secure = TlsWire(wire, context, server=False, server_name=server_name)
        try:
            port.deadline(port.now + within)
            try:
                await secure.handshake()
            except TlsBroken as error:
                raise _failed(error) from None
            except Expired:
                raise HandshakeFailed(f"no handshake within {within:g} s", "handshake_timeout") from None
            except WireBroken as error:
                raise HandshakeFailed(f"the upstream left during the handshake: {error}", "reset") from None
            try:
                peer = self._peer(secure, generation, port.wall())
            except IdentityRefused as error:
                raise PeerIdentityMismatch(error.reason, str(error), error.presented) from None
            if h2 and peer.tls.alpn != "h2":
                raise HandshakeFailed("the upstream agrees on no protocol; HTTP/2 is needed", "alpn")
            if peer.id != expected:
                raise PeerIdentityMismatch("other_identity", f"expected {expected}, got {peer.id}", presented=peer.id)
            return secure, peer
        except BaseException:
            secure.close()
            raise

    def _peer(self, wire: TlsWire, generation: _Generation, wall: float) -> Peer:
        """Who the other side is. Raises IdentityRefused."""
        key = wire.peer_key()
        current = generation is self._current  # the others do not hear of a new denylist
        peer = generation.peers.get(key) if current else None
        if peer is None:
            peer = self._judge(wire, key[0], generation, wall)
            if current and len(generation.bundles) == 1:  # with more of them the path is a matter of the hour
                if len(generation.peers) >= MOST_PEERS:
                    generation.peers.clear()
                generation.peers[key] = peer
        facts = peer.tls
        if wall > facts.not_after:
            raise IdentityRefused("expired", f"the certificate of {peer.id} has expired; check both clocks", peer.id)
        if wall < facts.not_before:
            raise IdentityRefused(
                "not_yet_valid", f"the certificate of {peer.id} is not valid yet; check both clocks", peer.id
            )
        return peer

    def _judge(self, wire: TlsWire, hashes: tuple[bytes, ...], generation: _Generation, wall: float) -> Peer:
        """Whose the chain is, by all rules but its time. Raises IdentityRefused."""
        try:
            chain = wire.peer_chain()
        except (ValueError, x509.InvalidVersion) as error:  # OpenSSL is the more lenient reader of the two
            raise IdentityRefused("malformed", f"the peer's certificate cannot be read: {error}") from None
        if not chain:
            raise IdentityRefused("no_certificate", "the peer showed no certificate")
        leaf = chain[0]
        try:
            identity = _identity_of(leaf)
            bundles = generation.bundles
            if bundles.of(identity.trust_domain) is None:
                raise IdentityRefused(
                    "wrong_trust_domain", f"{identity} is of a trust domain that we do not know", identity
                )
            for issuer in chain[1:-1]:
                _signs_for(issuer, identity)
            if len(bundles) > 1:  # the store was the union: find the path again, in the peer's own domain (D18)
                verify_chain(chain[:-1], bundles, wall)
        except InvalidSvid as error:
            raise IdentityRefused(error.rule, str(error)) from None
        except UntrustedSvid as error:
            raise IdentityRefused(error.reason, str(error)) from None
        except InvalidSpiffeId as error:
            raise IdentityRefused("invalid_spiffe_id", str(error)) from None
        issuers = tuple(f"{one.serial_number:x}" for one in chain[1:])
        peer = Peer(identity, wire.facts(leaf), hashes[0].hex(), generation.trust, issuers)
        if (denied := self.why_denied(peer)) is not None:
            raise IdentityRefused(denied.reason, denied.detail, identity)
        return peer


# What a certificate says does not change, and peers come back with the same one; what it is worth is asked anew each
# time. Only what holds is kept: an exception is not.
_identity_of = lru_cache(maxsize=1024)(check_leaf)
_signs_for = lru_cache(maxsize=1024)(check_signer)


def _roots(bundles: BundleSet) -> set[tuple[str, str]]:
    """Whom we trust, and for which trust domain."""
    return {(bundle.trust_domain.name, root) for bundle in bundles for root in bundle.root_hashes()}


def _failed(error: TlsBroken) -> PeerIdentityMismatch | HandshakeFailed:
    """Whether a handshake of ours failed by an identity or on the way to one."""
    alert = isinstance(error, AlertReceived)
    reason = f"alert_{error.reason}" if alert else error.reason
    if error.reason in _ALERTS_ABOUT_US if alert else error.reason not in _FINDINGS_ABOUT_THE_ROAD:
        return PeerIdentityMismatch(reason, error.detail)
    return HandshakeFailed(error.detail, reason)


async def _part_in_peace(port: Port, wire: EpollWire) -> None:
    """FIN rather than RST, though the peer may still be sending: a reset would destroy the alert that says why."""
    try:
        wire.sock.shutdown(socket.SHUT_WR)
        port.deadline(port.now + REFUSED_LINGER)
        for _ in range(16):
            await wire._readable()
            if not wire.sock.recv(16 * 1024):
                return
    except (Expired, WireBroken, OSError):
        return
