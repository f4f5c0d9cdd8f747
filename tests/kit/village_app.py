"""Applications that know of no mesh: HTTP, WebSocket and a raw protocol in which the server speaks first.

    python village_app.py NAME HTTP_PORT SOCKET_PORT RAW_PORT

They listen on every address of the host, IPv4 and IPv6, as applications do. HTTP is that of `echo_app`; WebSocket
echoes; the raw one says `hello from NAME`, answers each line in capitals, and after the caller's end says how many
lines there were before its own.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter

from websockets.asyncio.server import ServerConnection, serve

from tests.kit import echo_app

EVERYWHERE = None  # asyncio: all addresses of both families


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def raw(name: str) -> object:
    async def speak(reader: StreamReader, writer: StreamWriter) -> None:
        count = 0
        try:
            writer.write(f"hello from {name}\n".encode())
            while line := await reader.readline():
                count += 1
                writer.write(line.upper())
                await writer.drain()
            writer.write(b"%d lines\n" % count)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    return speak


async def main(name: str, http: int, sockets: int, plain: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    first = await asyncio.start_server(echo_app.serve, EVERYWHERE, http, limit=1 << 20, family=socket.AF_UNSPEC)
    second = await asyncio.start_server(raw(name), EVERYWHERE, plain)  # type: ignore[arg-type]
    async with first, second, serve(echo, None, sockets):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
