"""Nobody outside can hold the worker up: how long the reactor's thread is kept by the worst that strangers may send.

Measured is processor time of one thread between two turns of another task in it, the best of a few, so that a busy
machine changes nothing. The bar is that of issue 9, 50 ms. What another thread does under Python's lock counts too.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from time import thread_time

import pytest
import trio
from trio.testing import memory_stream_pair

from sidecar.net.http_client import MAX_INTERIM, MAX_PIECES, BadHttp, HttpClient
from sidecar.net.https import HttpsUrl, connect
from sidecar.policy.ask import MOST_ANSWER_BYTES, Unsaid
from sidecar.policy.ask import read_answer as opa_answer
from sidecar.policy.grant import NoGrant
from sidecar.policy.grant import read_answer as grant_answer
from sidecar.policy.jwk import MAX_SET_BYTES, BadKeySet, KeySet
from sidecar.policy.jwt import MAX_TOKEN_BYTES, BadToken, parse

BAR = 0.050  # seconds
JSON = b"application/json"
WORST = {  # what is repeated, between what
    "objects": (b'{"keys":[', b"{},", b"{}]}"),
    "lists": (b'{"keys":[', b"[],", b"[]]}"),
    "numbers": (b'{"keys":[', b"1,", b"1]}"),
    "broken numbers": (b'{"keys":[', b"1e5,", b"1]}"),
    "long numbers": (b'{"keys":[', b"1" * 390 + b",", b"1]}"),
    "numbers that Python refuses": (b'{"keys":[', b"1" * 4300 + b",", b"1]}"),
    "one number": (b'{"keys":[', b"1", b"]}"),
    "lists in lists": (b'{"keys":', b"[", b""),
    "objects in objects": (b'{"keys":', b'{"a":', b""),
    "escapes": (b'{"keys":"', b"\\u0041", b'"}'),
    "short escapes": (b'{"keys":"', b"\\n", b'"}'),
    "half surrogates": (b'{"keys":"', b"\\ud800", b'"}'),
    "text": (b'{"keys":"', "é".encode(), b'"}'),
    "blanks": (b'{"keys":[]', b" ", b"}"),
    "no ends": (b'{"keys":"', b"\\", b""),
}


def worst(name: str, size: int) -> bytes:
    before, again, after = WORST[name]
    found = before + again * ((size - len(before) - len(after)) // len(again)) + after
    assert size - 4400 < len(found) <= size
    return found


def best_of_three(step: Callable[[], object], *errors: type[Exception]) -> float:
    spent = []
    for _ in range(3):
        began = thread_time()
        with pytest.raises(errors):
            step()
        spent.append(thread_time() - began)
    return min(spent)


async def longest_turn(story: Callable[[], Awaitable[object]]) -> float:
    """Processor time of this thread, at most, between two turns of somebody else."""
    longest, last = 0.0, thread_time()

    async def others() -> None:
        nonlocal longest, last
        while True:
            await trio.lowlevel.checkpoint()
            longest, last = max(longest, thread_time() - last), thread_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await story()
        nursery.cancel_scope.cancel()
    return longest


@pytest.mark.parametrize("name", WORST)
def test_a_key_set_is_refused_before_it_costs_much(name: str) -> None:
    document = worst(name, MAX_SET_BYTES)
    assert best_of_three(lambda: KeySet.parse(document), BadKeySet) < BAR


@pytest.mark.parametrize("name", WORST)
def test_an_answer_of_opa_or_a_token_endpoint(name: str) -> None:
    document = worst(name, MOST_ANSWER_BYTES)
    assert best_of_three(lambda: opa_answer(200, JSON, document), Unsaid) < BAR
    assert best_of_three(lambda: grant_answer(200, JSON, document), NoGrant) < BAR


@pytest.mark.parametrize("name", WORST)
def test_a_token(name: str) -> None:
    document = worst(name, MAX_TOKEN_BYTES * 3 // 4 - 100)
    head = base64.urlsafe_b64encode(b'{"alg":"ES256"}').rstrip(b"=")
    token = b".".join((head, base64.urlsafe_b64encode(document).rstrip(b"="), b"x"))
    assert best_of_three(lambda: parse(token), BadToken) < BAR / 10
    assert best_of_three(lambda: parse(b".".join((token.split(b".")[1], head, b"x"))), BadToken) < BAR / 10


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (CHUNKED + b"1\r\n{\r\n" * (MAX_PIECES + 10), f"more than {MAX_PIECES} pieces"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9000, f"more than {MAX_INTERIM} interim answers"),
    ],
)
def test_an_answer_in_crumbs_lets_others_have_their_turn_and_ends(said: bytes, why: str) -> None:
    async def story() -> None:
        mine, theirs = memory_stream_pair()
        await theirs.send_all(said)
        with pytest.raises(BadHttp, match=why):
            await HttpClient(mine).request("GET", "/")

    assert min(trio.run(longest_turn, story) for _ in range(2)) < BAR


def test_reading_the_systems_roots_holds_nobody_up() -> None:
    async def hang_up(listener: trio.SocketListener) -> None:
        async with await listener.accept():
            pass
        await listener.aclose()

    async def story() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up, listener)
            with pytest.raises(trio.BrokenResourceError):
                await connect(HttpsUrl("127.0.0.1", listener.socket.getsockname()[1], ""))

    assert min(trio.run(longest_turn, story) for _ in range(2)) < BAR / 2
