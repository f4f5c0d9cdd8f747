"""nginx on a Unix socket behind a sidecar that is confined: nobody reaches it but through the mesh."""

from __future__ import annotations

import pytest

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, nginx


def test_a_web_server_on_a_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unix")
    socket = folder / "app.sock"
    with Pair(folder, app=f"unix:{socket}") as pair:
        pair.start_all()  # before the application: it may come later
        app = pair["app"]
        assert "no socket of the application's yet" in app.process.text()
        assert curl("-i", pair.url + "/hello.txt").text.startswith("HTTP/1.1 503")
        with nginx(folder, pair.ports.app, "", beside=f"listen unix:{socket};") as root:
            (root / "hello.txt").write_text("hello\n")
            (root / "long.bin").write_bytes(bytes(range(256)) * 20_000)
            eventually("nginx answers on its socket", lambda: curl(pair.url + "/hello.txt").text == "hello\n")
            assert curl(pair.url + "/long.bin").out == (root / "long.bin").read_bytes()
        eventually("nginx has gone", lambda: curl("-i", pair.url + "/hello.txt").text.startswith("HTTP/1.1 503"))
        eventually("lines", lambda: [line["status"] for line in app.access_log()].count(200) >= 2)
        assert {line["endpoint"] for line in app.access_log()} == {f"unix:{socket}"}
        pair.assert_well()
