"""A real sidecar, told by `MESH_POD` what the injector says of its pod: the health port, the application behind it."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import pytest

from sidecar.deploy.kube.pod import inject
from tests.kit.fleet import Fleet
from tests.kit.free_ports import Ports, free_port
from tests.kit.pods import a_container, a_pod

pytestmark = pytest.mark.integration


def get(address: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_injectors_words_are_the_sidecars(tmp_path: Path) -> None:
    health, app = free_port(), free_port()
    probes = {"livenessProbe": {"tcpSocket": {"port": app}}, "readinessProbe": {"httpGet": {"port": app, "path": "/x"}}}
    pod = inject(a_pod({"sidecar.mesh/health-port": str(health)}, containers=[a_container(**probes)])).pod
    env = {each["name"]: each["value"] for each in pod["spec"]["initContainers"][1]["env"]}
    services = "services: {web: {health: {listen: off}}}"  # in a pod there is one all the same
    text = f"trust_domain: demo.mesh\nca: {{address: '127.0.0.1:{Ports().ca}'}}\n{services}\n"
    with Fleet(tmp_path, text) as mesh:
        sidecar = mesh["web"]
        sidecar.start(env={"MESH_POD": env["MESH_POD"]}, ready=False)
        sidecar.process.until("alive", lambda: sidecar.state_word() == "starting")
        assert get("127.0.0.1", health, "/livez") == (200, "ok\n")
        assert get("127.0.0.1", health, "/readyz")[0] == 503  # the startup probe holds the application back
        mesh.start_ca()
        sidecar.wait_ready()
        for address in ("127.0.0.1", "127.0.0.2", "::1"):  # every address, both families
            assert get(address, health, "/readyz") == (200, "ready\n")
        assert get("127.0.0.1", health, "/app-health/app/livez")[0] == 503
        with socket.create_server(("127.0.0.1", app)):
            assert get("127.0.0.1", health, "/app-health/app/livez") == (200, "ok\n")
            assert "no answer within 1 s" in get("127.0.0.1", health, "/app-health/app/readyz")[1]
        assert "mesh_ready 1" in get("127.0.0.1", health, "/metrics")[1]


def test_nonsense_is_refused_at_the_start(tmp_path: Path) -> None:
    text = f"trust_domain: demo.mesh\nca: {{address: '127.0.0.1:{Ports().ca}'}}\nservices: {{web: {{}}}}\n"
    with Fleet(tmp_path, text) as mesh:
        process = mesh["web"].start(env={"MESH_POD": json.dumps({"health": {}})}, ready=False).process
        assert process.wait() == 1
        assert "MESH_POD is not what `mesh inject` writes" in process.text()
