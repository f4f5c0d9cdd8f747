"""A small gRPC client on trio and our own HTTP/2: one call a connection, one request message, any number of answers.

For whoever serves on a Unix socket beside us. One task does everything: it sends what there is to send, reads, and
hands out whole messages as they come. A call that its caller leaves ends with its connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import unquote

import trio

from certs.errors import MeshError
from sidecar.errors import HopError
from sidecar.hop import Headers
from sidecar.http import grpc
from sidecar.http.grpc import Status
from sidecar.http.h2 import H2Client, H2Limits, H2Stream
from sidecar.http.headers import first
from sidecar.http.message import Data, End, Pause, RequestHead, ResponseHead

READ_BYTES = 64 * 1024
MAX_MESSAGE = 4 * 1024 * 1024  # bytes; what gRPC's own clients take by default
_PREFIX = 5


class CallFailed(MeshError):
    """A call has ended with a status other than OK, or has broken off (UNAVAILABLE)."""

    name = "call_failed"

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}" if message else status.name)
        self.status = status


async def call(
    stream: trio.abc.Stream, path: str, message: bytes, metadata: Headers
) -> AsyncGenerator[bytes, None]:
    """The answers to one call, as they come. Raises CallFailed. Close the stream to leave before the end."""
    codec = H2Client(H2Limits(stream_window=MAX_MESSAGE, connection_window=2 * MAX_MESSAGE), trio.current_time())
    fields = [
        (b"host", b"localhost"), (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        (b"user-agent", b"mesh"), *metadata,
    ]  # fmt: skip
    request = codec.open(RequestHead(b"POST", path.encode("ascii"), fields, b"2", body=True), scheme=b"http")
    request.send_data(b"\0" + len(message).to_bytes(4, "big") + message)
    request.send_end()
    answer = _Answer()
    try:
        while True:
            while codec.wants_write:
                await stream.send_all(codec.to_send(trio.current_time()))
            codec.receive(bytes(await stream.receive_some(READ_BYTES)), trio.current_time())
            while codec.next_event() is not None:
                pass  # all that matters is on the one stream
            for each in answer.take(request):
                yield each
            if answer.over:
                return
    except HopError as error:
        raise CallFailed(Status.UNAVAILABLE, error.detail) from None
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise CallFailed(Status.UNAVAILABLE, str(error)) from None


class _Answer:
    """What has come of it."""

    def __init__(self) -> None:
        self.over = False
        self._buffer = b""

    def take(self, stream: H2Stream) -> list[bytes]:
        """Whole messages that have come. Raises HopError, CallFailed."""
        found: list[bytes] = []
        while not isinstance(event := stream.next_event(), Pause):
            match event:
                case ResponseHead(status, headers) if status >= 200:
                    if status != 200:
                        raise CallFailed(Status[grpc.without_status(status)], f"it answered {status}")
                    if first(headers, grpc.STATUS_FIELD) is not None:
                        _check(headers)
                case Data(data):
                    self._buffer += data
                    found += self._whole()
                case End(trailers):
                    self.over = True
                    if trailers:
                        _check(trailers)
                case _:
                    pass
        return found

    def _whole(self) -> list[bytes]:
        found = []
        while len(self._buffer) >= _PREFIX:
            size = int.from_bytes(self._buffer[1:_PREFIX], "big")
            if self._buffer[0] or size > MAX_MESSAGE:
                raise CallFailed(Status.INTERNAL, "a message is compressed, or too long")
            if len(self._buffer) < _PREFIX + size:
                break
            found.append(self._buffer[_PREFIX : _PREFIX + size])
            self._buffer = self._buffer[_PREFIX + size :]
        return found


def _check(fields: Headers) -> None:
    """Raise CallFailed unless these say OK."""
    value = first(fields, grpc.STATUS_FIELD) or b""
    if value == b"0":
        return
    status = Status(int(value)) if value.isdigit() and int(value) < len(Status) else Status.UNKNOWN
    raise CallFailed(status, unquote((first(fields, b"grpc-message") or b"").decode("latin-1"))[:300])
