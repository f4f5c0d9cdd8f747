"""The pods that `mesh inject` writes, run by podman: two services that know of no mesh talk mTLS."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import ports
from sidecar.deploy.names import CONTAINER, INIT_CONTAINER, PROXY_UID
from tests.kit.containers import BASE, Podman
from tests.kit.kube_pod import for_podman, play_file, volume_folders
from tests.kit.pod_world import APP_PORT, CALL_PORT, Authority, captured_config, config, injected, pod
from tests.kit.processes import eventually, listens
from tests.kit.tools import need

CA = "10.77.0.1"  # an address of the engine's own machine, which pods reach by their gateway
ECHO = Path(__file__).parents[2] / "kit" / "echo_app.py"
APP = ["python3", "-c", ECHO.read_text(), str(APP_PORT)]
EVERYWHERE = ["python3", "-c", ECHO.read_text().replace("127.0.0.1", "0.0.0.0"), str(APP_PORT)]  # as most are
ASK = """
import json, sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[2], method=sys.argv[1], data=b"x" if sys.argv[1] == "POST" else None)
try:
    with urllib.request.urlopen(request, timeout=10) as got: print(json.dumps([got.status, got.read().decode()]))
except urllib.error.HTTPError as error: print(json.dumps([error.code, error.read().decode()]))
except OSError as error: print(json.dumps([0, repr(error)]))
"""


class Pods:
    """web and orders, each a pod of podman's, and the CA beside them; injected with `mode`."""

    mode = "explicit"

    def __init__(self, podman: Podman, folder: Path) -> None:
        self.podman = podman
        self.folder = folder
        podman.mesh_image()
        podman.base_image()
        cell = podman.cell
        cell.run(need("ip"), "address", "replace", f"{CA}/32", "dev", "lo")
        self.authority = Authority(folder, f"{CA}:{ports.CA}", "web", "orders")
        self.ca = self.authority.start(cell.command(self.authority.serve_command()))

    def start(self) -> None:
        """Play both, and wait until their sidecars are ready."""
        self._play("orders", APP, config("127.0.0.1", f"{CA}:{ports.CA}"))
        # Podman waits 20 s too long for each init container (it holds the lock that the clean-up needs): one must do.
        migrate = {"name": "migrate", "image": f"localhost/{BASE}", "command": ["true"]}
        text = config(self.address("orders"), f"{CA}:{ports.CA}")
        self._play("web", ["sleep", "infinity"], text, initContainers=[migrate])
        for service in ("orders", "web"):
            self._until_ready(service)

    def _play(self, service: str, command: list[str], text: str, **more: Any) -> None:
        ready = injected(pod(service, command, f"localhost/{BASE}", **more), mode=self.mode)
        enrolment = self.authority.enrolment(service)
        folders = volume_folders(self.folder / service, ready, text, enrolment)
        path = play_file(self.folder, for_podman(ready, folders))
        self.podman("play", "kube", "--log-driver", "k8s-file", str(path))

    def address(self, service: str) -> str:
        """The pod's own address."""
        infra = self.podman("pod", "inspect", service, "--format", "{{.InfraContainerID}}")
        networks = self.podman.inspect(infra)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def _until_ready(self, service: str) -> None:
        name = f"{service}-{CONTAINER}"
        asked = ("exec", name, "mesh", "status", "--ready")
        try:
            eventually(f"{name} is ready", lambda: self.podman.run(*asked).returncode == 0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.podman.logs(name)}\n{self.ca.tail()}") from None

    def ask(self, method: str, url: str) -> tuple[int, str]:
        """What web's application gets."""
        status, text = json.loads(self.podman("exec", "web-app", "python3", "-c", ASK, method, url))
        return status, text

    def close(self) -> None:
        self.podman("pod", "rm", "-f", "-t", "0", "-a", check=False)
        self.ca.stop()


class CapturedPods(Pods):
    """The same with rules of the kernel; orders listens on every address, and both know nothing of the mesh."""

    mode = "redirect"

    def start(self) -> None:
        """Play both, and wait until their sidecars are ready."""
        self._play("orders", EVERYWHERE, captured_config("127.0.0.1", f"{CA}:{ports.CA}"))
        self._play("web", ["sleep", "infinity"], captured_config(self.address("orders"), f"{CA}:{ports.CA}"))
        for service in ("orders", "web"):
            self._until_ready(service)


