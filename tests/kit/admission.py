"""Requests as bytes, judged by the proxy's own functions without a socket: the strict reader, then a side's `admit`.

The sides are those that `sidecar.runtime.build.Proxy` makes of a service; nothing listens and nothing is dialled.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from types import SimpleNamespace
from typing import Any

from certs.spiffe import SpiffeId
from sidecar.config.schema import Service
from sidecar.errors import HopError
from sidecar.hop import Hop
from sidecar.http.h1 import H1Server
from sidecar.http.message import Data, RequestHead
from sidecar.net.mtls import Peer
from sidecar.proxy.inbound import InboundSide
from sidecar.proxy.side import Caller
from sidecar.runtime.build import Proxy
from sidecar.telemetry.record import Recorder
from tests.kit.hops import A_TLS

WALL = 1_790_000_000.0  # seconds since the epoch at which requests are judged
SOURCE = ip_address("192.0.2.7")


class Admission:
    """One service's sidecar, asked what it makes of a request."""

    def __init__(self, service: Service, recorder: Recorder) -> None:
        port, gate = SimpleNamespace(now=0.0, nudge=lambda: None), SimpleNamespace(generation=0)
        built: dict[str, Any] = {"reactor": port, "gate": gate, "recorder": recorder, "instance": recorder.instance}
        self.proxy = Proxy(service, **built)
        self.service = service

    def inbound(self, listener: str) -> InboundSide:
        """The inbound side of this listener."""
        return next(side for spec, side in self.proxy._inbound if spec.name == listener)

    def request(
        self,
        raw: bytes,
        peer: SpiffeId | None,
        listener: str = "http",
        source: IPv4Address | IPv6Address | None = SOURCE,
    ) -> Hop:
        """The hop that a peer's request becomes; its `error` is set where the request is refused.

        None is a caller without TLS.
        """
        return self._ask(raw, self.inbound(listener), _caller(peer, source))

    def local(self, raw: bytes, listener: str) -> Hop:
        """The hop that our own application's request becomes, at an upstream's listener or at `forward_proxy`."""
        side = next(side for name, _, _, side in self.proxy._outbound if name == listener)
        return self._ask(raw, side, Caller(None, ip_address("127.0.0.1"), 40000))

    def connection(
        self, peer: SpiffeId | None, listener: str, source: IPv4Address | IPv6Address | None = SOURCE
    ) -> Hop:
        """The hop that a peer's raw TCP connection becomes."""
        side = self.inbound(listener)
        hop = side._hop(_caller(peer, source), "tcp", 0.0)
        try:
            side._authorize(hop, WALL)
        except HopError as error:
            hop.error = error
        return hop

    def _ask(self, raw: bytes, side: Any, caller: Caller) -> Hop:
        codec = H1Server(self.service.limits.head_bytes, self.service.limits.head_lines)
        head = None
        hop = side.open_hop(caller, None, 0.0)
        try:
            codec.receive(raw)
            head = codec.next_event()
            assert isinstance(head, RequestHead), f"{raw!r} is no whole request"
            hop = side.open_hop(caller, head, 0.0)
            plan = side.admit(hop, caller, head, WALL)
            hop.listener = hop.listener or plan.upstream.name
            while isinstance(codec.next_event(), Data):
                pass
            assert codec.they_are_done
        except HopError as error:
            hop.error = error
        return hop


def _caller(peer: SpiffeId | None, source: IPv4Address | IPv6Address | None) -> Caller:
    return Caller(Peer(peer, A_TLS, "ab" * 32) if peer is not None else None, source, 40000)
