"""CA, sidecars and the `spiffe` library together: tokens from one workload, believed by another; rotations pushed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.fleet import Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.processes import eventually
from tests.kit.workloads import ask, watching

pytestmark = pytest.mark.integration


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mesh-wl-") as name:
        yield Path(name)


@pytest.fixture
def mesh(tmp_path: Path, place: Path) -> Iterator[Fleet]:
    text = f"trust_domain: demo.mesh\nca: {{address: '127.0.0.1:{Ports().ca}'}}\nservices:\n" + "".join(
        f"  {name}: {{workload_api: {{listen: 'unix:{place}/{name}/w.sock'}}, health: {{listen: off}}}}\n"
        for name in ("web", "app")
    )
    with Fleet(tmp_path, text) as fleet:
        fleet.start_all()
        yield fleet


def ca(mesh: Fleet, *arguments: str) -> str:
    done = mesh.mesh("ca", *arguments, "--dir", str(mesh.folder / "ca"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_token_of_one_workload_is_believed_by_another(mesh: Fleet, place: Path) -> None:
    web, app = (f"unix:{place}/{name}/w.sock" for name in ("web", "app"))
    token = ask(web, "jwt", "orders")
    assert token["spiffe_id"] == spiffe("web"), token
    assert ask(app, "validate", "orders", token["token"])["spiffe_id"] == spiffe("web")
    assert "error" in ask(app, "validate", "invoices", token["token"])
    assert ask(web, "jwt", "orders")["token"] == token["token"], "kept until half of its life"
    (kid,) = ask(app, "jwt-bundles")["demo.mesh"]
    issued = ca(mesh, "log", "--all", "-o", "json")
    assert f'"kid": "{kid}"' in issued


def test_rotations_are_pushed_of_certificates_and_of_keys_of_tokens(mesh: Fleet, place: Path) -> None:
    web = f"unix:{place}/web/w.sock"
    with watching(web) as svids, watching(web, "watch-jwt") as keys:
        first, (before,) = next(svids), next(keys)["demo.mesh"]
        serial = mesh["web"].rotate()
        assert next(svids) == {**first, "serial": serial}
        old = ask(web, "jwt", "orders")["token"]
        ca(mesh, "renew-jwt-key", "--revoke", "--passphrase-file", str(mesh.folder / "passphrase"))
        heard = next(keys)["demo.mesh"]
        while before in heard:  # the new key comes a moment before the old one goes
            heard = next(keys)["demo.mesh"]
        assert len(heard) == 1
        refused = ask(web, "validate", "orders", old)
        assert "no key of demo.mesh goes by" in refused["detail"]


def test_a_command_finds_the_api_in_its_environment(mesh: Fleet, place: Path, tmp_path: Path) -> None:
    mesh["web"].stop()
    out = tmp_path / "found"
    program = f"import os, time; open({str(out)!r}, 'w').write(os.environ['SPIFFE_ENDPOINT_SOCKET']); time.sleep(60)"
    mesh["web"].start(sys.executable, "-c", program)
    eventually("the command has run", lambda: out.exists() and out.read_text())
    assert out.read_text() == f"unix:{place}/web/w.sock"
    assert ask(out.read_text(), "x509")["spiffe_id"] == spiffe("web")
