"""A small gRPC server on trio and our own HTTP/2: for calls with one request message and one or many answers.

`serve_grpc` owns one connection from its first byte to its last, and never raises but for cancellation. One task
reads, one writes, one serves each call; a call whose caller cancels is cancelled, and so is everything when the
connection ends.

What a client can cost us is bounded: the codec's own limits (`sidecar.http.h2.limits`), calls at once, the size of a
request and the time to send it, and the time that a connection without calls stays. An answer that its caller does not
take waits at the codec's window, and the codec gives up on it after a while.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from certs.errors import MeshError
from sidecar.errors import HopError
from sidecar.hop import Headers
from sidecar.http import grpc
from sidecar.http.grpc import Status
from sidecar.http.h2 import Code, Ended, Failed, H2Limits, H2Server, H2Stream, Opened, Stirred
from sidecar.http.message import NEED_DATA, Data, End, RequestHead, ResponseHead

READ_BYTES = 64 * 1024
LOOK_SECONDS = 5.0  # between two looks at the connection's deadlines, which a writer may have set meanwhile
_PREFIX = 5
_TYPE = (b"content-type", b"application/grpc")

_log = logging.getLogger("mesh.grpc")


class CallRefused(MeshError):
    """A call ends with this status. The message goes to the caller."""

    name = "call_refused"

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """One call: its method's path, its metadata, its one request message, and what the server knows of the caller."""

    path: str
    headers: Headers
    message: bytes
    peer: Any = None


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """How much and how long; bytes and seconds."""

    calls: int = 32  # at once, on one connection
    message_bytes: int = 64 * 1024
    request_seconds: float = 10.0  # for a caller to send its whole request
    idle_seconds: float = 300.0  # for a connection without calls


Method = Callable[[GrpcCall], AsyncGenerator[bytes, None]]  # yields messages; raises CallRefused


async def serve_grpc(
    stream: trio.abc.Stream, methods: Mapping[str, Method], *, peer: Any = None, limits: GrpcLimits | None = None
) -> None:
    """Answer calls on one connection until it ends, then close it. Raises nothing but cancellation."""
    connection = _Connection(stream, methods, peer, limits or GrpcLimits())
    try:
        await connection.run()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client left
    except Exception:  # noqa: BLE001 - the promise of this function
        _log.exception("a gRPC connection failed")
    finally:
        with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
            await trio.aclose_forcefully(stream)


