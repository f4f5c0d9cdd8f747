"""HTTP/2 connections to one upstream: each carries the requests of many callers, and is replaced before it is full.

A request takes a place on the first connection that has one. Where none has, another connection is made, by a task of
its own: whoever gave up waiting takes nothing away from the others who wait for it. Everything that happens on a
connection is read at once, so one that has died is not picked for the next request; one that the upstream is about to
close says so (GOAWAY), and what it has not begun is asked again elsewhere.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sidecar.errors import (
    HopError,
    InternalError,
    Overflow,
    PeerIdentityMismatch,
    UpstreamIdle,
    UpstreamRefused,
    UpstreamReset,
)
from sidecar.http.h2 import H2Client, H2Limits
from sidecar.net.pool import RETIRED, Connection
from sidecar.net.port import NEVER, Expired, Signal, WireBroken, WireCut
from sidecar.net.tls import AlertReceived
from sidecar.proxy.carrier import Carrier
from sidecar.proxy.evicting import revoked_upstream
from sidecar.proxy.streams import AskedStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.schema import Limits, Timeouts
    from sidecar.http.h2 import H2Event
    from sidecar.http.message import RequestHead
    from sidecar.net.mtls import Gate
    from sidecar.net.port import Port, Task


PING_AFTER: Final = 10.0  # seconds of silence, while a peer owes us answers; Linkerd asks as often
PING_WITHIN: Final = 5.0  # seconds: whoever says nothing for so long after that is gone


class _Trunk:
    """One connection, and who has a place on it."""

    __slots__ = (
        "_asked_at", "_heard", "_heard_at", "base", "carrier", "codec", "greeted", "idle_since", "left_as", "promised",
        "task", "used",
    )  # fmt: skip

    def __init__(self, port: Port, base: Connection, limits: H2Limits, idle: float) -> None:
        self.base = base
        self.codec = H2Client(limits, port.now)
        self.carrier = Carrier(port, base.wire, self.codec, idle=idle, on_event=_ignore)
        self.promised = 0  # places that were given and not used yet
        self.used = 0  # places given in all
        self.idle_since = port.now
        self.greeted = Signal()  # their SETTINGS have come, or never will
        self.left_as = ""  # why we have left it: a reason of mesh_trunks_ended_total
        self.task: Task | None = None
        self._heard, self._heard_at = 0, port.now  # bytes, and when there was the last of them
        self._asked_at = NEVER  # when we have sent a PING into the silence

    @property
    def room(self) -> int:
        """How many more requests it takes. The first need not wait for the other side's SETTINGS, the others do: it
        may take few at once.
        """
        room = self.codec.room if self.codec.greeted else min(1 - len(self.codec.streams), self.codec.room)
        return max(0, room - self.promised)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it."""
        return not self.codec.streams and not self.promised

    def leave(self, reason: str) -> None:
        """Take no more requests, and end with those that it has."""
        self.left_as = self.left_as or reason
        self.codec.leave()
        self.carrier.kick()

    def is_dead(self, now: float) -> bool:
        """Whether a peer that owes us answers has fallen silent, and says nothing to a PING either: its machine may be
        gone, and TCP would not tell us for a quarter of an hour. Applications are not asked: some servers of gRPC take
        a PING every ten seconds for an attack.
        """
        heard = self.base.wire.received
        if heard != self._heard or not self.codec.streams or self.base.peer is None:
            self._heard, self._heard_at, self._asked_at = heard, now, NEVER
        elif self._asked_at == NEVER and now - self._heard_at >= PING_AFTER:
            self._asked_at = now
            self.codec.ping(b"still on")
        return now - self._asked_at >= PING_WITHIN


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
        on_end: Callable[[str], None],
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
        self._on_end = on_end  # hears why a connection has ended
        self._trunks: list[_Trunk] = []
        self._calls: dict[AskedStream, _Trunk] = {}
        self._waiting: deque[Signal] = deque()  # one for each request that waits for a place
        self._connecting = 0
        self._failure: HopError | None = None  # of the last try to connect
        self.generation = 0

    async def take(self, max_idle: float) -> Connection:
        """A place for one request, however long its connection has been idle: what happens on a trunk is read at once,
        so one that has died is none. Raises Overflow, and what connecting raises.
        """
        port = self._port
        give_up = port.now + self._pending
        failure_before = self._failure
        while True:
            found = self._find()
            if found is not None:
                return self._place(found)
            if self._failure is not failure_before and not self._connecting:
                assert self._failure is not None
                raise self._failure.with_traceback(None)
            if self._may_connect:
                self._connecting += 1
                port.start(self._make())
            port.deadline(NEVER if self._connecting else give_up)  # connecting has deadlines of its own
            await self._wait()

    async def take_tunnel(self) -> Connection | None:
        """A place for a WebSocket, where the other side has said that it takes them by HTTP/2 (RFC 8441 section 3);
        None where it has not, or left without a word. Raises as `take` does.
        """
        connection = await self.take(NEVER)
        assert isinstance(connection.wire, _Call)
        trunk = self._calls[connection.wire]
        try:
            if not trunk.greeted.happened:
                self._port.deadline(NEVER)  # of its own: `limits.head_seconds`
                await self._port.wait(trunk.greeted)
        except BaseException:
            self.discard(connection)
            raise
        if trunk.codec.speaks_connect:
            return connection
        self.discard(connection)
        return None

    @property
    def full(self) -> bool:
        """Whether whoever asks has to wait until somebody is done."""
        taking = [trunk for trunk in self._trunks if not trunk.codec.going_away]
        return len(taking) >= self._most and not any(trunk.room for trunk in taking)

    @property
    def _may_connect(self) -> bool:
        """One at a time, and none while another has not said yet how many it takes. Those that only end what they have
        are not counted: after a renewal, requests that last would keep all others waiting.
        """
        return (
            not self._connecting
            and sum(not trunk.codec.going_away for trunk in self._trunks) < self._most
            and not any(trunk.codec.room and not trunk.codec.greeted for trunk in self._trunks)
        )

    async def _wait(self) -> None:
        """Wait until there may be a place, or a reason to look. Raises Overflow."""
        turn = Signal()
        self._waiting.append(turn)
        try:
            await self._port.wait(turn)
        except BaseException as error:
            if turn.happened:  # it was for us, and we leave without it
                self._call(1)
            else:
                self._waiting.remove(turn)
            if not isinstance(error, Expired):
                raise
            count = len(self._trunks)
            raise Overflow(f"no place on {count} HTTP/2 connections within {self._pending:g} s (limits.pool)") from None

    def _call(self, count: int) -> None:
        """So many of those who wait may look again."""
        while count > 0 and self._waiting:
            self._waiting.popleft().fire()
            count -= 1

    def _call_all(self) -> None:
        """A connection has come or gone: who starts the next one, and who fails, is for each of them to see."""
        self._call(len(self._waiting))

    def _find(self) -> _Trunk | None:
        wall = self._port.wall()
        for trunk in self._trunks:
            peer = trunk.base.peer
            if peer is not None and wall >= peer.tls.not_after:
                trunk.leave("expired")  # no request rests on a certificate that has ended
            elif trunk.room > 0:
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
        except Exception as error:  # noqa: BLE001 - a fault of ours fails those who wait, not the sidecar
            self._failure = InternalError(f"{type(error).__name__}: {error}")
            return
        finally:
            self._connecting -= 1
            self._call_all()
        if base.peer is not None and port.wall() >= base.peer.tls.not_after:  # as it was made: nothing may rest on it
            base.wire.close()
            detail = f"the certificate of {base.peer.id} ends at this moment"
            self._failure = PeerIdentityMismatch("expired", detail, base.peer.id)
            return
        trunk = _Trunk(port, base, self._limits, self._stall)
        trunk.task = port.current
        if self.generation not in (base.generation, RETIRED):  # who still waits at a retired one needs it all the same
            trunk.leave("renewed")
        self._trunks.append(trunk)
        try:
            await self._drive(trunk)
        finally:
            trunk.greeted.fire()
            self._trunks.remove(trunk)
            base.wire.close()
            self._call_all()

    async def _drive(self, trunk: _Trunk) -> None:
        port, carrier = self._port, trunk.carrier
        error: Exception | None = None
        try:
            port.deadline(NEVER)
            port.spawn(self._write(trunk))
            room, more = 0, True
            while more:
                before, more = room, await carrier.read()
                room = trunk.room
                self._call(room - before if room > before else 0)
                if trunk.codec.greeted and not trunk.greeted.happened:
                    trunk.greeted.fire()
        except (WireBroken, _Done, _Silent) as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - a fault of ours ends this connection, not the sidecar
            error = InternalError(f"{type(problem).__name__}: {problem}")
        self._on_end(_why_ended(trunk, error))
        trunk.codec.lose(self._meaning(trunk, error), port.now)
        carrier.tell()

    async def _write(self, trunk: _Trunk) -> None:
        await trunk.carrier.write()
        assert trunk.task is not None
        trunk.task.throw(_Done())

    def _meaning(self, trunk: _Trunk, error: Exception | None) -> HopError | None:
        """What the end of a connection means for the requests on it; None for an ordinary one."""
        if isinstance(error, _Silent):
            return UpstreamIdle(f"{self._name} says nothing for {PING_AFTER:g} s, nor to a PING for {PING_WITHIN:g} s")
        if isinstance(error, InternalError):
            return error
        if isinstance(error, AlertReceived) and not trunk.codec.greeted:
            return PeerIdentityMismatch(f"alert_{error.reason}", f"{self._name}: {error.detail}")
        if isinstance(error, WireCut):
            return revoked_upstream(self._name, error)
        if isinstance(error, WireBroken):
            return UpstreamReset(f"{self._name}: {error}")
        return None

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
        if trunk.idle:
            trunk.idle_since = self._port.now
            if self.generation == RETIRED:
                trunk.leave("retired")
        if trunk.codec.going_away:
            trunk.carrier.kick()
        self._call(1)

    def sweep(self) -> None:
        """Close what has been idle for too long; end what waits for the other side in vain."""
        now = self._port.now
        for trunk in list(self._trunks):
            trunk.codec.check_time(now)
            if trunk.idle and now - trunk.idle_since >= self._idle:
                trunk.leave("idle")
            if trunk.is_dead(now) and trunk.task is not None:
                trunk.task.throw(_Silent())
            trunk.carrier.tell()

    def renew(self, generation: int) -> None:
        """Connections of earlier generations take no more requests, and end with those that they have (D17)."""
        self.generation = generation
        for trunk in self._trunks:
            if trunk.base.generation != generation:
                trunk.leave("retired" if generation == RETIRED else "renewed")
        self._call_all()

    def evict(self, gate: Gate) -> int:
        """End connections to peers who were revoked, whatever is on them; returns how many."""
        count = 0
        for trunk in self._trunks:
            why = gate.why_denied(trunk.base.peer) if trunk.base.peer is not None else None
            if why is not None:
                count += 1
                trunk.leave("revoked")
                gate.cut(trunk.base.wire, why)
        return count

    def retire(self) -> None:
        """The upstream is no more."""
        self.renew(RETIRED)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._trunks)


