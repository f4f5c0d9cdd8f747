"""A plain HTTP/1.1 application for tests: `python echo_app.py PORT`. It tells what reached it, to the byte.

    any path           200 and JSON: method, target, version, headers, length and sha256 of the body
    /echo/NONCE        the same bytes back (for GET the path's), with x-path and x-nonce telling what came with them
    /status/N          that status
    /slow/SECONDS      the answer comes so much later
    /drip/N            N pieces of 4 bytes, chunked, a tenth of a second apart
    /bytes/N           N bytes of a known pattern, with a length
    /sink              the body is read piece by piece and never kept; 200 and JSON: its length and sha256
    /last              Connection: close, and closes

It uses the standard library's event loop and no HTTP library, so it shares no code with what is tested.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from asyncio import StreamReader, StreamWriter

PATTERN = bytes(range(256)) * 256  # 64 KiB
Headers = list[tuple[str, str]]


async def serve(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while await one(reader, writer):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def one(reader: StreamReader, writer: StreamWriter) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head[:-4].decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    headers: Headers = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in rest)]
    known = dict(headers)
    if known.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if target == "/sink":
        return await sink(reader, writer, int(known["content-length"]))
    trailers: Headers = []
    body = await read_body(reader, known, trailers)
    path, _, argument = target.partition("?")[0].lstrip("/").partition("/")
    status, extra = 200, [("content-type", "application/json")]
    answer = body
    if path == "echo":
        extra = [("x-method", method), ("x-path", argument), ("x-nonce", known.get("x-nonce", ""))]
        answer = body if method != "GET" else f"<{argument:<30}>".encode()
    elif path == "bytes":
        return await send_bytes(writer, int(argument))
    elif path == "drip":
        return await drip(writer, int(argument))
    else:
        if path == "slow":
            await asyncio.sleep(float(argument))
        status = int(argument) if path == "status" else 200
        seen = {
            "method": method, "target": target, "version": version, "headers": headers, "trailers": trailers,
            "length": len(body), "sha256": hashlib.sha256(body).hexdigest(),
        }  # fmt: skip
        answer = json.dumps(seen).encode()
    if path == "last":
        extra.append(("connection", "close"))
    if status in (204, 304):
        answer = b""
    fields = "".join(f"{name}: {value}\r\n" for name, value in [*extra, *length_of(status, answer)])
    writer.write(f"HTTP/1.1 {status} Fine\r\n{fields}\r\n".encode() + (b"" if method == "HEAD" else answer))
    await writer.drain()
    return path != "last"


def length_of(status: int, answer: bytes) -> Headers:
    return [] if status in (204, 304) else [("content-length", str(len(answer)))]


async def read_body(reader: StreamReader, known: dict[str, str], trailers: Headers) -> bytes:
    if "chunked" not in known.get("transfer-encoding", ""):
        return await reader.readexactly(int(known.get("content-length", "0")))
    pieces = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").partition(":")
        trailers.append((name.lower(), value.strip()))
    return b"".join(pieces)


async def sink(reader: StreamReader, writer: StreamWriter, length: int) -> bool:
    digest, left = hashlib.sha256(), length
    while left:
        piece = await reader.read(min(left, 1 << 18))
        if not piece:
            return False
        digest.update(piece)
        left -= len(piece)
    answer = json.dumps({"length": length, "sha256": digest.hexdigest()}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
    await writer.drain()
    return True


async def send_bytes(writer: StreamWriter, count: int) -> bool:
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {count}\r\n\r\n".encode())
    while count:
        piece = PATTERN[: min(count, len(PATTERN))]
        count -= len(piece)
        writer.write(piece)
        await writer.drain()
    return True


async def drip(writer: StreamWriter, count: int) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(count):
        writer.write(b"4\r\ndrip\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def main(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20, backlog=1024)
    async with server:
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
