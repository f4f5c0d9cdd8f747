"""A small HTTP/1.1 client on trio and h11, for our own APIs: one connection, one exchange after another.

It reads whole answers of bounded size. `duplex` opens an exchange that goes both ways at once (the CA's watch).
Time-outs are the caller's: wrap calls in `trio.fail_after`.
"""

from __future__ import annotations

import h11
import trio

from sidecar.net.http_message import Answer, AnswerTooLarge, BadHttp, Headers

__all__ = ["Answer", "BadHttp", "Duplex", "HttpClient", "request"]

READ_BYTES = 64 * 1024
MAX_ANSWER = 4 * 1024 * 1024  # bytes; the largest answer of ours, a bundle with many roots, is far smaller
MAX_PIECES = 16_384  # of an answer: whoever sends it byte by byte would have us work for seconds
MAX_INTERIM = 16  # answers of 1xx before the one that counts
AT_ONCE = 64  # pieces until others have their turn; a read may have ten thousand


async def request(
    stream: trio.abc.Stream, method: str, path: str, body: bytes = b"", headers: Headers = (), *, host: str = "mesh"
) -> Answer:
    """One exchange on a stream that stays open. Raises BadHttp, trio's stream errors."""
    return await HttpClient(stream, host).request(method, path, body, headers)


class HttpClient:
    """One connection to a server. `host` goes into the Host header, `most` is the bytes of the largest answer."""

    def __init__(self, stream: trio.abc.Stream, host: str = "mesh", most: int | None = None) -> None:
        self.stream = stream
        self._most = MAX_ANSWER if most is None else most
        self._host = host.encode("ascii")
        self._events = 0
        self._h11 = h11.Connection(h11.CLIENT)

    @property
    def reusable(self) -> bool:
        """Whether it can carry a further request, as far as we know."""
        return self._h11.our_state is h11.IDLE

    async def request(self, method: str, path: str, body: bytes = b"", headers: Headers = ()) -> Answer:
        """Send a request and read its whole answer. Raises BadHttp, trio's stream errors."""
        length = ((b"content-length", b"%d" % len(body)),) if body or method in ("POST", "PUT", "PATCH") else ()
        events: list[h11.Event] = [self._head(method, path, (*headers, *length))]
        if body:
            events.append(h11.Data(data=body))
        try:
            await self._send(*events, h11.EndOfMessage())
        except trio.BrokenResourceError:
            if not body:
                raise
            # a server may refuse early and stop reading; what it answered may still be there
        answer = await self._whole(await self._response())
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return answer

    async def duplex(self, method: str, path: str, headers: Headers = ()) -> Duplex | Answer:
        """Open an exchange that goes both ways; the whole Answer instead where its status is not 200."""
        await self._send(self._head(method, path, (*headers, (b"transfer-encoding", b"chunked"))))
        response = await self._response()
        if response.status_code != 200:
            return await self._whole(response)
        return Duplex(self)

    async def watch(self, path: str, headers: Headers = ()) -> Duplex | Answer:
        """GET what is answered piece by piece; the whole Answer instead where its status is not 200."""
        await self._send(self._head("GET", path, headers))
        await self._send(h11.EndOfMessage())
        response = await self._response()
        return Duplex(self) if response.status_code == 200 else await self._whole(response)

    async def aclose(self) -> None:
        """Close the connection."""
        await self.stream.aclose()

    def _head(self, method: str, path: str, headers: Headers) -> h11.Request:
        return h11.Request(method=method, target=path, headers=[(b"host", self._host), *headers])

    async def _send(self, *events: h11.Event) -> None:
        """Send these, in one piece: what is small enough leaves in one packet."""
        try:
            data = b"".join(self._h11.send(event) or b"" for event in events)
        except h11.LocalProtocolError as error:
            raise BadHttp(f"this connection can carry no further request: {error}") from error
        if data:
            await self.stream.send_all(data)

    async def _response(self) -> h11.Response:
        for _ in range(MAX_INTERIM + 1):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise BadHttp("this connection has ended")
        raise BadHttp(f"the server sends more than {MAX_INTERIM} interim answers")

    async def _whole(self, response: h11.Response) -> Answer:
        pieces, size = [], 0
        while (piece := await self._piece()) is not None:
            size += len(piece)
            if size > self._most:
                raise AnswerTooLarge(f"the answer is larger than {self._most} bytes")
            pieces.append(piece)
            if len(pieces) > MAX_PIECES:
                raise AnswerTooLarge(f"the answer comes in more than {MAX_PIECES} pieces")
        return Answer(response.status_code, tuple(response.headers), b"".join(pieces))

    async def _piece(self) -> bytes | None:
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise BadHttp("the server broke off in the middle of its answer")

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        self._events += 1
        if not self._events % AT_ONCE:
            await trio.lowlevel.checkpoint()
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                data = bytes(await self.stream.receive_some(READ_BYTES))
                if not data and self._h11.their_state is h11.SEND_RESPONSE and not self._h11.trailing_data[0]:
                    raise BadHttp("the server closed the connection without an answer")
                self._h11.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise BadHttp(f"the server's answer is not valid HTTP: {error}") from error
        return event


class Duplex:
    """An exchange that goes both ways; one task may send while another receives."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def send(self, data: bytes) -> None:
        """Send a piece of the request body at once. Raises trio's stream errors."""
        await self._client._send(h11.Data(data=data))

    async def receive(self) -> bytes | None:
        """The next piece of the answer, None after its end. Raises BadHttp, trio's stream errors."""
        return await self._client._piece()

    async def aclose(self) -> None:
        """End it by closing the connection."""
        await self._client.aclose()
