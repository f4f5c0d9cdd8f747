"""A small HTTP/1.1 server on trio and h11: admin over Unix sockets, health over TCP, the CA over TLS.

`serve_http` owns one connection from its first byte to its last. It never raises but for cancellation: whatever a
client or a handler does wrong ends as an answer, a close, or a line through `report`, so one nursery may hold many.

What a client can cost us is bounded: time to send a head, time to send a body, time between requests, time to take what
we send, size of head and body. A request is read whole before its handler runs. The exception is a *duplex* handler
(the CA's watch): `duplex` is asked with the head alone, and what it returns then reads and writes while both last.

h11 is lenient in a few ways that a server should not be; `_objection` names them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import h11
import trio
from OpenSSL import SSL

from certs.errors import MeshError
from sidecar.net.http_message import BadHttp, BadJson, Headers, Request, Response
from sidecar.net.tls_stream import TlsStream
from sidecar.net.turnstile import Turnstile

__all__ = ["BadJson", "Channel", "HttpLimits", "Request", "Response", "serve_http", "serve_https"]

READ_BYTES = 64 * 1024
LINGER_SECONDS = 1.0  # after an early answer: how long we read on, so that a reset does not swallow the answer

Handler = Callable[[Request], Awaitable[Response]]
DuplexHandler = Callable[[Request, "Channel"], Awaitable[None]]
Report = Callable[[BaseException], None]

_log = logging.getLogger("mesh.http")


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much and how long; bytes and seconds."""

    head_bytes: int = 32 * 1024  # D13
    head_lines: int = 100  # D13
    body_bytes: int = 1024 * 1024
    head_seconds: float = 10.0  # D8
    body_seconds: float = 30.0
    send_seconds: float = 30.0  # for a client to take one piece of an answer
    idle_seconds: float = 60.0  # between two requests


def _report(error: BaseException) -> None:
    _log.error("an HTTP handler failed", exc_info=error)


async def serve_http(
    stream: trio.abc.Stream,
    handler: Handler,
    *,
    duplex: Callable[[Request], DuplexHandler | None] | None = None,
    peer: Any = None,
    limits: HttpLimits | None = None,
    report: Report = _report,
) -> None:
    """Answer requests on one connection until it ends, then close it. Raises nothing but cancellation.

    `duplex` is asked with each request's head (its body still empty) and returns a handler that wants to read while it
    writes, or None for an ordinary request. A handler that raises makes a 500 (BadJson a 400) and a call of `report`.
    """
    connection = _Connection(stream, limits or HttpLimits(), peer)
    try:
        while await _serve_one(connection, handler, duplex, report):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, BadHttp):
        pass  # the client left, stalled, or broke off: there is nobody to answer
    except Exception as error:  # noqa: BLE001 - the promise of this function
        report(error)
    finally:
        await _close(stream)