class _Done(Exception):
    """All has been said on a connection that takes no more requests."""


class _Silent(Exception):
    """Nobody is there any more."""


class _Call(AskedStream):
    """A place on a trunk: from its promise to the end of its exchange."""

    __slots__ = ("_trunk",)

    def __init__(self, trunk: _Trunk, *, scheme: bytes) -> None:
        super().__init__(trunk.carrier, scheme=scheme)
        self._trunk: _Trunk | None = trunk

    def begin(self, head: RequestHead) -> bytes:
        """Begin the exchange. Raises UpstreamRefused where the connection has begun to leave meanwhile."""
        trunk = self._trunk
        self.begun()
        codec = self.carrier.codec
        assert isinstance(codec, H2Client)
        if codec.room <= 0:
            raise UpstreamRefused("the connection takes no more requests")
        super().begin(head)
        if codec.spent and trunk is not None:
            trunk.leave("full")
        return b""

    def begun(self) -> None:
        """The promise has been kept, or is no longer wanted."""
        trunk, self._trunk = self._trunk, None
        if trunk is not None:
            trunk.promised -= 1


def _why_ended(trunk: _Trunk, error: Exception | None) -> str:
    """In a word: what went wrong, or else why either side had left it. A reason of mesh_trunks_ended_total."""
    if isinstance(error, _Silent):
        return "silent"
    if isinstance(error, InternalError):
        return "fault"
    if trunk.codec.error is not None:
        return "protocol"
    if trunk.left_as:
        return trunk.left_as
    if trunk.codec.going_away:
        return "goaway"
    if isinstance(error, AlertReceived):
        return "alert"
    return "broken" if isinstance(error, WireBroken) else "closed"


def h2_limits(limits: Limits, timeouts: Timeouts) -> H2Limits:
    """The limits of one HTTP/2 connection, by what the configuration says."""
    return H2Limits(
        head_bytes=limits.head_bytes, head_lines=limits.head_lines, head_seconds=timeouts.request_head,
        stall_seconds=timeouts.idle,
    )  # fmt: skip


def _ignore(event: H2Event) -> None:
    return
