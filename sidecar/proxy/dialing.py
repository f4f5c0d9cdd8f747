"""A new connection to an endpoint of an upstream: TCP or a Unix socket, and toward a peer's sidecar the handshake in
which it proves who it is; toward a host outside the mesh that of the web, where that is asked for.

The name of a host outside is looked up here, its addresses are judged (`sidecar.policy.reach`), and one of those that
were judged is connected to: nobody is asked for that name a second time.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from sidecar.errors import ConnectFailed, HandshakeFailed, PeerIdentityMismatch, PrivateAddress
from sidecar.http.h1 import H1Client
from sidecar.net.pool import Connection
from sidecar.net.port import Expired, Unreachable
from sidecar.telemetry.record import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from certs.spiffe import SpiffeId
    from sidecar.config.schema import Limits, Timeouts
    from sidecar.config.terms import Address
    from sidecar.net.mtls import Gate, Peer
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.outsiders import OutsideWay


class Dialer:
    """Makes the connections to one upstream."""

    def __init__(
        self,
        port: Port,
        *,
        name: str,
        host: str,
        protocol: str,
        identity: SpiffeId | None,
        gate: Gate | None,
        timeouts: Timeouts,
        limits: Limits,
        on_handshake: Callable[[Handshake], str],
        outside: OutsideWay | None = None,
    ) -> None:
        self._port = port
        self._name = name
        self._server_name = _server_name(host)
        self._protocol = protocol
        self._identity = identity
        self._gate = gate
        self._timeouts = timeouts
        self._limits = limits
        self._on_handshake = on_handshake
        self._outside = outside
        self.on_other_http: Callable[[bool], None] = _nobody  # hears that a host outside refuses HTTP/2, or HTTP/1.1
        self.plain = 0  # connections that were made in plaintext
        self.plain_at = 0.0  # seconds since the epoch: when the latest was

    async def connect(self, address: Address, *, h2: bool = False, raw: bool = False) -> Connection:
        """Connect to an endpoint. Raises ConnectFailed, HandshakeFailed, PeerIdentityMismatch or NoIdentity."""
        generation = self._gate.generation if self._gate is not None else 0
        try:
            wire, peer = await self._connect_to(address, h2=h2, raw=raw)
        except (ConnectFailed, PeerIdentityMismatch, PrivateAddress) as error:
            error.endpoint = str(address)
            raise
        codec = H1Client(self._limits.head_bytes, self._limits.head_lines)
        return Connection(wire, codec, peer, str(address), generation)

    async def _connect_to(self, endpoint: Address, *, h2: bool, raw: bool) -> tuple[Wire, Peer | None]:
        port = self._port
        if self._gate is not None:
            self._gate.check_ready(port.wall())
        port.deadline(port.now + self._timeouts.connect)
        outside = self._outside
        try:
            if outside is None:
                wire = await port.dial(endpoint.host, endpoint.port)
            else:
                wire = await outside.dial(port, endpoint)
        except Unreachable as error:
            raise ConnectFailed(str(error)) from None
        except Expired:
            raise ConnectFailed(f"{endpoint} did not answer within {self._timeouts.connect:g} s") from None
        if outside is not None and outside.tls is not None:
            http = self._protocol != "tcp" and not raw
            try:
                secure, _ = await outside.tls.connect(port, wire, http=http, h2=h2, within=self._timeouts.handshake)
            except HandshakeFailed as error:
                if error.reason == "alpn" and http:
                    self.on_other_http(h2)
                self._on_handshake(Handshake(
                    "outbound", self._name, ok=False, reason=error.reason, error=error, detail=error.detail,
                    endpoint=str(endpoint),
                ))  # fmt: skip
                raise
            return secure, None
        if self._gate is None:
            self.plain += 1
            self.plain_at = port.wall()
            return wire, None
        try:
            return await self._secure(wire, self._gate, endpoint, h2=h2, raw=raw)
        except BaseException:
            wire.close()  # a gate that had no identity to show has not taken it over
            raise

    async def _secure(
        self, wire: Wire, gate: Gate, endpoint: Address, *, h2: bool, raw: bool
    ) -> tuple[Wire, Peer]:
        assert self._identity is not None
        port = self._port
        began = port.now
        try:
            secure, peer = await gate.connect(
                port,
                wire,
                http=self._protocol != "tcp" and not raw,
                h2=h2,
                server_name=self._server_name,
                expected=self._identity,
                within=self._timeouts.handshake,
            )
        except (HandshakeFailed, PeerIdentityMismatch) as error:
            self._on_handshake(
                Handshake(
                    "outbound", self._name, ok=False, expected=self._identity, reason=error.reason, error=error,
                    detail=error.detail, seconds=port.now - began, endpoint=str(endpoint),
                    peer=error.presented if isinstance(error, PeerIdentityMismatch) else None,
                )
            )  # fmt: skip
            raise
        self._on_handshake(
            Handshake("outbound", self._name, ok=True, peer=peer.id, tls=peer.tls, seconds=port.now - began)
        )
        return secure, peer


def _nobody(h2: bool) -> None:
    return


def _server_name(host: str) -> str:
    """The declared host, for SNI; addresses have no place there (RFC 6066 section 3)."""
    try:
        ip_address(host)
    except ValueError:
        return host
    return ""
