"""The gate of the memory driver: each side learns who the other is, as after a handshake, without any TLS.

It keeps to the order of TLS 1.3, because the proxy's behaviour hangs on it. The client speaks first and the server
shows itself before it judges. So a client that is refused has ended its own handshake well, and finds the alert in
place of the first byte it reads (decision D18).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sidecar.errors import HandshakeFailed, IdentityRefused, IdentityRevoked, NoIdentity, PeerIdentityMismatch
from sidecar.hop import TlsInfo
from sidecar.net.memory import MemoryWire
from sidecar.net.mtls import Peer
from sidecar.net.port import Expired, WireBroken, WireCut
from sidecar.net.tls import AlertReceived

if TYPE_CHECKING:
    from certs.spiffe import SpiffeId
    from sidecar.net.port import Port, Wire

DAY = 86400.0


class MemoryGate:
    """Says who we are to whoever asks on a memory wire."""

    def __init__(self, identity: SpiffeId, *, not_after: float) -> None:
        self.identity = identity
        self.not_after = not_after  # seconds since the epoch
        self.not_before = 0.0  # 0: nobody knows
        self.generation = 1
        self.trust = 1
        self.ready = True  # whether we have an SVID at all
        self.refuses: dict[SpiffeId, str] = {}  # whom we refuse as a server, and the alert they get
        self.revoked: set[SpiffeId] = set()

    def renew(self, not_after: float) -> None:
        """Have a new SVID."""
        self.not_after = not_after
        self.generation += 1

    def check_ready(self, wall: float) -> None:
        """Raise NoIdentity while we have no valid SVID."""
        if not self.ready:
            raise NoIdentity("no certificate has been issued to this sidecar yet")
        if wall > self.not_after:
            raise NoIdentity("our own certificate has expired and could not be renewed")

    def distrust(self, identity: SpiffeId, reason: str = "unknown_root") -> None:
        """From now on, the roots of this peer are none of ours."""
        self.refuses[identity] = reason
        self.trust += 1

    def revoke(self, identity: SpiffeId) -> None:
        """From now on, this peer is on the denylist; whoever holds connections is still to be told."""
        self.revoked.add(identity)
        self.trust += 1

    def why_denied(self, peer: Peer) -> IdentityRevoked | None:
        """Why this peer holds no more; None where it does."""
        return IdentityRevoked("revoked", f"{peer.id} was revoked", peer.id) if peer.id in self.revoked else None

    def cut(self, wire: Wire, why: IdentityRevoked) -> None:
        """End a connection that stands, whatever is on it."""
        assert isinstance(wire, MemoryWire)
        wire.cut(WireCut(why.reason, why.detail))

    def judge_again(self, wire: Wire, peer: Peer, wall: float) -> None:
        """Judge the peer of an open connection by the roots and the denylist of today. Raises IdentityRefused."""
        if (denied := self.why_denied(peer)) is not None:
            raise denied
        if reason := self.refuses.get(peer.id, ""):
            raise IdentityRefused(reason, f"{peer.id} is refused: {reason}", peer.id)

    async def speaks_tls(self, wire: Wire) -> bool:
        """Wait for a greeting, or for bytes, which are no TLS here; also true where neither comes any more."""
        assert isinstance(wire, MemoryWire)
        while wire.greeting is None:
            await wire.readable()
            if wire.reset:
                raise WireBroken("reset")
            if wire.closed or wire.half_closed:
                return not wire.unread
            if wire.unread:
                return False
        return True

    async def accept(self, port: Port, wire: Wire, *, http: bool, within: float) -> tuple[Wire, Peer]:
        """Be the server. Raises IdentityRefused or NoIdentity; the wire is closed then."""
        assert isinstance(wire, MemoryWire)
        try:
            self.check_ready(port.wall())
            port.deadline(port.now + within)
            try:
                await _greeted(wire)
            except Expired:
                raise IdentityRefused("handshake_timeout", f"no handshake within {within:g} s") from None
            except WireBroken:
                raise IdentityRefused("reset", "the peer left during the handshake") from None
            assert wire.greeting is not None
            self._greet(wire, wire.greeting.tls.alpn)
            return wire, self._judge(wire, wire.greeting, port.wall())
        except BaseException:
            wire.close()
            raise

    async def connect(
        self, port: Port, wire: Wire, *, http: bool, server_name: str, expected: SpiffeId, within: float,
        h2: bool = False,
    ) -> tuple[Wire, Peer]:  # fmt: skip
        """Be the client. Raises HandshakeFailed, PeerIdentityMismatch or NoIdentity; the wire is closed then."""
        assert isinstance(wire, MemoryWire)
        try:
            self.check_ready(port.wall())
            port.deadline(port.now + within)
            self._greet(wire, "h2" if h2 else "")
            try:
                await _greeted(wire)
            except Expired:
                raise HandshakeFailed(f"no handshake within {within:g} s") from None
            except (WireBroken, IdentityRefused) as error:
                raise HandshakeFailed(f"the upstream left during the handshake: {error}") from None
            peer = wire.greeting
            assert peer is not None
            if peer.id != expected:
                raise PeerIdentityMismatch("other_identity", f"the upstream is {peer.id}, expected {expected}")
            if (denied := self.why_denied(peer)) is not None:
                raise PeerIdentityMismatch(denied.reason, denied.detail, peer.id)
            return wire, peer
        except BaseException:
            wire.close()
            raise

    def _greet(self, wire: MemoryWire, alpn: str = "") -> None:
        """Show ourselves to the other side."""
        fingerprint = hashlib.sha256(self.identity.text.encode()).hexdigest()
        tls = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", f"{self.generation:x}", self.not_after,
                      self.not_before, alpn)  # fmt: skip
        wire.other.greeting = Peer(self.identity, tls, fingerprint)
        if wire.other.reader is not None:
            wire.other.reader.wake()

    def _judge(self, wire: MemoryWire, peer: Peer, wall: float) -> Peer:
        reason = self.refuses.get(peer.id, "")
        if not reason and wall > peer.tls.not_after:
            reason = "expired"
        if reason:
            wire.other.break_with(AlertReceived(reason, f"the peer refused us with the TLS alert {reason}"))
            raise IdentityRefused(reason, f"{peer.id} is refused: {reason}")
        if (denied := self.why_denied(peer)) is not None:
            raise IdentityRefused(denied.reason, denied.detail, peer.id)
        return peer


async def _greeted(wire: MemoryWire) -> None:
    """Wait until the other side has shown itself. Raises WireBroken; IdentityRefused for bytes that are no TLS."""
    while wire.greeting is None:
        await wire.readable()
        if wire.greeting is None:
            if wire.unread:
                raise IdentityRefused("plaintext", "what the peer sent is not TLS")
            if wire.half_closed or wire.closed:
                raise WireBroken("closed")
