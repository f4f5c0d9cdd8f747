"""HTTP/2 connections to one upstream: each carries the requests of many callers, and is replaced before it is full.

A request takes a place on the first connection that has one. Where none has, another connection is made, by a task of
its own: whoever gave up waiting takes nothing away from the others who wait for it. Everything that happens on a
connection is read at once, so one that has died is not picked for the next request; one that the upstream is about to
close says so (GOAWAY), and what it has not begun is asked again elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import HopError, Overflow, PeerIdentityMismatch, UpstreamRefused, UpstreamReset
from sidecar.http.h2 import H2Client, H2Limits
from sidecar.net.pool import FRESH, RETIRED, Connection
from sidecar.net.port import NEVER, Expired, Signal, WireBroken
from sidecar.net.tls import AlertReceived
from sidecar.proxy.carrier import AskedStream, Carrier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.schema import Limits
    from sidecar.http.h2 import H2Event
    from sidecar.http.message import RequestHead
    from sidecar.net.port import Port, Task


class _Trunk:
    """One connection, and who has a place on it."""

    __slots__ = ("base", "carrier", "codec", "idle_since", "promised", "task", "used")

    def __init__(self, port: Port, base: Connection, limits: H2Limits, idle: float) -> None:
        self.base = base
        self.codec = H2Client(limits, port.now)
        self.carrier = Carrier(port, base.wire, self.codec, idle=idle, on_event=_ignore)
        self.promised = 0  # places that were given and not used yet
        self.used = 0  # places given in all
        self.idle_since = port.now
        self.task: Task | None = None

    @property
    def room(self) -> int:
        """How many more requests it takes."""
        return self.codec.room - self.promised


class Trunks:
    """The HTTP/2 connections to one upstream, in the place of a `sidecar.net.pool.Pool`."""

    def __init__(
        self,
        port: Port,
        connect: Callable[[], Awaitable[Connection]],
        *,
        name: str,
        limits: H2Limits,
        scheme: bytes,
        idle: float,
        stall: float,
        most: int,
        pending: float,
    ) -> None:
        self._port = port
        self._connect = connect
        self._name = name
        self._limits = limits
        self._scheme = scheme
        self._idle = idle
        self._stall = stall
        self._most = most
        self._pending = pending
        self._trunks: list[_Trunk] = []
        self._calls: dict[AskedStream, _Trunk] = {}
        self._change = Signal()  # a connection has been made or lost, or has room again
        self._connecting = 0
        self._failure: HopError | None = None  # of the last try to connect
        self.generation = 0

    async def take(self, max_idle: float) -> Connection:
        """A place for one request. `FRESH` asks for a connection that has carried none. Raises Overflow, and what
        connecting raises.
        """
        port = self._port
        began = port.now
        port.deadline(began + self._pending)
        failure_before = self._failure
        while True:
            found = self._find(fresh=max_idle == FRESH)
            if found is not None:
                return self._place(found)
            if self._failure is not None and self._failure is not failure_before and not self._connecting:
                raise self._failure.with_traceback(None)
            if not self._connecting and len(self._trunks) < self._most:
                self._connecting += 1
                port.start(self._make())
                port.deadline(NEVER)  # connecting has deadlines of its own
            try:
                await port.wait(self._change)
            except Expired:
                raise Overflow(
                    f"no place on {len(self._trunks)} HTTP/2 connections within {self._pending:g} s (limits.pool)"
                ) from None

    def _find(self, *, fresh: bool) -> _Trunk | None:
        wall = self._port.wall()
        for trunk in self._trunks:
            peer = trunk.base.peer
            if peer is not None and wall >= peer.tls.not_after:
                trunk.codec.leave()  # no request rests on a certificate that has ended
                trunk.carrier.kick()
            elif trunk.room > 0 and not (fresh and trunk.used):
                return trunk
        return None

    def _place(self, trunk: _Trunk) -> Connection:
        base = trunk.base
        call = _Call(trunk, scheme=self._scheme)
        connection = Connection(call, call, base.peer, base.endpoint, base.generation)
        connection.trust = base.trust
        connection.reused = trunk.used > 0
        trunk.used += 1
        trunk.promised += 1
        self._calls[call] = trunk
        return connection

    # ---- connections -------------------------------------------------------------------------------------------------

    async def _make(self) -> None:
        """Connect, and drive the connection to its end. Belongs to nobody, so it never raises."""
        port = self._port
        try:
            base = await self._connect()
        except HopError as error:
            self._failure = error
            return
        finally:
            self._connecting -= 1
            self._stir()
        trunk = _Trunk(port, base, self._limits, self._stall)
        trunk.task = port.current
        if base.generation != self.generation:
            trunk.codec.leave()
        self._trunks.append(trunk)
        self._stir()
        try:
            await self._drive(trunk)
        finally:
            self._trunks.remove(trunk)
            base.wire.close()
            self._stir()

    async def _drive(self, trunk: _Trunk) -> None:
        port, carrier = self._port, trunk.carrier
        try:
            port.deadline(NEVER)
            port.spawn(self._write(trunk))
            while await carrier.read():
                self._stir()
        except (WireBroken, Expired, _Done) as error:
            trunk.codec.lose(self._meaning(trunk, error), port.now)
            carrier.tell()

    async def _write(self, trunk: _Trunk) -> None:
        await trunk.carrier.write()
        assert trunk.task is not None
        trunk.task.throw(_Done())

    def _meaning(self, trunk: _Trunk, error: Exception) -> HopError | None:
        """What the end of a connection means for the requests on it; None for an ordinary one."""
        if isinstance(error, AlertReceived) and not trunk.codec.greeted:
            return PeerIdentityMismatch(f"alert_{error.reason}", f"{self._name}: {error.detail}")
        if isinstance(error, WireBroken):
            return UpstreamReset(f"{self._name}: {error}")
        return None

    def _stir(self) -> None:
        change, self._change = self._change, Signal()
        change.fire()

    # ---- as a pool ---------------------------------------------------------------------------------------------------

    def give(self, connection: Connection) -> None:
        """The exchange has ended well."""
        self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """The exchange has ended."""
        connection.wire.close()
        call = connection.wire
        assert isinstance(call, _Call)
        trunk = self._calls.pop(call, None)
        if trunk is None:
            return
        call.begun()
        if not trunk.codec.streams:
            trunk.idle_since = self._port.now
            if trunk.codec.going_away:
                trunk.carrier.kick()
        self._stir()

    def sweep(self) -> None:
        """Close what has been idle for too long; end what waits for the other side in vain."""
        now = self._port.now
        for trunk in list(self._trunks):
            trunk.codec.check_time(now)
            if not trunk.codec.streams and not trunk.promised and now - trunk.idle_since >= self._idle:
                trunk.codec.leave()
            trunk.carrier.tell()
            trunk.carrier.kick()

    def renew(self, generation: int) -> None:
        """Connections of earlier generations take no more requests, and end with those that they have (D17)."""
        self.generation = generation
        for trunk in self._trunks:
            if trunk.base.generation != generation:
                trunk.codec.leave()
                trunk.carrier.kick()
        self._stir()

    def retire(self) -> None:
        """The upstream is no more."""
        self.renew(RETIRED)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._trunks)


class _Done(Exception):
    """All has been said on a connection that takes no more requests."""


class _Call(AskedStream):
    """A place on a trunk: from its promise to the end of its exchange."""

    __slots__ = ("_trunk",)

    def __init__(self, trunk: _Trunk, *, scheme: bytes) -> None:
        super().__init__(trunk.carrier, scheme=scheme)
        self._trunk: _Trunk | None = trunk

    def begin(self, head: RequestHead) -> bytes:
        """Begin the exchange. Raises UpstreamRefused where the connection has begun to leave meanwhile."""
        self.begun()
        codec = self.carrier.codec
        assert isinstance(codec, H2Client)
        if codec.room <= 0:
            raise UpstreamRefused("the connection takes no more requests")
        return super().begin(head)

    def begun(self) -> None:
        """The promise has been kept, or is no longer wanted."""
        trunk, self._trunk = self._trunk, None
        if trunk is not None:
            trunk.promised -= 1


HEAD_SECONDS = 10.0  # for the other side's preface and for each header block, where nothing else is said (D8)


def h2_limits(limits: Limits, idle: float, head: float = HEAD_SECONDS) -> H2Limits:
    """The limits of one HTTP/2 connection, by what the configuration says."""
    return H2Limits(
        head_bytes=limits.head_bytes, head_lines=limits.head_lines, head_seconds=head, stall_seconds=idle
    )


def _ignore(event: H2Event) -> None:
    return
