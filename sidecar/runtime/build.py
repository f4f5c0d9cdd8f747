"""From a service's configuration to its sidecar: listeners, sides, upstreams. The one place that knows constructors."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from certs.errors import MeshError
from sidecar.config.schema import Address, Inbound, Outbound, Service
from sidecar.errors import IdentityRefused, NoIdentity
from sidecar.net.reactor import Acceptor, Reactor, open_files_limit
from sidecar.policy.authz import RuleSet
from sidecar.policy.reading import Reading
from sidecar.proxy.http import HttpConnection
from sidecar.proxy.inbound import InboundSide
from sidecar.proxy.outbound import OutboundSide
from sidecar.proxy.side import Caller
from sidecar.proxy.upstream import Upstream
from sidecar.telemetry.record import Handshake

if TYPE_CHECKING:
    from sidecar.hop import Direction
    from sidecar.net.mtls import Gate
    from sidecar.net.wires import SocketWire
    from sidecar.telemetry.record import Recorder

BACKLOG = 1024
DESCRIPTORS_PER_CONNECTION = 2  # a downstream and an upstream socket
DESCRIPTOR_SHARE = 0.9  # decision D25


class CannotListen(MeshError):
    """A listener's address cannot be had: taken, not ours, or not permitted."""

    name = "cannot_listen"


