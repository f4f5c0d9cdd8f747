"""The port's second driver: everything in memory, time as fast as it can be counted (decision D23).

The same connection coroutines that run on epoll run here, on wires that are two buffers, under a clock that stands
still while anybody has something to do and then jumps to the next deadline. An hour of time-outs takes a millisecond,
and a scenario that was seen once is seen again, step for step: tasks run in the order they were woken, and nothing
depends on addresses, descriptors or the machine.

What a wire here promises is what `sidecar.net.wires` promises, and one contract test holds both to it. Where TCP may
do one of several things, this driver does the nastiest: a reset destroys what the other side has not read yet, and
closing a wire with unread bytes is a reset.

    port = MemoryPort()
    port.listen("10.0.0.2", 17443, serve)      # serve(wire) is a coroutine function
    result = port.run(scenario(port))          # raises Deadlock where everybody waits for ever
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from certs.errors import MeshError
from sidecar.net.port import NEVER, PIECE, UNIX, Driver, PeerGone, Task, Unreachable, WireBroken, park

if TYPE_CHECKING:
    from sidecar.net.mtls import Peer
    from sidecar.net.port import Wire

T = TypeVar("T")
Serve = Callable[["MemoryWire"], Coroutine[Any, Any, object]]

CAPACITY = 64 * 1024  # bytes that a wire takes before its reader must read: small beside a socket's, so that it shows
READ_BYTES = 64 * 1024  # as the reactor's buffer
EPOCH = 1_700_000_000.0


class Deadlock(MeshError):
    """Every task waits, and no deadline is set: nothing can ever happen again. The text says who waits where."""

    name = "deadlock"


class MemoryClock:
    """A clock that somebody else moves."""

    def __init__(self, monotonic: float = 0.0, wall: float = EPOCH) -> None:
        self._monotonic = monotonic
        self._offset = wall - monotonic

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._monotonic

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._monotonic + self._offset

    def advance_to(self, monotonic: float) -> None:
        """Let time pass until this moment."""
        self._monotonic = max(self._monotonic, monotonic)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward (or back, where negative); monotonic time does not notice."""
        self._offset += seconds


@dataclass(slots=True)
class Listening:
    """What happens to those who dial an address."""

    serve: Serve | None  # None: nobody ever answers
    delay: float = 0.0  # seconds until the connection stands
    capacity: int = CAPACITY


