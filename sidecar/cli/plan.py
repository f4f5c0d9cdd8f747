"""What `mesh up` is about to start: the demo, or a file of yours, with a CA on this machine."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from sidecar.cli.console import Code, Failure
from sidecar.config import ports
from sidecar.config.load import load_config, load_text
from sidecar.config.schema import MeshConfig
from sidecar.config.terms import Address
from sidecar.demo.config import demo_yaml

DEMO_FILE = "mesh.yaml"
MESH = (sys.executable, "-P", "-m", "sidecar.cli")  # -P: a `ca` folder where we were called must not shadow ours


@dataclass(frozen=True, slots=True)
class Plan:
    """A config, where its CA will listen, and the file that the sidecars are to read."""

    config: MeshConfig
    ca: Address
    file: Path
    demo_base: int | None = None  # the demo's port base; None for a file of yours

    def ca_command(self, folder: Path) -> list[str]:
        """`mesh ca serve` on a folder that `ca.bootstrap.prepare` has filled."""
        serve = ["ca", "serve", "--dir", str(folder / "ca"), "--passphrase-file", str(folder / "passphrase")]
        return [*MESH, *serve, "--listen", str(self.ca)]

    def service_command(self, service: str, folder: Path, run_dir: Path) -> list[str]:
        """`mesh run` for one service, its own command included."""
        from ca.bootstrap import enrolment_file

        enrolment = enrolment_file(folder / "ca", self.config.services[service].identity)
        return [
            *MESH, "run", "--file", str(self.file), "--service", service, "--enrolment", str(enrolment),
            "--state", str(folder / "state" / service), "--run-dir", str(run_dir), "--with-app",
        ]  # fmt: skip


def demo_plan(base: int, folder: Path) -> Plan:
    """The demo with its ports counted from `base`, its config written into the folder."""
    text = demo_yaml(base)
    file = folder / DEMO_FILE
    file.write_text(text)
    config = load_text(text, str(file), now=time.time())
    return Plan(config, _ca_address(config), file, base)


def file_plan(path: Path) -> Plan:
    """A file of yours. Raises ConfigErrors, and Failure where its CA is not ours to start or it has no service."""
    config = load_config(str(path), time.time())
    if not config.services:
        raise Failure(f"{path} has no services.", "Name at least one under `services:`.", Code.USAGE)
    address = _ca_address(config)
    if not _is_loopback(address.host):
        raise Failure(
            f"`ca.address` of {path} is {address}, which is not on loopback; `mesh up` starts a CA of its own.",
            "Leave `ca.address` out, or start each service with `mesh run` and an enrolment file of that CA.",
            Code.USAGE,
        )
    return Plan(config, address, path.absolute())


def _ca_address(config: MeshConfig) -> Address:
    return config.ca.address or Address("127.0.0.1", ports.CA)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
