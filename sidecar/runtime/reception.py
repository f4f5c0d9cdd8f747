"""Whoever comes in at a door: found out who that is, and served in what is spoken."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sidecar.errors import IdentityRefused, IdentityRevoked, NoIdentity
from sidecar.net.line import origin
from sidecar.net.port import Expired
from sidecar.net.preamble import address_of, client_hello, proxy_header, speaks_tls
from sidecar.net.wires import SocketWire
from sidecar.proxy.detection import spoken_on
from sidecar.proxy.evicting import Guests
from sidecar.proxy.http import HttpConnection
from sidecar.proxy.http2 import Http2Connection
from sidecar.proxy.inbound import InboundSide
from sidecar.proxy.outbound import OutboundSide
from sidecar.proxy.side import Caller, Door
from sidecar.telemetry.record import Handshake

if TYPE_CHECKING:
    from sidecar.net.admission import Admission
    from sidecar.net.mtls import Gate
    from sidecar.net.port import Wire
    from sidecar.net.reactor import Reactor
    from sidecar.telemetry.record import Recorder

Handler = Callable[[SocketWire], Coroutine[Any, Any, None]]


class Reception:
    """Serves the connections of all listeners. `reached` tells which address a caller meant, `handshake` how many
    seconds its TLS handshake may take.
    """

    def __init__(
        self, reactor: Reactor, gate: Gate, recorder: Recorder, admission: Admission, *,
        reached: Callable[[SocketWire], tuple[str, int]], handshake: Callable[[], float],
    ) -> None:  # fmt: skip
        self.http: set[HttpConnection | Http2Connection] = set()  # being served
        self.guests = Guests()
        self._reactor = reactor
        self._gate = gate
        self._recorder = recorder
        self._admission = admission
        self._reached = reached
        self._handshake = handshake

    def for_peers(self, side: InboundSide) -> Handler:
        """What serves a connection to this inbound listener."""
        door, protocol = side.door, side.spec.protocol

        async def handle(wire: SocketWire) -> None:
            known = await self._authenticate(wire, door)
            if known is None:
                return
            secure, caller = known
            task = self._reactor.current
            assert task is not None
            self.guests.enter(task, secure, caller)
            who = caller.peer.id.text if caller.peer is not None else ""  # who have no identity share one's places
            if not self._admission.enter_peer(who, door.side.name):
                self.guests.leave(task)
                secure.close()
                return
            try:
                current = door.side
                assert isinstance(current, InboundSide)
                if caller.peer is None:
                    seen = self._recorder.plaintext
                    with seen.stay("inbound", current.name, str(caller.source), self._reactor.wall):
                        await self._serve(secure, current, caller, protocol)
                else:
                    await self._serve(secure, current, caller, protocol)
            except IdentityRevoked:
                pass  # before it has asked for anything
            finally:
                self._admission.leave_peer(who)
                self.guests.leave(task)
                secure.close()

        return handle

    def for_application(self, side: OutboundSide, protocol: str) -> Handler:
        """What serves a connection of our application to this upstream's listener."""
        door = side.door

        async def handle(wire: SocketWire) -> None:
            current = door.side
            assert isinstance(current, OutboundSide)
            await self._serve(wire, current, Caller(None, *address_of(wire.peer_address())), protocol)

        return handle

    async def _authenticate(self, wire: SocketWire, door: Door) -> tuple[Any, Caller] | None:
        """Find out who calls; None where that is refused, which has been recorded then.

        A caller without TLS whom the listener's posture lets in is a `Caller` without a peer, on the wire as it is.
        """
        side, reactor = door.side, self._reactor
        assert isinstance(side, InboundSide)
        spec = side.spec
        source, port = address_of(wire.peer_address())
        reached: tuple[Any, int] = (None, 0)
        if spec.app_proxy_protocol != "none":
            reached = address_of(self._reached(wire))
        began = reactor.now
        task = reactor.current
        assert task is not None
        self._admission.stranger(task, spec.name)
        within = self._handshake()
        try:
            reactor.deadline(began + within)
            if spec.proxy_protocol is not None:
                header = await proxy_header(wire, spec.proxy_protocol, source, within)
                if header is not None and not header.local:
                    source, port = header.source, header.source_port
                    reached = header.destination, header.destination_port
            if side.lets_plaintext_in(reactor.wall()) and not await speaks_tls(self._gate, wire, within):
                stranger = Caller(None, source, port, reached=reached)
                assert isinstance(door.side, InboundSide)
                door.side.check_peer(stranger, wire, reactor.wall())  # by the posture of now: that was a wait
                return wire, stranger
            await client_hello(wire, within)
            left = wire.half_closed  # TLS finds better words for who left before its turn was asked for
            await self._admission.turn(reactor, origin(source))
            if wire.half_closed and not left:  # or we would only ever serve those who have given up
                raise IdentityRefused("reset", "the peer left while it waited for its turn")
            secure, peer = await self._gate.accept(reactor, wire, http=spec.protocol != "tcp", within=within)
        except Expired:
            self._recorder.connection_refused("inbound", spec.name, "handshakes")
            return None
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
        finally:
            self._admission.known(task)
            reactor.hurry()
        self._recorder.handshake(
            Handshake(
                "inbound", spec.name, ok=True, peer=peer.id, source=source, tls=peer.tls, seconds=reactor.now - began
            )
        )
        return secure, Caller(peer, source, port, peer.trust, reached)

    async def _serve_http(self, connection: HttpConnection | Http2Connection) -> None:
        """Serve, and be known to a drain meanwhile; a connection that turns out to speak HTTP/2 becomes another."""
        heir: HttpConnection | Http2Connection | None = connection
        while heir is not None:
            connection = heir
            self.http.add(connection)
            try:
                heir = await connection.serve()
            finally:
                self.http.discard(connection)

    async def _serve(self, wire: Wire, side: InboundSide | OutboundSide, caller: Caller, protocol: str) -> None:
        """Serve a connection in what is spoken on it."""
        reactor = self._reactor
        found = await spoken_on(reactor, wire, caller, protocol=protocol, side=side)
        if found is None:
            return
        spoken, early = found
        current = side.door.side  # that was a wait
        if spoken == "opaque":
            assert isinstance(current, (InboundSide, OutboundSide))
            await current.serve_tcp(reactor, wire, caller, early)
        else:
            kind = Http2Connection if spoken == "http2" else HttpConnection
            await self._serve_http(kind(reactor, wire, current, caller, early))
