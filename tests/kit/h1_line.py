"""HTTP/1 by hand over a memory wire: a caller, or an application, in the scenes of tests/kit/play.py."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

from sidecar.net.memory import MemoryWire
from sidecar.net.port import WireBroken


class HungUp(AssertionError):
    """The other side finished while more was expected of it. An application takes it calmly, a test does not."""


class Line:
    """One end of a connection, for those who speak raw bytes. Reads what it is sent with patience, and strictly."""

    def __init__(self, wire: MemoryWire) -> None:
        self.wire = wire
        self._have = bytearray()

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        await self.wire.write(data)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to the mark, and the mark."""
        while (at := self._have.find(mark)) < 0:
            await self._more(f"waiting for {mark!r}")
        return self._take(at + len(mark))

    async def hear(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._have) < size:
            await self._more(f"waiting for {size} bytes")
        return self._take(size)

    async def hear_all(self) -> bytes:
        """Everything until the other side has finished."""
        while data := await self.wire.read():
            self._have += data
        return self._take(len(self._have))

    async def is_closed(self) -> bool:
        """Whether the other side has ended the connection, orderly and with nothing more to say."""
        return not self._have and await self.wire.read() == b""

    async def is_reset(self) -> bool:
        """Whether the connection broke, so that nobody can take what came for the whole."""
        try:
            while await self.wire.read():
                pass
        except WireBroken:
            return True
        return False

    def finish(self) -> Awaitable[None]:
        """End our direction."""
        return self.wire.finish()

    def close(self) -> None:
        """Close."""
        self.wire.close()

    def abort(self) -> None:
        """Reset."""
        self.wire.abort()

    @property
    def pending(self) -> bytes:
        """What has been read from the wire and not yet been asked for."""
        return bytes(self._have)

    async def answer(self, method: str = "GET") -> Answer:
        """Read a final response, with the 1xx ones before it."""
        interim: list[Answer] = []
        while True:
            found = await self.answer_head()
            if found.status >= 200 or found.status == 101:
                found.interim = interim
                break
            interim.append(found)
        if found.status != 101 and method != "HEAD" and found.status not in (204, 304):
            found.body, found.trailers = await self._body(found, to_the_end=True)
        return found

    async def answer_head(self) -> Answer:
        """Read one response head, final or 1xx."""
        first, headers = await self._head()
        version, status, reason = first.split(b" ", 2)
        assert version == b"HTTP/1.1", first
        return Answer(int(status), reason, headers)

    async def request(self) -> Request:
        """Read a whole request."""
        found = await self.request_head()
        found.body, found.trailers = await self._body(found, to_the_end=False)
        return found

    async def request_head(self) -> Request:
        """Read a request head."""
        first, headers = await self._head()
        method, target, version = first.split(b" ")
        assert version == b"HTTP/1.1", first
        return Request(method, target, headers)

    async def _head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        lines = (await self.until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        return lines[0], [_field(line) for line in lines[1:]]

    async def _body(self, message: Message, *, to_the_end: bool) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        length = message.get("content-length")
        if message.get("transfer-encoding") is not None:
            assert message.get("transfer-encoding") == b"chunked"
            assert length is None
            return await self._chunks()
        if length is not None:
            return await self.hear(int(length)), []
        return (await self.hear_all() if to_the_end else b""), []

    async def _chunks(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        body = b""
        while size := int((await self.until(b"\r\n"))[:-2], 16):
            body += await self.hear(size)
            assert await self.hear(2) == b"\r\n"
        trailers = []
        while (line := (await self.until(b"\r\n"))[:-2]) != b"":
            trailers.append(_field(line))
        return body, trailers

    async def _more(self, why: str) -> None:
        data = await self.wire.read()
        if not data:
            raise HungUp(f"the other side finished, {why}; so far: {bytes(self._have[:200])!r}")
        self._have += data

    def _take(self, size: int) -> bytes:
        data = bytes(self._have[:size])
        del self._have[:size]
        return data


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    assert colon, line
    return name.lower(), value.strip(b" \t")


@dataclass
class Message:
    """What a request and a response have in common."""

    headers: list[tuple[bytes, bytes]]
    body: bytes = field(default=b"", init=False)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list, init=False)

    def get(self, name: str) -> bytes | None:
        """The value of the only field of this name; None where there is none."""
        found = self.all(name)
        assert len(found) < 2, f"{name} is repeated: {found}"
        return found[0] if found else None

    def all(self, name: str) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for key, value in self.headers if key == name.encode()]


@dataclass
class Request(Message):
    """A request, as the application got it."""

    def __init__(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(headers)
        self.body, self.trailers = b"", []
        self.method = method
        self.target = target


@dataclass
class Answer(Message):
    """A response, as the caller got it."""

    def __init__(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(headers)
        self.body, self.trailers = b"", []
        self.status = status
        self.reason = reason
        self.interim: list[Answer] = []
