"""Two services as somebody writes them, injected by us, and the CA that they need: for tests that run real pods."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from sidecar.config import ports
from sidecar.deploy import names
from sidecar.deploy.kube.pod import inject
from tests.kit.fleet import MESH
from tests.kit.processes import Process

NAMESPACE = "default"
APP_PORT = 8080
CALL_PORT = 9001  # where web's application finds orders
PASSPHRASE = "only for a test\n"
ECHO = Path(__file__).with_name("echo_app.py")


class Authority:
    """A CA as a process, with an enrolment file for each service. `command` leads into a namespace, where one is."""

    def __init__(self, folder: Path, address: str, *services: str, ttl: str = "1h") -> None:
        self.folder = folder
        self.address = address
        self._dir = folder / "ca"
        self._secret = folder / "passphrase"
        self._secret.write_text(PASSPHRASE)
        self._secret.chmod(0o600)
        self._run("init", "--trust-domain", "demo.mesh", "--address", address, "--passphrase-file", str(self._secret))
        for service in services:
            self._run("entry", "add", "--ttl", ttl, service)
            self._run("key", "--out", str(folder / f"{service}.json"), service)

    def _run(self, verb: str, *arguments: str) -> None:
        words = [verb, arguments[0]] if verb == "entry" else [verb]
        rest = arguments[1:] if verb == "entry" else arguments
        command = [*MESH, "ca", *words, "--dir", str(self._dir), *rest]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr

    def enrolment(self, service: str) -> str:
        """The text of a service's enrolment file."""
        return (self.folder / f"{service}.json").read_text()

    def serve_command(self) -> list[str]:
        """`mesh ca serve` for all addresses."""
        listen = f"0.0.0.0:{self.address.rpartition(':')[2]}"
        options = ["--dir", str(self._dir), "--listen", listen, "--passphrase-file", str(self._secret)]
        return [*MESH, "ca", "serve", *options]

    def start(self, command: list[str]) -> Process:
        """Start it; returns once it answers."""
        process = Process("ca", command, self.folder / "ca.log")
        process.until("ready", lambda: "ready" in process.text() or "listening" in process.text())
        return process


def config(orders_address: str, ca_address: str, port: int = ports.INBOUND) -> str:
    """One mesh.yaml for both: web may GET from orders and have it echo, and nothing else."""
    return (
        f"trust_domain: demo.mesh\nca: {{address: '{ca_address}'}}\n"
        "services:\n"
        "  web:\n"
        f"    outbound: [{{to: orders, listen: 127.0.0.1:{CALL_PORT}, endpoints: ['{orders_address}:{port}']}}]\n"
        f"  orders:\n    inbound: [{{name: http, port: {port}, bind: 0.0.0.0, app: 127.0.0.1:{APP_PORT}}}]\n"
        "    allow:\n      - {name: reads, from: web, method: GET}\n"
        "      - {name: echoes, from: web, method: POST, path: '/echo/**'}\n"
    )


def captured_config(orders_address: str, ca_address: str) -> str:
    """The same for pods with rules of redirection: applications call orders by its own address, and know of no mesh."""
    return (
        f"trust_domain: demo.mesh\nca: {{address: '{ca_address}'}}\n"
        "defaults: {access_log: {mode: all}}\n"
        "services:\n"
        "  web:\n    address: web\n    redirect: {}\n"
        f"    outbound: [{{to: orders, endpoints: ['{orders_address}:{APP_PORT}']}}]\n"
        "  orders:\n    address: orders\n    redirect: {}\n"
        f"    inbound: [{{name: http, port: {APP_PORT}, app: 127.0.0.1:{APP_PORT}}}]\n"
        "    allow: [{name: reads, from: web, method: GET}]\n"
    )


def pod(service: str, command: list[str], image: str, **more: Any) -> dict[str, Any]:
    """A bare pod as its owner writes it: knows of no mesh."""
    container = {"name": "app", "image": image, "command": command}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": service, "namespace": NAMESPACE},
        "spec": {"serviceAccountName": service, "containers": [container], **more},
    }  # fmt: skip


def injected(pod: dict[str, Any], **annotations: str) -> dict[str, Any]:
    """The same with a sidecar, as `mesh inject` writes it."""
    result = inject(pod, {"mode": "explicit", "image": names.IMAGE, **annotations})
    assert not result.mistakes, result.mistakes
    return dict(result.pod)