class _Connection:
    """The codec, the socket, and the calls between them."""

    def __init__(
        self, stream: trio.abc.Stream, methods: Mapping[str, Method], peer: Any, limits: GrpcLimits
    ) -> None:
        self._stream = stream
        self._methods = methods
        self._peer = peer
        self._limits = limits
        self._codec = H2Server(H2Limits(streams=limits.calls), trio.current_time())
        self._calls: dict[H2Stream, _Call] = {}
        self._to_write = trio.Event()
        self._quiet_since = trio.current_time()

    async def run(self) -> None:
        """Serve to the end. Raises trio's stream errors."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                nonlocal failure
                try:
                    await self._write()
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    failure = error
                nursery.cancel_scope.cancel()

            nursery.start_soon(write)
            try:
                await self._read(nursery)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _read(self, nursery: trio.Nursery) -> None:
        """Feed the codec until either side has had enough; the writer then says our last words and ends it all."""
        codec = self._codec
        while not codec.ended and codec.error is None:
            with trio.move_on_after(self._patience()):
                codec.receive(bytes(await self._stream.receive_some(READ_BYTES)), trio.current_time())
            codec.check_time(trio.current_time())
            self._look_idle()
            while (event := codec.next_event()) is not None:
                match event:
                    case Opened(stream):
                        self._calls[stream] = _Call(self, stream)
                        nursery.start_soon(self._calls[stream].serve)
                    case Stirred(stream) if stream in self._calls:
                        self._calls[stream].stir()
                    case Failed(error):
                        _log.info("a gRPC connection ends: %s", error)
                    case Ended():
                        nursery.cancel_scope.cancel()
                    case _:
                        pass
            self.kick()

    def _patience(self) -> float:
        due = self._codec.deadline()
        left = LOOK_SECONDS if due is None else due - trio.current_time()
        return min(max(left, 0.001), LOOK_SECONDS)

    def _look_idle(self) -> None:
        now = trio.current_time()
        if self._calls:
            self._quiet_since = now
        elif now - self._quiet_since >= self._limits.idle_seconds and not self._codec.leaving:
            self._codec.begin_shutdown()
            self._codec.finish_shutdown()

    async def _write(self) -> None:
        """Send what there is, whenever there is any; returns once nothing more can come."""
        codec = self._codec
        while True:
            while codec.wants_write:
                data = codec.to_send(trio.current_time())
                self._stir_senders()
                if data:
                    await self._stream.send_all(data)
            if codec.error is not None or codec.finished:
                return
            await self._to_write.wait()
            self._to_write = trio.Event()

    def _stir_senders(self) -> None:
        for call in self._calls.values():
            call.stir()

    def kick(self) -> None:
        """There may be something to write."""
        self._to_write.set()

    def forget(self, stream: H2Stream) -> None:
        """This call is over."""
        self._calls.pop(stream, None)
        self._quiet_since = trio.current_time()
        self.kick()

    @property
    def limits(self) -> GrpcLimits:
        """Those of this connection."""
        return self._limits

    def method(self, head: RequestHead) -> Method:
        """Who answers this path. Raises CallRefused."""
        found = self._methods.get(head.target.decode("latin-1"))
        if found is None:
            raise CallRefused(Status.UNIMPLEMENTED, "this server has no such method")
        return found

    def call_of(self, head: RequestHead, message: bytes) -> GrpcCall:
        """The call as its method sees it."""
        return GrpcCall(head.target.decode("latin-1"), head.headers, message, self._peer)


class _Call:
    """One stream: its request read, its answers written, its status said."""

    def __init__(self, connection: _Connection, stream: H2Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._stirred = trio.Event()
        self._scope = trio.CancelScope()

    def stir(self) -> None:
        """Something has happened on the stream."""
        if self._stream.error is not None:
            self._scope.cancel()
        self._stirred.set()

    async def serve(self) -> None:
        """The whole call. Raises nothing."""
        try:
            with self._scope:
                await self._serve()
        finally:
            self._stream.finish()
            self._connection.forget(self._stream)

    async def _serve(self) -> None:
        try:
            head, message = await self._request()
            patience = grpc.timeout_of(head.headers)
            call, method = self._connection.call_of(head, message), self._connection.method(head)
            with trio.fail_after(float("inf") if patience is None else patience):
                await self._answer(method(call))
            self._end(Status.OK, "")
        except CallRefused as refused:
            self._end(refused.status, str(refused))
        except trio.TooSlowError:
            self._end(Status.DEADLINE_EXCEEDED, "the call's own limit of time has passed")
        except HopError as error:  # of the codec: the stream cannot go on, or its head makes no sense
            self._end(Status.INTERNAL, error.name)
        except Exception:  # noqa: BLE001 - the promise of this function
            _log.exception("a gRPC method failed")
            self._end(Status.INTERNAL, "the server failed; its log says why")

    async def _request(self) -> tuple[RequestHead, bytes]:
        """Head and message. Raises CallRefused, HopError."""
        head: RequestHead | None = None
        body = b""
        with trio.move_on_after(self._connection.limits.request_seconds):
            while True:
                event = self._stream.next_event()
                match event:
                    case RequestHead():
                        head = event
                        self._check_head(head)
                    case Data(data):
                        body += data
                        if len(body) > self._connection.limits.message_bytes:
                            raise CallRefused(Status.RESOURCE_EXHAUSTED, "the request is too long")
                    case End() if head is not None:
                        return head, _one_message(body)
                    case _ if event is NEED_DATA:
                        self._connection.kick()  # windows that were given back
                        await self._stirred.wait()
                        self._stirred = trio.Event()
                    case _:
                        raise CallRefused(Status.INTERNAL, "the request has no head")
        raise CallRefused(Status.DEADLINE_EXCEEDED, "the request did not come in time")

    @staticmethod
    def _check_head(head: RequestHead) -> None:
        if head.method != b"POST" or not grpc.is_grpc(head.headers):
            raise CallRefused(Status.INVALID_ARGUMENT, "this server speaks gRPC")

    async def _answer(self, messages: AsyncGenerator[bytes, None]) -> None:
        try:
            async for message in messages:
                if not self._stream.answered:
                    self._stream.send_head(ResponseHead(200, [_TYPE]))
                self._stream.send_data(b"\0" + len(message).to_bytes(4, "big") + message)
                while self._stream.unsent and self._stream.error is None:
                    self._connection.kick()
                    await self._stirred.wait()
                    self._stirred = trio.Event()
                self._connection.kick()
        finally:
            await messages.aclose()

    def _end(self, status: Status, message: str) -> None:
        words: Headers = [(grpc.STATUS_FIELD, b"%d" % status)]
        if message:
            words.append((b"grpc-message", grpc.message(message)))
        if self._stream.answered:
            self._stream.send_end(words)
        elif self._stream.head is None:
            self._stream.reset(Code.PROTOCOL_ERROR)
        elif grpc.is_grpc(self._stream.head.headers):
            self._stream.send_head(ResponseHead(200, [_TYPE, *words]), end=True)
        else:
            self._stream.send_head(ResponseHead(415, []), end=True)  # PROTOCOL-HTTP2.md, Requests
        self._connection.kick()


def _one_message(body: bytes) -> bytes:
    """The one message of a request. Raises CallRefused."""
    if body[:1] == b"\1":
        raise CallRefused(Status.UNIMPLEMENTED, "compressed messages are not read here")
    size = int.from_bytes(body[1:_PREFIX], "big")
    if len(body) < _PREFIX or body[0] or len(body) != _PREFIX + size:
        raise CallRefused(Status.INTERNAL, "the request is not exactly one gRPC message")
    return body[_PREFIX:]
