"""`mesh compose`, `mesh down`: what is written where, what is refused before anything is, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.cli.compose_up import not_ready
from sidecar.cli.root import run_command
from sidecar.config.load import load_config
from sidecar.deploy.compose.engine import Container
from tests.kit.compose_files import SHOP


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(SHOP)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    return folder


def test_without_a_place_it_is_printed_and_nothing_is_written(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compose", "inject", "docker-compose.yml"]) == 0
    told = capsys.readouterr()
    assert "web-sidecar:" in told.out
    assert "nothing was written" in told.err
    assert "published at 127.0.0.1:8080 by its door, which speaks as web-edge" in told.err
    assert [path.name for path in shop.iterdir()] == ["docker-compose.yml"]


def test_in_place_again_and_back(shop: Path) -> None:
    file = shop / "docker-compose.yml"
    assert run_command(["compose", "inject", "docker-compose.yml", "--in-place", "--scale", "db=2"]) == 0
    once = file.read_bytes()
    assert b"db-2-sidecar:" in once
    assert load_config(str(shop / ".mesh/config/mesh.yaml"), 0.0).namespace == "shop"
    assert run_command(["compose", "inject", "docker-compose.yml", "--in-place"]) == 0
    assert file.read_bytes() == once, "its options stand in it"
    assert run_command(["compose", "inject", "docker-compose.yml", "--undo", "--in-place"]) == 0
    assert file.read_text() == SHOP
    assert run_command(["compose", "inject", "docker-compose.yml", "--undo"]) == 1


def test_edits_are_not_lost(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shop / "docker-compose.yml"
    run_command(["compose", "inject", "docker-compose.yml", "-o", "meshed.yml"])
    made = shop / "meshed.yml"
    made.write_text(made.read_text().replace("shop/orders:1", "shop/orders:2"))
    for verb in (["--in-place"], ["--undo"]):
        assert run_command(["compose", "inject", "meshed.yml", *verb]) == 2
    assert "has been edited since" in capsys.readouterr().err
    mesh = shop / ".mesh/config/mesh.yaml"
    mesh.write_text(mesh.read_text() + "# mine\n")
    before = file.read_bytes()
    assert run_command(["compose", "inject", "docker-compose.yml", "--in-place"]) == 2
    assert file.read_bytes() == before
    assert run_command(["compose", "inject", "docker-compose.yml", "--in-place", "--keep-mesh"]) == 0
    assert mesh.read_text().endswith("# mine\n")


def test_the_difference_is_shown_and_nothing_written(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compose", "inject", "docker-compose.yml", "--diff"]) == 0
    shown = capsys.readouterr().out
    assert '-      - "8080:8000"  # http' in shown
    assert '+    network_mode: "service:web-holder"' in shown
    assert "+      - {name: web, from: web, port: [port-8000]}  # environment ORDERS_URL" in shown
    assert "mesh-original" not in shown
    assert not (shop / ".mesh").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compose", "inject", "nothing.yml"], "No such file"),
        (["compose", "inject", "docker-compose.yml", "-o", "/tmp/else/x.yml"], "is in another folder"),
        (["compose", "inject", "docker-compose.yml", "--in-place", "--diff"], "exclude each other"),
        (["compose", "inject", "docker-compose.yml", "--scale", "orders"], "write SERVICE=NUMBER"),
        (["compose", "inject", "docker-compose.yml", "--scale", "order=2"], 'did you mean "orders"?'),
        (["up", "--compose", "docker-compose.yml", "--port-base", "27000"], "not of --compose"),
        (["down", "nothing.yml"], "there is no file nothing.yml"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_file_with_mistakes_is_not_half_injected(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shop / "docker-compose.yml"
    file.write_text("services:\n  a:\n    image: x\n    network_mode: host\n  b:\n    image: y\n    privileged: true\n")
    before = file.read_bytes()
    assert run_command(["compose", "inject", "docker-compose.yml", "--in-place"]) == 2
    told = capsys.readouterr().err
    assert "docker-compose.yml:4:5" in told
    assert "docker-compose.yml:7:5" in told
    assert "2 mistakes" in told
    assert file.read_bytes() == before
    assert not (shop / ".mesh").exists()


def test_without_docker_it_says_so(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(shop))
    for verb in (["compose", "verify"], ["up", "--compose", "docker-compose.yml"], ["down"]):
        assert run_command(verb) == 3
    assert "there is no `docker` on the PATH" in capsys.readouterr().err


def test_who_is_waited_for() -> None:
    def one(part: str, status: str, health: str, code: int = 0) -> Container:
        return Container("i", "n", f"{part or 'app'}-{status}-{health}", part, "", "", status, health, code, "")

    known = [one("sidecar", "running", "starting"), one("sidecar", "running", "healthy"), one("keys", "exited", ""),
             one("", "exited", ""), one("", "created", ""), one("ca", "exited", "unhealthy", 1),
             one("", "running", "")]  # fmt: skip
    assert not_ready(known) == ["sidecar-running-starting", "app-created-", "ca-exited-unhealthy"]
