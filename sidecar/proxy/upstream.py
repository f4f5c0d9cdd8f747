"""Whoever a hop is sent on to: the application behind us, or the sidecar of a peer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from sidecar.config.schema import Address, HttpVersion, Limits, Timeouts
from sidecar.errors import (
    ConnectFailed,
    Draining,
    HandshakeFailed,
    IdentityRefused,
    NoHealthyUpstream,
    PeerIdentityMismatch,
)
from sidecar.http.grpc import is_grpc
from sidecar.http.h1 import H1Client
from sidecar.http.headers import first
from sidecar.http.plain_answers import AnswerReader
from sidecar.net.pool import Connection, Pool
from sidecar.net.port import NEVER, Expired, Port, Unreachable
from sidecar.proxy.trunks import Trunks, h2_limits
from sidecar.telemetry.record import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from certs.spiffe import SpiffeId
    from sidecar.http.message import RequestHead
    from sidecar.net.mtls import Gate, Peer
    from sidecar.net.port import Wire


class Upstream:
    """One destination: its endpoints, the identity it must show, and the connections that we keep to it."""

    def __init__(
        self,
        port: Port,
        *,
        name: str,
        host: str,
        protocol: str,
        endpoints: tuple[Address, ...],
        identity: SpiffeId | None,
        gate: Gate | None,
        timeouts: Timeouts,
        limits: Limits,
        on_handshake: Callable[[Handshake], str],
        http: HttpVersion = "auto",
    ) -> None:
        self.name = name
        self.host = host
        self.protocol = protocol
        self.http = http
        self.identity = identity
        self.endpoints = endpoints
        self._port = port
        self._gate = gate  # None: plaintext, toward the application or an unmeshed host
        self._timeouts = timeouts
        self._limits = limits
        self._on_handshake = on_handshake
        self.answers = AnswerReader(limits.head_bytes, limits.head_lines)
        self._turn = 0
        self.heir: Upstream | None = None  # who stands in our place since a reload
        self.ends_at = NEVER  # monotonic: when what is open to it ends, because it is no longer declared
        self.pool = Pool(
            port,
            self.connect,
            idle=timeouts.pool_idle_peer if gate is not None else timeouts.pool_idle_app,
            limit=limits.pool,
            pending=limits.pending,
        )
        self.trunks = Trunks(
            port,
            self._connect_h2,
            name=name,
            limits=h2_limits(limits, timeouts),
            scheme=b"https" if gate is not None else b"http",
            idle=timeouts.pool_idle_peer if gate is not None else timeouts.pool_idle_app,
            stall=timeouts.idle,
            most=limits.pool,
            pending=limits.pending,
        )
        self.roads: tuple[Pool | Trunks, ...] = (self.pool, self.trunks)
        if gate is not None:
            self.renew(gate.generation)

    def road(self, head: RequestHead) -> Pool | Trunks:
        """The connections that take this request: by HTTP/2 or HTTP/1.

        Between sidecars it is the version that the request came by. An application is asked by the version that the
        configuration says; where that says nothing, by HTTP/2 for gRPC, which needs it, and else by HTTP/1.1, which
        every server speaks. Upgrades go by HTTP/1.1, as a WebSocket over HTTP/2 is a rare thing to be spoken.
        """
        if head.protocol or first(head.headers, b"upgrade") is not None:
            return self.pool
        if self.http == "auto":
            h2 = head.version == b"2" and (self.meshed or is_grpc(head.headers))
        else:
            h2 = self.http == "http2"
        return self.trunks if h2 else self.pool

    def renew(self, generation: int) -> None:
        """Connections of earlier generations of the gate end (decision D17)."""
        for road in self.roads:
            road.renew(generation)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        for road in self.roads:
            road.sweep()

    def evict(self) -> int:
        """End connections to peers who were revoked, whatever is on them; returns how many."""
        gate = self._gate
        return sum(road.evict(gate) for road in self.roads) if gate is not None else 0

    @property
    def _server_name(self) -> str:
        """The declared host, for SNI; addresses have no place there (RFC 6066 section 3)."""
        try:
            ip_address(self.host)
        except ValueError:
            return self.host
        return ""

    @property
    def authority(self) -> bytes:
        """What to put into Host where a caller has named none."""
        endpoint = self.endpoints[0] if self.endpoints else None
        if endpoint is not None and endpoint.unix:
            return b"localhost"  # a socket's path is no authority (RFC 9110 section 4.2)
        return str(endpoint or self.host).encode("ascii")

    @property
    def meshed(self) -> bool:
        """Whether the hop to it is mTLS."""
        return self._gate is not None

    def retire(self, heir: Upstream | None, ends_at: float) -> None:
        """Another has taken our place, or nobody has: then what is still open to us may last until `ends_at`."""
        self.heir = heir
        self.ends_at = NEVER if heir is not None else ends_at
        for road in self.roads:
            road.retire()

    @property
    def retired(self) -> bool:
        """Whether nobody declares it any more, nor another in its place."""
        return self.ends_at != NEVER

    def judge_again(self, connection: Connection) -> None:
        """Judge a connection that carries a tunnel. Raises Draining or PeerIdentityMismatch."""
        latest = self
        while latest.heir is not None:
            latest = latest.heir
        if self.heir is not None:
            self.heir = latest
        if self._port.now >= latest.ends_at:
            raise Draining(f"the upstream {self.name} is no longer declared")
        if (latest.identity, latest.meshed) != (self.identity, self.meshed):
            raise PeerIdentityMismatch(
                "other_identity", f"{self.name} is declared as {latest.identity} now, not as {self.identity}"
            )
        if self._gate is None or connection.peer is None or connection.trust == self._gate.trust:
            return
        try:
            self._gate.judge_again(connection.wire, connection.peer, self._port.wall())
        except IdentityRefused as error:
            refused = PeerIdentityMismatch(error.reason, str(error), error.presented)
            refused.midway = error.midway
            raise refused from None
        connection.trust = self._gate.trust

    async def _connect_h2(self) -> Connection:
        return await self.connect(h2=True)

    async def connect(self, *, h2: bool = False, raw: bool = False) -> Connection:
        """Connect to the first endpoint that can be reached, starting with another one each time; by HTTP/2, or `raw`
        for what is no HTTP and must not agree on it by ALPN.

        Raises NoHealthyUpstream, ConnectFailed, HandshakeFailed, PeerIdentityMismatch or NoIdentity.
        """
        count = len(self.endpoints)
        if not count:
            raise NoHealthyUpstream(f"{self.name} has no endpoint")
        self._turn += 1
        problems: list[ConnectFailed] = []
        endpoint = self.endpoints[0]
        for offset in range(count):
            endpoint = self.endpoints[(self._turn + offset) % count]
            generation = self._gate.generation if self._gate is not None else 0
            try:
                wire, peer = await self._connect_to(endpoint, h2=h2, raw=raw)
            except ConnectFailed as error:
                problems.append(error)
            except PeerIdentityMismatch as error:
                error.endpoint = str(endpoint)
                raise
            else:
                codec = H1Client(self._limits.head_bytes, self._limits.head_lines)
                return Connection(wire, codec, peer, str(endpoint), generation)
        failure = problems[0]
        if count > 1:
            failure = ConnectFailed(f"no endpoint of {self.name} can be reached: " + "; ".join(map(str, problems)))
        failure.endpoint = str(endpoint)
        raise failure

    async def _connect_to(self, endpoint: Address, *, h2: bool, raw: bool) -> tuple[Wire, Peer | None]:
        port = self._port
        if self._gate is not None:
            self._gate.check_ready(port.wall())
        port.deadline(port.now + self._timeouts.connect)
        try:
            wire = await port.dial(endpoint.host, endpoint.port)
        except Unreachable as error:
            raise ConnectFailed(str(error)) from None
        except Expired:
            raise ConnectFailed(f"{endpoint} did not answer within {self._timeouts.connect:g} s") from None
        if self._gate is None:
            return wire, None
        try:
            return await self._secure(wire, self._gate, endpoint, h2=h2, raw=raw)
        except BaseException:
            wire.close()  # a gate that had no identity to show has not taken it over
            raise

    async def _secure(
        self, wire: Wire, gate: Gate, endpoint: Address, *, h2: bool, raw: bool
    ) -> tuple[Wire, Peer]:
        assert self.identity is not None
        port = self._port
        began = port.now
        try:
            secure, peer = await gate.connect(
                port,
                wire,
                http=self.protocol != "tcp" and not raw,
                h2=h2,
                server_name=self._server_name,
                expected=self.identity,
                within=self._timeouts.handshake,
            )
        except (HandshakeFailed, PeerIdentityMismatch) as error:
            self._on_handshake(
                Handshake(
                    "outbound", self.name, ok=False, expected=self.identity, reason=error.reason, error=error,
                    detail=error.detail, seconds=port.now - began, endpoint=str(endpoint),
                    peer=error.presented if isinstance(error, PeerIdentityMismatch) else None,
                )
            )  # fmt: skip
            raise
        self._on_handshake(
            Handshake("outbound", self.name, ok=True, peer=peer.id, tls=peer.tls, seconds=port.now - began)
        )
        return secure, peer
