"""The image as it is shipped: small rights, no shell, and a list of all that is in it."""

from __future__ import annotations

import pytest

from sidecar import __version__
from sidecar.deploy import names
from tests.kit.containers import Docker

LEAST = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    return docker.mesh_image()


def test_it_runs_with_the_least_rights(docker: Docker, image: str) -> None:
    assert docker("run", "--rm", *LEAST, image, "--version") == f"mesh {__version__}"


def test_it_says_what_it_is(docker: Docker, image: str) -> None:
    config = docker.inspect(image)["Config"]
    assert config["User"] == f"{names.PROXY_UID}:{names.PROXY_GID}"
    assert config["Entrypoint"] == ["mesh"]
    assert config["Healthcheck"]["Test"] == ["CMD", "mesh", "status", "--ready"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
