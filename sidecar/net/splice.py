"""From one plain socket to another through a pipe: bytes that no program copies (splice(2)).

Theory of operation. Large pieces alone are worth it, so a tunnel copies until a read comes in large, and copies again
once they come in small. The two steps, into the pipe and out of it, are one move: a pipe is taken when the source has
something, and is empty and back with the others before the source is asked again. Only a sink that takes nothing holds
a pipe, and of those there are few: whoever gets none copies. Pipes that nobody has used for a moment are closed, so
tunnels in which nothing moves hold no descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from sidecar.net.port import WireBroken
from sidecar.net.wires import SocketWire

if TYPE_CHECKING:
    from sidecar.net.port import Wire
    from sidecar.net.reactor import Reactor

PIPE_BYTES = 1024 * 1024  # fs.pipe-max-size of a Linux that nobody has tuned
MOST_PIPES = 16  # at a time; what all of ours may hold is far below fs.pipe-user-pages-soft, 64 MiB
LARGE = 64 * 1024  # a read of such a size is worth a pipe for the next one
SMALL = 16 * 1024  # and one below this is not
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Pipe:
    """A pipe that is empty between two moves."""

    __slots__ = ("entry", "exit")

    def __init__(self) -> None:
        self.exit, self.entry = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self.entry, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # it moves less at once

    def close(self) -> None:
        """Close both ends."""
        os.close(self.entry)
        os.close(self.exit)


class Pipes:
    """The pipes of one reactor."""

    def __init__(self) -> None:
        self.open = 0
        self._idle: list[Pipe] = []
        self._unused = 0  # how many of those nobody has taken since the last sweep

    def take(self) -> Pipe | None:
        """An empty pipe; None where there are enough, or no descriptors."""
        if self._idle:
            pipe = self._idle.pop()
            self._unused = min(self._unused, len(self._idle))
            return pipe
        if self.open >= MOST_PIPES:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        self.open += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """It is empty again."""
        self._idle.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """It is not, or nobody knows."""
        self.open -= 1
        pipe.close()

    def sweep(self) -> None:
        """Close those that nobody has used since the last sweep."""
        for pipe in self._idle[: self._unused]:
            self.discard(pipe)
        del self._idle[: self._unused]
        self._unused = len(self._idle)

    def close(self) -> None:
        """Close all that nobody uses."""
        self._unused = len(self._idle)
        self.sweep()


class Splice:
    """The way from one wire to another, if it leads through a pipe."""

    __slots__ = ("_able", "_pipe", "_reactor", "_sink", "_source", "left", "useful")

    def __init__(self, source: SocketWire, sink: SocketWire) -> None:
        self._reactor: Reactor = source.reactor
        self._source = source
        self._sink = sink
        self._pipe: Pipe | None = None
        self.left = 0  # bytes in the pipe
        self.useful = False  # whether pieces are large at the moment
        self._able = True

    @classmethod
    def between(cls, source: Wire, sink: Wire) -> Splice | None:
        """One that can be tried; None where there is none: in memory, and with TLS."""
        if type(source) is SocketWire and type(sink) is SocketWire:
            return cls(source, sink)
        return None

    def saw(self, size: int) -> None:
        """A piece of this size was copied."""
        self.useful = self._able and size >= LARGE

    async def take(self) -> int | None:
        """Wait for the source and move what it has into a pipe: how much, 0 at its end; None where it is better
        copied. Raises WireBroken.
        """
        source = self._source
        while not source.ended:
            await source._readable()
            if source.closed:
                raise WireBroken("closed by ourselves")
            pipe = self._reactor.pipes.take()
            if pipe is None:
                return None
            count = -1
            try:
                count = os.splice(source.fd, pipe.entry, PIPE_BYTES, flags=_FLAGS)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno == errno.EINVAL:  # a kernel or a socket that does not know how
                    self._able = self.useful = False
                    return None
                raise WireBroken(error.strerror or "reset") from None
            finally:
                if count <= 0:
                    self._reactor.pipes.give(pipe)
            if count:
                self._pipe, self.left = pipe, count
                source.received += count
                self.useful = count >= SMALL
            return count
        return 0

    async def put(self) -> None:
        """Move what is in the pipe into the sink, waiting where that is slow. Raises WireBroken."""
        pipe, sink = self._pipe, self._sink
        assert pipe is not None
        while self.left:
            if sink.closed:
                raise WireBroken("closed by ourselves")
            try:
                count = os.splice(pipe.exit, sink.fd, self.left, flags=_FLAGS)
            except BlockingIOError:
                await sink._writable()
                continue
            except OSError as error:
                raise WireBroken(error.strerror or "reset") from None
            sink.sent += count
            self.left -= count
        self._pipe = None
        self._reactor.pipes.give(pipe)

    def close(self) -> None:
        """The tunnel has ended, with or without bytes in the pipe."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._reactor.pipes.discard(pipe)
