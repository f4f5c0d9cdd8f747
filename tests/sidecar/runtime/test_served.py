"""The handshake with ourselves: what is shown is what was given, and an alarm where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from sidecar.runtime import served
from tests.kit.identities import an_svid
from tests.kit.processes import eventually
from tests.kit.sidecars import LocalSidecar, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("SETTLE_SECONDS", "CONFIRM_SECONDS"):
        monkeypatch.setattr(served, name, 0.05)
    world = World(tmp_path)
    yield world
    world.close()


def result(app: LocalSidecar) -> dict[str, Any]:
    found: dict[str, Any] = app.admin("GET", "/status")[1]["served"]
    return found


def test_after_the_start_and_after_each_rotation(world: World) -> None:
    with world.sidecar("app") as app:
        eventually("it has looked", lambda: result(app)["result"] == "same")
        first = result(app)["serial"]
        svid = an_svid(world.issuer, "app")
        app.publish(svid)
        eventually("and again", lambda: result(app)["serial"] == svid.serial)
        assert first != svid.serial
        assert result(app)["result"] == "same"
        assert app.total("mesh_served_certificate_right") == 1
        assert app.total("mesh_self_handshakes_total", result="ok") >= 2
        assert app.total("mesh_certificate_expires_at_seconds", certificate="served") == svid.not_after
        assert app.admin("GET", "/status")[1]["not_ready"] == []
        assert not app.audit("handshake"), "nobody called, so nothing is recorded"
        assert app.total("mesh_tls_handshakes_total") == 0
        assert app.total("mesh_connections_opened_total") == 0
        assert app.admin("GET", "/status")[1]["engine"]["tasks"] == 0
        app.assert_well()


def test_an_old_certificate_on_the_wire_is_an_alarm_and_makes_us_not_ready(world: World) -> None:
    with world.sidecar("app") as app:
        eventually("it has looked", lambda: result(app)["result"] == "same")
        gate = app.worker._gate
        assert gate is not None
        stale = gate._current
        svid = an_svid(world.issuer, "app")

        def rotate_in_vain() -> None:
            app.worker.svids.publish(svid)
            gate._current = stale  # a reload that "worked"

        app.call(rotate_in_vain)
        eventually("it is noticed", lambda: app.admin("GET", "/status")[1]["not_ready"])
        (reason,) = app.admin("GET", "/status")[1]["not_ready"]
        assert "not what we were given" in reason
        assert svid.serial in reason
        assert app.total("mesh_served_certificate_right") == 0
        assert any(line["message"] == "what we serve is not what we were given" for line in app.warnings())
        code, out, _ = world.mesh("status")
        assert (code, "on the wire" in out or "not what we were given" in " ".join(out.split())) == (0, True)
        app.publish(an_svid(world.issuer, "app"))
        eventually("and it is over", lambda: not app.admin("GET", "/status")[1]["not_ready"])
        assert app.total("mesh_served_certificate_right") == 1


def test_a_listener_that_cannot_be_reached_is_told_and_no_more(world: World) -> None:
    with world.sidecar("app") as app:
        eventually("it has looked", lambda: result(app)["result"] == "same")
        check = app.worker.served
        assert check is not None

        async def nothing(*_: object) -> None:
            raise served.CannotLook("no answer")

        check._mirror.look = nothing  # type: ignore[assignment,method-assign]
        trio.from_thread.run(check.look, trio_token=app._token)
        assert result(app)["result"] == "unmeasured"
        assert app.admin("GET", "/status")[1]["not_ready"] == []
        assert any(line["message"] == "the handshake with ourselves failed" for line in app.warnings())


@pytest.mark.parametrize("senders", ["[127.0.0.0/8]", "[203.0.113.0/24]"])
def test_behind_a_load_balancer_that_says_who_calls(tmp_path: Path, senders: str) -> None:
    world = World(tmp_path, protocol=f"http, proxy_protocol: {{from: {senders}}}")
    try:
        with world.sidecar("app") as app:
            eventually("it has looked", lambda: result(app)["result"] == "same")
    finally:
        world.close()
