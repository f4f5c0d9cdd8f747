"""The small HTTP server: right answers, bounded patience, and no exception ever leaves it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from certs.errors import UntrustedSvid
from sidecar.net.contexts import make_context
from sidecar.net.http_client import HttpClient
from sidecar.net.http_server import Channel, HttpLimits, Request, Response, serve_http, serve_https
from sidecar.net.tls_stream import TlsStream
from tests.kit.identities import a_root, an_issuer, an_svid
from tests.kit.trio_time import in_virtual_time


async def echo(request: Request) -> Response:
    return Response.of_json(
        200,
        {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "body": request.body.decode(),
            "peer": request.peer,
        },
    )


class Served:
    """A server on one end of a wire in memory; what it reported, and whether it has returned."""

    def __init__(self, nursery: trio.Nursery, handler: Any = echo, **options: Any) -> None:
        self.wire, theirs = memory_stream_pair()
        self.reported: list[BaseException] = []
        self.done = trio.Event()

        async def run() -> None:
            await serve_http(theirs, handler, report=self.reported.append, **options)
            self.done.set()

        nursery.start_soon(run)

    async def say(self, *lines: str, body: bytes = b"") -> bytes:
        """Send a raw request and read until the server closes."""
        await self.wire.send_all("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return await self.rest()

    async def rest(self) -> bytes:
        answer = b""
        while piece := await self.wire.receive_some():
            answer += piece
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@in_virtual_time
async def test_requests_follow_one_another_on_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery, peer="uid 7")
        client = HttpClient(served.wire)
        first = await client.request("GET", "/a%20b?c=d&e")
        assert first.json() == {"method": "GET", "path": "/a%20b", "query": "c=d&e", "body": "", "peer": "uid 7"}
        assert (await client.request("POST", "/x", b"hello")).json()["body"] == "hello"
        head = await client.request("HEAD", "/x")
        assert (head.status, head.body) == (200, b"")
        await client.aclose()
        await served.done.wait()
        assert served.reported == []


@in_virtual_time
async def test_an_empty_answer_has_no_body() -> None:
    async def handler(_: Request) -> Response:
        return Response(204)

    async with trio.open_nursery() as nursery:
        client = HttpClient(Served(nursery, handler).wire)
        for _ in range(2):
            answer = await client.request("GET", "/")
            assert (answer.status, answer.body, answer.header(b"content-length")) == (204, b"", None)
        await client.aclose()


@in_virtual_time
async def test_a_client_that_expects_100_is_told_to_go_on() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        await served.wire.send_all(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
        )
        assert await served.wire.receive_some() == b"HTTP/1.1 100 \r\n\r\n"
        await served.wire.send_all(b"hi")
        assert b'"body":"hi"' in await served.rest()


@in_virtual_time
async def test_a_stream_of_pieces_leaves_at_once_and_ends_with_its_reader() -> None:
    closed = []

    async def handler(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                for number in range(1000):
                    yield b"%d\n" % number
                    await trio.sleep(1)
            finally:
                closed.append(True)

        return Response(200, body=pieces())

    async with trio.open_nursery() as nursery:
        served = Served(nursery, handler)
        await served.wire.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await served.wire.receive_some()
        while b"0\n" not in head:
            head += await served.wire.receive_some()
        assert b"chunked" in head
        assert trio.current_time() < 1
        await served.wire.aclose()
        await served.done.wait()
        assert closed == [True]
        assert served.reported == []


REFUSED = [
    (400, ["GET http://a/ HTTP/1.1", "host: a"], "absolute target"),
    (400, ["OPTIONS * HTTP/1.1", "host: a"], "asterisk"),
    (400, ["GET / HTTP/1.1"], "no host"),
    (400, ["GET / HTTP/1.1", "host: a", "host: b"], "two hosts"),
    (400, ["nonsense"], "no request"),
    (400, ["GET / HTTP/1.1", "host: a", "x: a\x07b"], "control character"),
    (400, ["POST / HTTP/1.1", "host: a", "content-length: 1", "transfer-encoding: chunked"], "smuggling"),
    (400, ["POST / HTTP/1.1", "host: a", "content-length: 1", "content-length: 2"], "two lengths"),
    (501, ["POST / HTTP/1.1", "host: a", "transfer-encoding: gzip"], "unknown coding"),
    (413, ["POST / HTTP/1.1", "host: a", "content-length: 2000000"], "announced too large"),
    (431, ["GET / HTTP/1.1", "host: a", *[f"x{number}: y" for number in range(100)]], "too many lines"),
    (431, ["GET / HTTP/1.1", "host: a", "x: " + "y" * 40_000], "head too large"),
]


@pytest.mark.parametrize(("expected", "lines", "_what"), REFUSED)
def test_a_bad_request_is_refused_and_the_connection_closed(expected: int, lines: list[str], _what: str) -> None:
    @in_virtual_time
    async def story() -> None:
        async with trio.open_nursery() as nursery:
            served = Served(nursery)
            answer = await served.say(*lines)
            assert status(answer) == expected
            assert b"connection: close" in answer.lower()
            assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error", "detail"}
            await served.done.wait()
            assert served.reported == []

    story()


@in_virtual_time
async def test_a_chunked_body_is_counted() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery, limits=HttpLimits(body_bytes=10))
        answer = await served.say(
            "POST / HTTP/1.1", "host: a", "transfer-encoding: chunked", body=b"6\r\nabcdef\r\n6\r\nabcdef\r\n"
        )
        assert status(answer) == 413


@in_virtual_time
async def test_a_broken_body_is_refused() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        answer = await served.say("POST / HTTP/1.1", "host: a", "transfer-encoding: chunked", body=b"zz\r\n")
        assert status(answer) == 400
        assert served.reported == []


@in_virtual_time
async def test_a_slow_head_is_given_up_after_ten_seconds_however_it_trickles() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        await served.wire.send_all(b"GET / HT")
        for _ in range(9):
            await trio.sleep(1)
            await served.wire.send_all(b"T")
        assert not served.done.is_set()
        await served.done.wait()
        assert trio.current_time() == pytest.approx(10)


@in_virtual_time
async def test_a_silent_connection_is_given_up() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        await served.done.wait()
        assert trio.current_time() == pytest.approx(10)
        served = Served(nursery)
        await HttpClient(served.wire).request("GET", "/")
        await served.done.wait()
        assert trio.current_time() == pytest.approx(70)


@in_virtual_time
async def test_the_second_head_of_a_connection_has_its_own_ten_seconds() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        await HttpClient(served.wire).request("GET", "/")
        await trio.sleep(50)
        await served.wire.send_all(b"GET / ")
        await served.done.wait()
        assert trio.current_time() == pytest.approx(60)


@in_virtual_time
async def test_a_slow_body_is_given_up() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        await served.wire.send_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
        await served.done.wait()
        assert trio.current_time() == pytest.approx(30)
        assert served.reported == []


@in_virtual_time
async def test_a_client_that_does_not_read_is_given_up() -> None:
    async def handler(_: Request) -> Response:
        return Response(200, body=b"x" * 1000)

    async with trio.open_nursery() as nursery:
        mine, theirs = trio.testing.lockstep_stream_pair()
        nursery.start_soon(partial(serve_http, theirs, handler))
        await mine.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert trio.current_time() == pytest.approx(30)


@pytest.mark.parametrize("piece", [b"", b"GET", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab"])
def test_a_client_that_leaves_at_any_point_is_no_event(piece: bytes) -> None:
    @in_virtual_time
    async def story() -> None:
        async with trio.open_nursery() as nursery:
            served = Served(nursery)
            if piece:
                await served.wire.send_all(piece)
            await served.wire.aclose()
            await served.done.wait()
            assert served.reported == []
            assert trio.current_time() < 1

    story()


@in_virtual_time
async def test_a_handler_that_fails_is_a_500_that_says_nothing_and_one_report() -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/group":
            async with trio.open_nursery():
                raise RuntimeError("secret of a group")
        raise RuntimeError("secret")

    async with trio.open_nursery() as nursery:
        served = Served(nursery, handler)
        client = HttpClient(served.wire)
        for path in ("/", "/group"):
            answer = await client.request("GET", path)
            assert answer.status == 500
            assert b"secret" not in answer.body
        assert len(served.reported) == 2
        await client.aclose()


@in_virtual_time
async def test_a_body_that_is_no_json_object_is_a_400() -> None:
    async def handler(request: Request) -> Response:
        return Response.of_json(200, request.json())

    async with trio.open_nursery() as nursery:
        served = Served(nursery, handler)
        client = HttpClient(served.wire)
        for body in (b"{", b"[]", b"\xff", b""):
            answer = await client.request("POST", "/", body)
            assert (answer.status, answer.json()["error"]) == (400, "bad_json")
        assert (await client.request("POST", "/", b'{"a":1}')).json() == {"a": 1}
        assert served.reported == []
        await client.aclose()


@in_virtual_time
async def test_a_failing_stream_of_pieces_is_cut_so_that_nobody_takes_it_for_whole() -> None:
    async def handler(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("no more")

        return Response(200, body=pieces())

    async with trio.open_nursery() as nursery:
        served = Served(nursery, handler)
        answer = await served.say("GET / HTTP/1.1", "host: a")
        assert b"half" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert len(served.reported) == 1


def shouting(request: Request) -> Any:
    async def shout(_: Request, channel: Channel) -> None:
        if request.query == "fail":
            raise RuntimeError("before the start")
        await channel.start(200, ((b"content-type", b"text/plain"),))
        await channel.send(b"ready\n")
        while (piece := await channel.receive()) is not None:
            await channel.send(piece.upper())

    return shout if request.path == "/watch" else None


@in_virtual_time
async def test_a_duplex_exchange_goes_both_ways_at_once() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery, duplex=shouting)
        client = HttpClient(served.wire)
        assert (await client.request("GET", "/")).status == 200
        duplex = await client.duplex("POST", "/watch")
        assert not hasattr(duplex, "status")
        assert await duplex.receive() == b"ready\n"  # type: ignore[union-attr]
        for word in (b"one", b"two"):
            await trio.sleep(10_000)  # there is no time limit on a watch
            await duplex.send(word)  # type: ignore[union-attr]
            assert await duplex.receive() == word.upper()  # type: ignore[union-attr]
        await duplex.aclose()  # type: ignore[union-attr]
        await served.done.wait()
        assert served.reported == []


@in_virtual_time
async def test_a_duplex_handler_that_fails_before_it_starts_is_a_500() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery, duplex=shouting)
        answer = await HttpClient(served.wire).duplex("POST", "/watch?fail")
        assert answer.status == 500  # type: ignore[union-attr]
        assert len(served.reported) == 1
        await served.wire.aclose()


@in_virtual_time
async def test_cancellation_goes_through() -> None:
    async def handler(_: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    mine, theirs = memory_stream_pair()
    await mine.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    with trio.move_on_after(1) as scope:
        await serve_http(theirs, handler)
    assert scope.cancelled_caught


ROOT = a_root()
ISSUER = an_issuer(ROOT)


async def over_tls(verify: Any, mine: Any, identify: Any) -> Any:
    context = make_context(an_svid(ISSUER, "ca"), [ROOT.certificate], server=True, verify=verify)
    wire, theirs = memory_stream_pair()
    client = TlsStream(wire, make_context(mine, [ROOT.certificate], server=False, verify="require"), server=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_https, theirs, context, echo, identify=identify))
        try:
            return (await HttpClient(client).request("GET", "/")).json()["peer"]
        finally:
            await client.aclose()


@in_virtual_time
async def test_over_tls_the_handler_knows_what_identify_made_of_the_peer() -> None:
    peer = await over_tls("optional", an_svid(ISSUER, "web"), lambda stream: len(stream.peer_chain()))
    assert peer == 2
    assert await over_tls("optional", None, lambda stream: len(stream.peer_chain())) == 0


@in_virtual_time
async def test_a_peer_that_identify_refuses_is_closed() -> None:
    def identify(_: TlsStream) -> None:
        raise UntrustedSvid("expired", "no")

    with pytest.raises(Exception) as caught:
        await over_tls("optional", None, identify)
    assert "without an answer" in repr(caught.value.exceptions if hasattr(caught.value, "exceptions") else caught.value)


@in_virtual_time
async def test_a_tls_handshake_has_five_seconds() -> None:
    context = make_context(an_svid(ISSUER, "ca"), [ROOT.certificate], server=True, verify="optional")
    _, theirs = memory_stream_pair()
    await serve_https(theirs, context, echo, identify=lambda _: None)
    assert trio.current_time() == pytest.approx(5)
