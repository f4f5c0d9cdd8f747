"""The nonce client over HTTP/2: few connections by prior knowledge, each shared by many requests at once.

What an HTTP/2 client may repeat, because nobody has begun with it (REFUSED_STREAM, or a GOAWAY that leaves it out),
counts as a connection that was refused, as in `tests.kit.random_events`. With `cancel_share`, so many requests are
cancelled by RST_STREAM somewhere on their way; they end as `cancelled`, and must disturb nobody.

Written with hyperframe and hpack alone, so that it shares no book-keeping with what is tested.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import StreamReader, StreamWriter
from typing import Any

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.kit.nonce import GaveUp, NonceLoad, Torn

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 1 << 20
REFUSED_STREAM, CANCEL = 7, 8


class _Stream:
    def __init__(self, window: int) -> None:
        self.window = window
        self.head: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # perhaps nobody waits for it any more


class _Connection:
    """One connection and the requests on it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._window, self._initial, self._most = 65_535, 65_535, 100
        self._room = asyncio.Event()
        self.usable = True
        writer.write(PREFACE)
        self._send(SettingsFrame(0, settings={4: WINDOW, 2: 0}), WindowUpdateFrame(0, window_increment=WINDOW * 4))
        self.task = asyncio.create_task(self._read_on())

    @property
    def has_room(self) -> bool:
        return self.usable and len(self._streams) < self._most

    def _send(self, *frames: Frame) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"".join(frame.serialize() for frame in frames))

    def close(self) -> None:
        self.usable = False
        self.task.cancel()
        self._writer.close()

    # ---- asking ------------------------------------------------------------------------------------------------------

    async def ask(self, head: list[tuple[bytes, bytes]], body: bytes, cancel_after: float | None) -> _Stream:
        number, self._next = self._next, self._next + 2
        stream = self._streams[number] = _Stream(self._initial)
        flags = ["END_HEADERS"] if body else ["END_HEADERS", "END_STREAM"]
        self._send(HeadersFrame(number, self._encoder.encode(head), flags=flags))
        try:
            if cancel_after is None:
                await self._finish(number, stream, body)
                return stream
            try:
                await asyncio.wait_for(self._finish(number, stream, body), cancel_after)
            except TimeoutError:
                self._send(RstStreamFrame(number, error_code=CANCEL))
                raise GaveUp from None
            return stream
        finally:
            self._streams.pop(number, None)

    async def _finish(self, number: int, stream: _Stream, body: bytes) -> None:
        left = memoryview(body)
        while left and not stream.done.done():
            size = min(len(left), self._window, stream.window, 16_384)
            if size <= 0:
                self._room.clear()
                await asyncio.wait(
                    [stream.done, asyncio.ensure_future(self._room.wait())], return_when=asyncio.FIRST_COMPLETED
                )
                continue
            flags = ["END_STREAM"] if size == len(left) else []
            self._send(DataFrame(number, bytes(left[:size]), flags=flags))
            self._window -= size
            stream.window -= size
            left = left[size:]
            await self._writer.drain()
        await stream.done

    # ---- what comes --------------------------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                frame, size = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self._reader.readexactly(size)))
                self._take(frame)
        except (OSError, EOFError):
            pass
        finally:
            self.usable = False
            for stream in self._streams.values():
                stream.fail(Torn(f"after {len(stream.body)} bytes") if stream.head else EOFError("no answer"))
            self._writer.close()

    def _take(self, frame: Any) -> None:
        stream = self._streams.get(frame.stream_id)
        if isinstance(frame, HeadersFrame):
            fields = self._decoder.decode(frame.data, raw=True)
            if stream is not None:
                stream.head += [(bytes(name), bytes(value)) for name, value in fields]
        elif isinstance(frame, DataFrame):
            self._send(WindowUpdateFrame(0, window_increment=max(1, frame.flow_controlled_length)))
            if stream is not None:
                stream.body += frame.data
                self._send(WindowUpdateFrame(frame.stream_id, window_increment=max(1, frame.flow_controlled_length)))
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._settings(frame.settings)
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self._send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, WindowUpdateFrame):
            if stream is not None:
                stream.window += frame.window_increment
            elif not frame.stream_id:
                self._window += frame.window_increment
            self._room.set()
        elif isinstance(frame, GoAwayFrame):
            self._on_goaway(frame)
        elif isinstance(frame, RstStreamFrame) and stream is not None and not stream.done.done():
            refused = frame.error_code == REFUSED_STREAM
            stream.fail(ConnectionRefusedError("REFUSED_STREAM") if refused else Torn(f"reset {frame.error_code}"))
        ends = isinstance(frame, HeadersFrame | DataFrame) and "END_STREAM" in frame.flags
        if ends and stream is not None and not stream.done.done():
            stream.done.set_result(None)

    def _settings(self, settings: dict[int, int]) -> None:
        more = settings.get(4, self._initial) - self._initial
        self._initial += more
        self._most = settings.get(3, self._most)
        for stream in self._streams.values():
            stream.window += more
        self._room.set()
        self._send(SettingsFrame(0, flags=["ACK"]))

    def _on_goaway(self, frame: GoAwayFrame) -> None:
        self.usable = False
        for number, stream in self._streams.items():
            if number > frame.last_stream_id:
                stream.fail(ConnectionRefusedError(f"GOAWAY {frame.last_stream_id}"))


class H2NonceLoad(NonceLoad):
    """A load by HTTP/2."""

    def __init__(
        self, port: int, *, rate: float, seed: int = 1, connections: int = 3, cancel_share: float = 0.0
    ) -> None:
        super().__init__(port, rate=rate, seed=seed)
        self._most = connections
        self._cancel_share = cancel_share
        self._chance = random.Random(seed + 1)
        self._open: list[_Connection] = []

    async def _ask(self, nonce: str, body: bytes, post: bool) -> tuple[int, bytes, bytes]:
        connection = await self._shared()
        head = [
            (b":method", b"POST" if post else b"GET"), (b":scheme", b"http"), (b":authority", self._host.encode()),
            (b":path", f"/echo/{nonce}".encode()), (b"x-nonce", nonce.encode()),
        ]  # fmt: skip
        if post:
            head.append((b"content-length", str(len(body)).encode()))
        cancel = self._chance.uniform(0, 0.01) if self._chance.random() < self._cancel_share else None
        stream = await connection.ask(head, body, cancel)
        lines = b"".join(b"\r\n" + name + b": " + value for name, value in stream.head) + b"\r\n"
        return int(dict(stream.head)[b":status"]), lines, bytes(stream.body)

    async def _shared(self) -> _Connection:
        self._open = [connection for connection in self._open if connection.usable]
        free = [connection for connection in self._open if connection.has_room]
        if len(self._open) < self._most or not free:
            self.tally.connections += 1
            connection = _Connection(*await asyncio.open_connection("127.0.0.1", self._port))
            self._open.append(connection)
            return connection
        return self._chance.choice(free)
