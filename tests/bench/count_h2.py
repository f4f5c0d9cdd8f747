"""The world of `tests.bench.count` in HTTP/2: an application, and a caller with many streams on one connection."""

from __future__ import annotations

import itertools
from typing import Any

from sidecar.hop import Headers
from sidecar.http.h2 import H2Client, H2Server, H2Stream, Opened
from sidecar.http.message import NEED_DATA, End, RequestHead, ResponseHead
from sidecar.net.port import NEVER, Wire
from sidecar.net.reactor import Reactor
from sidecar.proxy.carrier import Carrier
from sidecar.proxy.streams import AskedStream, StreamEnd
from tests.bench.load.http2 import FIELDS, GRPC_FIELDS

STREAMS = 16  # at once
MESSAGE = b"\x00\x00\x00\x00\x64" + b"m" * 100  # of gRPC
PAGE = b"x" * 1024
_numbers = itertools.count()


class Connection:
    """One connection of either role, driven by two tasks of the world."""

    def __init__(self, world: Reactor, wire: Wire, codec: H2Server | H2Client) -> None:
        self._world = world
        self._carrier = Carrier(world, wire, codec, idle=NEVER, on_event=self._on_event)
        self.codec = codec
        world.start(self._carrier.write())
        world.start(self._read())

    async def _read(self) -> None:
        while await self._carrier.read():
            pass

    def _on_event(self, event: object) -> None:
        if isinstance(event, Opened):
            self._world.start(self._answer(StreamEnd(self._carrier, event.stream)))

    async def _answer(self, end: StreamEnd) -> None:
        """What an application says, once it has the whole request."""
        call = False
        while not isinstance(event := end.next_event(), End):
            if isinstance(event, RequestHead):
                call = (b"content-type", b"application/grpc") in event.headers
            elif event is NEED_DATA:
                await end.read()
        stream: H2Stream = end.stream
        kind = b"application/grpc" if call else b"text/plain"
        headers: Headers = [(b"content-type", kind), (b"server", b"app/1.2")]
        stream.send_head(ResponseHead(200, headers, b""))
        stream.send_data(MESSAGE if call else PAGE)
        stream.send_end([(b"grpc-status", b"0")] if call else ())
        end.close()
        self._carrier.kick()

    async def ask(self, times: int, *, call: bool) -> Connection:
        """So many rounds of `STREAMS` requests at once."""
        for _ in range(times):
            tasks = [self._world.spawn(self._one(call=call)) for _ in range(STREAMS)]
            for task in tasks:
                await self._world.wait(task)
        return self

    async def _one(self, *, call: bool) -> None:
        number = next(_numbers)
        fields = [field for field in (GRPC_FIELDS if call else FIELDS) if field[0][:1] != b":" and field[0] != b"te"]
        path = b"/echo.Echo/Call" if call else b"/items/%012x" % number
        headers = [(b"host", b"orders"), *fields, (b"x-request-id", b"%032x" % number)]
        head = RequestHead(b"POST" if call else b"GET", path, headers, body=call)
        end = AskedStream(self._carrier, scheme=b"https")
        end.begin(head)
        if call:
            end.send_data(MESSAGE)
        end.send_end()
        self._carrier.kick()
        status: Any = None
        while not isinstance(event := end.next_event(), End):
            if isinstance(event, ResponseHead):
                status = event.status
            elif event is NEED_DATA:
                await end.read()
        assert status == 200, status
        end.close()
