"""Applications of a chain, each `python -m tests.kit.relay_app PORT NEXT LEAST MOST`.

One that has a NEXT port asks there for every request that it gets, after LEAST to MOST milliseconds of its own work,
and answers with the status that it was given. It serves any number of requests at once, and passes on no header. One
with `-` for NEXT is the leaf: it answers 200, and 503 from `/die` until `/live`; `/count` tells how many it has had.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

Pool = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
CONTROLS = ("/die", "/live", "/count")


async def ask(pool: Pool, port: int, path: str = "/") -> tuple[int, bytes]:
    """One request to a port of this machine, on a connection that is kept."""
    reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET %b HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % (path.encode(), port))
        status, fields = await _head(reader)
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    except BaseException:
        writer.close()
        raise
    if fields.get(b"connection") == b"close":
        writer.close()
    else:
        pool.append((reader, writer))
    return int(status.split()[1]), body


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    fields = (line.partition(b":") for line in lines[1:] if line)
    return lines[0], {name.lower(): value.strip().lower() for name, _, value in fields}


class App:
    """One of them."""

    def __init__(self, onward: int | None, least: float, most: float) -> None:
        self._onward = onward
        self._work = (least / 1e3, most / 1e3)
        self._pool: Pool = []
        self._count = 0
        self._dead = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                line, _ = await _head(reader)
                status, body = await self._answer(line.split()[1].decode())
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        writer.close()

    async def _answer(self, path: str) -> tuple[int, bytes]:
        if self._onward is None and path in CONTROLS:
            self._dead = path == "/die" or (self._dead and path == "/count")
            return 200, b"%d" % self._count
        self._count += 1
        await asyncio.sleep(random.uniform(*self._work))
        if self._onward is None:
            return (503 if self._dead else 200), b""
        try:
            return (await ask(self._pool, self._onward))[0], b""
        except (OSError, asyncio.IncompleteReadError):
            return 502, b""


async def main(port: int, onward: int | None, least: float, most: float) -> None:
    """Serve for ever."""
    app = App(onward, least, most)
    server = await asyncio.start_server(app.serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    numbers = sys.argv[1:]
    asyncio.run(
        main(int(numbers[0]), None if numbers[1] == "-" else int(numbers[1]), float(numbers[2]), float(numbers[3]))
    )