class MemoryPort(Driver):
    """Drives connection coroutines in memory, in virtual time."""

    clock: MemoryClock

    def __init__(self, clock: MemoryClock | None = None) -> None:
        super().__init__(clock or MemoryClock())
        self.read_bytes = READ_BYTES  # the most that one read returns; 1 cuts everything to single bytes
        self.wires: list[MemoryWire] = []  # every wire that was ever made
        self._listening: dict[tuple[str, int], Listening] = {}
        self.names: dict[str, list[list[str]]] = {}  # of a name: its addresses at each look-up, the last one for good
        self._settling: list[Task] = []
        self._crashes: list[BaseException] = []
        self._next_source = 40000
        self.on_crash = self._crashes.append

    # ---- the network ---------------------------------------------------------------------------------------------

    def listen(self, host: str, port: int, serve: Serve, *, delay: float = 0.0, capacity: int = CAPACITY) -> None:
        """Serve each connection to this address with a task of its own."""
        self._listening[host, port] = Listening(serve, delay, capacity)

    def refuse(self, host: str, port: int) -> None:
        """Nobody listens there (any more)."""
        self._listening.pop((host, port), None)

    def swallow(self, host: str, port: int) -> None:
        """Whoever dials this address never hears anything."""
        self._listening[host, port] = Listening(None)

    async def lookup(self, host: str) -> list[str]:
        """The addresses of a name. Raises Unreachable."""
        await self._yield()
        answers = self.names.get(host)
        if not answers:
            raise Unreachable(f"{host} cannot be resolved: no such name")
        return list(answers.pop(0) if len(answers) > 1 else answers[0])

    async def dial(self, host: str, port: int) -> Wire:
        """Connect to a listener; one on a Unix socket is at (`unix:/path`, 0). Raises Unreachable."""
        listening = self._listening.get((host, port))
        if listening is None:
            raise Unreachable(f"{host if host.startswith(UNIX) else f'{host}:{port}'}: Connection refused")
        await self._yield()
        await self.sleep(listening.delay if listening.serve is not None else NEVER)
        near, far = self.pair(listening.capacity)
        far.address = ("127.0.0.1", self._next_source) if not host.startswith(UNIX) else ("", 0)
        near.address = (host, port)
        self._next_source += 1
        assert listening.serve is not None
        self.start(listening.serve(far))
        return near

    def pair(self, capacity: int = CAPACITY) -> tuple[MemoryWire, MemoryWire]:
        """Two wires, each the other's end."""
        left, right = MemoryWire(self, capacity), MemoryWire(self, capacity)
        left.other, right.other = right, left
        self.wires += (left, right)
        return left, right

    # ---- time ------------------------------------------------------------------------------------------------------

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Drive everything until the scenario ends, and return its result; what else runs goes on in the next `run`.

        Raises what the scenario raises, what any other task of its own failed with, and Deadlock.
        """
        outcome: list[T] = []

        async def whole() -> None:
            outcome.append(await scenario)

        task = self.start(whole())
        while True:
            self.run_ready()
            if self._crashes:
                raise self._crashes.pop(0)
            if task.happened:
                break
            if self.patient:
                self.run_patient()
            else:
                self._let_pass()
        if task.error is not None:
            raise task.error
        return outcome[0]

    def _let_pass(self) -> None:
        """Nobody is ready: wake those who wait for just that, or let time pass to the next deadline."""
        if self._settling:
            settled, self._settling = self._settling, []
            for task in settled:
                task.wake()
            return
        at = self.next_deadline()
        if at == NEVER:
            raise Deadlock("everybody waits for ever:\n" + "\n".join(f"  {where(task)}" for task in self.tasks))
        self.clock.advance_to(at)
        self.now = self.clock.monotonic()
        self.sweep()

    async def settled(self) -> None:
        """Wait until everybody else waits for something, at this very moment: no time passes."""
        task = self.current
        assert task is not None
        self._settling.append(task)
        while task in self._settling:
            await park()

    async def _yield(self) -> None:
        task = self.current
        assert task is not None
        task.wake()
        await park()

    def close(self) -> None:
        """End every task."""
        self.cancel_all()


class MemoryWire:
    """One end of a connection: what the other side has sent and we have not read, and who waits for what."""

    __slots__ = (
        "_broken", "_deaf", "_on_stir", "_unread", "address", "capacity", "closed", "finished", "greeting",
        "half_closed", "other", "port", "reader", "received", "reset", "sent", "watcher", "writer",
    )  # fmt: skip

    other: MemoryWire

    def __init__(self, port: MemoryPort, capacity: int) -> None:
        self.port = port
        self.capacity = capacity
        self.address = ("127.0.0.1", 0)
        self.received = 0
        self.sent = 0
        self.half_closed = False  # the other side has ended its direction
        self.reset = False
        self.closed = False
        self.finished = False
        self.greeting: Peer | None = None  # who the other side says it is; see MemoryGate
        self.reader: Task | None = None
        self.writer: Task | None = None
        self.watcher: Task | None = None
        self._unread = bytearray()
        self._broken: WireBroken | None = None
        self._deaf = False
        self._on_stir: Callable[[], None] | None = None

    @property
    def unread(self) -> int:
        """Bytes that have been sent to this end and not read; never more than `capacity`."""
        return len(self._unread)

    # ---- the contract of Wire --------------------------------------------------------------------------------------

    async def read(self, beside: Wire | None = None) -> bytes:
        """The next bytes, or `b""` once the other side has finished."""
        while True:
            await self.readable(beside)
            if self.closed:
                raise WireBroken("closed by ourselves")
            if self._broken is not None:
                raise self._broken
            if self._unread:
                data = bytes(self._unread[: self.port.read_bytes])
                del self._unread[: len(data)]
                self.received += len(data)
                _wake(self.other.writer)
                return data
            if self.half_closed:
                return b""

    async def read_shared(self, beside: Wire | None = None, limit: int = PIECE) -> memoryview:
        """As `read`."""
        return memoryview(await self.read(beside))

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it, waiting where the other side is slow."""
        rest = memoryview(data)
        while True:
            if self.closed or self.finished:
                raise WireBroken("closed by ourselves")
            if self._broken is not None:
                raise self._broken
            if self.other.closed:
                self._write_to_nobody(len(rest))
                return
            count = min(len(rest), self.other.capacity - self.other.unread)
            self.other._arrive(rest[:count])
            self.sent += count
            rest = rest[count:]
            if not rest:
                return
            await self._writable()

    async def first_record(self) -> None:
        """There is no TLS in memory, and nothing to wait for before the gate."""

    async def peek(self, least: int) -> bytes:
        """Wait for so many bytes, and look at what is there; fewer where no more will come. A greeting stands for the
        ClientHello that there is none of in memory.
        """
        while True:
            if self._broken is not None:
                raise self._broken
            if self.closed:
                raise WireBroken("closed by ourselves")
            if not self._unread and self.greeting is not None:
                return b"\x16" * least
            if len(self._unread) >= least or self.half_closed:
                return bytes(self._unread)
            self.reader = self.port.current
            try:
                await park()
            finally:
                self.reader = None

    def take(self, count: int) -> bytes:
        """Read bytes that `peek` has shown."""
        data = bytes(self._unread[:count])
        del self._unread[:count]
        return data

    async def finish(self) -> None:
        """Send the end of our direction; reading goes on."""
        if not self.closed and not self.finished:
            self.finished = True
            self.other._end()

    def close(self) -> None:
        """Close both directions; with bytes unread that is a reset, as in TCP."""
        if self.closed:
            return
        self._close()
        if self._unread:
            self.other.break_with(WireBroken("Connection reset by peer"))
        else:
            self.other._end()

    def abort(self) -> None:
        """Close with a reset."""
        if not self.closed:
            self._close()
            self.other.break_with(WireBroken("Connection reset by peer"))

    def cut(self, error: WireBroken) -> None:
        """End the connection from outside: the other side is told at once, whoever of ours uses it finds this error."""
        if not self.closed:
            self.other.break_with(WireBroken("Connection reset by peer"))
            self.break_with(error)

    def rest(self, on_stir: Callable[[], None] | None) -> None:
        """While nobody reads this wire, call `on_stir` once if anything at all happens on it."""
        self._on_stir = on_stir
        if on_stir is not None and (self._unread or self.half_closed):
            self._stir()

    def peer_address(self) -> tuple[str, int]:
        """The other side's address."""
        return self.address

    def own_address(self) -> tuple[str, int]:
        """The address on our side."""
        return self.other.address

    # ---- what tests do to wires ------------------------------------------------------------------------------------

    def vanish(self, *, deaf: bool = False) -> None:
        """Close without telling the other side: its FIN is still under way. What it writes is answered by a reset.

        With `deaf` not even its first byte is taken: the reset has arrived by then.
        """
        if not self.closed:
            self._close()
            self._deaf = deaf

    def break_with(self, error: WireBroken) -> None:
        """Let this end find the connection broken. What it has not read is lost."""
        if self._broken is None and not self.closed:
            self._broken = error
            self.reset = self.half_closed = True
            self._unread.clear()
            _wake(self.writer)
            _wake(self.watcher)
            self._stir()

    # ---- within ----------------------------------------------------------------------------------------------------

    async def readable(self, beside: Any = None) -> None:
        """Wait until a read is worth trying. It gives way even where it need not wait, as the reactor does."""
        task = self.port.current
        assert task is not None
        self.reader = task
        try:
            if self._unread or self.half_closed or self._broken is not None or self.closed:
                task.wake()
            if beside is None:
                await park()
                return
            if beside.half_closed:
                raise PeerGone(reset=beside.reset)
            beside.watcher = task
            try:
                await park()
            finally:
                beside.watcher = None
            if beside.half_closed:
                raise PeerGone(reset=beside.reset)
        finally:
            self.reader = None

    async def _writable(self) -> None:
        self.writer = self.port.current
        try:
            await park()
        finally:
            self.writer = None

    def _arrive(self, data: memoryview) -> None:
        if data:
            self._unread += data
            self._stir()

    def _end(self) -> None:
        """The other side has ended its direction."""
        self.half_closed = True
        _wake(self.watcher)
        self._stir()

    def _stir(self) -> None:
        if self.reader is not None:
            self.reader.wake()
        elif self._on_stir is not None:
            on_stir, self._on_stir = self._on_stir, None
            on_stir()

    def _write_to_nobody(self, size: int) -> None:
        """The other side has gone. The kernel takes the bytes all the same, and then learns of it by a reset."""
        if self.other._deaf:
            raise WireBroken("Broken pipe")
        self.sent += size
        self.break_with(WireBroken("Connection reset by peer"))

    def _close(self) -> None:
        self.closed = True
        _wake(self.reader)
        _wake(self.writer)


def _wake(task: Task | None) -> None:
    if task is not None:
        task.wake()


def where(task: Task) -> str:
    """Which coroutine a task is, and the functions that it waits in, outermost first."""
    names = []
    coro: Any = task.coro
    while coro is not None and hasattr(coro, "cr_frame"):
        frame = coro.cr_frame
        names.append(f"{coro.__qualname__}:{frame.f_lineno}" if frame is not None else coro.__qualname__)
        coro = coro.cr_await
    return " > ".join(names)
