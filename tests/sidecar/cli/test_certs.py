"""`mesh certs check`, `rotate` for many, and `export`: answers, exit codes, and the same as JSON."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from certs.bundle import TrustBundle
from certs.errors import MeshError
from certs.spiffe import TrustDomain
from sidecar.cli.root import run_command
from tests.kit.identities import DAY, a_root, an_issuer, an_svid
from tests.sidecar.cli.conftest import FakeInspect
from tests.sidecar.cli.test_looking import Mesh, mesh, pem

__all__ = ["mesh"]  # the fixture
Start = Callable[..., FakeInspect]
MONTHS = "2500d"


def with_chain(inspect: FakeInspect, *, leaf_days: float = 1.0, root_days: float = 3000.0) -> FakeInspect:
    now = time.time()
    root = a_root(now=now, days=root_days)
    svid = an_svid(an_issuer(root, now=now), inspect.service, now=now, not_after=now + leaf_days * DAY)
    inspect.certificates = {
        "spiffe_id": svid.spiffe_id.text,
        "chain": [pem(each) for each in svid.chain],
        "bundles": [{"trust_domain": "demo.mesh", "sequence": 3, "roots": pem(root.certificate)}],
    }
    return inspect


def leave_a_dead_socket(run_dir: Path) -> None:
    """As a sidecar that was killed leaves it."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run_dir / "dead.sock"))


# ---- check -------------------------------------------------------------------------------------------------------


def test_a_mesh_that_is_well_passes_for_its_leaves_live_a_day(mesh: Mesh, start: Start) -> None:
    with_chain(start("web"))
    with_chain(start("orders"))
    assert mesh("certs", "check", "--fail-before", "30d") == 0
    assert mesh.out.count("good") == 6
    assert mesh("certs", "check", "web", "-o", "json") == 0
    assert [(row["of"], row["link"]) for row in mesh.json["checks"]] == [
        ("web", "leaf"), ("web", "issuer"), ("web", "root"),
    ]  # fmt: skip


def test_a_root_that_ends_too_soon_fails_the_pipeline(mesh: Mesh, start: Start) -> None:
    with_chain(start("web"), root_days=20)
    assert mesh("certs", "check") == 1
    assert "ends too soon" in mesh.out
    assert mesh("certs", "check", "--fail-before", "10d") == 0
    assert mesh("certs", "check", "-o", "json") == 1
    assert [row["link"] for row in mesh.json["checks"] if not row["ok"]] == ["root"]


@pytest.mark.parametrize(
    ("identity", "link"),
    [
        ({"consecutive_failures": 3, "last_error": "no route"}, "renewal"),
        ({"clock_warning": "this machine's clock is 2 d ahead"}, "clock"),
        ({"revoked": "spiffe_id"}, "revocation"),
    ],
)
def test_what_a_sidecar_says_of_itself_fails_too(
    mesh: Mesh, start: Start, identity: dict[str, Any], link: str
) -> None:
    with_chain(start("web")).identity |= identity
    assert mesh("certs", "check", "-o", "json") == 1
    assert [row["link"] for row in mesh.json["checks"] if not row["ok"]] == [link]


def test_without_a_certificate_or_an_answer(mesh: Mesh, start: Start, run_dir: Path) -> None:
    start("web")
    assert mesh("certs", "check") == 1
    assert "no certificate yet" in mesh.out
    leave_a_dead_socket(run_dir)
    assert mesh("certs", "check") == 3
    assert mesh("certs", "check", "nobody") == 3


def test_files_are_held_to_the_days_alone(mesh: Mesh, tmp_path: Path) -> None:
    now = time.time()
    file = tmp_path / "partner.pem"
    file.write_text(pem(an_svid(an_issuer(a_root(now=now), now=now), now=now, not_after=now + 8 * DAY).leaf))
    assert mesh("certs", "check", str(file)) == 1
    assert mesh("certs", "check", str(file), "--fail-before", "7d") == 0
    assert mesh("certs", "check", str(tmp_path / "missing.pem")) == 2


