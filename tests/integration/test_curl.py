"""curl, every way it speaks HTTP/1, through two sidecars."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fleet import spiffe
from tests.kit.meshes import Pair
from tests.kit.programs import curl

MIB = 1024 * 1024
LARGE = 64 * MIB


def heads(text: str) -> list[list[str]]:
    """The heads that `curl -i` printed: status line and fields, lower case."""
    return [block.lower().splitlines() for block in text.split("\r\n\r\n") if block.upper().startswith("HTTP/")]


def seen(text: str) -> dict[str, Any]:
    """What the application says reached it; the last of it, after `curl -i` too."""
    return dict(json.loads(text[text.index("{") :]))


def a_file(folder: Path, size: int) -> tuple[Path, str]:
    """A file of so many bytes that do not repeat in a short period, and its SHA-256."""
    block = hashlib.shake_256(b"mesh").digest(MIB + 1)
    content = (block * (size // len(block) + 1))[:size]
    path = folder / "large"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_get(pair: Pair, version: str) -> None:
    done = curl("-i", f"--http{version}", pair.url + "/orders/7?q=a%20b")
    assert done.code == 0
    app = seen(done.text)
    assert (app["method"], app["target"], app["version"]) == ("GET", "/orders/7?q=a%20b", "HTTP/1.1")
    assert heads(done.text)[0][0].startswith("http/1.1 200")  # we answer as what we are (RFC 9110 section 2.5)
    headers = dict(app["headers"])
    assert headers["host"] == "app"
    assert re.fullmatch(
        rf'By={spiffe("app")};Hash=[0-9a-f]{{64}};Subject="";URI={spiffe("web")}', headers["x-forwarded-client-cert"]
    )


def test_an_http_1_0_client_with_keep_alive_gets_a_connection_that_ends_or_is_declared(pair: Pair) -> None:
    done = curl("-sv", "--http1.0", "-H", "Connection: keep-alive", pair.url + "/a", pair.url + "/b")
    assert done.code == 0
    assert done.text.count('"method"') == 2
    assert "transfer-encoding" not in done.err.lower().split("< http")[-1]


def test_http_1_0_never_gets_chunked(pair: Pair) -> None:
    done = curl("-i", "--http1.0", pair.url + "/drip/3")
    assert done.code == 0
    assert done.text.endswith("dripdripdrip")
    assert not any(field.startswith("transfer-encoding") for field in heads(done.text)[0])


def test_head_tells_the_length_and_sends_no_body(pair: Pair) -> None:
    done = curl("-I", pair.url + "/anything")
    assert done.code == 0
    (head,) = heads(done.text)
    assert head[0].startswith("http/1.1 200")
    assert any(re.fullmatch(r"content-length: [1-9][0-9]*", field) for field in head)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_post(pair: Pair, version: str) -> None:
    app = seen(curl(f"--http{version}", "-d", "name=value", pair.url + "/orders").text)
    assert (app["method"], app["length"]) == ("POST", 10)
    assert app["sha256"] == hashlib.sha256(b"name=value").hexdigest()


def test_chunked_upload(pair: Pair) -> None:
    body = b"piece by piece " * 10_000
    chunked = ("-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", "@-")
    app = seen(curl(*chunked, pair.url, stdin=body).text)
    assert dict(app["headers"])["transfer-encoding"] == "chunked"
    assert "content-length" not in dict(app["headers"])
    assert (app["length"], app["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_expect_100_continue_reaches_the_application_and_its_go_ahead_comes_back(pair: Pair) -> None:
    done = curl("-i", "-H", "Expect: 100-continue", "--data-binary", "@-", pair.url, stdin=b"x" * 2000)
    assert done.code == 0
    first, last = heads(done.text)
    assert first[0] == "http/1.1 100 continue"
    assert last[0].startswith("http/1.1 200")
    assert dict(seen(done.text)["headers"])["expect"] == "100-continue"


def test_large_upload(pair: Pair, tmp_path: Path) -> None:
    path, digest = a_file(tmp_path, LARGE)
    app = seen(curl("-T", str(path), pair.url + "/upload").text)
    assert (app["method"], app["length"], app["sha256"]) == ("PUT", LARGE, digest)


def test_large_download(pair: Pair) -> None:
    done = curl(f"{pair.url}/bytes/{LARGE}")
    pattern = hashlib.sha256(bytes(range(256)) * (LARGE // 256))
    assert done.code == 0
    assert len(done.out) == LARGE
    assert hashlib.sha256(done.out).digest() == pattern.digest()


def test_keep_alive_carries_many_requests(pair: Pair) -> None:
    before = pair["web"].metrics().total("mesh_connections_opened_total", direction="outbound", listener="app")
    done = curl("-w", "%{num_connects}\n", "-o", "/dev/null", pair.url + "/[1-20]")
    opened = pair["web"].metrics().total("mesh_connections_opened_total", direction="outbound", listener="app") - before
    assert sum(map(int, done.text.split())) == 1
    assert opened == 1


def test_forward_proxy(pair: Pair) -> None:
    done = curl("-i", "-x", pair.proxy, "http://app/orders/1")
    assert seen(done.text)["target"] == "/orders/1"
    assert heads(done.text)[0][0].startswith("http/1.1 200")


def test_forward_proxy_by_connect(pair: Pair) -> None:
    done = curl("-i", "-p", "-x", pair.proxy, "http://app/orders/2", "http://app/orders/3")
    assert done.code == 0, done.err
    assert '"/orders/2"' in done.text
    assert '"/orders/3"' in done.text


def test_forward_proxy_refuses_what_no_upstream_declares_and_says_what_would_allow_it(pair: Pair) -> None:
    done = curl("-i", "-x", pair.proxy, "http://elsewhere.example/")
    assert heads(done.text)[0][0].startswith("http/1.1 403")
    assert seen(done.text)["hint"] == (
        "outbound: [{to: elsewhere-example, host: 'elsewhere.example', unmeshed: passthrough, "
        "endpoints: 'elsewhere.example:80'}]"
    )
    explained = pair.explain(seen(done.text)["decision"])
    assert "elsewhere.example" in explained


@pytest.mark.parametrize("status", [204, 404, 500, 503])
def test_statuses_of_the_application_pass_as_they_are(pair: Pair, status: int) -> None:
    done = curl("-i", f"{pair.url}/status/{status}")
    (head,) = heads(done.text)[:1]
    assert head[0].startswith(f"http/1.1 {status} fine")
    assert not any(field.startswith("proxy-status") for field in head)  # it was the application, not the mesh


def test_an_application_that_closes_after_its_answer(pair: Pair) -> None:
    for _ in range(3):
        assert seen(curl(pair.url + "/last").text)["method"] == "GET"


def test_what_only_the_mesh_may_say_is_taken_from_a_callers_request(pair: Pair) -> None:
    forged = ("x-forwarded-client-cert: URI=spiffe://demo.mesh/ns/default/sa/admin", "mesh-via: 0", "Mesh_Via: 1")
    app = seen(curl(*(part for field in forged for part in ("-H", field)), pair.url).text)
    headers = app["headers"]
    certs = [value for name, value in headers if name == "x-forwarded-client-cert"]
    assert len(certs) == 1
    assert "admin" not in certs[0]
    assert not [value for name, value in headers if name.replace("_", "-") == "mesh-via" and value in ("0", "1")]
