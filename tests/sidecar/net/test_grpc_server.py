"""Our small gRPC server and client against each other, and the server against whoever does not keep to gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from sidecar.hop import Headers
from sidecar.http.grpc import Status
from sidecar.http.h2 import H2Client, H2Stream
from sidecar.http.h2.codes import PREFACE
from sidecar.http.message import Data, End, Pause, RequestHead, ResponseHead
from sidecar.net.grpc_client import CallFailed, call
from sidecar.net.grpc_server import CallRefused, GrpcCall, GrpcLimits, serve_grpc
from tests.kit.trio_time import in_virtual_time

LIMITS = GrpcLimits(calls=3, message_bytes=1000, request_seconds=5.0, idle_seconds=30.0)


class Methods:
    """What is served here, and what became of it."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def echo(self, request: GrpcCall) -> AsyncGenerator[bytes, None]:
        yield request.message
        yield str(request.peer).encode()

    async def refuse(self, request: GrpcCall) -> AsyncGenerator[bytes, None]:
        yield b"first"
        raise CallRefused(Status.PERMISSION_DENIED, "no: ü 100%")

    async def fail(self, request: GrpcCall) -> AsyncGenerator[bytes, None]:
        raise RuntimeError("a fault of ours")
        yield b""

    async def tick(self, request: GrpcCall) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"tick"
                await trio.sleep(1)
        finally:
            self.ended.append("tick")

    async def large(self, request: GrpcCall) -> AsyncGenerator[bytes, None]:
        yield b"x" * 3_000_000
        self.ended.append("large")

    def table(self) -> dict[str, Callable[[GrpcCall], AsyncGenerator[bytes, None]]]:
        return {f"/S/{name}": getattr(self, name) for name in ("echo", "refuse", "fail", "tick", "large")}


Story = Callable[[Callable[[], trio.abc.Stream], Methods], Awaitable[None]]


def served(story: Story) -> None:
    """Run a story whose streams lead to the server; at its end every connection must end by itself."""

    @in_virtual_time
    async def whole() -> None:
        methods = Methods()
        async with trio.open_nursery() as nursery:

            def connect() -> trio.abc.Stream:
                mine, theirs = memory_stream_pair()

                async def serve() -> None:
                    await serve_grpc(theirs, methods.table(), peer="me", limits=LIMITS)

                nursery.start_soon(serve)
                return mine

            with trio.fail_after(3600):
                await story(connect, methods)

    whole()


async def ask(stream: trio.abc.Stream, path: str, message: bytes = b"", metadata: Headers | None = None) -> list[bytes]:
    try:
        return [each async for each in call(stream, path, message, metadata or [])]
    finally:
        await trio.aclose_forcefully(stream)


async def refusal(stream: trio.abc.Stream, path: str, message: bytes = b"", metadata: Headers | None = None) -> str:
    with pytest.raises(CallFailed) as caught:
        await ask(stream, path, message, metadata)
    return str(caught.value)


def test_a_call_and_its_answers() -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        assert await ask(connect(), "/S/echo", b"hello") == [b"hello", b"me"]
        assert await ask(connect(), "/S/echo") == [b"", b"me"]
        (large,) = await ask(connect(), "/S/large")
        assert len(large) == 3_000_000

    served(story)


def test_refusals_come_as_what_they_are() -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        assert await refusal(connect(), "/S/refuse") == "PERMISSION_DENIED: no: ü 100%"
        assert await refusal(connect(), "/S/nothing") == "UNIMPLEMENTED: this server has no such method"
        assert await refusal(connect(), "/S/fail") == "INTERNAL: the server failed; its log says why"
        assert await refusal(connect(), "/S/echo", b"x" * 1001) == "RESOURCE_EXHAUSTED: the request is too long"
        assert await refusal(connect(), "/S/echo", metadata=[(b"grpc-timeout", b"9")]) == "INTERNAL: protocol_violation"
        late = await refusal(connect(), "/S/tick", metadata=[(b"grpc-timeout", b"3S")])
        assert late.startswith("DEADLINE_EXCEEDED")
        assert methods.ended == ["tick"]

    served(story)


def test_a_caller_that_leaves_ends_its_calls() -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        stream = connect()
        answers = call(stream, "/S/tick", b"", [])
        assert [await answers.__anext__() for _ in range(3)] == [b"tick"] * 3
        await answers.aclose()
        await trio.aclose_forcefully(stream)
        await trio.sleep(1)
        assert methods.ended == ["tick"]

    served(story)


