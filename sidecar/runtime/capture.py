"""The two doors of a redirected sidecar, and whom a connection that comes by one of them is for.

Rules of the kernel bring what comes from outside to one port and what the application sends out to another. What was
meant is what the kernel remembers of it (`sidecar.net.original`), and nothing else:

    inbound     the port tells the listener, which goes on as if it had accepted the connection itself
    outbound    the address tells the upstream that holds it, or that plaintext may go there

Whatever tells nothing of these is refused before a byte is read, and written down: a port that no listener declares, an
address that nobody holds or two do, a connection that nobody has redirected, one of our own. The last would come back
for ever: it shows that the rules do not let our own user pass.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.config.terms import Address
from sidecar.errors import HopError, LoopDetected, NotRedirected, UndeclaredPort
from sidecar.hop import Hop
from sidecar.net.original import Place, SocketOwners, original_destination, place
from sidecar.net.preamble import address_of
from sidecar.proxy.captured import PASSTHROUGH, Passthrough
from sidecar.proxy.side import Caller
from sidecar.runtime.listening import CannotListen, bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from sidecar.config.schema import Service
    from sidecar.hop import Direction
    from sidecar.net.mtls import Gate
    from sidecar.net.reactor import Acceptor, Reactor
    from sidecar.net.wires import SocketWire
    from sidecar.proxy.tcp import Tunnels
    from sidecar.runtime.mirror import Mirror
    from sidecar.runtime.reception import Handler
    from sidecar.runtime.redirected import Captured
    from sidecar.telemetry.record import Recorder

OURS = "redirect"  # what stands in the place of a listener's name where none is meant


@dataclass(frozen=True, slots=True)
class Hands:
    """Who goes on with connections: the proxy that the capture ports are of."""

    reactor: Reactor
    gate: Gate
    mirror: Mirror
    hand_over: Callable[[Any, SocketWire], None]  # go on as this listener does
    serve: Callable[[Direction, str, Handler, SocketWire], None]  # serve it by itself, if there is room


class Capture:
    """Listens on the capture ports. Its `pause` and `retire` are those of each listener that is found by its port."""

    def __init__(
        self, service: Service, captured: Captured, *, recorder: Recorder, tunnels: Tunnels, hands: Hands,
    ) -> None:  # fmt: skip
        self._reactor = hands.reactor
        self._recorder = recorder
        self._hands = hands
        self._sockets = SocketOwners()
        self._acceptors: dict[Direction, list[Acceptor]] = {}
        self._inbound: Mapping[int, Any] = {}
        self._outbound: Mapping[str, Any] = {}
        self._service, self._captured = service, captured
        self._passthrough = Passthrough(recorder=recorder, tunnels=tunnels, **self._said())
        hands.mirror.capture = capture_port(service, "inbound")

    def _said(self) -> dict[str, Any]:
        service = self._service
        return {
            "identity": service.identity, "listen": self._captured.listen[0], "owners": self._captured.owners,
            "timeouts": service.timeouts, "limits": service.limits,
        }  # fmt: skip

    def adopt(
        self, service: Service, captured: Captured, inbound: Mapping[int, Any], outbound: Mapping[str, Any]
    ) -> None:
        """From now on this is in force: listeners by port, and what stands behind each upstream by its name."""
        self._service, self._captured = service, captured
        self._inbound, self._outbound = inbound, outbound
        self._passthrough.adopt(**self._said())

    # ---- the doors ---------------------------------------------------------------------------------------------------

    def bind(self) -> list[tuple[Direction, socket.socket]]:
        """Listening sockets for both doors, all or none; none where they stand already. Raises CannotListen.

        A machine without IPv6 has no such connections, so there it is left out.
        """
        redirect = self._service.redirect
        assert redirect is not None
        if self._acceptors:
            return []
        bound: list[tuple[Direction, socket.socket]] = []
        wanted: list[tuple[Direction, str, int]] = [
            ("inbound", "0.0.0.0", redirect.capture_in), ("inbound", "::", redirect.capture_in),  # noqa: S104
            ("outbound", "127.0.0.1", redirect.capture_out), ("outbound", "::1", redirect.capture_out),
        ]  # fmt: skip
        try:
            for direction, host, port in wanted:
                try:
                    bound.append((direction, bind(Address(host, port), one_family=True)))
                except CannotListen as error:
                    if ":" not in host or not _without_ipv6(error):
                        raise
        except BaseException:
            for _, sock in bound:
                sock.close()
            raise
        return bound

    def open(self, bound: list[tuple[Direction, socket.socket]]) -> None:
        """Accept on these."""
        arrives = {"inbound": self._arrives, "outbound": self._leaves}
        for direction, sock in bound:
            self._acceptors.setdefault(direction, []).append(self._reactor.listen(sock, arrives[direction]))

    def end(self, direction: Direction) -> None:
        """Take no new connection by this door."""
        for acceptor in self._acceptors.get(direction, ()):
            acceptor.retire()

    def pause(self) -> None:
        """Accept nobody from outside for a moment."""
        for acceptor in self._acceptors.get("inbound", ()):
            acceptor.pause()

    def retire(self) -> None:
        """A listener has gone: nobody finds it any more, and the others are found as before."""

    # ---- connections -------------------------------------------------------------------------------------------------

    def reached(self, wire: SocketWire) -> tuple[str, int]:
        """The address that a caller from outside connected to."""
        asked = original_destination(wire.sock)
        return wire.own_address() if asked is None else (str(asked.host), asked.port)

    def _arrives(self, wire: SocketWire) -> None:
        """From outside."""
        mirror, source = self._hands.mirror, wire.peer_address()
        if mirror.looking and mirror.is_ours(source):
            meant = mirror.asked(source)
            if meant is None:
                wire.close()  # it was only to be seen where it arrives
            else:
                self._reactor.start(mirror.serve(self._reactor, self._hands.gate, wire, meant))
            return
        asked = original_destination(wire.sock)
        try:
            self._check_redirected(wire, asked)
            assert asked is not None
            ear = self._inbound.get(asked.port)
            if ear is None:
                hint = f"inbound: [{{port: {asked.port}, app: '127.0.0.1:{asked.port}'}}]"
                error = UndeclaredPort(f"no inbound listener has port {asked.port}; what would allow it: {hint}")
                error.hint = hint
                raise error
        except HopError as error:
            self._refuse("inbound", wire, asked, error)
        else:
            self._hands.hand_over(ear, wire)

    def _leaves(self, wire: SocketWire) -> None:
        """From the application."""
        asked = original_destination(wire.sock)
        try:
            self._check_redirected(wire, asked)
            assert asked is not None
            self._check_loop(wire, asked)
            upstream = self._captured.owners.of(asked)
            if upstream is None:
                self._captured.owners.check_passthrough(asked)
        except HopError as error:
            self._refuse("outbound", wire, asked, error)
            return
        if upstream is not None:
            self._hands.hand_over(self._outbound[upstream.name], wire)
            return
        caller = Caller(None, *address_of(wire.peer_address()))
        serve = partial(self._passthrough.serve, self._reactor, caller=caller, asked=asked)
        self._hands.serve("outbound", PASSTHROUGH, serve, wire)

    def _check_redirected(self, wire: SocketWire, asked: Place | None) -> None:
        """Raise NotRedirected for who has connected to a capture port itself."""
        redirect = self._service.redirect
        assert redirect is not None
        host, port = wire.own_address()
        if asked is None or asked.port in (redirect.capture_in, redirect.capture_out):
            raise NotRedirected(f"nothing has redirected what came to port {port} of {host or 'this machine'}")
        if host and asked == place(host, port):
            raise NotRedirected(f"nothing has redirected what came to {asked}")

    def _check_loop(self, wire: SocketWire, asked: Place) -> None:
        """Raise LoopDetected for a connection that we have made ourselves."""
        host, port = wire.peer_address()
        if host and self._sockets.is_ours(place(host, port), asked):
            raise LoopDetected(
                f"this sidecar's own connection to {asked} was captured: the rules must let its user pass "
                "(mesh redirect verify)"
            )

    def _refuse(self, direction: Direction, wire: SocketWire, asked: Place | None, error: HopError) -> None:
        """Close it unread, and write down what it was."""
        source, source_port = address_of(wire.peer_address())
        identity, now = self._service.identity, self._reactor.now
        inbound = direction == "inbound"
        wire.abort()
        hop = Hop(
            direction, OURS, capture_port(self._service, direction), "tcp", peer=None if inbound else identity,
            destination=identity if inbound else None, source=source, source_port=source_port,
            host=str(asked.host) if asked is not None else "", endpoint=str(asked or ""), started=now, ended=now,
            error=error, decision_id=self._recorder.decision_id(),
        )  # fmt: skip
        self._recorder.observe(hop)
        if self._recorder.log is not None:
            # Repetitions are held back by their text: an application's own destinations are told of each, while
            # whoever is outside cannot fill the log.
            where = f" to {asked}" if asked is not None and not inbound else ""
            self._recorder.log.warning(
                f"a captured connection{where} is refused", direction=direction, source=source, destination=asked,
                error=error.name, flag=error.flag, detail=error.detail, allow=error.hint or None,
                decision_id=hop.decision_id,
            )  # fmt: skip


def capture_port(service: Service, direction: Direction) -> int:
    """The capture port of this direction."""
    redirect = service.redirect
    assert redirect is not None
    return redirect.capture_in if direction == "inbound" else redirect.capture_out


def _without_ipv6(error: CannotListen) -> bool:
    """Whether this machine has no such address, or no IPv6 at all."""
    cause = error.__context__
    return isinstance(cause, OSError) and cause.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
