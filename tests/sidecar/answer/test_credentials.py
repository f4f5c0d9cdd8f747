"""A token for an upstream: got once for all, replaced before its end whoever asks meanwhile, its secret read anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from sidecar.answer import credentials
from sidecar.answer.bridge import Around
from sidecar.answer.credentials import LONGEST_PAUSE, Credentials, NoSecret, _read
from sidecar.config.schema_egress import ClientToken, Secret
from sidecar.config.terms import Address
from sidecar.config.urls import WebUrl
from sidecar.net.clock import TestClock
from sidecar.net.http_message import Answer
from sidecar.net.web import WebFailed
from sidecar.telemetry.metrics import Metrics
from tests.kit.trio_time import in_trio, in_virtual_time

URL = WebUrl(Address("id.partner.test", 443), tls=True, path="/token")
SPEC = ClientToken(URL, "us", Secret("/run/secret"))
JSON = ((b"content-type", b"application/json"),)


def token(number: int, seconds: object = 100) -> Answer:
    body = {"access_token": f"t{number}", "token_type": "Bearer", "expires_in": seconds}
    return Answer(200, JSON, json.dumps(body).encode())


class Endpoint:
    """A token endpoint in the place of the network, and whoever asks it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secret = "first"
        self.asked: list[tuple[float, str]] = []  # when, and with which secret
        self.says: Callable[[int], Answer | Exception] = token
        self.seconds = 0.0
        self.waiting = 0
        outer = self

        class Client:
            def __init__(self, *_: object, **__: object) -> None:
                pass

            async def post(self, path: str, body: bytes, headers: Any) -> Answer:
                outer.asked.append((trio.current_time(), outer.secret))
                answer = outer.says(len(outer.asked))
                await trio.sleep(outer.seconds)
                if isinstance(answer, Exception):
                    raise answer
                return answer

            async def drop(self) -> None:
                pass

        async def read(_: Secret) -> str:
            return self.secret

        monkeypatch.setattr(credentials, "WebClient", Client)
        monkeypatch.setattr(credentials, "_read", read)
        self.credentials = Credentials(
            "partner", SPEC, Around(self, TestClock(1.8e9), Metrics(), None, lambda: 0.5)
        )

    def awaits(self, more: int) -> None:
        self.waiting += more

    def nudge(self) -> None:
        pass

    @property
    def times(self) -> list[float]:
        """When it was asked, in seconds since the first time."""
        return [at - self.asked[0][0] for at, _ in self.asked]


def test_it_is_replaced_before_its_end_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_virtual_time
    async def story() -> None:
        endpoint = Endpoint(monkeypatch)
        endpoint.seconds = 2.0
        seen: set[bytes | None] = set()

        async def load() -> None:
            while True:
                seen.add(endpoint.credentials.ready())
                await trio.sleep(0.25)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.credentials.run)
            await trio.sleep(2.5)
            for _ in range(10):
                nursery.start_soon(load)
            await trio.sleep(300)
            nursery.cancel_scope.cancel()
        assert seen == {b"t1", b"t2", b"t3", b"t4"}, "never without one, and each in its turn"
        assert endpoint.times == pytest.approx([0, 77, 154, 231])

    story()


def test_an_endpoint_that_is_away_is_asked_more_and_more_seldom_and_the_last_token_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @in_virtual_time
    async def story() -> None:
        endpoint = Endpoint(monkeypatch)
        endpoint.says = lambda number: token(1) if number == 1 else WebFailed("connection refused")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.credentials.run)
            await trio.sleep(94)
            assert endpoint.credentials.ready() == b"t1"
            await trio.sleep(2)
            assert endpoint.credentials.ready() is None
            assert endpoint.credentials.problem == "connection refused"
            await trio.sleep(600)
            nursery.cancel_scope.cancel()
        pauses = [later - before for before, later in zip(endpoint.times[1:], endpoint.times[2:], strict=False)]
        assert pauses[:7] == pytest.approx([1, 2, 4, 8, 16, 32, LONGEST_PAUSE])
        assert max(pauses) == pytest.approx(LONGEST_PAUSE)

    story()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(400, JSON, b'{"error": "invalid_client", "error_description": "first"}'), "400 (invalid_client)"),
        (Answer(401, JSON, b'{"error": "unauthorized_client"}'), "401 (unauthorized_client)"),
        (Answer(302, ((b"location", b"https://evil.test/"),), b""), "302"),
        (Answer(500, ((b"content-type", b"text/html"),), b"<html>"), "500"),
        (token(1, seconds=0), "no number of seconds"),
        (WebFailed("its certificate is refused: expired"), "its certificate is refused"),
    ],
)
def test_a_no_is_told_in_words_and_a_new_secret_needs_no_restart(
    monkeypatch: pytest.MonkeyPatch, answer: Answer | Exception, problem: str
) -> None:
    @in_virtual_time
    async def story() -> None:
        endpoint = Endpoint(monkeypatch)
        endpoint.says = lambda number: token(number) if endpoint.secret == "second" else answer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.credentials.run)
            await trio.sleep(0.5)
            assert endpoint.credentials.ready() is None
            assert problem in endpoint.credentials.problem
            assert "first" not in endpoint.credentials.problem
            endpoint.secret = "second"
            await trio.sleep(1)
            assert endpoint.credentials.ready() == b"t2"
            assert endpoint.credentials.problem == ""
            nursery.cancel_scope.cancel()
        assert [secret for _, secret in endpoint.asked] == ["first", "second"]

    story()


def test_an_endpoint_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_virtual_time
    async def story() -> None:
        endpoint = Endpoint(monkeypatch)
        endpoint.seconds = 1e6
        with trio.move_on_after(10.5):
            await endpoint.credentials.run()
        assert endpoint.credentials.problem == "no answer within 10 s"

    story()


# ---- secrets -----------------------------------------------------------------------------------------------------


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@in_trio
async def test_a_secret_is_read_anew_each_time(tmp_path: Path) -> None:
    file = private(tmp_path / "secret", "one\r\n")
    assert await _read(Secret(str(file))) == "one"
    private(tmp_path / "next", " t w o ").replace(file)  # as a volume of Kubernetes does it
    assert await _read(Secret(str(file))) == " t w o "
    program = private(tmp_path / "print", "#!/bin/sh\nprintf 'th\\303\\251'; echo noise >&2\n", 0o700)
    assert await _read(Secret("", (str(program),))) == "thé"


@in_trio
async def test_what_is_no_secret(tmp_path: Path) -> None:
    loud = private(tmp_path / "loud", "#!/bin/sh\nprintf hunter2; printf hunter2 >&2; exit 3\n", 0o700)
    quiet = private(tmp_path / "quiet", "#!/bin/sh\n", 0o700)
    endless = private(tmp_path / "endless", "#!/bin/sh\nexec cat /dev/zero\n", 0o700)
    wide = private(tmp_path / "wide", "hunter2", 0o644)
    wrong = (
        Secret(str(tmp_path / "none")), Secret(str(tmp_path)), Secret(str(wide)),
        Secret(str(private(tmp_path / "empty", "\n"))), Secret("", (str(loud),)), Secret("", (str(quiet),)),
        Secret("", (str(tmp_path / "missing"),)), Secret("", (str(endless),)),
    )  # fmt: skip
    for secret in wrong:
        with pytest.raises(NoSecret) as refused:
            await _read(secret)
        assert "hunter2" not in str(refused.value)