class Wire:
    """A client that sends exactly what a test says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.codec = H2Client()
        self.ended = False

    def open(self, path: str = "/S/echo", method: bytes = b"POST", kind: bytes = b"application/grpc") -> H2Stream:
        fields = [(b"host", b"x"), (b"content-type", kind), (b"te", b"trailers")]
        return self.codec.open(RequestHead(method, path.encode(), fields, b"2", body=True), scheme=b"http")

    async def exchange(self, seconds: float = 0.1) -> None:
        """Send what there is, and take in what comes within so many seconds."""
        with trio.move_on_after(seconds):
            while True:
                if self.codec.wants_write:
                    await self.stream.send_all(self.codec.to_send(trio.current_time()))
                data = bytes(await self.stream.receive_some(65536))
                self.codec.receive(data, trio.current_time())
                if not data:
                    self.ended = True
                    return

    def answer(self, stream: H2Stream) -> tuple[int, bytes, bytes]:
        """Status, grpc-status and body of what has come."""
        status, said, body = 0, b"", b""
        while not isinstance(event := stream.next_event(), Pause):
            match event:
                case ResponseHead(code, headers):
                    status, said = code, dict(headers).get(b"grpc-status", b"")
                case Data(data):
                    body += data
                case End(trailers):
                    said = dict(trailers).get(b"grpc-status", said)
        return status, said, body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", b"13"),
        (b"\0\0\0\0", b"13"),
        (b"\0\0\0\0\5abc", b"13"),
        (b"\0\0\0\0\1a\0\0\0\0\1b", b"13"),
        (b"\1\0\0\0\1a", b"12"),
        (b"\2\0\0\0\1a", b"13"),
        (b"\0\xff\xff\xff\xff", b"13"),
        (b"\0\0\0\0\1a", b"0"),
    ],
)
def test_a_request_is_exactly_one_message(body: bytes, status: bytes) -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        wire = Wire(connect())
        stream = wire.open()
        stream.send_data(body)
        stream.send_end()
        await wire.exchange()
        assert wire.answer(stream)[:2] == (200, status)
        await trio.aclose_forcefully(wire.stream)

    served(story)


def test_what_is_not_grpc_gets_an_answer_of_http() -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        wire = Wire(connect())
        plain, got = wire.open(kind=b"application/json"), wire.open(method=b"PUT")
        for stream in (plain, got):
            stream.send_end()
        await wire.exchange()
        assert wire.answer(plain)[0] == 415
        assert wire.answer(got)[:2] == (200, b"3")
        await trio.aclose_forcefully(wire.stream)

    served(story)


def test_half_a_request_does_not_wait_for_ever_and_too_many_are_refused() -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        wire = Wire(connect())
        *streams, more = [wire.open() for _ in range(4)]  # before it has said how many it takes
        await wire.exchange()
        assert more.error is not None, "over the limit a stream is refused"
        await wire.exchange(6.0)
        assert [wire.answer(stream)[1] for stream in streams] == [b"4"] * 3
        await trio.aclose_forcefully(wire.stream)

    served(story)


def test_a_connection_without_calls_is_closed_and_one_with_a_call_is_not() -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        idle, busy = Wire(connect()), Wire(connect())
        ticking = busy.open("/S/tick")
        ticking.send_data(b"\0\0\0\0\0")
        ticking.send_end()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle.exchange, 40.0)
            nursery.start_soon(busy.exchange, 40.0)
        assert (idle.ended, busy.ended) == (True, False)
        await trio.aclose_forcefully(busy.stream)

    served(story)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_end_in_an_answer_or_a_close(data: bytes, after_preface: bool) -> None:
    async def story(connect: Callable[[], trio.abc.Stream], methods: Methods) -> None:
        stream = connect()
        await stream.send_all(PREFACE + data if after_preface else data)
        with trio.move_on_after(60.0):
            while await stream.receive_some(65536):
                pass
        await trio.aclose_forcefully(stream)

    served(story)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8))
def test_an_agent_may_say_anything_to_our_client(pieces: list[bytes]) -> None:
    @in_virtual_time
    async def whole() -> None:
        mine, theirs = memory_stream_pair()

        async def agent() -> None:
            with trio.move_on_after(1):
                await theirs.receive_some(1000)
                with suppress(trio.BrokenResourceError):  # our client has heard enough
                    for piece in pieces:
                        await theirs.send_all(piece)
            await trio.aclose_forcefully(theirs)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent)
            with pytest.raises(CallFailed):
                await ask(mine, "/S/echo")

    whole()