def test_a_cas_own_chain(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("a passphrase of the tests")
    (tmp_path / "pass").chmod(0o600)
    ca = str(tmp_path / "ca")
    init = ["ca", "init", "--dir", ca, "--trust-domain", "demo.mesh", "--passphrase-file", str(tmp_path / "pass")]
    assert run_command(init) == 0
    assert mesh("certs", "check", "--ca-dir", ca) == 0
    assert mesh("certs", "check", "--ca-dir", ca, "-o", "json") == 0
    assert sorted(row["link"] for row in mesh.json["checks"]) == ["issuer", "root"]
    assert mesh("certs", "check", "--ca-dir", ca, "--fail-before", "4000d") == 1
    assert mesh("certs", "check", "--ca-dir", str(tmp_path / "none")) == 2


# ---- rotate ------------------------------------------------------------------------------------------------------


def test_rotate_needs_to_know_whom(mesh: Mesh, start: Start) -> None:
    start("web")
    assert mesh("certs", "rotate") == 2
    assert mesh("certs", "rotate", "web", "--all") == 2
    assert mesh("certs", "rotate", "--service", "nobody") == 3


def test_all_with_progress_and_a_result_for_each(mesh: Mesh, start: Start) -> None:
    for name in ("web", "orders", "batch"):
        start(name)
    assert mesh("certs", "rotate", "--all") == 0
    for number in (1, 2, 3):
        assert f"[{number}/3]" in mesh.out
    assert "3 of 3 have a new certificate" in mesh.out
    assert mesh("certs", "rotate", "--service", "web", "--service", "orders", "-o", "json") == 0
    assert [(row["service"], row["serial"]) for row in mesh.json["sidecars"]] == [("orders", "0c0d"), ("web", "0c0d")]


def test_one_that_fails_does_not_hide_the_others(mesh: Mesh, start: Start, run_dir: Path) -> None:
    start("web")
    start("orders").rotated = MeshError("the CA is silent")
    assert mesh("certs", "rotate", "--all") == 1
    assert "orders: keeps its certificate: the CA is silent" in mesh.out
    assert "1 of 2 have a new certificate" in mesh.out
    leave_a_dead_socket(run_dir)
    assert mesh("certs", "rotate", "--all", "-o", "json") == 3
    assert {row["service"]: row["ok"] for row in mesh.json["sidecars"]} == {
        "web": True, "orders": False, "dead": False,
    }  # fmt: skip


def test_a_dry_run_asks_nobody_for_anything(mesh: Mesh, start: Start) -> None:
    web, orders = start("web"), start("orders")
    web.rotated = orders.rotated = MeshError("it was asked")
    assert mesh("certs", "rotate", "--all", "--dry-run") == 0
    assert "replaces 0a1b" in mesh.out
    assert max(map(len, mesh.out.splitlines())) <= 80 - 28, "a serial has 32 digits and not four"
    orders.identity |= {"ca_connected": False, "watch_error": "no route"}
    assert mesh("certs", "rotate", "--all", "--dry-run") == 1
    assert "the CA is out of reach: no route" in mesh.out
    assert mesh("certs", "rotate", "web", "--dry-run", "-o", "json") == 0
    assert mesh.json["dry_run"]
    web.identity |= {"revoked": "spiffe_id"}
    assert mesh("certs", "rotate", "web", "--dry-run") == 1


# ---- export ------------------------------------------------------------------------------------------------------


def test_export_as_other_tools_want_it(mesh: Mesh, start: Start, tmp_path: Path) -> None:
    held = with_chain(start("web")).certificates
    assert mesh("certs", "export", "web") == 0
    assert mesh.out == "".join(held["chain"])
    out = tmp_path / "roots.pem"
    assert mesh("certs", "export", "web", "--what", "bundle", "--out", str(out)) == 0
    assert out.read_text() == held["bundles"][0]["roots"]
    assert mesh("certs", "export", "web", "--what", "spiffe-bundle") == 0
    bundle = TrustBundle.parse_jwks(TrustDomain.parse("demo.mesh"), mesh.out.encode())
    assert (bundle.sequence, len(bundle.roots)) == (3, 1)
    assert mesh("certs", "export", "web", "-o", "json") == 0
    assert mesh.json["content"].count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE" not in mesh.out
    start("empty")
    assert mesh("certs", "export", "empty") == 1
