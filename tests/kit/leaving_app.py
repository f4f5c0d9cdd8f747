"""The application of tests.kit.echo_app, as one that leaves well: `python leaving_app.py PORT`.

At SIGTERM it takes no more connections, says `Connection: close` with each further answer, and ends when all that were
open have been closed by the other side, which keeps an idle one for three seconds (`timeouts.pool_idle_app`): whoever
closes an idle connection may meet a request that is on its way. Those that the kernel has accepted and nobody has taken
yet are served too: the kernel resets them when their door closes, with whatever was sent on them, and no sidecar can
tell such a reset from one of an application that had begun (RFC 9110 section 9.2.2), so it must not send a POST again.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator

import echo_app

MOST = 6.0  # seconds


class Door:
    """How many connections are open, and whether it leaves."""

    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        self.open = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.open += 1
        try:
            while await reader_has(reader):
                last = self.leaving.is_set()
                again = await echo_app.one(reader, Closing(writer) if last else writer)
                await writer.drain()
                if last or not again:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


class Closing:
    """A writer that says `Connection: close` in the head that begins the answer."""

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._begun = False

    def write(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            line, _, rest = data.partition(b"\r\n")
            data = line + b"\r\nconnection: close\r\n" + rest
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()


async def reader_has(reader: StreamReader) -> bool:
    """Wait for the first byte of a request, and leave it there; False at the end."""
    while not reader._buffer:  # type: ignore[attr-defined]
        if reader.at_eof():
            return False
        await reader._wait_for_data("leaving_app")  # type: ignore[attr-defined]
    return True


async def main(port: int) -> None:
    loop, door = asyncio.get_running_loop(), Door()
    loop.add_signal_handler(signal.SIGTERM, door.leaving.set)
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    listening.setblocking(False)
    server = await asyncio.start_server(door.serve, sock=listening, limit=1 << 20, backlog=1024)
    await door.leaving.wait()
    waiting = list(left_in(listening))
    server.close()
    served = [asyncio.create_task(door.serve(*await asyncio.open_connection(sock=each))) for each in waiting]
    over = loop.time() + MOST
    await asyncio.sleep(0.02)  # those that have just been accepted begin now
    while door.open and loop.time() < over:
        await asyncio.sleep(0.02)
    await asyncio.gather(*served)


def left_in(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted."""
    while True:
        try:
            yield listening.accept()[0]
        except BlockingIOError:
            return


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
