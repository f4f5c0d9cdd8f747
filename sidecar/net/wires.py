"""Plain sockets as wires of the reactor. `sidecar.net.tls` builds TLS on the same base."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidecar.net.port import PIECE, UNIX, PeerGone, Unreachable, Wire, WireBroken, park

if TYPE_CHECKING:
    from sidecar.net.port import Task
    from sidecar.net.reactor import Reactor

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HALF_CLOSED = select.EPOLLRDHUP
DEAD = select.EPOLLHUP | select.EPOLLERR
LINGER_RESET = struct.pack("ii", 1, 0)
# Of what we have written the kernel holds at most so much that it cannot send yet. Without this it takes 4 MiB for
# every reader that is slow, which is memory of the machine's, and work done for nobody.
UNSENT_BYTES = 128 * 1024
QUEUE_FULL_SECONDS = 0.02  # before another try at a Unix socket whose listener has too many waiting
NOTHING_YET, WANTS_TO_WRITE = -1, -2  # instead of a number of bytes
TLS_HANDSHAKE = 22  # RFC 8446 section 5.1: the type of a record
TLS_HEADER = 5
TLS_LONGEST = 16 * 1024
PEEK_BYTES = 4096


class Watched:
    """A descriptor that the reactor watches."""

    __slots__ = ("born", "closed", "fd", "interest", "reactor", "reader", "sock")

    def __init__(
        self, reactor: Reactor, sock: socket.socket, interest: int, *, instead_of: Watched | None = None
    ) -> None:
        self.reader: Task | None = None
        self.reactor = reactor
        self.sock = sock
        self.fd = sock.fileno()
        self.interest = interest
        self.closed = False
        self.born = -1
        if instead_of is None:
            reactor.watch(self)
        else:
            reactor.replace(instead_of, self)

    def stirred(self, mask: int) -> None:
        """Something happened on the descriptor."""
        raise AssertionError

    def close(self) -> None:
        """Leave the reactor and close the descriptor."""
        if not self.closed:
            self.closed = True
            self.reactor.unwatch(self)
            self.sock.close()


class EpollWire(Watched):
    """What plain and TLS wires share: who waits for what, and what epoll is told."""

    __slots__ = ("_on_stir", "ended", "half_closed", "received", "reset", "sent", "watcher", "writer")

    def __init__(self, reactor: Reactor, sock: socket.socket, *, instead_of: EpollWire | None = None) -> None:
        self.writer: Task | None = None
        self.watcher: Task | None = None
        self.half_closed = False  # the other side has sent FIN
        self.ended = False  # all that it said has been read, although the socket may still have bytes
        self.reset = False
        self.received = 0
        self.sent = 0
        self._on_stir: Callable[[], None] | None = None
        super().__init__(reactor, sock, READ | HALF_CLOSED, instead_of=instead_of)

    def stirred(self, mask: int) -> None:
        """Wake whoever waits for this; take the interest away where nobody does."""
        if mask & (HALF_CLOSED | DEAD):
            self._hung_up(mask)
        if mask & (READ | HALF_CLOSED | DEAD):
            reader = self.reader
            if reader is not None:
                reader.wake()
            elif self._on_stir is not None:
                on_stir, self._on_stir = self._on_stir, None
                on_stir()
            elif self.interest & READ:
                self._want(self.interest & ~READ)
        if mask & (WRITE | DEAD):
            writer = self.writer
            if writer is not None:
                writer.wake()
            elif self.interest & WRITE:
                self._want(self.interest & ~WRITE)

    def _hung_up(self, mask: int) -> None:
        if mask & DEAD:
            self.reset = True
        told_before, self.half_closed = self.half_closed, True
        watcher = self.watcher
        if watcher is not None:
            watcher.wake()
        if mask & DEAD and self.reader is None and self.writer is None and self._on_stir is None:
            self.reactor.unwatch(self)  # it cannot be silenced in any other way; reads find out by themselves
            self.interest = 0
        elif self.interest & HALF_CLOSED and (told_before or self.reader is None):  # a reader is likely to close
            self._want(self.interest & ~HALF_CLOSED)

    def _want(self, interest: int) -> None:
        if self.closed or interest == self.interest:
            return
        was, self.interest = self.interest, interest
        if was == 0 and self.fd not in self.reactor._watched:
            self.reactor.watch(self)
        else:
            self.reactor.rearm(self)

    async def _readable(self) -> None:
        """Wait until the socket may have something to read."""
        if not self.interest & READ:
            self._want(self.interest | READ)
        self.reader = self.reactor.current
        try:
            await park()
        finally:
            self.reader = None

    def _take(self, limit: int) -> int:
        """Read what is there into the shared buffer: how many bytes, 0 at the end of the stream, or NOTHING_YET or
        WANTS_TO_WRITE. Raises WireBroken.
        """
        raise AssertionError

    async def read(self, beside: Wire | None = None) -> bytes:
        """The next bytes, or `b""` once the other side has finished."""
        return bytes(await self.read_shared(beside))

    async def read_shared(self, beside: Wire | None = None, limit: int = PIECE) -> memoryview:
        """As `read`, in the reactor's own buffer: good until this task waits again. The hot path, so it waits as
        `_readable` does without calling it.
        """
        watched: Any = beside  # a wire of this driver, or a stream on one
        reactor = self.reactor
        task = reactor.current
        while not self.ended:
            if not self.interest & READ:
                self._want(self.interest | READ)
            if watched is not None:
                if watched.half_closed:
                    raise PeerGone(reset=watched.reset)
                watched.watcher = task
            self.reader = task
            try:
                await park()
            finally:
                self.reader = None
                if watched is not None:
                    watched.watcher = None
            if watched is not None and watched.half_closed:
                raise PeerGone(reset=watched.reset)
            if self.closed:
                raise WireBroken("closed by ourselves")
            count = self._take(limit)
            if count >= 0:
                self.received += count
                return reactor.buffer.view[:count]
            if count == WANTS_TO_WRITE:
                await self._writable()
        return reactor.buffer.view[: self._take(limit)]

    async def _writable(self) -> None:
        """Wait until the socket may take something."""
        if not self.interest & WRITE:
            self._want(self.interest | WRITE)
        self.writer = self.reactor.current
        try:
            await park()
        finally:
            self.writer = None

    def rest(self, on_stir: Callable[[], None] | None) -> None:
        """While nobody reads this wire, call `on_stir` once if anything at all happens on it."""
        self._on_stir = on_stir
        if on_stir is not None and not self.interest & READ:
            self._want(self.interest | READ)

    def close(self) -> None:
        """Close; whoever of ours still waits for this wire is told."""
        if not self.closed:
            Watched.close(self)
            for task in (self.reader, self.writer):
                if task is not None:
                    task.wake()

    def abort(self) -> None:
        """Close with a reset."""
        if not self.closed:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            except OSError:
                pass
            EpollWire.close(self)

    def peer_address(self) -> tuple[str, int]:
        """The other side's IP address and port; empty where it has gone or has none."""
        return _ip(self.sock.getpeername)

    def own_address(self) -> tuple[str, int]:
        """The IP address and port on our side; empty where there is none."""
        return _ip(self.sock.getsockname)


