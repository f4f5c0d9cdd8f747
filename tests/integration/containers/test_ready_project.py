"""deploy/compose as it is shipped, on a real engine: three languages, Redis, PostgreSQL and Prometheus, mTLS between.

The public images are replaced by one Debian with the same programs. One story, told in order: each test goes on where
the one before has ended, with visitors who do not wait for each other, half of them placing orders.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kit import visits
from tests.kit.compose_projects import Project
from tests.kit.containers import Docker
from tests.kit.images import PROGRAMS, ROOT
from tests.kit.processes import eventually

pytestmark = [pytest.mark.integration, pytest.mark.alone]
KIT = ROOT / "tests" / "kit" / "compose_base"
RATE = 10.0  # visits a second
CA = ("--dir", "/var/lib/mesh/ca", "--passphrase-file", "/var/lib/mesh-passphrase/passphrase")


@pytest.fixture(scope="module")
def shop(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    docker.mesh_image()
    folder = tmp_path_factory.mktemp("ready") / "shop"
    shutil.copytree(ROOT / "deploy" / "compose", folder)
    files = ("-f", "docker-compose.yml", "-f", str(KIT / "override.yml"), "-p", "shop")
    env = {"BASE": docker.base_image(*PROGRAMS), "KIT": str(KIT)}
    docker.compose(folder, *files, "up", "-d", "web-edge", "prometheus-edge", env=env)
    yield Project(docker, folder, (folder / "docker-compose.yml").read_text())
    docker.compose(folder, *files, "down", "-v", "-t", "1", check=False, env=env)


@contextmanager
def visitors(shop: Project) -> Iterator[dict[str, Any]]:
    """Visits all the while; what came of them stands in the dictionary when the block has ended."""
    told: dict[str, Any] = {}
    command = [sys.executable, "-P", visits.__file__, "http://127.0.0.1:8080/", str(RATE)]
    process = subprocess.Popen(
        shop.docker.cell.command(command, shop.folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield told
    finally:
        out, _ = process.communicate(timeout=60)
    told.update(json.loads(out))
    print(f"{told['sent']} visits, {len(told['failed'])} failed: {told['failed'][:3]}")


def served(shop: Project) -> bool:
    status, text = shop.get("/", 8080)
    return status == 200 and "orders: 200 " in text and '["apples", "pears"]' in text


def serial(shop: Project, service: str) -> str:
    """The serial of the certificate that this service has now."""
    command = ("exec", shop.container(f"{service}-sidecar"), "mesh", "status", "--service", service, "-o", "json")
    return str(json.loads(shop.docker(*command))["services"][0]["identity"]["serial"])


def test_three_languages_a_cache_and_a_database_answer(shop: Project) -> None:
    eventually("web, orders, catalog, redis and postgres", lambda: served(shop), 60)


def test_nothing_of_it_answers_in_plaintext(shop: Project) -> None:
    found = json.loads(shop.mesh("compose", "verify", "-p", "shop", "-o", "json").stdout)
    assert found["good"]
    shown = {(each["service"], each["port"]) for each in found["findings"] if each["detail"].startswith("spiffe://")}
    assert {("postgres", 5432), ("redis", 6379), ("catalog", 80), ("orders", 8000), ("web", 8000)} <= shown


def test_whom_nobody_allowed_is_refused(shop: Project) -> None:
    """web may not ask Redis, whatever its application tries: it has no upstream of that name, and no other way."""
    script = "require('net').connect(6379,'redis').on('data',()=>console.log('answered')).write('PING\\r\\n')"
    tried = shop.docker.run("exec", shop.container("web"), "timeout", "5", "node", "-e", script)
    assert "answered" not in tried.stdout
    ask = "import urllib.request as u; u.urlopen('http://catalog:80/items.json', timeout=5)"
    tried = shop.docker.run("exec", shop.container("orders"), "python3", "-c", ask)
    assert tried.returncode
    assert served(shop)


def test_keys_the_root_and_a_ca_that_dies_are_nobodys_loss(shop: Project) -> None:
    ca, before = shop.container("mesh-ca"), serial(shop, "orders")
    with visitors(shop) as told:
        shop.docker("exec", shop.container("orders-sidecar"), "mesh", "certs", "rotate", "orders")
        assert serial(shop, "orders") != before
        shop.docker("exec", ca, "mesh", "ca", "rotate-root", "--go", "--wait", *CA, seconds=240)
        shop.docker("kill", ca)
        assert served(shop)
        shop.docker("start", ca)
        shop.docker.until_healthy(ca)
    assert told["sent"] > RATE
    assert not told["failed"]


@pytest.mark.parametrize("service", ["orders-sidecar", "orders", "redis-sidecar", "postgres"])
def test_who_is_killed_takes_only_its_own_along(shop: Project, service: str) -> None:
    one = shop.container(service)
    with visitors(shop) as told:
        eventually("visits", lambda: served(shop), 20)
        shop.docker("kill", one)
        shop.docker("start", one)
        eventually(f"{service} is back", lambda: served(shop), 60)
    assert all("catalog: 200" in wrong or "catalog" not in wrong for _, wrong in told["failed"]), told["failed"][:5]
    with visitors(shop) as told:
        for _ in range(5):
            assert served(shop)
    assert not told["failed"]


def test_prometheus_reads_every_sidecar_over_mtls(shop: Project) -> None:
    def up() -> set[str]:
        status, text = shop.get("/api/v1/query?query=up", 9090)
        rows = json.loads(text)["data"]["result"] if status == 200 else []
        return {row["metric"]["service"] for row in rows if row["value"][1] == "1"}

    eventually("all are scraped", lambda: {"web", "orders", "catalog", "redis", "postgres"} <= up(), 60)
