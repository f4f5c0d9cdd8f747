"""Applications for scenes in memory: each is a coroutine function that serves one connection."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from tests.kit.h1_line import Line, Request
from tests.kit.play import Serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def always(answer: bytes) -> Serve:
    """Reads whole requests, one after the other, and answers each with these bytes."""

    async def serve(line: Line) -> None:
        while await _has_more(line):
            await line.request()
            await line.say(answer)

    return serve


def once(answer: bytes) -> Serve:
    """Answers one request, then closes."""

    async def serve(line: Line) -> None:
        await line.request()
        await line.say(answer)

    return serve


def keeping(requests: list[Request], answer: bytes = OK) -> Serve:
    """As `always`, and keeps the requests."""

    async def serve(line: Line) -> None:
        while await _has_more(line):
            requests.append(await line.request())
            await line.say(answer)

    return serve


def replying(reply: Callable[[Request], bytes]) -> Serve:
    """Answers each request with what the function makes of it."""

    async def serve(line: Line) -> None:
        while await _has_more(line):
            await line.say(reply(await line.request()))

    return serve


def echo() -> Serve:
    """Answers with the request's own body, and its trailers where it had any."""

    def reply(request: Request) -> bytes:
        if request.trailers:
            trailers = b"".join(name + b": " + value + b"\r\n" for name, value in request.trailers)
            body = b"%x\r\n%s\r\n" % (len(request.body), request.body) if request.body else b""
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailers + b"\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(request.body), request.body)

    return replying(reply)


async def silent(line: Line) -> None:
    """Reads for ever and never says a word."""
    await line.hear_all()


async def _has_more(line: Line) -> bool:
    if line.pending:
        return True
    data = await line.wire.read()
    line._have += data
    return bool(data)


def agreed(request: Request) -> bytes:
    """The 101 to a WebSocket, with the answer to its key (RFC 6455 section 4.2.2)."""
    key = (request.get("sec-websocket-key") or b"") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    return head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