async def serve_https(
    transport: trio.abc.Stream,
    context: SSL.Context,
    handler: Handler,
    *,
    identify: Callable[[TlsStream], Any],
    duplex: Callable[[Request], DuplexHandler | None] | None = None,
    limits: HttpLimits | None = None,
    handshake_seconds: float = 5.0,
    turnstile: Turnstile | None = None,
    report: Report = _report,
) -> None:
    """`serve_http` behind TLS. `identify` makes `Request.peer` of the finished handshake, or raises MeshError.

    With a `turnstile`, only so many shake hands at once; `handshake_seconds` are for the wait as well.
    """
    stream = TlsStream(transport, context, server=True)
    try:
        with trio.fail_after(handshake_seconds):
            async with nullcontext() if turnstile is None else turnstile.turn():
                await stream.do_handshake()
        peer = identify(stream)
    except (MeshError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
        _log.info("a connection was refused: %s", error)
        await _close(stream)
        return
    except Exception as error:  # noqa: BLE001 - the promise of serve_http holds here too
        report(error)
        await _close(stream)
        return
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    await serve_http(stream, handler, duplex=duplex, peer=peer, limits=limits, report=report)


class Channel:
    """Both directions of a duplex exchange. `start` first; then `send` and `receive` may be used by two tasks."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.started = False

    async def start(self, status: int = 200, headers: Headers = ()) -> None:
        """Send the response head."""
        self.started = True
        await self._connection.send(h11.Response(status_code=status, headers=list(headers)))

    async def send(self, data: bytes) -> None:
        """Send a piece of the response body at once. Raises trio's stream errors, TooSlowError."""
        await self._connection.send(h11.Data(data=data))

    async def receive(self) -> bytes | None:
        """The next piece of the request body, None after its end. Raises BadHttp, trio's stream errors."""
        return await self._connection.body_piece()


class _Connection:
    """h11 and a stream, with the limits."""

    def __init__(self, stream: trio.abc.Stream, limits: HttpLimits, peer: Any) -> None:
        self.stream = stream
        self.limits = limits
        self.peer = peer
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self.to_head = False  # whether the current request is a HEAD, whose answers have no body
        self._fresh = True

    async def head(self) -> h11.Request | None:
        """The next request's head, None at the connection's end. Raises h11.RemoteProtocolError, TooSlowError."""
        self.to_head = False
        wait = self.limits.head_seconds if self._fresh else self.limits.idle_seconds
        self._fresh = False
        deadline = trio.current_time() + wait
        begun = False
        while True:
            event = self.h11.next_event()
            if isinstance(event, h11.Request):
                self.to_head = event.method == b"HEAD"
                return event
            if event is not h11.NEED_DATA:
                return None
            if not begun and self.h11.trailing_data[0]:
                begun, deadline = True, trio.current_time() + self.limits.head_seconds
            with trio.fail_at(deadline):
                await self._more()

    async def body_piece(self) -> bytes | None:
        """The next piece of the request body, None at its end. Raises h11.RemoteProtocolError, BadHttp."""
        if self.h11.they_are_waiting_for_100_continue and self.h11.our_state is h11.SEND_RESPONSE:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            try:
                event = self.h11.next_event()
            except h11.RemoteProtocolError as error:
                raise BadHttp(str(error)) from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return None
            if event is not h11.NEED_DATA:
                raise BadHttp("the client broke off")
            await self._more()

    async def body(self) -> bytes | None:
        """The whole request body, None where it is too large. Raises BadHttp, TooSlowError."""
        pieces, size = [], 0
        with trio.fail_after(self.limits.body_seconds):
            while (piece := await self.body_piece()) is not None:
                size += len(piece)
                if size > self.limits.body_bytes:
                    return None
                pieces.append(piece)
        return b"".join(pieces)

    async def send(self, event: h11.Event) -> None:
        """Send one event. Raises TooSlowError where the client does not take it."""
        if data := self.h11.send(event):
            with trio.fail_after(self.limits.send_seconds):
                await self.stream.send_all(data)

    async def _more(self) -> None:
        self.h11.receive_data(bytes(await self.stream.receive_some(READ_BYTES)))


async def _serve_one(
    connection: _Connection,
    handler: Handler,
    duplex: Callable[[Request], DuplexHandler | None] | None,
    report: Report,
) -> bool:
    """One exchange; true where another may follow on this connection."""
    try:
        head = await connection.head()
    except h11.RemoteProtocolError as error:
        return await _refuse(connection, error.error_status_hint, "bad_request", str(error))
    if head is None:
        return False
    if objection := _objection(head, connection.limits):
        return await _refuse(connection, *objection)
    request = _request(head, connection.peer)
    if duplex is not None and (conversation := duplex(request)) is not None:
        await _converse(connection, conversation, request, report)
        return False
    if _announced(head) > connection.limits.body_bytes:
        return await _refuse(connection, 413, "body_too_large", f"at most {connection.limits.body_bytes} bytes")
    try:
        body = await connection.body()
    except BadHttp as error:
        return await _refuse(connection, 400, "bad_request", str(error))
    if body is None:
        return await _refuse(connection, 413, "body_too_large", f"at most {connection.limits.body_bytes} bytes")
    response = await _judge(handler, _request(head, connection.peer, body), report)
    await _respond(connection, response, head_only=request.method == "HEAD", report=report)
    if connection.h11.our_state is not h11.DONE or connection.h11.their_state is not h11.DONE:
        return False
    connection.h11.start_next_cycle()
    return True


async def _judge(handler: Handler, request: Request, report: Report) -> Response:
    try:
        return await handler(request)
    except BadJson as error:
        return Response.error(400, error.name, str(error))
    except Exception as error:  # noqa: BLE001 - a handler's fault is answered, reported, and ends there
        report(error)
        return Response.error(500, "internal", "the server failed; its log says why")


async def _respond(connection: _Connection, response: Response, *, head_only: bool, report: Report) -> None:
    headers = list(response.headers)
    body = response.body
    if isinstance(body, bytes):
        if response.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        await connection.send(h11.Response(status_code=response.status, headers=headers))
        if body and not head_only and response.status not in (204, 304):
            await connection.send(h11.Data(data=body))
    else:
        await connection.send(h11.Response(status_code=response.status, headers=headers))
        try:
            async for piece in body:
                if head_only:
                    break
                await connection.send(h11.Data(data=piece))
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
    await connection.send(h11.EndOfMessage())


async def _converse(connection: _Connection, handler: DuplexHandler, request: Request, report: Report) -> None:
    channel = Channel(connection)
    try:
        await handler(request, channel)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, BadHttp):
        return
    except Exception as error:  # noqa: BLE001 - a handler's fault is reported and ends there
        report(error)
        if not channel.started:
            await _refuse(connection, 500, "internal", "the server failed; its log says why")
        return
    if channel.started:
        await connection.send(h11.EndOfMessage())


