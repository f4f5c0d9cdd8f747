"""What gRPC libraries never say: broken messages, odd deadlines, callers that do not cancel, servers that break off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.kit.grpc_calls import Calls, failure, grpc_pair
from tests.kit.grpc_wire import HEAD, WELL, broken_server, call, message
from tests.kit.meshes import Pair
from tests.kit.processes import eventually

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with grpc_pair(tmp_path_factory.mktemp("grpc-wire")) as pair:
        yield pair
        pair.assert_well()


@pytest.fixture(scope="module")
def calls(mesh: Pair) -> Iterator[Calls]:
    with Calls(mesh.ports.door) as calls:
        yield calls


@pytest.fixture(autouse=True)
def _the_next_caller_is_unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    calls = request.getfixturevalue("calls") if "mesh" in request.fixturenames else None
    yield
    if calls is not None:
        assert calls.echo(b"next", timeout=10) == b"next"


# ---- callers ---------------------------------------------------------------------------------------------------------


def test_by_hand(mesh: Pair) -> None:
    told = call(mesh.ports.door, "Echo", message(b"hello"))
    assert (told.body, told.status, told.reset) == (message(b"hello"), "0", None)


@pytest.mark.parametrize("value", ["0n", "0S", "00000000H"])
def test_a_deadline_that_has_passed_already(mesh: Pair, calls: Calls, value: str) -> None:
    name = f"past-{value}"
    told = call(mesh.ports.door, "Wait", message(name.encode()), fields=[("grpc-timeout", value)])
    assert (told.status, told.body, told.trailers) == ("4", b"", {})
    assert "mesh-decision-id" in told.head
    assert not calls.seen(name)


@pytest.mark.parametrize("value", ["1", "S", "-1S", "1x", "123456789m", "1.5S", "1 S"])
def test_a_deadline_that_is_none(mesh: Pair, value: str) -> None:
    assert call(mesh.ports.door, "Echo", message(b""), fields=[("grpc-timeout", value)]).status == "13"


def test_a_deadline_that_passes_while_the_server_thinks(mesh: Pair, calls: Calls) -> None:
    began = time.monotonic()
    assert call(mesh.ports.door, "Wait", message(b"thinks"), fields=[("grpc-timeout", "300m")]).status == "4"
    assert 0.3 <= time.monotonic() - began < 1
    assert calls.wait_for("thinks", "ended")["ended"] - began < 1


def test_a_deadline_that_passes_in_the_middle_of_an_answer(mesh: Pair, calls: Calls) -> None:
    wish = message(b'{"count": 1000, "size": 10, "pause": 0.05, "id": "answering"}')
    began = time.monotonic()
    told = call(mesh.ports.door, "Spread", wish, fields=[("grpc-timeout", "400m")])
    assert (told.head[":status"], told.trailers["grpc-status"], told.reset) == ("200", "4", None)
    assert len(told.body) >= 15
    assert len(told.body) % 15 == 0
    assert calls.wait_for("answering", "ended")["ended"] - began < 1.4


def test_a_deadline_holds_while_the_caller_sends(mesh: Pair) -> None:
    told = call(mesh.ports.door, "Collect", message(b"some"), end=False, fields=[("grpc-timeout", "300m")])
    assert told.status == "4"


@pytest.mark.parametrize(
    "body",
    [b"\0\0\0", message(b"whole") + b"\0\0\0\0\5cut", message(b"whole")[:-1], b"\7\0\0\0\0"],
    ids=["prefix", "second", "first", "flag"],
)
def test_a_request_that_is_no_whole_message(mesh: Pair, body: bytes) -> None:
    told = call(mesh.ports.door, "Collect", body)
    assert (told.status, told.body) == ("13", b"")
    decision = mesh["web"].decision(told.head["mesh-decision-id"])
    assert decision["error"] == "protocol_violation"
    assert "message" in decision["detail"]


# ---- servers ---------------------------------------------------------------------------------------------------------


def _cut(books: Any, stream: int) -> None:
    books.send_headers(stream, HEAD)
    books.send_data(stream, message(b"whole") + message(b"half")[:-2])
    books.send_headers(stream, WELL, end_stream=True)


def _short(books: Any, stream: int) -> None:
    books.send_headers(stream, HEAD)
    books.send_data(stream, message(b"half")[:-2], end_stream=True)


def _silent(books: Any, stream: int) -> None:
    books.send_headers(stream, HEAD)
    books.send_data(stream, message(b"whole"), end_stream=True)


def _reset(books: Any, stream: int) -> None:
    books.send_headers(stream, HEAD)
    books.send_data(stream, message(b"whole"))
    books.reset_stream(stream, 2)


def _cancel(books: Any, stream: int) -> None:
    books.send_headers(stream, HEAD)
    books.reset_stream(stream, 8)


def _calm(books: Any, stream: int) -> None:
    books.reset_stream(stream, 11)


def _page(books: Any, stream: int) -> None:
    books.send_headers(stream, [(":status", "503"), ("content-type", "text/html"), ("content-length", "4")])
    books.send_data(stream, b"busy", end_stream=True)


def _odd(books: Any, stream: int) -> None:
    books.send_headers(stream, [*HEAD, ("grpc-status", "77")], end_stream=True)


BROKEN = {
    "Cut": (_cut, Code.INTERNAL, "INTERNAL"),
    "Short": (_short, Code.INTERNAL, "INTERNAL"),
    "Silent": (_silent, Code.UNKNOWN, "UNKNOWN"),
    "Reset": (_reset, Code.INTERNAL, "INTERNAL"),
    "Cancel": (_cancel, Code.CANCELLED, "CANCELLED"),
    "Calm": (_calm, Code.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    "Page": (_page, Code.UNAVAILABLE, "UNAVAILABLE"),
    "Odd": (_odd, Code.UNKNOWN, "other"),
}


def test_a_server_that_breaks_off_is_an_error_and_never_a_short_answer(tmp_path: Any) -> None:
    ways = {name: how for name, (how, _, _) in BROKEN.items()}
    with Pair(tmp_path, upstream=", breaker: off") as pair, broken_server(pair.ports.app, ways):
        pair.start_all()
        with Calls(pair.ports.door) as calls:
            for name, (_, code, _) in BROKEN.items():
                method = calls.channel.unary_stream(f"/kit.Echo/{name}")
                error = failure(lambda: list(method(b"", timeout=10)))  # noqa: B023
                assert error.code() is code, (name, error)
        pair["web"].stop()
        pair["app"].stop()
        for service in ("web", "app"):
            lines = {line["uri"].rpartition("/")[2]: line["grpc_status"] for line in pair[service].access_log()}
            assert lines == {name: word for name, (_, _, word) in BROKEN.items()}


def _nothing(books: Any, stream: int) -> None:
    return


def _begin(books: Any, stream: int) -> None:
    books.send_headers(stream, HEAD)
    books.send_data(stream, message(b"whole"))


@pytest.mark.parametrize(("method", "body"), [("Nothing", b""), ("Begin", message(b"whole"))])
def test_a_deadline_ends_the_work_of_a_server_that_does_not_know_it(tmp_path: Any, method: str, body: bytes) -> None:
    """Nor does the caller cancel."""
    with Pair(tmp_path) as pair, broken_server(pair.ports.app, {"Nothing": _nothing, "Begin": _begin}) as server:
        pair.start_all()
        began = time.monotonic()
        told = call(pair.ports.door, method, message(b""), fields=[("grpc-timeout", "400m")])
        assert 0.4 <= time.monotonic() - began < 1
        where = told.trailers if body else told.head
        assert (where["grpc-status"], where["grpc-message"]) == ("4", "Gateway Timeout")
        assert (told.body, told.reset) == (body, None)
        eventually("cancelled at the server", lambda: server == [8])