@pytest.fixture(scope="module")
def pods(request: pytest.FixtureRequest, podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    made: Pods = request.param(podman, tmp_path_factory.mktemp("pods"))
    try:
        made.start()
        yield made
    finally:
        made.close()


EXPLICIT = pytest.mark.parametrize("pods", [Pods], indirect=True, ids=["explicit"])
CAPTURED = pytest.mark.parametrize("pods", [CapturedPods], indirect=True, ids=["redirect"])


@EXPLICIT
def test_applications_talk_by_their_sidecars_and_only_as_the_rules_say(pods: Pods) -> None:
    status, text = pods.ask("GET", f"http://127.0.0.1:{CALL_PORT}/hello")
    assert status == 200, text + pods.podman.logs(f"web-{CONTAINER}") + pods.podman.logs(f"orders-{CONTAINER}")
    assert json.loads(text)["target"] == "/hello"
    assert pods.ask("POST", f"http://127.0.0.1:{CALL_PORT}/hello")[0] == 403
    identity = json.loads(pods.podman("exec", f"orders-{CONTAINER}", "mesh", "status", "-o", "json"))
    assert identity["services"][0]["identity"]["spiffe_id"] == "spiffe://demo.mesh/ns/default/sa/orders"


@EXPLICIT
def test_nobody_gets_past_the_sidecar(pods: Pods) -> None:
    address = pods.address("orders")
    assert not pods.podman.within(listens, APP_PORT, address)
    assert pods.ask("GET", f"http://{address}:{APP_PORT}/")[0] == 0
    assert pods.podman.within(listens, ports.INBOUND, address)
    assert pods.ask("GET", f"http://{address}:{ports.INBOUND}/")[0] in (0, 400), "plain HTTP to the port of mTLS"


@EXPLICIT
def test_the_rights_are_in_force_and_not_only_written_down(pods: Pods) -> None:
    name = f"orders-{CONTAINER}"
    found = pods.podman("exec", name, "cat", "/proc/1/status")
    told = dict(line.split(":\t", 1) for line in found.splitlines() if ":\t" in line)
    assert told["Uid"].split() == [str(PROXY_UID)] * 4
    assert {told[key].strip("0") for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert told["NoNewPrivs"] == "1"
    assert told["Seccomp"] == "2"  # a filter is in force (seccomp(2))
    assert pods.podman.run("exec", name, "touch", "/opt/mesh/here").returncode != 0


@CAPTURED
def test_with_rules_of_the_kernel_no_application_knows_of_the_mesh_and_none_is_reached_past_it(
    pods: Pods,
) -> None:
    """The step that is allowed NET_ADMIN has installed them, and ended; the sidecar itself has no rights."""
    podman, orders = pods.podman, pods.address("orders")
    assert podman.state(f"orders-{INIT_CONTAINER}")["ExitCode"] == 0
    listening = podman("exec", "orders-app", "python3", "-c", "print(open('/proc/net/tcp').read())")
    assert f"00000000:{APP_PORT:04X}" in listening, "it listens on every address"

    status, text = pods.ask("GET", f"http://{orders}:{APP_PORT}/hello")
    assert status == 200, text + podman.logs(f"web-{CONTAINER}") + podman.logs(f"orders-{CONTAINER}")
    assert pods.ask("POST", f"http://{orders}:{APP_PORT}/hello")[0] == 403
    eventually("both sidecars have written of both", lambda: len(hops(podman, "orders") + hops(podman, "web")) == 4)
    calls = hops(podman, "orders")
    assert [(each["method"], each["status"], each["client.id"]) for each in calls] == [
        ("GET", 200, "spiffe://demo.mesh/ns/default/sa/web"), ("POST", 403, "spiffe://demo.mesh/ns/default/sa/web"),
    ]  # fmt: skip
    assert all(each["tls.version"] == "TLSv1.3" for each in calls)
    assert {each["server.id"] for each in hops(podman, "web")} == {"spiffe://demo.mesh/ns/default/sa/orders"}

    assert podman.within(plain_answer, orders, APP_PORT) == b"", "a neighbour without identity gets nothing"
    assert not podman.within(listens, ports.CAPTURE_IN, orders), "nor by the door of the rules"
    assert not podman.within(listens, ports.CAPTURE_OUT, orders)
    assert pods.ask("GET", f"http://{CA}:{ports.CA}/")[0] in (0, 403), "web goes nowhere but to its upstreams"
    told = podman("exec", f"orders-{CONTAINER}", "cat", "/proc/1/status")
    assert "CapBnd:\t0000000000000000" in told


def hops(podman: Podman, service: str) -> list[dict[str, Any]]:
    """The access log of a service's sidecar."""
    lines = podman.logs(f"{service}-{CONTAINER}").splitlines()
    return [json.loads(line) for line in lines if '"direction":' in line]


def plain_answer(host: str, port: int) -> bytes:
    """What a neighbour gets who asks in plaintext."""
    try:
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(4096), b""))
    except ConnectionResetError:
        return b""