class Proxy:
    """All listeners of one sidecar, and what is open on them."""

    def __init__(self, service: Service, *, reactor: Reactor, gate: Gate, recorder: Recorder, instance: str) -> None:
        self.service = service
        self.rules = RuleSet.compile(service.allow, service.deny)
        self.draining = False
        self.refused_connections = 0
        self._reactor = reactor
        self._gate = gate
        self._recorder = recorder
        self._instance = instance
        self._acceptors: dict[str, list[Acceptor]] = {"inbound": [], "outbound": []}
        self._http: set[HttpConnection] = set()
        self._open = {"inbound": 0, "outbound": 0}
        share = int(open_files_limit() * DESCRIPTOR_SHARE / DESCRIPTORS_PER_CONNECTION)
        self._most = min(service.limits.connections, share)
        self._upstreams: list[Upstream] = []
        self._inbound: list[tuple[Inbound, InboundSide]] = []
        self._outbound: list[tuple[str, str, Address, OutboundSide]] = []  # name, protocol, address, side
        self._build()

    # ---- construction ----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        service = self.service
        for listener in service.inbound:
            self._inbound.append((listener, self._inbound_side(listener)))
        by_name = {spec.name: self._upstream(spec) for spec in service.outbound}
        by_host = {upstream.host: upstream for upstream in by_name.values()}
        for spec in service.outbound:
            if spec.listen is not None:
                side = self._outbound_side(spec.name, spec.listen, by_host, by_name[spec.name])
                self._outbound.append((spec.name, spec.protocol, spec.listen, side))
        if service.forward_proxy is not None:
            side = self._outbound_side("forward_proxy", service.forward_proxy, by_host, None)
            self._outbound.append(("forward_proxy", "http", service.forward_proxy, side))

    def _inbound_side(self, spec: Inbound) -> InboundSide:
        service = self.service
        app = self._new_upstream(spec.name, "app", spec.protocol, (spec.app,), None, None)
        return InboundSide(
            spec,
            identity=service.identity,
            instance=self._instance,
            rules=lambda: self.rules,
            app=app,
            timeouts=service.timeouts,
            limits=service.limits,
            recorder=self._recorder,
            audit_accepts=self._recorder.audit_accepts,
            reading=Reading.of(service, spec),
        )

    def _outbound_side(
        self, name: str, listen: Address, by_host: dict[str, Upstream], only: Upstream | None
    ) -> OutboundSide:
        service = self.service
        return OutboundSide(
            name=name,
            listen=listen,
            identity=service.identity,
            instance=self._instance,
            upstreams=by_host,
            only=only,
            timeouts=service.timeouts,
            limits=service.limits,
            recorder=self._recorder,
        )

    def _upstream(self, spec: Outbound) -> Upstream:
        gate = self._gate if spec.unmeshed == "refuse" else None
        return self._new_upstream(spec.name, spec.host, spec.protocol, spec.endpoints, spec, gate)

    def _new_upstream(
        self,
        name: str,
        host: str,
        protocol: str,
        endpoints: tuple[Address, ...],
        spec: Outbound | None,
        gate: Gate | None,
    ) -> Upstream:
        service = self.service
        upstream = Upstream(
            self._reactor,
            name=name,
            host=host,
            protocol=protocol,
            endpoints=endpoints,
            identity=spec.identity if spec is not None else service.identity,
            gate=gate,
            timeouts=service.timeouts,
            limits=service.limits,
            on_handshake=self._recorder.handshake,
        )
        self._upstreams.append(upstream)
        return upstream

    # ---- listening -------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Open every listener, or none. Raises CannotListen."""
        bound: list[tuple[Direction, socket.socket, Callable[[SocketWire], Coroutine[Any, Any, None]], str]] = []
        try:
            for spec, inbound in self._inbound:
                sock = bind(Address(spec.bind, spec.port))
                bound.append(("inbound", sock, _inbound_handler(self, spec, inbound), spec.name))
            for name, protocol, address, outbound in self._outbound:
                bound.append(("outbound", bind(address), _outbound_handler(self, name, protocol, outbound), name))
        except BaseException:
            for _, sock, _, _ in bound:
                sock.close()
            raise
        for direction, sock, handler, name in bound:
            acceptor = self._reactor.listen(sock, self._on_wire(direction, name, handler))
            self._acceptors[direction].append(acceptor)

    def _on_wire(
        self, direction: Direction, name: str, handler: Callable[[SocketWire], Coroutine[Any, Any, None]]
    ) -> Callable[[SocketWire], None]:
        def on_wire(wire: SocketWire) -> None:
            if self._open["inbound"] + self._open["outbound"] >= self._most:
                self.refused_connections += 1
                self._recorder.connection_refused(direction, name)
                wire.abort()
                return
            self._reactor.start(self._served(direction, name, handler, wire))

        return on_wire

    async def _served(
        self,
        direction: Direction,
        name: str,
        handler: Callable[[SocketWire], Coroutine[Any, Any, None]],
        wire: SocketWire,
    ) -> None:
        self._open[direction] += 1
        self._recorder.connection_opened(direction, name)
        try:
            await handler(wire)
        finally:
            self._open[direction] -= 1
            self._recorder.connection_closed(direction, name)
            wire.close()

    async def authenticate(self, wire: SocketWire, spec: Inbound) -> tuple[Any, Caller] | None:
        """Find out who calls; None where that is refused, which has been recorded then."""
        reactor = self._reactor
        address, port = wire.peer_address()
        source = ip_address(address) if address else None
        began = reactor.now
        try:
            secure, peer = await self._gate.accept(
                reactor, wire, http=spec.protocol == "http", within=self.service.timeouts.handshake
            )
        except (IdentityRefused, NoIdentity) as error:
            reason = error.reason if isinstance(error, IdentityRefused) else error.name
            self._recorder.handshake(
                Handshake(
                    "inbound", spec.name, ok=False, source=source, reason=reason, detail=error.detail, error=error,
                    peer=error.presented if isinstance(error, IdentityRefused) else None,
                    seconds=reactor.now - began,
                )
            )  # fmt: skip
            return None
        self._recorder.handshake(
            Handshake(
                "inbound", spec.name, ok=True, peer=peer.id, source=source, tls=peer.tls, seconds=reactor.now - began
            )
        )
        return secure, Caller(peer, source, port)

    async def serve_http(self, connection: HttpConnection) -> None:
        """Serve, and be known to a drain meanwhile."""
        self._http.add(connection)
        try:
            await connection.serve()
        finally:
            self._http.discard(connection)

    # ---- life ----------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Open downstream connections."""
        return self._open["inbound"] + self._open["outbound"]

    @property
    def inbound_connections(self) -> int:
        """Open connections of peers."""
        return self._open["inbound"]

    @property
    def in_flight(self) -> int:
        """Requests that have begun and not ended."""
        return sum(not connection.idle for connection in self._http)

    def listeners(self) -> list[dict[str, str]]:
        """Where we listen, for `mesh status`."""
        rows = [
            {"name": spec.name, "address": str(Address(spec.bind, spec.port)), "protocol": spec.protocol,
             "direction": "inbound"}
            for spec, _ in self._inbound
        ]  # fmt: skip
        return rows + [
            {"name": name, "address": str(address), "protocol": protocol, "direction": "outbound"}
            for name, protocol, address, _ in self._outbound
        ]

    def sweep(self) -> None:
        """Close pooled connections that have been idle for too long."""
        for upstream in self._upstreams:
            upstream.pool.sweep()

    def renew(self) -> None:
        """Our identity or our bundle has changed: connections to peers are replaced (decision D17)."""
        for upstream in self._upstreams:
            if upstream.meshed:
                upstream.pool.renew(self._gate.generation)

    def drain(self) -> None:
        """Take no new work from peers; what is in flight may end. Outbound stays open (semantics S27)."""
        self.draining = True
        for acceptor in self._acceptors["inbound"]:
            acceptor.close()
        for _, side in self._inbound:
            side.draining = True
        for connection in list(self._http):
            if connection.direction == "inbound":
                connection.drain()


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises CannotListen, saying what to do."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotListen(f"cannot listen on {address}: {error.strerror or error}") from None
    return sock


def _inbound_handler(
    proxy: Proxy, spec: Inbound, side: InboundSide
) -> Callable[[SocketWire], Coroutine[Any, Any, None]]:
    async def handle(wire: SocketWire) -> None:
        known = await proxy.authenticate(wire, spec)
        if known is None:
            return
        secure, caller = known
        try:
            if spec.protocol == "http":
                await proxy.serve_http(HttpConnection(proxy._reactor, secure, side, caller))
            else:
                await side.serve_tcp(proxy._reactor, secure, caller)
        finally:
            secure.close()

    return handle


def _outbound_handler(
    proxy: Proxy, name: str, protocol: str, side: OutboundSide
) -> Callable[[SocketWire], Coroutine[Any, Any, None]]:
    async def handle(wire: SocketWire) -> None:
        address, port = wire.peer_address()
        caller = Caller(None, ip_address(address) if address else None, port)
        if protocol == "http":
            await proxy.serve_http(HttpConnection(proxy._reactor, wire, side, caller))
        else:
            await side.serve_tcp(proxy._reactor, wire, caller)

    return handle
