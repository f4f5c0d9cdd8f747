"""The image as it is shipped: small rights, no shell, and a list of all that is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__
from sidecar.deploy import names
from sidecar.deploy.sbom import parse_lock
from tests.kit import images
from tests.kit.containers import Docker
from tests.kit.files_identity import flags, identity_folder

LEAST = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
SHELLS = ("/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash")
SBOM = "/opt/mesh/share/sbom.cdx.json"
GENEROUS = 6.0  # seconds from the start of a container to a ready sidecar; `python -m tests.bench.image` measures

INSTALLED = """
import importlib.metadata as m, json
print(json.dumps({d.name.lower().replace("_", "-").replace(".", "-"): d.version for d in m.distributions()}))
"""
# Whatever a sidecar imports: is there bytecode for it, and is it used as it is?
BYTECODE = """
import json, os, sys
import sidecar.cli.run, sidecar.cli.status, sidecar.cli.ca, sidecar.runtime.worker
files = {n: getattr(m, "__cached__", None) for n, m in sorted(sys.modules.items()) if getattr(m, "__file__", "")}
python = {n: c for n, c in files.items() if c}
without = [n for n, c in python.items() if not os.path.exists(c)]
checked = [n for n, c in python.items() if c.startswith("/opt/mesh/") and open(c, "rb").read(8)[4] != 1]
print(json.dumps({"modules": len(python), "without": without, "checked": checked}))
"""


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    return docker.mesh_image()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return identity_folder(tmp_path / "etc")


@pytest.fixture
def web(docker: Docker, image: str, folder: Path) -> Iterator[str]:
    """A sidecar with the least rights, in an image whose shells are taken away."""
    no_shell = [f"--volume=/dev/null:{path}:ro" for path in SHELLS]
    docker("run", "-d", "--name", "web", *LEAST, *no_shell, *flags(folder), image, "run", "--service", "web")
    try:
        yield "web"
    finally:
        docker("rm", "-f", "-v", "web")


def python(docker: Docker, image: str, program: str) -> Any:
    return json.loads(docker("run", "--rm", *LEAST, "--entrypoint", "/opt/mesh/bin/python", image, "-c", program))


def test_it_says_what_it_is(docker: Docker, image: str) -> None:
    config = docker.inspect(image)["Config"]
    assert config["User"] == f"{names.PROXY_UID}:{names.PROXY_GID}"
    assert config["Entrypoint"] == ["mesh"]
    assert config["WorkingDir"] == str(Path(names.CONFIG_PATH).parent)
    assert {f"MESH_STATE_DIR={names.STATE_PATH}", f"MESH_RUN_DIR={names.RUN_PATH}"} < set(config["Env"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "mesh", "status", "--ready"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["version"] == __version__
    assert labels["title"] == "mesh"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["sidecar.mesh/sbom"] == SBOM
    assert docker("run", "--rm", *LEAST, image, "--version") == f"mesh {__version__}"


def test_what_ships_names_a_public_base_and_pins_what_it_installs() -> None:
    text = (images.ROOT / "Dockerfile").read_text()
    assert "\nARG BASE=python:3.11-slim-bookworm\n" in text
    assert text.count("--require-hashes") == text.count("pip") - text.count("pip wheel") - text.count("--no-index")
    assert "--mount" not in text
    assert "<<" not in text  # the classic builder knows neither


def test_a_sidecar_is_healthy_without_rights_and_without_a_shell(docker: Docker, web: str) -> None:
    assert docker.run("exec", web, "/bin/sh", "-c", "true").returncode != 0
    docker.until_healthy(web)
    top = docker("top", web, "-o", "pid,uid,args").splitlines()[1:]
    assert len(top) == 1, top
    assert top[0].split()[1] == str(names.PROXY_UID)
    assert "ready" in docker("exec", web, "mesh", "status")
    assert docker.run("exec", web, "touch", "/opt/mesh/here").returncode != 0
    assert docker("diff", web).replace("/run", "").split() in ([], ["C"]), "something was written beside the tmpfs"
    docker("stop", web)
    assert docker.state(web)["ExitCode"] == 0


def test_it_is_ready_soon(docker: Docker, web: str) -> None:
    docker.until_healthy(web)
    told = [json.loads(line) for line in docker.logs(web).splitlines()]
    ready = next(line["time"] for line in told if line["message"] == "ready")
    assert seconds(ready) - seconds(docker.state(web)["StartedAt"]) < GENEROUS


def seconds(moment: str) -> float:
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*Z", r"\1+00:00", moment)).timestamp()


def test_what_is_wrong_is_said(docker: Docker, image: str, folder: Path) -> None:
    nothing = docker.run("run", "--rm", *LEAST, image, "run")
    assert nothing.returncode == 2
    assert "mesh.yaml: cannot read: No such file" in nothing.stderr
    docker_flags = [flag for flag in flags(folder) if names.RUN_PATH not in flag]
    unwritable = docker.run("run", "--rm", *LEAST, *docker_flags, f"--tmpfs={names.RUN_PATH}:mode=0755", image, "run")
    assert unwritable.returncode != 0
    assert f"{names.RUN_PATH}" in unwritable.stderr


def test_nothing_is_compiled_at_a_start(docker: Docker, image: str) -> None:
    found = python(docker, image, BYTECODE)
    assert found["modules"] > 400
    assert found["without"] == []
    assert found["checked"] == []


def test_the_list_of_parts_is_complete(docker: Docker, image: str) -> None:
    listed = json.loads(docker("run", "--rm", *LEAST, "--entrypoint", "cat", image, SBOM))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    ours = listed["metadata"]["component"]
    parts = {(part["purl"].split("/")[0], part["name"]): part["version"] for part in listed["components"]}
    packages = {name: version for (kind, name), version in parts.items() if kind == "pkg:pypi"}

    installed = python(docker, image, INSTALLED)
    assert {**packages, ours["name"]: ours["version"]} == installed
    pins = parse_lock((images.ROOT / "requirements.lock").read_text())
    assert packages == {name: pin.version for name, pin in pins.items()}

    format_ = "${Package} ${Version} ${db:Status-Status}\\n"
    told = docker("run", "--rm", *LEAST, "--entrypoint", "dpkg-query", image, "-W", "-f", format_).splitlines()
    system = {line.split()[0]: line.split()[1] for line in told if line.endswith(" installed")}
    assert system == {name: version for (kind, name), version in parts.items() if kind == "pkg:deb"}

    references = [part["bom-ref"] for part in listed["components"]]
    assert len(set(references)) == len(references)
    known = {*references, ours["bom-ref"]}
    assert all({edge["ref"], *edge["dependsOn"]} <= known for edge in listed["dependencies"])
    direct = next(edge["dependsOn"] for edge in listed["dependencies"] if edge["ref"] == ours["bom-ref"])
    assert any(each.startswith("pkg:pypi/trio@") for each in direct)
