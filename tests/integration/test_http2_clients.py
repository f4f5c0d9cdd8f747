"""HTTP/2 clients that nobody here wrote: curl, nghttp, h2load and Chromium, with a client certificate or without."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import serve

from tests.integration.test_http2_websockets import answer
from tests.kit.chromium import chromium, need_chromium
from tests.kit.doors import Doors
from tests.kit.free_ports import free_port
from tests.kit.programs import Done, curl, echo_app, run
from tests.kit.tools import need


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """app with the echo application behind its first listener, and a WebSocket server behind `sockets`."""
    folder, port, sockets = tmp_path_factory.mktemp("clients"), free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(echo_app(folder, port))
        server = stack.enter_context(serve(answer, "127.0.0.1", sockets, max_size=1 << 22))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Doors(folder, port, more={"sockets": sockets}) as both:
            yield both
            both.assert_well()
        server.shutdown()
        thread.join()


def seen(text: str) -> dict[str, Any]:
    """What the application says reached it."""
    return dict(json.loads(text[text.index("{") :]))


# ---- curl ------------------------------------------------------------------------------------------------------------


def ask(doors: Doors, path: str, *arguments: str, stdin: bytes = b"") -> Done:
    """curl with web's certificate, straight to app's sidecar."""
    keys = ("--cert", str(doors.certificate), "--key", str(doors.key), "--cacert", str(doors.ca), "--insecure")
    return curl("--http2", *keys, *arguments, f"https://127.0.0.1:{doors.ports.app_in}{path}", stdin=stdin)


def test_curl_agrees_on_h2_by_alpn(doors: Doors) -> None:
    done = ask(doors, "/orders?a=b", "-i", "-H", "Host: app", "-d", "name=value")
    assert done.text.startswith("HTTP/2 200"), done
    app = seen(done.text)
    assert (app["method"], app["target"], app["length"], app["version"]) == ("POST", "/orders?a=b", 10, "HTTP/1.1")


def test_curl_without_h2_gets_http_1(doors: Doors) -> None:
    assert ask(doors, "/a", "-i", "--http1.1").text.startswith("HTTP/1.1 200")


def test_curl_sends_many_megabytes_and_asks_in_parallel(doors: Doors) -> None:
    body = bytes(range(256)) * (20 << 12)
    app = seen(ask(doors, "/upload", "-T", "-", stdin=body).text)
    assert app["length"] == len(body)
    url = f"https://127.0.0.1:{doors.ports.app_in}/n/[1-200]"
    tell = ("-o", "/dev/null", "-w", "%{http_version}:%{http_code} ")
    done = ask(doors, "/n/0", "-Z", "--parallel-max", "50", *tell, url)
    assert done.code == 0, done.err
    assert done.text.count("2:200 ") == 201


def test_curl_without_a_certificate_has_no_answer(doors: Doors) -> None:
    done = curl("--http2", "--insecure", f"https://127.0.0.1:{doors.ports.app_in}/a")
    assert done.code != 0
    assert done.text == ""


# ---- nghttp ----------------------------------------------------------------------------------------------------------


def nghttp(doors: Doors, *arguments: str, path: str = "/a") -> Done:
    """nghttp with web's certificate; `-v` tells each frame."""
    keys = (f"--cert={doors.certificate}", f"--key={doors.key}", "--no-verify-peer")
    return run(need("nghttp"), "-v", *keys, *arguments, f"https://127.0.0.1:{doors.ports.app_in}{path}")


def test_nghttp_sees_nothing_wrong(doors: Doors) -> None:
    done = nghttp(doors, "-H:authority: app")
    assert done.code == 0, done.err
    assert "The negotiated protocol: h2" in done.text
    assert ":status: 200" in done.text
    assert "[SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1]" in done.text
    assert "[ERROR]" not in done.text + done.err
    assert "RST_STREAM" not in done.text


