"""Fetching key sets: by URL, by discovery, from a file; and every way in which that fails, small and in time."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from sidecar.answer.key_fetch import CannotFetch, fetch
from sidecar.config.schema_tokens import Issuer
from sidecar.policy.jwk import MAX_SET_BYTES
from tests.kit.tokens import Signer, key_set
from tests.kit.trio_time import in_trio

SET = key_set(Signer())
Answers = dict[str, bytes | Callable[[trio.SSLStream[trio.SocketStream]], Any]]


def ok(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


class Web:
    """A server by TLS whose answers a test writes, by path."""

    def __init__(self, port: int, ca_file: Path) -> None:
        self.url = f"https://localhost:{port}"
        self.answers: Answers = {}
        self.asked: list[str] = []
        self.issuer: dict[str, Any] = {"ca_file": str(ca_file), "within": 2.0}

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            answer = self.answers.get(path, ok(b"", "404 Not Found"))
            await (stream.send_all(answer) if isinstance(answer, bytes) else answer(stream))
        except trio.BrokenResourceError:
            pass  # it has heard enough

    def named(self, **more: Any) -> Issuer:
        return Issuer("login", **(self.issuer | {"issuer": self.url, "url": f"{self.url}/keys"} | more))


@asynccontextmanager
async def a_web(folder: Path) -> AsyncIterator[Web]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "roots.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        web = Web(listener.transport_listener.socket.getsockname()[1], folder / "roots.crt")
        nursery.start_soon(trio.serve_listeners, web.serve, [listener])
        yield web
        nursery.cancel_scope.cancel()


async def why_not(issuer: Issuer) -> str:
    with pytest.raises(CannotFetch) as refused:
        await fetch(issuer)
    return str(refused.value)


@in_trio
async def test_a_set_is_fetched_from_its_url(tmp_path: Path) -> None:
    async with a_web(tmp_path) as web:
        web.answers["/keys"] = ok(SET)
        assert [key.kid for key in (await fetch(web.named())).keys] == ["a"]
        assert web.asked == ["/keys"]


@in_trio
async def test_discovery_leads_to_it(tmp_path: Path) -> None:
    async with a_web(tmp_path) as web:
        document = {"issuer": web.url + "/tenant/", "jwks_uri": web.url + "/tenant/keys"}
        web.answers["/tenant/.well-known/openid-configuration"] = ok(json.dumps(document).encode())
        web.answers["/tenant/keys"] = ok(SET)
        await fetch(web.named(issuer=web.url + "/tenant/", url=""))
        assert web.asked == ["/tenant/.well-known/openid-configuration", "/tenant/keys"]


@in_trio
async def test_a_query_is_sent_as_it_was_written(tmp_path: Path) -> None:
    async with a_web(tmp_path) as web:
        where = "/keys/?p=B2C_1&x=%2F/?"
        document = {"issuer": web.url, "jwks_uri": web.url + where}
        web.answers["/.well-known/openid-configuration"] = ok(json.dumps(document).encode())
        web.answers[where] = ok(SET)
        await fetch(web.named(url=""))
        await fetch(web.named(url=web.url + where))
        assert web.asked == ["/.well-known/openid-configuration", where, where]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"<html>", "not JSON"), (b"[]", "another issuer"), (b'{"issuer":"https://evil.example"}', "another issuer"),
        (b'{"issuer":"URL"}', "where its keys are"), (b'{"issuer":"URL","jwks_uri":7}', "where its keys are"),
        (b'{"issuer":"URL","jwks_uri":"http://localhost/keys"}', "not an https"),
        (b'{"issuer":"URL","jwks_uri":"https://user:pw@localhost/keys"}', "has a user or a password in it"),
        (b'{"issuer":"URL","jwks_uri":"https://localhost/keys#a"}', "has a fragment"),
        (b'{"issuer":"URL","jwks_uri":"https://localhost/keys\\r\\nx: y"}', "is no URL"),
        (b'{"issuer":"URL","issuer":"URL"}', "not JSON"),
        (b'{"issuer":"URL","a":[' + b"1," * 500_000 + b"1]}", "far too many members"),
        (b'{"issuer":"URL","jwks_uri":"file:///etc/passwd"}', "is no URL"),
    ],
)  # fmt: skip
def test_a_discovery_that_is_not_believed(tmp_path: Path, document: bytes, why: str) -> None:
    @in_trio
    async def told() -> None:
        async with a_web(tmp_path) as web:
            answer = ok(document.replace(b"URL", web.url.encode()))
            web.answers["/.well-known/openid-configuration"] = answer
            assert why in await why_not(web.named(url=""))

    told()


async def _slow(stream: trio.SSLStream[trio.SocketStream]) -> None:
    for byte in ok(SET) * 1000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.05)


async def _silent(_: trio.SSLStream[trio.SocketStream]) -> None:
    await trio.sleep(60)


async def _huge(stream: trio.SSLStream[trio.SocketStream]) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(160):
        await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ok(b"", "500 Internal Server Error"), "answered 500"),
        (ok(b"", "302 Found", "Location: https://localhost:1/keys\r\n"), "redirects are not followed"),
        (ok(b'{"keys":[]}'), "none of its 0 keys"),
        (ok(b"<html>"), "not JSON"),
        (ok(b" " * (MAX_SET_BYTES + 1)), "larger than"),
        (_huge, "larger than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "cannot be"),
        (b"SMTP ready\r\n\r\n", "cannot be used"),
        (b"", "cannot be"),
        (_slow, "did not answer within"),
        (_silent, "did not answer within"),
    ],
)  # fmt: skip
def test_answers_that_are_no_set(tmp_path: Path, answer: Any, why: str) -> None:
    @in_trio
    async def told() -> None:
        async with a_web(tmp_path) as web:
            web.answers["/keys"] = answer
            assert why in await why_not(web.named(within=0.5))
            assert web.asked == ["/keys"]

    told()


@in_trio
async def test_only_who_shows_the_right_certificate_is_believed(tmp_path: Path) -> None:
    async with a_web(tmp_path) as web:
        web.answers["/keys"] = ok(SET)
        other = tmp_path / "other.crt"
        trustme.CA().cert_pem.write_to_path(other)
        assert "certificate is refused" in await why_not(web.named(ca_file=str(other)))
        assert "certificate is refused" in await why_not(web.named(ca_file=""))
        by_address = web.url.replace("localhost", "127.0.0.1")
        assert "certificate is refused" in await why_not(web.named(url=f"{by_address}/keys"))
        assert "cannot be reached" in await why_not(web.named(ca_file=str(tmp_path / "none.crt")))
        assert web.asked == []


@in_trio
async def test_nobody_there(tmp_path: Path) -> None:
    async with a_web(tmp_path) as web:
        pass
    assert "cannot be reached" in await why_not(web.named())


@in_trio
async def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    issuer = Issuer("login", issuer="urn:x", file=str(path))
    assert "No such file" in await why_not(issuer)
    path.write_bytes(SET)
    assert (await fetch(issuer)).find("a", "ES256")
    path.write_bytes(b" " * (MAX_SET_BYTES + 1))
    assert "larger than" in await why_not(issuer)
    path.unlink()
    path.mkdir()
    assert await why_not(issuer)