class SocketWire(EpollWire):
    """A plain socket."""

    __slots__ = ()

    def _take(self, limit: int) -> int:
        """Read what is there into the shared buffer."""
        try:
            return self.sock.recv_into(self.reactor.buffer.data, limit)
        except BlockingIOError:
            return NOTHING_YET
        except OSError as error:
            raise WireBroken(error.strerror or "reset") from None

    async def first_record(self) -> None:
        """Wait until the first TLS record is here whole: a ClientHello. Nothing is read; raises WireBroken.

        Until then a peer costs us a socket, and no OpenSSL object of 50 KiB. Returns as well for what is no such
        record, and where the peer has ended: TLS finds the right words for those. The kernel wakes us only once all
        that we wait for has come (SO_RCVLOWAT), so a peer that sends single bytes does not keep us busy.
        """
        wanted = 0
        try:
            while True:  # look first: a client that means it has sent its own before we were told of the connection
                try:
                    count = self.sock.recv_into(self.reactor.buffer.data, TLS_HEADER + TLS_LONGEST, socket.MSG_PEEK)
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise WireBroken(error.strerror or "reset") from None
                else:
                    missing = _record_length(self.reactor.buffer.view[:count])
                    if count == 0 or count >= missing or self.half_closed:
                        return
                    wanted = missing
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
                await self._readable()
                if self.closed:
                    raise WireBroken("closed by ourselves")
        finally:
            if wanted and not self.closed:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    async def peek(self, least: int) -> bytes:
        """Wait for so many bytes, and look at what is there, up to a page; fewer where no more will come.

        Nothing is read. As in `first_record`, the kernel wakes us only once they are here. Raises WireBroken.
        """
        told = False
        try:
            while True:
                try:
                    data = self.sock.recv(max(least, PEEK_BYTES), socket.MSG_PEEK)
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise WireBroken(error.strerror or "reset") from None
                else:
                    if self.reset:
                        raise WireBroken("reset")
                    if len(data) >= least or not data or self.half_closed:
                        return data
                if least > 1 and not told:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
                    told = True
                await self._readable()
                if self.closed:
                    raise WireBroken("closed by ourselves")
        finally:
            if told and not self.closed:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def take(self, count: int) -> bytes:
        """Read bytes that `peek` has shown. Raises WireBroken."""
        try:
            return self.sock.recv(count)
        except OSError as error:
            raise WireBroken(error.strerror or "reset") from None

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it, waiting where the other side is slow."""
        if self.closed:
            raise WireBroken("closed by ourselves")
        rest = data
        while True:
            try:
                count = self.sock.send(rest)
            except BlockingIOError:
                count = 0
            except OSError as error:
                raise WireBroken(error.strerror or "reset") from None
            self.sent += count
            if count == len(rest):
                return
            rest = _ours(rest, count)
            await self._writable()
            if self.closed:
                raise WireBroken("closed by ourselves")

    async def finish(self) -> None:
        """Send FIN; reading goes on."""
        if not self.closed:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass


def _ip(asked: Callable[[], Any]) -> tuple[str, int]:
    try:
        address = asked()
    except OSError:
        return "", 0
    return (address[0], address[1]) if isinstance(address, tuple) else ("", 0)


def _ours(rest: bytes | memoryview, sent: int) -> memoryview:
    """What is still to be sent, out of the shared buffer: others read into that while we wait."""
    view = memoryview(rest)[sent:]
    return view if isinstance(rest, bytes) or isinstance(view.obj, bytes) else memoryview(bytes(view))


def _record_length(data: memoryview) -> int:
    """How many bytes the first record will have with its header; 0 for what is no handshake, or none that may be."""
    if not data or data[0] != TLS_HANDSHAKE:
        return 0
    if len(data) < TLS_HEADER:
        return TLS_HEADER
    length = data[3] << 8 | data[4]
    return TLS_HEADER + length if length <= TLS_LONGEST else 0


async def connect(reactor: Reactor, host: str, port: int) -> SocketWire:
    """Connect to an IP address or a Unix socket, or try a name's addresses in turn. Raises Unreachable."""
    if host.startswith(UNIX):
        return await _connect_unix(reactor, host.removeprefix(UNIX))
    candidates: list[tuple[socket.AddressFamily, tuple[Any, ...]]]
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        try:
            candidates = await reactor.resolve(host, port)
        except OSError as error:
            raise Unreachable(f"{host} cannot be resolved: {error.strerror or error}") from None
    else:
        candidates = [(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))]
    reason = "no address"
    for family, address in candidates:
        try:
            return await _connect_one(reactor, family, address)
        except OSError as error:
            reason = error.strerror or str(error)
    raise Unreachable(f"{host}:{port}: {reason}")


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel find out, within two minutes, that the other end has vanished without a word (decision D8)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


