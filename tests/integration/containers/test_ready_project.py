"""deploy/compose as it is shipped, on a real engine: three languages, Redis, PostgreSQL and Prometheus, mTLS between.

The public images are replaced by one Debian with the same programs; Grafana starts where its image can be had.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.kit.compose_projects import Project
from tests.kit.containers import Docker
from tests.kit.images import ROOT
from tests.kit.processes import eventually

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.deep]
PROGRAMS = ("nginx-light", "nodejs", "postgresql", "prometheus", "redis-server")
KIT = ROOT / "tests" / "kit" / "compose_base"


@pytest.fixture(scope="module")
def shop(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    docker.mesh_image()
    folder = tmp_path_factory.mktemp("ready") / "shop"
    shutil.copytree(ROOT / "deploy" / "compose", folder)
    files = ("-f", "docker-compose.yml", "-f", str(KIT / "override.yml"), "-p", "shop")
    env = {"BASE": docker.base_image(*PROGRAMS), "KIT": str(KIT)}
    docker.compose(folder, *files, "up", "-d", "web-edge", "prometheus-edge", env=env)
    yield Project(docker, folder, (folder / "docker-compose.yml").read_text())
    docker.compose(folder, *files, "down", "-v", check=False, env=env)


def test_three_languages_a_cache_and_a_database_answer(shop: Project) -> None:
    def answered() -> bool:
        status, text = shop.get("/", 8080)
        return status == 200 and "0 orders, asked" in text and '["apples", "pears"]' in text

    eventually("web, orders, catalog, redis and postgres", answered, 60)


def test_nothing_of_it_answers_in_plaintext(shop: Project) -> None:
    found = json.loads(shop.mesh("compose", "verify", "-p", "shop", "-o", "json").stdout)
    assert found["good"]
    shown = {(each["service"], each["port"]) for each in found["findings"] if each["detail"].startswith("spiffe://")}
    assert {("postgres", 5432), ("redis", 6379), ("catalog", 80), ("orders", 8000), ("web", 8000)} <= shown


def test_prometheus_reads_every_sidecar_over_mtls(shop: Project) -> None:
    def up() -> set[str]:
        status, text = shop.get("/api/v1/query?query=up", 9090)
        rows = json.loads(text)["data"]["result"] if status == 200 else []
        return {row["metric"]["service"] for row in rows if row["value"][1] == "1"}

    eventually("all are scraped", lambda: {"web", "orders", "catalog", "redis", "postgres"} <= up(), 60)
