"""The small HTTP client: whole answers or a BadHttp, whatever the server does."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from sidecar.net.http_client import MAX_ANSWER, Answer, BadHttp, HttpClient, request
from tests.kit.trio_time import in_virtual_time


async def answer_of(*pieces: bytes, close: bool = True, body: bytes = b"") -> Answer:
    """What the client makes of a server that says exactly this."""
    mine, theirs = memory_stream_pair()
    for piece in pieces:
        await theirs.send_all(piece)
    if close:
        await theirs.send_stream.aclose()
    return await request(mine, "POST" if body else "GET", "/", body)


@in_virtual_time
async def test_an_answer_with_a_length() -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n"
    answer = await answer_of(head, b"hi", close=False)
    assert (answer.status, answer.body, answer.header(b"retry-after"), answer.header(b"x")) == (404, b"hi", b"7", None)


@in_virtual_time
async def test_an_answer_in_chunks_and_one_that_ends_with_the_connection() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    assert (await answer_of(chunked, close=False)).body == b"abc"
    assert (await answer_of(b"HTTP/1.0 200 OK\r\n\r\nabc")).body == b"abc"


@in_virtual_time
async def test_interim_answers_are_skipped() -> None:
    assert (await answer_of(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", close=False)).status == 204


BROKEN = [
    (b"", "without an answer"),
    (b"HTTP/1.1 200 OK\r\n", "valid HTTP"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "valid HTTP"),
    (b"\x15\x03\x03\x00\x02\x02\x28", "valid HTTP"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "valid HTTP"),
    (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "valid HTTP"),
]


@pytest.mark.parametrize(("said", "because"), BROKEN)
def test_a_broken_answer_is_never_taken_for_whole(said: bytes, because: str) -> None:
    @in_virtual_time
    async def story() -> None:
        with pytest.raises(BadHttp, match=because):
            await answer_of(said)

    story()


@in_virtual_time
async def test_an_endless_answer_is_given_up() -> None:
    with pytest.raises(BadHttp, match="larger than"):
        await answer_of(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (MAX_ANSWER + 1))


@in_virtual_time
async def test_an_early_refusal_is_heard_although_the_server_stopped_reading() -> None:
    mine, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await theirs.receive_stream.aclose()
    with pytest.raises((BadHttp, trio.BrokenResourceError)):
        await request(mine, "GET", "/")  # not a byte of the head went out: that is an error
    mine, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    client = HttpClient(mine)
    assert (await client.request("POST", "/", b"x" * 100)).status == 413
    with pytest.raises(BadHttp, match="no further request"):
        await client.request("GET", "/")


@in_virtual_time
async def test_a_refused_watch_is_an_answer() -> None:
    mine, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
    opened = await HttpClient(mine).duplex("POST", "/watch")
    assert isinstance(opened, Answer)
    assert (opened.status, opened.body) == (403, b"no")