async def _refuse(connection: _Connection, status: int, name: str, detail: str) -> bool:
    """Answer with an error and have done with this connection."""
    if connection.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return False
    response = Response.error(status, name, detail, ((b"connection", b"close"),))
    await _respond(connection, response, head_only=connection.to_head, report=_report)
    with trio.move_on_after(LINGER_SECONDS):
        while await connection.stream.receive_some(READ_BYTES):
            pass
    return False


def _request(head: h11.Request, peer: Any, body: bytes = b"") -> Request:
    path, _, query = head.target.decode("ascii").partition("?")
    return Request(head.method.decode("ascii"), path, query, tuple(head.headers), body, peer)


def _announced(head: h11.Request) -> int:
    return next((int(value) for name, value in head.headers if name == b"content-length"), 0)


def _objection(head: h11.Request, limits: HttpLimits) -> tuple[int, str, str] | None:
    """What h11 lets pass and we do not: (status, name, detail)."""
    names = [name for name, _ in head.headers]
    if head.http_version not in (b"1.0", b"1.1"):
        return 505, "bad_version", "HTTP/1.1 is spoken here"
    if len(names) > limits.head_lines:
        return 431, "head_too_large", f"at most {limits.head_lines} header lines"
    if len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers) > limits.head_bytes:
        return 431, "head_too_large", f"at most {limits.head_bytes} bytes"  # h11 lets pass what came in one piece
    if not head.target.startswith(b"/") or not head.target.isascii():
        return 400, "bad_request", "the request target must start with a slash"
    if b"content-length" in names and b"transfer-encoding" in names:
        return 400, "bad_request", "content-length beside transfer-encoding"
    if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for _, value in head.headers for byte in value):
        return 400, "bad_request", "a control character in a header"
    if b"transfer-encoding" in names and head.http_version != b"1.1":
        return 400, "bad_request", "transfer-encoding needs HTTP/1.1"
    return None


async def _close(stream: trio.abc.Stream) -> None:
    try:
        await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass
