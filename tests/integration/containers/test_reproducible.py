"""The same sources give the same image to the last bit, whenever, wherever and from wherever its wheels came."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.deploy.sbom import normal
from tests.kit import images
from tests.kit.containers import Podman
from tests.kit.processes import Process, listens

PORT = 8000  # inside the engine's own network


def build(podman: Podman, context: Path, tag: str, *options: str) -> str:
    """Build as a release does; returns the digest."""
    base = f"BASE=localhost/{podman.base_image()}"
    flags = ("--no-cache", "--timestamp", "0", "--build-arg", base)
    podman.buildah("build", *flags, *options, "-t", tag, str(context))
    digest: str = podman.inspect(tag)["Digest"]
    return digest


@contextmanager
def an_index(podman: Podman, wheels: Path, folder: Path) -> Iterator[str]:
    """A package index with exactly these wheels (PEP 503); gives its address."""
    for wheel in wheels.glob("*.whl"):
        place = folder / "simple" / normal(wheel.name.split("-")[0])
        place.mkdir(parents=True)
        shutil.copyfile(wheel, place / wheel.name)
        (place / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(PORT)]
    server = Process("index", podman.cell.command(command), folder / "index.log")
    try:
        server.until("listening", lambda: podman.within(listens, PORT))
        yield f"http://127.0.0.1:{PORT}/simple"
    finally:
        server.stop()


def test_two_builds_give_one_image(podman: Podman, tmp_path: Path) -> None:
    here, there = images.context(tmp_path / "here"), images.context(tmp_path / "there")
    for number, path in enumerate(sorted(there.rglob("*"))):  # times, and the order in which files were made
        os.utime(path, (10**9 + number, 10**9 + number))
    offline = build(podman, here, "offline", "--network", "none")

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for wheel in (there / "deploy/image/wheels").glob("*.whl"):
        wheel.rename(wheels / wheel.name)
    (tmp_path / "index").mkdir()
    with an_index(podman, wheels, tmp_path / "index") as address:
        online = build(podman, there, "online", "--network", "host", "--build-arg", f"PIP_INDEX_URL={address}")
        assert ".whl" in (tmp_path / "index" / "index.log").read_text()
    assert online == offline


def test_a_wheel_that_is_not_the_locked_one_ends_the_build(podman: Podman, tmp_path: Path) -> None:
    context = images.context(tmp_path)
    wheel = next((context / "deploy/image/wheels").glob("h11-*.whl"))
    with wheel.open("ab") as file:
        file.write(b"one byte more")
    base = f"BASE=localhost/{podman.base_image()}"
    done = podman.run("build", "--network", "none", "--build-arg", base, "-t", "never", str(context))
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr + done.stdout
    assert not podman.has("never")
