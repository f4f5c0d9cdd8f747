"""A fuzzer of the small HTTP server behind the admin socket, the health port and the CA."""

from __future__ import annotations

import h11
import trio
import trio.testing
from hypothesis import example
from hypothesis import strategies as st

from sidecar.net.http_server import HttpLimits, Request, Response, serve_http
from tests.fuzz.depth import fuzz
from tests.fuzz.test_http import LINES, messages

LIMITS = HttpLimits(head_bytes=600, head_lines=12, body_bytes=40)
STREAMS = messages([*LINES, b"POST /explain HTTP/1.1", b"GET /decisions/x HTTP/1.1", b"POST /drain HTTP/1.1"])


class Served:
    """What one connection led to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.reported: list[BaseException] = []
        self.answer = b""
        self.seconds = 0.0

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        document = request.json() if request.method == "POST" else {}
        return Response.of_json(200, {"path": request.path, "members": len(document)})


def serve(stream: bytes, cuts: list[int]) -> Served:
    """Serve these bytes, cut as told, then a half-close; under virtual time."""
    found = Served()

    async def story() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        began = trio.current_time()

        async def client() -> None:
            rest = stream
            try:
                for cut in cuts:
                    await theirs.send_all(rest[:cut])
                    rest = rest[cut:]
                await theirs.send_all(rest)
                await theirs.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            while piece := await theirs.receive_some(65536):
                found.answer += piece

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await serve_http(ours, found.handle, limits=LIMITS, report=found.reported.append)
        found.seconds = trio.current_time() - began

    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))
    return found


@fuzz(STREAMS, st.lists(st.integers(1, 40), max_size=4), brief=350, long=20_000)
@example(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", [])
@example(b"HEAD ! HTTP/1.1\r\nHost: h\r\n\r\n", [])  # once a body was sent to a HEAD
@example(b"HEAD ! HTTP/0.0\n\n", [])
@example(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n[" + b"[" * 5, [])
def test_our_own_server_answers_or_closes_and_nothing_else(stream: bytes, cuts: list[int]) -> None:
    """Whatever bytes come, however cut, the connection ends within its time limits with nothing but whole, well-formed
    answers; no handler sees a target without a slash or a body over the limit, and no fault of ours is reported.
    """
    found = serve(stream, cuts)
    assert not found.reported
    assert found.seconds <= LIMITS.head_seconds + LIMITS.idle_seconds + LIMITS.body_seconds
    for request in found.requests:
        assert request.path.startswith("/")
        assert len(request.body) <= LIMITS.body_bytes
        assert len(request.headers) <= LIMITS.head_lines
    statuses = answers(found.answer, [request.method for request in found.requests], b"HEAD " in stream)
    assert all(status in (200, 400, 405, 408, 413, 431, 500, 501, 505) for status in statuses)
    assert statuses.count(200) <= len(found.requests)
    assert 500 not in statuses


def answers(data: bytes, methods: list[str], maybe_head: bool) -> list[int]:
    """The statuses of the answers, read by h11 as a client; whatever is left over or lacking fails.

    A refused request may have been a HEAD: then the last answer has no body, whatever its length says.
    """
    statuses = []
    client = h11.Connection(h11.CLIENT)
    queue = iter(methods)
    while data:
        method = next(queue, "GET")
        if method == "CONNECT":
            method = "GET"
        client.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                assert maybe_head, data
                assert statuses[-1] >= 400, data
                assert data.endswith(b"\r\n\r\n"), data
                return statuses
            if isinstance(event, h11.Response):
                statuses.append(event.status_code)
        data = bytes(client.trailing_data[0])
        client = h11.Connection(h11.CLIENT)
    return statuses
