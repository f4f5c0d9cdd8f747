"""`revocation.max_age`: without a denylist, or with one that is too old, nobody is believed; without it, age alarms."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certs.denylist import Denylist
from certs.spiffe import TrustDomain
from tests.kit.processes import eventually
from tests.kit.programs import curl
from tests.kit.sidecars import LocalSidecar, World

DEMO = TrustDomain.parse("demo.mesh")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, tls=", revocation: {max_age: 2s}")
    yield world
    world.close()


def not_ready(sidecar: LocalSidecar) -> list[str]:
    found: list[str] = sidecar.admin("GET", "/status")[1]["not_ready"]
    return found


def tell(at: float, *sidecars: LocalSidecar) -> None:
    for sidecar in sidecars:
        sidecar.call(sidecar.worker.denylists.publish, Denylist(DEMO, 1, at))


def ask(world: World) -> str:
    return curl("-i", world.url).text


def cut(sidecar: LocalSidecar, direction: str) -> float:
    return sidecar.total("mesh_revoked_connections_total", direction=direction)


def test_who_asked_for_it_fails_closed_and_opens_again(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        assert "the denylist is missing" in not_ready(app)[0]
        assert "ID peer_identity" in ask(world), "web believes nobody either"
        tell(time.time(), app, web)
        eventually("both are ready", lambda: not not_ready(app) and not not_ready(web))
        assert "received-status=503" in ask(world), "it gets through, to where no application is"
        eventually("both close", lambda: not_ready(app) and not_ready(web), 5)
        eventually("what was open is cut by either", lambda: cut(app, "inbound") + cut(web, "outbound"))
        failures: list[dict[str, Any]] = []
        ask(world)
        eventually(
            "the audit says why",
            lambda: failures.extend(line for line in web.audit("handshake") if line["reason"] == "denylist_stale")
            or failures,
        )
        tell(time.time() + 60, app, web)
        eventually("open again", lambda: not not_ready(app))
        app.assert_well()
        web.assert_well()
