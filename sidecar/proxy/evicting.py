"""Whoever is revoked is cut off at once, in the middle of whatever it does (decision D10).

A denylist that denies more than the one before is looked up for every open connection of a verified peer, in either
direction; nobody waits for a next request, and no request pays for it. Three kinds of connections are found in three
places: tunnels judge themselves (`sidecar.proxy.tcp`), callers are known to `Guests`, and upstreams to the pools and
trunks that connected to them. The wire is cut from outside, so that neither an unread answer nor a stuck
coroutine keeps it open; what was under way on it is recorded with flag ID, and gets no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import PeerIdentityMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.net.mtls import Gate, Peer
    from sidecar.net.port import Task, Wire, WireCut
    from sidecar.proxy.http import HttpConnection
    from sidecar.proxy.http2 import Http2Connection
    from sidecar.proxy.side import Caller


class Guests:
    """The connections of verified peers that are open to us, by the task that serves each."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Task, tuple[Wire, Caller]] = {}

    def enter(self, task: Task, wire: Wire, caller: Caller) -> None:
        """This connection has proved who calls."""
        if caller.peer is not None:
            self._open[task] = (wire, caller)

    def leave(self, task: Task) -> None:
        """It has ended."""
        self._open.pop(task, None)

    def evict(self, gate: Gate, serving: Iterable[HttpConnection | Http2Connection]) -> list[Peer]:
        """Cut off those whom the gate denies now, and return them, once for each connection.

        `serving` are the connections that speak HTTP. Those who may stay need not be judged again at their next
        request, if nothing else has changed since they were judged last.
        """
        by_caller = {id(connection.caller): connection for connection in serving}
        gone: list[Peer] = []
        for task, (wire, caller) in list(self._open.items()):
            assert caller.peer is not None
            why = gate.why_denied(caller.peer)
            if why is None:
                if caller.trust == gate.trust - 1:
                    caller.trust = gate.trust
                continue
            gone.append(caller.peer)
            http = by_caller.get(id(caller))
            if http is not None:
                http.evict(why)
            else:
                task.throw(why)
            gate.cut(wire, why)
        return gone


def revoked_upstream(name: str, cut: WireCut) -> PeerIdentityMismatch:
    """What a request ends with whose upstream was revoked meanwhile."""
    error = PeerIdentityMismatch(cut.reason, f"{name}: {cut}")
    error.midway = "revoked"
    return error
