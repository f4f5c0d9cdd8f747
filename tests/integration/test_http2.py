"""HTTP/2 through two sidecars: prior knowledge on loopback, ALPN between them, HTTP/1.1 to the application."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

H2 = "--http2-prior-knowledge"


def seen(text: str) -> dict[str, Any]:
    """What the application says reached it."""
    return dict(json.loads(text[text.index("{") :]))


def versions(mesh: Pair, name: str, path: str) -> set[str]:
    """By which versions of HTTP a path was asked for, as the access log has it."""
    return {line["version"] for line in mesh[name].access_log() if line["uri"] == path}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("http2")
    pair = Pair(folder)
    with pair, echo_app(folder, pair.ports.app):
        pair.start_all("web", "app")
        yield pair


def test_get_and_both_hops_are_http_2(mesh: Pair) -> None:
    done = curl("-i", H2, mesh.url + "/orders/7?q=a%20b")
    assert done.code == 0
    assert done.text.startswith("HTTP/2 200")
    app = seen(done.text)
    assert (app["method"], app["target"], app["version"]) == ("GET", "/orders/7?q=a%20b", "HTTP/1.1")
    assert dict(app["headers"])["host"] == "app"
    for name in ("web", "app"):
        eventually(f"{name} has logged it", lambda: versions(mesh, name, "/orders/7") == {"2"})  # noqa: B023


def test_post_with_a_length_without_one_and_with_no_body(mesh: Pair, tmp_path: Path) -> None:
    app = seen(curl(H2, "-d", "name=value", mesh.url + "/orders").text)
    assert (app["method"], app["length"], dict(app["headers"])["content-length"]) == ("POST", 10, "10")
    file = tmp_path / "body"
    file.write_bytes(hashlib.shake_256(b"mesh").digest(3 << 20))
    app = seen(curl(H2, "-T", "-", mesh.url + "/orders", stdin=file.read_bytes()).text)
    assert app["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert dict(app["headers"])["transfer-encoding"] == "chunked"
    app = seen(curl(H2, "-X", "POST", "-d", "", mesh.url + "/orders").text)
    assert (app["length"], dict(app["headers"])["content-length"]) == (0, "0")


def test_head_has_no_body(mesh: Pair) -> None:
    done = curl("-I", H2, mesh.url + "/anything")
    assert done.code == 0
    assert done.text.startswith("HTTP/2 200")


def test_h2c_by_upgrade_is_not_spoken(mesh: Pair) -> None:
    done = curl("-i", "--http2", mesh.url + "/a")
    assert done.text.startswith("HTTP/1.1 200")


def test_many_requests_share_a_connection(mesh: Pair) -> None:
    async def go() -> list[httpx.Response]:
        answers: list[httpx.Response] = []

        async def ask(number: int) -> None:
            answers.append(await client.post(f"{mesh.url}/many/{number}", content=b"x" * number * 10))

        async with httpx.AsyncClient(http1=False, http2=True, timeout=30) as client, trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(ask, number)
        return answers

    before = mesh["web"].metrics().total("mesh_connections_opened_total")
    answers = trio.run(go)
    assert {(a.status_code, a.http_version) for a in answers} == {(200, "HTTP/2")}
    assert sorted(a.json()["length"] for a in answers) == [number * 10 for number in range(300)]
    assert all(a.json()["target"] == a.request.url.path for a in answers)
    assert mesh["web"].metrics().total("mesh_connections_opened_total") - before <= 5


def test_what_no_rule_permits_is_refused_with_a_decision(mesh: Pair) -> None:
    done = curl("-i", H2, "-H", "Host: nobody", mesh.url + "/a")
    assert done.text.startswith("HTTP/2 403")
    assert "mesh-decision-id" in done.text.lower()
