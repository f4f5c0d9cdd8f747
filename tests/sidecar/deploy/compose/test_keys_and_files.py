"""Keys made inside a project, and the files beside the user's: private, whole, made again without losing anything."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from certs.enrolment import Enrolment
from sidecar.cli.compose_keys import Rooms, make_keys
from sidecar.config.load import load_text
from sidecar.deploy.compose.folder import Beside, EditedByHand, find, namespace, project_name, stamped
from tests.kit.compose_files import SHOP, injected


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    made = Rooms(tmp_path / "state" / "ca", tmp_path / "passphrase" / "passphrase", tmp_path / "keys")
    volumes = [made.keys / name for name in ("web", "web-edge", "orders")]
    for folder in (made.ca.parent, made.passphrase.parent, *volumes):
        folder.mkdir(parents=True, mode=0o700)
    return made


def test_each_identity_gets_its_own_key_once(rooms: Rooms) -> None:
    config = load_text(injected(SHOP).mesh)
    assert make_keys(config, "mesh-ca:17012", rooms) == ["web", "web-edge", "orders"]  # db has no volume here
    key = rooms.keys / "orders" / "enrolment.json"
    file = Enrolment.load(key)
    assert file.spiffe_id.text == "spiffe://shop.mesh/ns/shop/sa/orders"
    assert file.ca_address == "mesh-ca:17012"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    (rooms.keys / "db").mkdir(mode=0o700)
    assert make_keys(config, "mesh-ca:17012", rooms) == ["db"]
    assert key.read_bytes() == before


def test_what_stands_beside_the_file_is_made_again_but_not_over_an_edit(tmp_path: Path) -> None:
    beside, target = Beside.of(tmp_path / "docker-compose.yml"), tmp_path / "out.yml"
    beside.write("a: 1\n", {target: b"x"})
    beside.write("a: 2\n", {target: b"y"})
    assert beside.mesh.read_bytes() == stamped(b"a: 2\n")
    assert target.read_bytes() == b"y"
    assert (beside.path / ".gitignore").read_text() == "*\n"
    assert stat.S_IMODE(beside.mesh.stat().st_mode) == 0o644  # the sidecar's user reads it
    beside.mesh.write_text(beside.mesh.read_text() + "# mine\n")
    with pytest.raises(EditedByHand):
        beside.write("a: 3\n", {target: b"z"})
    assert target.read_bytes() == b"y", "nothing half done"
    beside.write("a: 3\n", {target: b"z"}, keep=True)
    assert "# mine" in beside.mesh.read_text()
    assert target.read_bytes() == b"z"
    beside.write("a: 3\n", {target: b"z"}, force=True)
    assert "# mine" not in beside.mesh.read_text()
    beside.remove()
    assert not beside.path.exists()


def test_a_folder_that_somebody_named_is_theirs(tmp_path: Path) -> None:
    beside = Beside.of(tmp_path / "docker-compose.yml", "mesh")
    beside.write("a: 1\n", {})
    beside.remove()
    assert beside.mesh.is_file()


@pytest.mark.parametrize(
    ("folder", "said", "document", "found"),
    [
        ("Shop", None, None, "shop"), ("my.shop_1", None, None, "myshop_1"), ("x", "Said", "in-file", "said"),
        ("x", None, "in-file", "in-file"), ("___", None, None, "default"),
    ],
)  # fmt: skip
def test_the_project_is_named_as_compose_names_it(
    folder: str, said: str | None, document: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    assert project_name(Path("/srv") / folder / "docker-compose.yml", said, document) == found


def test_names(tmp_path: Path) -> None:
    assert namespace("my_shop") == "my-shop"
    assert find(tmp_path) is None
    for name in ("docker-compose.yml", "compose.yaml"):
        (tmp_path / name).touch()
    assert find(tmp_path) == tmp_path / "compose.yaml"
