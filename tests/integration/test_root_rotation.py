"""The root of a running mesh is replaced, by the command, under load: no request fails, and nobody is left behind.

Certificates last a day, so nothing but the CA's order makes anybody renew. `web` and `app` are under constant load the
whole time; afterwards the old root is in no bundle, and a certificate under it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from certs.enrolment import Enrolment
from tests.kit.books import balance_live
from tests.kit.fleet import Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.meshes import pair_yaml
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

RATE = 100.0  # requests a second
PATIENCE = 60.0  # ten seconds lie between two renewals, whatever is ordered


class RotatingFleet(Fleet):
    """A mesh whose root is rotated by the command that an operator would type."""

    def rotate(self, *words: str) -> dict[str, Any]:
        folder = ["--dir", str(self.folder / "ca"), "--passphrase-file", str(self.folder / "passphrase"), "-o", "json"]
        done = self.mesh("ca", "rotate-root", *words, *folder)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def reach(self, phase: str) -> None:
        try:
            eventually(f"phase {phase}", lambda: self.rotate("--status")["phase"] == phase, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.rotate('--status')}") from error

    def root_of(self, service: str) -> str:
        """The issuer's serial of what a service shows now."""
        done = self.mesh("certs", "show", service, "-o", "json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["certificates"][-1]["issuer"])


def test_no_request_fails_while_the_root_is_replaced(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    ports = Ports()
    text = pair_yaml(ports, tmp_path, allow='[{name: callers, from: web, path: "/echo/{nonce}"}]')
    with echo_app(tmp_path, ports.app), RotatingFleet(tmp_path, text) as mesh:
        mesh.start_all()
        before = {name: (mesh.root_of(name), mesh[name].identity()["serial"]) for name in ("web", "app")}
        with NonceLoad(ports.door, rate=RATE, seed=7) as load:
            assert mesh.rotate("--rehearse")["ok"]
            begun = mesh.rotate("--go", "--wait")  # prints where it stands as it begins, and returns at the end
            assert begun["phase"] == "announced"
            assert mesh.rotate("--status")["phase"] == "done"
        tally = load.stop()
        record_property("load", tally.summary())
        print(tally.summary())
        tally.assert_flawless()
        balance_live(mesh["web"], mesh["app"], tally)
        mesh.assert_well()
        for name, (root, serial) in before.items():
            assert mesh.root_of(name) != root
            assert mesh[name].identity()["serial"] != serial
            assert mesh[name].identity()["ca_connected"]
            pins = Enrolment.load(mesh.enrolment(name)).root_sha256
            assert pins == (begun["incoming"],), "the file in the CA's folder pins the new root alone"
        mesh["web"].stop()
        mesh["web"].start()  # whoever starts now knows the CA by what its file and its folder say
        status = mesh.rotate("--status")
        assert (status["phase"], status["laggards"], status["aborted"]) == ("done", [], False)


def test_turned_back_half_way_over_a_killed_ca_with_one_that_is_lost(tmp_path: Path) -> None:
    ports = Ports()
    text = pair_yaml(ports, tmp_path, allow='[{name: callers, from: web, path: "/echo/{nonce}"}]')
    text += f"""\
  lost:
    outbound: [{{to: app, listen: "127.0.0.1:{ports.lost}"}}]
    health: {{listen: off}}
"""
    with echo_app(tmp_path, ports.app), RotatingFleet(tmp_path, text) as mesh:
        mesh.start_all("web", "app")
        roots = {name: mesh.root_of(name) for name in ("web", "app")}
        with NonceLoad(ports.door, rate=RATE, seed=8) as load:
            mesh["lost"].start()  # and for ten seconds it will not renew, whatever it is told
            mesh.rotate("--go")
            mesh.reach("switched")
            mesh["lost"].process.kill()
            assert mesh.ca is not None
            mesh.ca.kill()
            mesh.start_ca()
            for name, root in roots.items():
                eventually(f"{name} under the new root", lambda n=name, r=root: mesh.root_of(n) != r, PATIENCE)
            eventually("one laggard", lambda: len(mesh.rotate("--status")["laggards"]) == 1, PATIENCE)
            (laggard,) = mesh.rotate("--status")["laggards"]
            assert (laggard["spiffe_id"], laggard["connected"]) == (spiffe("lost"), False)
            assert mesh.rotate("--abort")["aborted"]
            mesh.reach("withdrawn")
            mesh.rotate("--go", "--skip", laggard["serial"], "--reason", "its machine burnt down")
            mesh.reach("done")
        tally = load.stop()
        print(tally.summary())
        tally.assert_flawless()
        assert {name: mesh.root_of(name) for name in roots} == roots
        for name in roots:
            assert "Traceback" not in (tmp_path / "logs" / f"{name}.log").read_text()
