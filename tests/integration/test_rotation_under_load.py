"""Certificates change again and again under load, by themselves and on demand, and nobody notices.

Three callers' views at once: `web` and `app` have certificates of 20 s, which renew themselves at half-life, and are
told to rotate in between; `batch` keeps one certificate of a day, so nothing but the end of *app's* certificates makes
it replace its connections.
"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.kit.books import balance_audit, balance_handshakes, balance_live
from tests.kit.fleet import TRUST_DOMAIN, Fleet, Sidecar
from tests.kit.free_ports import Ports
from tests.kit.nonce import NonceLoad
from tests.kit.programs import echo_app

SECONDS = 35.0
RATE = 100.0  # requests a second, for each of the two callers
TTL = {"web": 20.0, "app": 20.0}


def mesh_yaml(ports: Ports, folder: Path) -> str:
    def caller(name: str, door: int, health: int) -> str:
        return f"""
  {name}:
    outbound: [{{to: app, listen: "127.0.0.1:{door}"}}]
    access_log: {{mode: all, path: {folder}/{name}.access}}
    health: {{listen: "127.0.0.1:{health}"}}"""

    return f"""\
trust_domain: {TRUST_DOMAIN}
ca: {{address: "127.0.0.1:{ports.ca}"}}
services:{caller("web", ports.web, ports.web_health)}{caller("batch", ports.batch, ports.batch_health)}
  app:
    inbound: [{{name: main, port: {ports.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{ports.app}"}}]
    allow: [{{name: callers, from: [web, batch], path: "/echo/{{nonce}}"}}]
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: "127.0.0.1:{ports.app_health}"}}
"""


def test_no_request_fails_and_the_books_balance(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    ports = Ports()
    with echo_app(tmp_path, ports.app), Fleet(tmp_path, mesh_yaml(ports, tmp_path), ttl=TTL) as mesh:
        mesh.start_all()
        web, batch, app = mesh["web"], mesh["batch"], mesh["app"]
        with NonceLoad(ports.web, rate=RATE, seed=1) as first, NonceLoad(ports.batch, rate=RATE, seed=2) as second:
            rotations = rotate_for(SECONDS, mesh)
        tallies = {"web": first.stop(), "batch": second.stop()}
        for name, tally in tallies.items():
            record_property(name, tally.summary())
            print(name, tally.summary())
            tally.assert_flawless()
            balance_live(mesh[name], app, tally)
        mesh.assert_well()
        metrics = {name: sidecar.metrics() for name, sidecar in mesh.sidecars.items()}
        for sidecar in (web, batch, app):
            assert sidecar.stop() == 0
        for name, tally in tallies.items():
            balance_audit(mesh[name], app, tally)
        serials = balance_handshakes([web, batch], app, metrics)
    print("serials that web showed:", len(serials["web"]), "rotations asked for:", rotations)
    assert len(serials["web"]) >= SECONDS / 11 - 1  # never two renewals within 10 s
    assert len(serials["batch"]) == 1
    for caller in (web, batch):
        assert_no_hop_outlived_its_certificate(caller, app)


def rotate_for(seconds: float, mesh: Fleet) -> dict[str, int]:
    """Ask web and app for new certificates again and again, by the command; how often each did so."""
    until = time.monotonic() + seconds
    done = {"web": 0, "app": 0}
    while time.monotonic() < until:
        for name in done:
            if time.monotonic() < until:
                rotated = mesh.mesh("certs", "rotate", name)
                assert rotated.returncode == 0, rotated.stderr
                done[name] += 1
    return done


def assert_no_hop_outlived_its_certificate(caller: Sidecar, called: Sidecar) -> None:
    """No request began on a connection whose peer certificate had ended, at either end."""
    for sidecar, peers in ((caller, called), (called, caller)):
        ends = {
            line["serial"]: moment(line["not_after"])
            for line in sidecar.audit()
            if line["kind"] == "handshake" and line["ok"] and line["peer"] == str(peers.config.identity)
        }
        seen = [line for line in sidecar.access_log() if line["peer.cert_serial"] in ends]
        assert seen
        late = [line for line in seen if moment(line["timestamp"]) > ends[line["peer.cert_serial"]] + 0.01]
        assert not late, f"{len(late)} hops of {sidecar.name} on certificates that had ended, such as {late[0]}"


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