async def _connect_one(reactor: Reactor, family: socket.AddressFamily, address: tuple[Any, ...]) -> SocketWire:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    keep_alive(sock)
    try:
        sock.connect(address)
    except BlockingIOError:
        pass
    except OSError:
        sock.close()
        raise
    wire = SocketWire(reactor, sock)
    try:
        while True:
            await wire._writable()
            failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise OSError(failure, _strerror(failure))
            try:
                sock.getpeername()
            except OSError:
                continue  # woken early: not connected yet
            break
    except BaseException:
        wire.close()
        raise
    wire.reset = wire.half_closed = False  # epoll reports HUP on a socket that has not begun to connect
    return wire


async def _connect_unix(reactor: Reactor, path: str) -> SocketWire:
    """Connect to a Unix socket. Raises Unreachable.

    Two things are not as in TCP. There is no connection under way: where the listener's queue is full, we come again.
    And there is no reset: what `abort` closes looks like an end to the other side, unless it has sent what we have not
    read.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await reactor.sleep(QUEUE_FULL_SECONDS)
            else:
                return SocketWire(reactor, sock)
    except OSError as error:
        sock.close()
        raise Unreachable(f"{UNIX}{path}: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise


def _strerror(code: int) -> str:
    import os

    return os.strerror(code)
