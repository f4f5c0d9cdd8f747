"""A TCP proxy that makes a server far away: `python far_away.py PORT TARGET_PORT SECONDS`.

Each byte arrives so many seconds later, and up to half as long again by chance, in both directions and in order. The
kernels that tests run on have no `tc netem`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

JITTER = 0.5  # of the delay, on top of it


async def carry(reader: StreamReader, writer: StreamWriter, seconds: float) -> None:
    """Move the bytes of one direction, late."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    arriving = asyncio.create_task(arrive())
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            on_the_way.put_nowait((loop.time() + seconds * (1.0 + JITTER * random.random()), data))
    on_the_way.put_nowait((loop.time() + seconds, b""))
    with suppress(ConnectionError):
        await arriving


async def main(port: int, target: int, seconds: float) -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(carry(reader, back, seconds), carry(there, writer, seconds))

    async with await asyncio.start_server(serve, "0.0.0.0", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
