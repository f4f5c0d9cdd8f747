"""What becomes of connections that the application has made without knowing of us, once we know whom it meant.

An upstream is served exactly as at a local listener of its own (`outbound`), but for the hosts that a request may name:
the application has the name from its own configuration, so besides the declared host those of the upstream's endpoints
and `addresses` are good, and any address that the upstream holds. None of them chooses whom we talk to.

Where no upstream holds the address and `redirect.passthrough` lets it be, the bytes go there as they are, in plaintext,
and it is written down that they did. Nothing is read of them first, so protocols in which the server speaks first
work. What was let pass is judged again with every reload, as other tunnels are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.config.terms import Address
from sidecar.errors import HopError, UndeclaredUpstream, UnsupportedFeature
from sidecar.hop import Hop
from sidecar.net.original import place
from sidecar.proxy.dialing import Dialer
from sidecar.proxy.lease import lease_of
from sidecar.proxy.outbound import OutboundSide
from sidecar.proxy.owners import Owners
from sidecar.proxy.tcp import carrying, tunnel

if TYPE_CHECKING:
    from collections.abc import Collection

    from certs.spiffe import SpiffeId
    from sidecar.config.schema import Limits, Timeouts
    from sidecar.http.canonical import Target
    from sidecar.net.original import Place
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.side import Caller
    from sidecar.proxy.tcp import Tunnels
    from sidecar.proxy.upstream import Upstream
    from sidecar.telemetry.record import Recorder

PASSTHROUGH: Final = "redirect.passthrough"  # in the place of an upstream's name, and of a rule's
HTTP_PORT: Final = 80  # of a Host without one (RFC 9110 section 4.2.1)


class CapturedSide(OutboundSide):
    """What is done to captured connections that mean one upstream."""

    def __init__(self, *, owners: Owners, hosts: Collection[str], only: Upstream, **more: Any) -> None:
        super().__init__(only=only, **more)
        self._owners = owners
        self._hosts = hosts  # by which the application may call it

    def _choose(self, host: str, port: int | None, target: Target) -> Upstream:
        only = self.only
        assert only is not None
        if target.scheme == "https":
            raise UnsupportedFeature("https:// in plaintext: speak plain HTTP, the sidecar adds the TLS")
        if host in ("", only.host) or host in self._hosts or self._holds(host, port):
            return only
        raise UndeclaredUpstream(
            f"this connection was made to {only.name}, whose host is {only.host}, and the request is for {host}",
            f"name it in `addresses` of {only.name} if that is what {host} stands for",
        )

    def _holds(self, host: str, port: int | None) -> bool:
        try:
            return self._owners.of(place(host, port or HTTP_PORT)) is self.only
        except (ValueError, HopError):  # a name, or an address that is not its own alone
            return False


class Passthrough:
    """Moves bytes in plaintext to addresses that no upstream holds."""

    def __init__(
        self, *, identity: SpiffeId, listen: Address, owners: Owners, timeouts: Timeouts, limits: Limits,
        recorder: Recorder, tunnels: Tunnels,
    ) -> None:  # fmt: skip
        self._recorder = recorder
        self._tunnels = tunnels
        self.adopt(identity=identity, listen=listen, owners=owners, timeouts=timeouts, limits=limits)

    def adopt(
        self, *, identity: SpiffeId, listen: Address, owners: Owners, timeouts: Timeouts, limits: Limits
    ) -> None:  # fmt: skip
        """From now on this is the configuration in force; what is open is judged by it when tunnels are."""
        self._identity = identity
        self._listen = listen
        self._owners = owners
        self._timeouts = timeouts
        self._limits = limits

    async def serve(self, port: Port, wire: Wire, caller: Caller, asked: Place) -> None:
        """Move the bytes of a connection that was made to this address. The decision has been made, and is again."""
        hop = self._hop(caller, asked, port.now)
        with carrying(hop, port, wire, self._recorder) as far:
            self._owners.check_passthrough(asked)
            hop.attempts = 1
            far.connection = connection = await self._dialer(port).connect(_address(asked), raw=True)
            with (
                self._recorder.plaintext.stay("outbound", PASSTHROUGH, str(asked), port.wall),
                self._tunnels.open(port.current, lambda: self._judge_again(asked)),
            ):
                await tunnel(port, wire, connection.wire, hop, idle=self._timeouts.tcp_idle, lease=lease_of(hop, port))

    def _judge_again(self, asked: Place) -> None:
        """Raise UndeclaredUpstream or AmbiguousUpstream where plaintext may not go there any more."""
        self._owners.check_passthrough(asked)

    def _hop(self, caller: Caller, asked: Place, now: float) -> Hop:
        return Hop(
            "outbound", PASSTHROUGH, self._listen.port, "tcp", peer=self._identity, source=caller.source,
            source_port=caller.source_port, host=str(asked.host), endpoint=str(asked), route="/**", rule=PASSTHROUGH,
            started=now,
        )  # fmt: skip

    def _dialer(self, port: Port) -> Dialer:
        return Dialer(
            port, name=PASSTHROUGH, host="", protocol="tcp", identity=None, gate=None, timeouts=self._timeouts,
            limits=self._limits, on_handshake=self._recorder.handshake,
        )  # fmt: skip


def _address(asked: Place) -> Address:
    return Address(str(asked.host), asked.port)