def test_nghttp_with_padding_continuation_trailers_and_priorities(doors: Doors, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x" * 300_000)
    done = nghttp(
        doors, "-d", str(file), "-b", "255", "--trailer", "x-sum: 1", "--continuation", "-p", "42", "-m", "5",
        path="/up",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.text.count(":status: 200") == 5
    assert '"length": 300000' in done.text
    assert "[ERROR]" not in done.text + done.err


def test_nghttp_with_small_windows(doors: Doors, tmp_path: Path) -> None:
    """Windows of 2^10 - 1 bytes: the answer comes in as many pieces, each on request."""
    done = nghttp(doors, "-w", "10", "-W", "10", path="/bytes/100000")
    assert done.code == 0, done.err
    assert ":status: 200" in done.text
    assert "FLOW_CONTROL_ERROR" not in done.text


def test_h2load_counts_only_successes(doors: Doors) -> None:
    """Prior knowledge into web's sidecar: h2load presents no certificate."""
    url = f"http://127.0.0.1:{doors.ports.door}/load"
    done = run(need("h2load"), "-n", "1000", "-c", "4", "-m", "16", url)
    assert done.code == 0, done.err
    assert re.search(r"requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed", done.text), done.text
    assert "status codes: 1000 2xx" in done.text


# ---- node: CONNECT ---------------------------------------------------------------------------------------------------


def node_connect(doors: Doors, authority: str, count: int = 1, size: int = 0) -> Any:
    """What node is told inside so many tunnels of one connection to web's forward proxy."""
    proxy = f"http://127.0.0.1:{doors.ports.proxy}"
    script = Path(__file__).parents[1] / "kit" / "h2_connect.js"
    done = run(need("node"), str(script), proxy, authority, "app", str(count), str(size))
    assert done.code == 0, done.err
    return json.loads(done.text)


def test_node_tunnels_through_the_forward_proxy(doors: Doors) -> None:
    opened = doors.web.total("mesh_connections_opened_total", listener="forward_proxy")
    told = node_connect(doors, "app:80", count=20, size=300_000)
    assert [(each["target"], each["length"]) for each in told] == [(f"/n/{n}", 300_000) for n in range(20)]
    assert doors.web.total("mesh_connections_opened_total", listener="forward_proxy") == opened + 1


def test_node_may_not_connect_to_what_is_not_declared(doors: Doors) -> None:
    assert node_connect(doors, "elsewhere:80") == {"status": 403}


# ---- Chromium --------------------------------------------------------------------------------------------------------

SOCKET = """new Promise((done, fail) => {
  const socket = new WebSocket('wss://127.0.0.1:%d/chat'), got = [];
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => { socket.send('hello'); socket.send(new Uint8Array(300000)); socket.send('close 4321 bye'); };
  socket.onmessage = event => got.push(event.data.byteLength || event.data);
  socket.onerror = () => fail(new Error('the socket failed'));
  socket.onclose = event => done([...got, event.code, event.reason]);
})"""
PROTOCOL = "performance.getEntriesByType('%s').pop().nextHopProtocol"


def test_chromium_over_http_2_with_a_client_certificate(doors: Doors, tmp_path: Path) -> None:
    """Its leaf is of the issuing CA, as every leaf is. What is between leaf and root a browser sends only to servers
    that name the roots they know.
    """
    need_chromium()
    with chromium(tmp_path, doors.certificate, doors.key) as page:
        page.visit(f"https://127.0.0.1:{doors.ports.app_in}/page?a=b")
        assert page.run(PROTOCOL % "navigation") == "h2"
        app = json.loads(page.run("document.body.innerText"))
        assert (app["target"], app["version"]) == ("/page?a=b", "HTTP/1.1")
        assert page.run(
            "Promise.all([...Array(50).keys()].map(n => fetch('/n/' + n, {method: 'POST', body: 'x'.repeat(n)})"
            ".then(answer => answer.json()).then(said => said.target == '/n/' + n && said.length == n)))"
            ".then(found => found.every(one => one))"
        )
        assert page.run(PROTOCOL % "resource") == "h2"
        before = connections(doors)
        # A WebSocket goes over a connection of HTTP/2 that is there already; else Chromium speaks HTTP/1.1.
        page.visit(f"https://127.0.0.1:{doors.ports.sockets}/plain")
        opened = connections(doors)
        assert opened > before
        assert page.run(SOCKET % doors.ports.sockets) == ["hello", 300000, 4321, "bye"]
        assert connections(doors) == opened


def connections(doors: Doors) -> float:
    """How many app's sidecar has taken, on all of its listeners."""
    return doors.app.total("mesh_connections_opened_total")
