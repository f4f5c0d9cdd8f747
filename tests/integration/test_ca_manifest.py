"""The CA's StatefulSet without a cluster: its containers' commands, word for word, on a volume as a pod has it."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trustme

from sidecar.config import ports
from sidecar.deploy.cluster.install import Install
from sidecar.deploy.cluster.kustomize import containers
from tests.kit.free_ports import free_base
from tests.kit.processes import eventually

TRUST_DOMAIN = "prod.example"


class Pod:
    """Where the volumes of the CA's pod are, and the commands of its containers for there."""

    def __init__(self, folder: Path) -> None:
        self.port = free_base()
        self.folders = {
            "/var/lib/mesh-ca": folder / "volume", "/etc/mesh-ca": folder / "secret",
            "/var/run/secrets/mesh-ca": folder / "api",
        }  # fmt: skip
        for place in self.folders.values():
            place.mkdir()
        # As the kubelet leaves them with fsGroup: the group may write the volume, and owns what is made there.
        self.folders["/var/lib/mesh-ca"].chmod(0o2775)
        for name, text in (
            ("secret/passphrase", "correct horse battery\n"), ("api/token", "t"),
            ("api/ca.crt", trustme.CA().cert_pem.bytes().decode()),
        ):  # fmt: skip
            (folder / name).write_text(text)
            (folder / name).chmod(0o440)
        (statefulset,) = [
            each for each in Install(trust_domain=TRUST_DOMAIN).documents() if each["kind"] == "StatefulSet"
        ]
        self.args = {each["name"]: each["args"] for each in containers(statefulset)}

    def command(self, name: str) -> list[str]:
        words = []
        for word in self.args[name]:
            for inside, outside in self.folders.items():
                word = word.replace(inside, str(outside))
            word = word.replace("$(MESH_TRUST_DOMAIN)", TRUST_DOMAIN).replace("$(MESH_CLUSTER)", "kubernetes")
            words.append(word.replace(f"0.0.0.0:{ports.CA}", f"127.0.0.1:{self.port}"))
        return [sys.executable, "-P", "-m", "sidecar.cli", *words]

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(name), capture_output=True, text=True, timeout=60, check=False)

    def in_the_pod(self, *words: str) -> str:
        """`kubectl exec mesh-ca-0 -- mesh …`."""
        env = {**os.environ, "MESH_STATE_DIR": str(self.folders["/var/lib/mesh-ca"])}
        command = [sys.executable, "-P", "-m", "sidecar.cli", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answers(self, path: str) -> bool:
        """What the kubelet's probes ask: HTTPS, whatever the certificate."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{self.port}{path}", context=context, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.mark.integration
def test_the_containers_of_the_ca_start_on_an_empty_volume_and_again_on_a_full_one(tmp_path: Path) -> None:
    pod = Pod(tmp_path)
    roots = set()
    for _ in range(2):  # the pod, and the pod that takes its place
        for name in ("init", "cluster"):
            done = pod.run(name)
            assert done.returncode == 0, done.stderr
            assert not done.stderr
        with subprocess.Popen(pod.command("ca"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
            try:
                eventually("the startup probe passes", lambda: pod.answers("/v1/time"))
                assert pod.answers("/v1/health")
                selectors = ["--selector=k8s:cluster:kubernetes", "--selector=k8s:ns:shop", "--selector=k8s:sa:web"]
                if not roots:
                    pod.in_the_pod("ca", "entry", "add", "shop/web", *selectors)
                enrolment = pod.in_the_pod("ca", "enrolment", "shop/web", "--kubernetes")
                roots.add(enrolment)
            finally:
                server.terminate()
                assert server.wait(20) == 0
    (written,) = roots  # the same CA
    assert '"mesh-ca.mesh-system.svc:17012"' in written
    assert '"spiffe://prod.example/ns/shop/sa/web"' in written


@pytest.mark.integration
def test_another_trust_domain_on_the_same_volume_is_refused(tmp_path: Path) -> None:
    pod = Pod(tmp_path)
    assert pod.run("init").returncode == 0
    pod.args["init"] = [word.replace("$(MESH_TRUST_DOMAIN)", "other.example") for word in pod.args["init"]]
    again = pod.run("init")
    assert again.returncode == 1
    assert "holds the CA of prod.example, not of other.example" in again.stderr
