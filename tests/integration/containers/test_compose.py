"""A stock compose project of three services becomes strict mTLS, and goes back: with a real Docker engine.

One story, told in order: each test goes on where the one before has ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.kit.compose_projects import APP, STOCK, Project
from tests.kit.containers import Docker
from tests.kit.processes import eventually

pytestmark = [pytest.mark.integration, pytest.mark.alone]
WHOLE = (200, "web < orders < stock")


@pytest.fixture(scope="module")
def shop(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    docker.mesh_image()
    folder = tmp_path_factory.mktemp("compose") / "shop"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "app.py").write_text(APP)
    project = Project(docker, folder, STOCK.format(image=docker.base_image()))
    yield project
    project.mesh("down", check=False)
    docker.compose(folder, "down", "-v", check=False)


def serial(shop: Project, sidecar: str) -> str:
    """The serial of the certificate that this sidecar has now."""
    answer = json.loads(shop.docker("exec", sidecar, "mesh", "status", "--service", "orders", "-o", "json"))
    return str(answer["services"][0]["identity"]["serial"])


def whole(shop: Project) -> None:
    eventually("traffic passes", lambda: shop.get("/") == WHOLE, 40)


def test_as_it_was_everybody_answers_everybody_in_plaintext(shop: Project) -> None:
    shop.docker.compose(shop.folder, "up", "-d")
    whole(shop)
    assert shop.get("/alone", ask="http://stock:8000")[1] == "web"
    assert shop.get("/", ask="http://stock:8000") == (200, "web < stock")
    done = shop.mesh("compose", "verify", check=False)
    assert done.returncode == 3
    assert "has no sidecar at all" in done.stderr


def test_one_command_makes_it_strict_within_a_minute(shop: Project) -> None:
    before = shop.file.read_bytes()
    started = time.monotonic()
    done = shop.mesh("up", "--compose", "docker-compose.yml")
    took = time.monotonic() - started
    print(f"from plaintext to strict mTLS in {took:.1f} s\n{done.stderr}\n{done.stdout}")
    assert "nothing answers in plaintext" in done.stdout
    assert took < 60
    assert shop.file.read_bytes() == before
    whole(shop)


def test_a_caller_whom_nobody_allowed_is_refused(shop: Project) -> None:
    assert shop.get("/", ask="http://stock:8000")[1].startswith("web < ")
    assert shop.get("/", ask="http://stock:8000")[1] != "web < stock"


def test_from_outside_nothing_answers_in_plaintext_and_the_identity_shows(shop: Project) -> None:
    done = shop.mesh("compose", "verify", "-o", "json")
    found = json.loads(done.stdout)
    shown = {each["service"]: each["detail"] for each in found["findings"] if each["port"] == 8000}
    assert shown == {name: f"spiffe://shop.mesh/ns/shop/sa/{name}" for name in ("web", "orders", "stock")}
    assert found["good"]
    assert [(each["host"], each["port"]) for each in found["doors"]] == [("127.0.0.1", 18080)]


def test_a_container_that_nobody_injected_is_found(shop: Project) -> None:
    image, label = shop.docker.base_image(), f"com.docker.compose.project={shop.name}"
    network = f"{shop.name}_default"
    rogue = shop.docker(
        "run", "-d", "--network", network, "--label", label, "--label", "com.docker.compose.service=rogue",
        "--expose", "9000", "-p", "19000:9000", image, "python3", "-m", "http.server", "9000",
    )  # fmt: skip
    try:
        eventually("the rogue serves", lambda: shop.get("/", 19000)[0] == 200, 20)
        done = shop.mesh("compose", "verify", check=False)
        assert done.returncode == 1
        assert "answers in plaintext" in done.stdout
        assert "published on the host past the mesh" in done.stdout
    finally:
        shop.docker("rm", "-f", rogue)


def test_keys_and_the_issuing_ca_may_change_and_the_ca_may_die_under_traffic(shop: Project) -> None:
    sidecar, ca = shop.container("orders-sidecar"), shop.container("mesh-ca")
    before = serial(shop, sidecar)
    shop.docker("exec", sidecar, "mesh", "certs", "rotate", "orders")
    assert serial(shop, sidecar) != before
    shop.docker("exec", ca, "mesh", "ca", "renew-issuer", "--dir", "/var/lib/mesh/ca", "--passphrase-file",
                "/var/lib/mesh-passphrase/passphrase")  # fmt: skip
    assert shop.get("/") == WHOLE
    shop.docker("kill", ca)
    for _ in range(5):
        assert shop.get("/") == WHOLE
    shop.docker("start", ca)
    shop.docker.until_healthy(ca)


def test_a_sidecar_and_an_application_may_die_alone(shop: Project) -> None:
    for service in ("orders-sidecar", "orders"):
        one = shop.container(service)
        shop.docker("kill", one)
        assert shop.get("/")[1] != WHOLE[1]
        assert shop.docker.state(shop.container("orders-holder"))["Running"]
        shop.docker("start", one)
        whole(shop)
    assert json.loads(shop.mesh("compose", "verify", "-o", "json").stdout)["good"]


def test_more_of_one_service_share_its_name(shop: Project) -> None:
    shop.mesh("compose", "inject", "docker-compose.yml", "--in-place", "--scale", "orders=2")
    shop.docker.compose(shop.folder, "up", "-d")
    whole(shop)
    assert shop.container("orders-2-sidecar")
    assert shop.container("orders-2")
    count = "import socket; print(len({each[4][0] for each in socket.getaddrinfo('orders', 8000)}))"
    assert shop.docker("exec", shop.container("web"), "python3", "-c", count) == "2"


def test_undo_is_byte_for_byte_and_down_leaves_nothing_of_ours(shop: Project) -> None:
    shop.mesh("down", "docker-compose.yml")
    shop.mesh("compose", "inject", "docker-compose.yml", "--undo", "--in-place")
    assert shop.file.read_text() == STOCK.format(image=shop.docker.base_image())
    shop.mesh("down", "docker-compose.yml")
    assert not (shop.folder / ".mesh").exists()
    assert shop.leftovers() == [f"{shop.name}_data"], "the user's volume, and nothing else"
