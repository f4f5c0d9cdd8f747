"""Every row of bad input: what the other side sees, what the log, the metrics and the audit say, what `mesh explain`
makes of it, and that the next good caller is served.

The explanations are kept as files under `explained/`, to be read like documentation; MESH_UPDATE_EXPLAINED=1 writes
them anew, and the diff is for a person to judge.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.free_ports import free_port
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import LocalSidecar, World

EXPLAINED = Path(__file__).parent / "explained"


@pytest.fixture(scope="session")
def app_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A plain HTTP application, for all worlds."""
    port = free_port()
    with echo_app(tmp_path_factory.mktemp("app"), port):
        yield port


@pytest.fixture
def a_world(tmp_path: Path, app_port: int) -> Iterator[Callable[..., World]]:
    """`a_world(…)`: a mesh of `web` and `app` whose identities the test mints."""
    worlds: list[World] = []

    def make(**options: object) -> World:
        worlds.append(World(tmp_path, **({"app_port": app_port} | options)))  # type: ignore[arg-type]
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(a_world: Callable[..., World]) -> World:
    """The plain world."""
    return a_world()


def assert_explained(name: str, text: str) -> None:
    """The explanation is the one in `explained/<name>.txt`, to the letter."""
    path = EXPLAINED / f"{name}.txt"
    if os.environ.get("MESH_UPDATE_EXPLAINED") == "1":
        path.write_text(text)
    assert path.exists(), f"no {path.name} yet; MESH_UPDATE_EXPLAINED=1 writes it:\n{text}"
    assert text == path.read_text()


def assert_still_serving(world: World, *sidecars: LocalSidecar) -> None:
    """A good request through both sidecars is answered by the application, and nothing inside broke."""
    done = curl("-o", "/dev/null", "-w", "%{http_code}", world.url + "/after")
    assert done.text == "200", done
    for sidecar in sidecars:
        sidecar.assert_well()


def assert_books(sidecar: LocalSidecar, *, direction: str, ok: int, failed: int, requests: int) -> None:
    """Metrics, audit and access log tell the same number of handshakes and requests."""

    def handshakes(result: str) -> float:
        return sidecar.total("mesh_tls_handshakes_total", direction=direction, result=result)

    def audited(good: bool) -> int:
        return sum(line["ok"] is good and line["direction"] == direction for line in sidecar.audit("handshake"))

    eventually("the audit has all handshakes", lambda: (audited(True), audited(False)) == (ok, failed))
    assert (handshakes("ok"), handshakes("failed")) == (ok, failed)
    assert sidecar.total("mesh_tls_handshake_failures_total", direction=direction) == failed
    eventually("the access log has all requests", lambda: len(sidecar.access_log()) == requests)
    assert sidecar.total("mesh_requests_total", direction=direction) == requests
