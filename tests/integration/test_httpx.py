"""httpx through two sidecars: synchronous and on trio, pooled, streaming in both directions at once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import trio

from tests.kit.fleet import Sidecar
from tests.kit.meshes import Pair
from tests.kit.processes import eventually

PIECE = hashlib.shake_256(b"httpx").digest(50_000)


def client(pair: Pair) -> httpx.Client:
    return httpx.Client(base_url=pair.url, trust_env=False, timeout=20)


def async_client(pair: Pair, most: int = 100) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=most)
    return httpx.AsyncClient(base_url=pair.url, trust_env=False, timeout=20, limits=limits)


def test_a_pooled_session(pair: Pair) -> None:
    opened = pair["web"].metrics().total("mesh_connections_opened_total", direction="outbound", listener="app")
    with client(pair) as session:
        for number in range(50):
            method = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")[number % 7]
            content = b"x" * number if method in ("POST", "PUT", "PATCH") else None
            answer = session.request(method, f"/orders/{number}", content=content)
            assert answer.status_code == 200
            if method != "HEAD":
                assert (answer.json()["method"], answer.json()["target"]) == (method, f"/orders/{number}")
    now = pair["web"].metrics().total("mesh_connections_opened_total", direction="outbound", listener="app")
    assert now - opened == 1


def test_a_streamed_upload_is_chunked_to_the_application(pair: Pair) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield PIECE

    with client(pair) as session:
        seen = session.post("/upload", content=pieces()).json()
    assert dict(seen["headers"])["transfer-encoding"] == "chunked"
    assert (seen["length"], seen["sha256"]) == (40 * len(PIECE), hashlib.sha256(40 * PIECE).hexdigest())


def test_a_streamed_download_arrives_as_it_is_made(pair: Pair) -> None:
    with client(pair) as session, session.stream("GET", "/drip/5") as answer:
        pieces = list(answer.iter_raw())
    assert b"".join(pieces) == b"drip" * 5
    assert len(pieces) >= 4  # a tenth of a second lies between them; a proxy that collects would send one


def test_a_client_that_leaves_in_the_middle_of_an_answer(pair: Pair) -> None:
    with client(pair) as session, session.stream("GET", "/drip/50") as answer:
        next(answer.iter_raw())
    with client(pair) as session:
        assert session.get("/next").status_code == 200


def test_many_at_once_on_trio(pair: Pair) -> None:
    answers: dict[int, dict[str, object]] = {}

    async def ask(session: httpx.AsyncClient, number: int) -> None:
        content = None if number % 2 else PIECE[:number]
        response = await session.request("GET" if number % 2 else "POST", f"/n/{number}", content=content)
        answers[number] = response.json()

    async def main() -> None:
        with trio.fail_after(30):
            async with async_client(pair, 20) as session, trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(ask, session, number)

    trio.run(main)
    assert {number: answer["target"] for number, answer in answers.items()} == {n: f"/n/{n}" for n in range(200)}
    assert all(answers[number]["length"] == (0 if number % 2 else number) for number in answers)


def test_streaming_both_ways_on_trio(pair: Pair) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            await trio.sleep(0.005)
            yield PIECE

    async def upload(session: httpx.AsyncClient) -> None:
        answer = await session.post("/echo/up", content=pieces(), headers={"x-nonce": "up"})
        assert answer.headers["x-nonce"] == "up"
        assert answer.content == 20 * PIECE

    async def download(session: httpx.AsyncClient) -> None:
        async with session.stream("GET", "/bytes/2000000") as answer:
            size = 0
            async for piece in answer.aiter_raw():
                size += len(piece)
        assert size == 2_000_000

    async def main() -> None:
        with trio.fail_after(30):
            async with async_client(pair) as session, trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(upload, session)
                    nursery.start_soon(download, session)

    trio.run(main)


def test_cancelled_requests_leave_nothing_behind(pair: Pair) -> None:
    async def main() -> None:
        async with async_client(pair) as session:
            for _ in range(10):
                with trio.move_on_after(0.1) as scope:
                    await session.get("/slow/5")
                assert scope.cancelled_caught
            assert (await session.get("/after")).status_code == 200

    trio.run(main)
    for sidecar in (pair["web"], pair["app"]):
        eventually("all of them told", lambda: len(left(sidecar)) == 10)  # noqa: B023
        assert {line["flags"] for line in left(sidecar)} == {"DC"}
        assert sidecar.status()["in_flight"] == 0


def left(sidecar: Sidecar) -> list[dict[str, Any]]:
    """The access-log lines of requests whose caller did not wait for the answer."""
    return [line for line in sidecar.access_log() if line["uri"].startswith("/slow")]
