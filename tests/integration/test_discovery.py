"""Endpoints that come and go under load: a file that is rewritten, a cluster that moves pods, a reload of the list.

`app` has two listeners, so that one identity stands at two places. No request may notice which of them is listed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fake_slices import FakeApi
from tests.kit.fleet import Fleet
from tests.kit.free_ports import free_port
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

TEXT = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ca}"}}
services:
  web:
    outbound:
      - {{to: app, port: one, listen: "127.0.0.1:{door}", {learned}}}
    access_log: {{mode: all, path: {folder}/web.access}}
    health: {{listen: "127.0.0.1:{web_health}"}}
  app:
    inbound:
      - {{name: one, port: {one}, bind: 127.0.0.1, app: "127.0.0.1:{app}"}}
      - {{name: two, port: {two}, bind: 127.0.0.1, app: "127.0.0.1:{app}"}}
    allow: [{{from: web}}]
    health: {{listen: "127.0.0.1:{app_health}"}}
"""
PORTS = ("ca", "door", "web_health", "one", "two", "app", "app_health")
BY_FILE = "endpoints_from: {file: app.endpoints.yaml}"


class Shop:
    """`web`, which learns where `app` is."""

    def __init__(self, folder: Path, learned: Callable[[dict[str, int]], str]) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in PORTS}
        self.mesh = Fleet(folder, self.text(learned(self.ports)))

    @property
    def file(self) -> Path:
        """The file of endpoints, where there is one."""
        return self.folder / "app.endpoints.yaml"

    def text(self, learned: str) -> str:
        """A mesh.yaml with this in the upstream."""
        return TEXT.format(folder=self.folder, learned=learned, **self.ports)

    def at(self, *names: str) -> list[str]:
        """The endpoints of these listeners."""
        return [f"127.0.0.1:{self.ports[name]}" for name in names]

    def shown(self) -> dict[str, Any]:
        """What `mesh endpoints` shows."""
        return self.mesh["web"].admin("GET", "/endpoints")[1]

    def rows(self) -> dict[str, dict[str, Any]]:
        """The same, by endpoint."""
        return {row["endpoint"]: row for row in self.shown()["endpoints"]}

    def source(self) -> dict[str, Any]:
        """Where they come from."""
        (row,) = self.shown()["sources"]
        return dict(row)

    def write(self, endpoints: list[str]) -> None:
        """The file, replaced at once."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(endpoints))
        new.rename(self.file)

    def status(self) -> tuple[int, str]:
        """One request: its status, and its decision."""
        answer = curl("-si", "-H", "Host: app", f"http://127.0.0.1:{self.ports['door']}/echo/x").text
        ids = [line.split(": ")[1].strip() for line in answer.splitlines() if line.lower().startswith("mesh-decision")]
        return int(answer.split()[1]), ids[0] if ids else ""

    def moved_about(self, list_these: Callable[[list[str]], None], rounds: int = 6) -> None:
        """A load, while now the one and now the other is listed, and both."""
        with NonceLoad(self.ports["door"], rate=150) as load:
            for number in range(rounds):
                names = [("one",), ("two",), ("one", "two")][number % 3]
                list_these(self.at(*names))
                eventually(f"it sees {names}", lambda: set(self.rows()) == set(self.at(*names)))  # noqa: B023
                time.sleep(0.3)
        tally = load.stop()
        print(tally.summary())
        tally.assert_flawless()
        assert tally.sent > 200


@contextmanager
def opened(folder: Path, learned: Callable[[dict[str, int]], str]) -> Iterator[Shop]:
    shop = Shop(folder, learned)
    with echo_app(folder, shop.ports["app"]), shop.mesh:
        yield shop
        shop.mesh["web"].assert_well()


def test_a_file_that_is_rewritten_under_load(tmp_path: Path) -> None:
    with opened(tmp_path, lambda _: BY_FILE) as shop:
        shop.write(shop.at("one"))
        shop.mesh.start_all()
        shop.moved_about(shop.write)
        assert shop.source()["source"] == "file"
        assert shop.mesh["web"].metrics().total("mesh_discovery_updates_total", listener="app", source="file") >= 6
        assert "1 endpoint added, 1 gone" in shop.mesh["web"].process.text()

        shop.file.write_text("- 127.0.0.1:1\n- {adress: 127.0.0.1:2}\n")
        eventually("it is said", lambda: shop.source()["error"])
        assert 'app.endpoints.yaml:2:4: [1].adress: unknown key; did you mean "address"?' in shop.source()["error"]
        assert set(shop.rows()) == set(shop.at("one", "two"))  # the last good list stands
        assert shop.status()[0] == 200
        told = shop.mesh.mesh("endpoints", "--run-dir", str(shop.mesh.run_dir)).stdout
        assert 'did you mean "address"?' in told
        assert f"file {shop.file}" in told

        shop.write([])
        eventually("none is one, too", lambda: not shop.rows())
        status, decision = shop.status()
        assert status == 503
        assert "lists none" in shop.mesh.explain(decision)


def test_a_file_that_comes_later(tmp_path: Path) -> None:
    with opened(tmp_path, lambda _: BY_FILE) as shop:
        shop.mesh.start_all()
        status, decision = shop.status()
        assert status == 503
        assert "No such file" in shop.mesh.explain(decision)
        assert "MESH099" in shop.mesh.mesh("check", "-f", str(shop.mesh.file)).stdout
        shop.write(shop.at("two"))
        eventually("it is there", lambda: shop.status()[0] == 200)


def test_a_reload_of_a_static_list_under_load(tmp_path: Path) -> None:
    def listed(endpoints: list[str]) -> str:
        return f"endpoints: {json.dumps(endpoints)}"

    with opened(tmp_path, lambda ports: listed([f"127.0.0.1:{ports['one']}"])) as shop:
        shop.mesh.start_all()

        def reload(endpoints: list[str]) -> None:
            new = shop.mesh.file.with_suffix(".new")
            new.write_text(shop.text(listed(endpoints)))
            new.rename(shop.mesh.file)

        shop.moved_about(reload)
        (one,) = shop.at("one")
        latency = shop.rows()[one]["latency_ms"]
        assert latency != 30.0  # what is not known yet
        reload([one])
        eventually("the other is gone", lambda: set(shop.rows()) == {one})
        assert shop.rows()[one]["latency_ms"] == pytest.approx(latency)  # nobody is forgiven, or forgotten


def test_a_reload_that_turns_to_a_file_under_load(tmp_path: Path) -> None:
    with opened(tmp_path, lambda ports: f'endpoints: "127.0.0.1:{ports["one"]}"') as shop:
        shop.mesh.start_all()
        shop.write(shop.at("two"))
        with NonceLoad(shop.ports["door"], rate=150) as load:
            time.sleep(0.5)
            shop.mesh.file.write_text(shop.text(BY_FILE))
            eventually("it sees the file's", lambda: set(shop.rows()) == set(shop.at("two")))
            time.sleep(0.5)
        load.stop().assert_flawless()


def test_a_cluster_that_moves_pods_under_load(tmp_path: Path) -> None:
    with FakeApi() as api:
        token, ca = api.files(tmp_path)

        def listed(endpoints: list[str]) -> None:
            """A slice for each listener: they share an address, and a slice has one port of a name."""
            ports = {endpoint.rpartition(":")[2] for endpoint in endpoints}
            for name in ("one", "two"):
                if str(shop.ports[name]) in ports:
                    api.put(f"app-{name}", ["127.0.0.1"], {"mesh": shop.ports[name]})
            for name in ("one", "two"):
                if str(shop.ports[name]) not in ports and f"app-{name}" in api.slices:
                    api.delete(f"app-{name}")

        where = f'service: orders, namespace: shop, port: mesh, api: "{api.url}"'
        with opened(
            tmp_path,
            lambda _: f"endpoints_from: {{kubernetes: {{{where}, token_file: {token}, ca_file: {ca}}}}}",
        ) as shop:
            listed(shop.at("one"))
            shop.mesh.start_all()
            assert shop.status()[0] == 200  # the list was there before the first request
            shop.moved_about(listed)
            with NonceLoad(shop.ports["door"], rate=150) as load:
                api.end_watches(half=True)
                listed(shop.at("two"))
                eventually("it has caught up", lambda: set(shop.rows()) == set(shop.at("two")))
                api.refuse = (403, "forbidden")
                api.end_watches()
                eventually("it is said", lambda: "may not" in shop.source()["error"])
                assert set(shop.rows()) == set(shop.at("two"))
                api.refuse = None
                api.forget()
                eventually("it is well again", lambda: not shop.source()["error"])
            load.stop().assert_flawless()
            assert shop.mesh["web"].metrics().total("mesh_discovery_failures_total", source="kubernetes") >= 1
