"""The manifests: what they promise, which names and ports they agree upon, and that Kubernetes' schemas take them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from sidecar.cli.root import run_command
from sidecar.config import ports
from sidecar.config.load import load_config
from sidecar.config.schema import Service
from sidecar.deploy import names
from sidecar.deploy.cluster.escaped import LABEL, labelled
from sidecar.deploy.cluster.install import MANIFESTS, NAMESPACE, OVERLAYS, TRUST_DOMAIN, BadInstall, Install
from sidecar.deploy.cluster.kustomize import Document, containers, identity, pod_spec, render

ROOT = Path(__file__).parents[4]
EXAMPLES = ("shop", "shop-restricted")
SETS = {**{name: MANIFESTS / "overlays" / name for name in OVERLAYS}, "base": MANIFESTS / "base"} | {
    name: MANIFESTS / "examples" / name for name in EXAMPLES
}


def everything() -> Iterator[tuple[str, Document]]:
    for name, folder in SETS.items():
        for document in render(folder):
            yield name, document


ALL = list(everything())
WORKLOADS = [(where, document) for where, document in ALL if pod_spec(document) is not None]


def one(kind: str, name: str, where: str = "base") -> Document:
    (found,) = [each for place, each in ALL if place == where and identity(each)[::2] == (kind, name)]
    return found


# ---- schemas ---------------------------------------------------------------------------------------------------------


def test_kubernetes_own_schemas_take_every_object_in_the_last_four_minor_versions() -> None:
    versions = sorted({version.rpartition(".")[0] for version in all_versions()}, key=lambda text: int(text[2:]))[-4:]
    assert len(versions) == 4
    with pytest.raises(kubernetes_validate.ValidationError):  # strict: an unknown key is a mistake
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "spce": {}}, versions[-1], strict=True)
    seen = {json.dumps(document): document for _, document in ALL}
    for document in seen.values():
        if not document["apiVersion"].startswith("monitoring.coreos.com/"):  # no part of Kubernetes
            for version in versions:
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("where", SETS)
def test_kubectl_makes_the_same_of_them(where: str) -> None:
    """Where there is a kubectl that is new enough; Debian's is not, so this is never demanded."""
    kubectl = shutil.which("kubectl")
    folder = ROOT / "deploy" / "k8s" / SETS[where].relative_to(MANIFESTS)
    found = subprocess.run([kubectl or "false", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if found.returncode and (kubectl is None or "invalid Kustomization" in found.stderr or "unknown" in found.stderr):
        pytest.skip("no kubectl with kustomize 5 is installed")
    assert not found.returncode, found.stderr
    theirs = {identity(each): each for each in yaml.safe_load_all(found.stdout)}
    assert theirs == {identity(each): each for each in render(SETS[where])}


def test_what_stands_under_deploy_is_what_travels_with_us() -> None:
    deploy = ROOT / "deploy" / "k8s"
    for name in ("base", "overlays", "monitoring", "examples"):
        assert (deploy / name).resolve() == (MANIFESTS / name).resolve()


# ---- mesh install ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_mesh_install_prints_the_folder(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["install", "--dry-run", "--overlay", overlay]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    folder = {identity(each): each for each in render(SETS[overlay])}
    assert {identity(each): each for each in printed} == folder
    assert len(printed) == len(folder)
    assert printed[0]["kind"] == "Namespace"
    assert printed[-1]["kind"] == "MutatingWebhookConfiguration"
    assert run_command(["install", "--dry-run", "--overlay", overlay, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == printed


def test_what_an_operator_chooses_is_everywhere() -> None:
    chosen = Install("production", "trust-me", "registry.example:5000/mesh@sha256:00", "prod.example")
    text = json.dumps(chosen.documents())
    for gone in (NAMESPACE, TRUST_DOMAIN, names.IMAGE):
        assert gone not in text
    assert "mesh-ca.trust-me.svc:17012" in text
    assert "--image=registry.example:5000/mesh@sha256:00" in text
    images = {each["image"] for document in chosen.documents() for each in containers(document)}
    assert images == {"registry.example:5000/mesh@sha256:00"}
    assert not [each for each in Install("production", monitors=False).documents() if "Monitor" in each["kind"]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": "kube-system"}, {"namespace": "Mesh"}, {"namespace": "-x"}, {"namespace": "a" * 64},
        {"image": "a b"}, {"image": ""}, {"image": "-x"}, {"trust_domain": "Prod!"}, {"overlay": "staging"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadInstall):
        Install(**wrong).documents()


def test_nothing_is_done_without_saying_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["install", "--overlay", "dev", "--namespace", "m"]) == 2
    said = capsys.readouterr().err
    assert "nothing was done" in said
    assert "mesh install --dry-run --overlay dev --namespace m | kubectl apply -f -" in said
    assert run_command(["install", "--uninstall"]) == 2
    assert "mesh install --dry-run --uninstall | kubectl delete --ignore-not-found -f -" in capsys.readouterr().err
    assert run_command(["install", "--purge", "--dry-run"]) == 2
    assert run_command(["install", "--dry-run", "--namespace", "default"]) == 2


def test_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The webhook goes first, or pods could not start while the injector is gone; the CA's keys stay."""
    assert run_command(["install", "--uninstall", "--dry-run"]) == 0
    out = list(yaml.safe_load_all(capsys.readouterr().out))
    assert out[0]["kind"] == "MutatingWebhookConfiguration"
    assert "Namespace" not in {each["kind"] for each in out}
    assert run_command(["install", "--uninstall", "--purge", "--dry-run"]) == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out))[-1]["kind"] == "Namespace"
    claim = one("StatefulSet", "mesh-ca")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert claim == {"whenDeleted": "Retain", "whenScaled": "Retain"}


# ---- what every container keeps to -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "document"), [pytest.param(*each, id=f"{each[0]}-{identity(each[1])[2]}") for each in WORKLOADS]
)
def test_every_container_is_confined_bounded_and_probed(where: str, document: Document) -> None:
    spec = pod_spec(document)
    assert spec is not None
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0
    assert (pod["runAsUser"] == names.PROXY_UID) is (where not in EXAMPLES)  # nobody else runs as the proxy's user
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["serviceAccountName"] != "default"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume]
    for container in containers(document):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert ":" in container["image"]
        assert not container["image"].endswith(":latest")
    for container in spec["containers"]:
        assert "livenessProbe" in container
        if container.get("ports"):
            assert "readinessProbe" in container


def test_every_workload_of_more_than_one_has_a_budget_and_a_drain_is_never_blocked() -> None:
    for where in SETS:
        documents = [each for place, each in ALL if place == where]
        budgets = [each["spec"] for each in documents if each["kind"] == "PodDisruptionBudget"]
        for document in documents:
            if document["kind"] in ("Deployment", "StatefulSet") and document["spec"]["replicas"] > 1:
                assert document["spec"]["selector"] in [each["selector"] for each in budgets]
        assert all(each["maxUnavailable"] == 1 for each in budgets)


# ---- names and ports -------------------------------------------------------------------------------------------------


def arguments(document: Document, name: str) -> list[str]:
    (found,) = [each["args"] for each in containers(document) if each["name"] == name]
    assert isinstance(found, list)
    return found


def test_names_and_ports_are_those_of_the_code() -> None:
    ca, injector = one("StatefulSet", "mesh-ca"), one("Deployment", "mesh-injector")
    for document in (ca, injector):
        assert {each["image"] for each in containers(document)} == {names.IMAGE}
        pod = document["spec"]["template"]["spec"]["securityContext"]
        assert pod["runAsUser"] == names.PROXY_UID
        assert pod["runAsGroup"] == pod["fsGroup"] == names.PROXY_GID
    assert f"--listen=0.0.0.0:{ports.CA}" in arguments(ca, "ca")
    assert f"--address=mesh-ca.{NAMESPACE}.svc:{ports.CA}" in arguments(ca, "init")
    assert "--keep" in arguments(ca, "init")
    assert f"--audience={names.TOKEN_AUDIENCE}" in arguments(ca, "cluster")
    said = arguments(injector, "injector")
    for wanted in (
        f"--port={ports.INJECTOR}", f"--health-port={ports.HEALTH}", f"--enrolment={names.ENROLMENT_PATH}",
        f"--image={names.IMAGE}", f"--state={names.STATE_PATH}/injector",
    ):  # fmt: skip
        assert wanted in said
    mounts = {each["name"]: each["mountPath"] for each in containers(injector)[0]["volumeMounts"]}
    assert mounts["enrolment"] == str(Path(names.ENROLMENT_PATH).parent)
    assert mounts["token"] == str(Path(names.TOKEN_PATH).parent)
    assert mounts["state"] == names.STATE_PATH
    (token,) = [each for each in injector["spec"]["template"]["spec"]["volumes"] if each["name"] == "token"]
    assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == names.TOKEN_AUDIENCE
    assert one("Service", "mesh-ca")["spec"]["ports"][0]["port"] == ports.CA
    monitor = one("PodMonitor", "mesh-sidecars", "production")["spec"]["podMetricsEndpoints"][0]
    assert monitor["portNumber"] == ports.HEALTH
    assert monitor["relabelings"][0]["regex"] == names.CONTAINER
    named = {each["name"]: each["containerPort"] for each in containers(injector)[0]["ports"]}
    monitor = one("PodMonitor", "mesh-injector", "production")["spec"]["podMetricsEndpoints"][0]
    assert named[monitor["port"]] == ports.HEALTH
    assert one("ConfigMap", "mesh-settings")["data"]["trust-domain"] == TRUST_DOMAIN


def test_ports_that_have_a_name_are_named_and_services_lead_to_them() -> None:
    for where, service in ALL:
        if service["kind"] != "Service":
            continue
        (target,) = [
            document for place, document in WORKLOADS
            if place == where and document["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
        ]  # fmt: skip
        named = {port["name"] for container in containers(target) for port in container.get("ports", ())}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in named or port["targetPort"] == ports.INBOUND  # the injected sidecar's


def test_the_webhook() -> None:
    (hook,) = one("MutatingWebhookConfiguration", "mesh-injector")["webhooks"]
    assert hook["failurePolicy"] == "Fail"
    assert hook["sideEffects"] == "None"
    assert hook["matchPolicy"] == "Equivalent"
    assert hook["reinvocationPolicy"] == "IfNeeded"
    assert 1 <= hook["timeoutSeconds"] <= 10
    service = hook["clientConfig"]["service"]
    assert service == {"name": "mesh-injector", "namespace": NAMESPACE, "path": "/inject", "port": 443}
    assert "caBundle" not in hook["clientConfig"]  # the injector's; to apply this again must not take it away
    label, never = hook["namespaceSelector"]["matchExpressions"]
    assert label == {"key": LABEL, "operator": "In", "values": ["enabled"]}
    assert NAMESPACE in never["values"]  # or CA and injector would wait for themselves
    assert hook["objectSelector"] == {}  # no pod can take itself out of sight
    assert [rule["resources"] for rule in hook["rules"]] == [["pods"]]
    arguments(one("Deployment", "mesh-injector"), "injector").index("--configuration=mesh-injector")


def test_rights_are_these_and_no_more() -> None:
    rules = {identity(each)[2]: each["rules"] for _, each in ALL if each["kind"] in ("ClusterRole", "Role")}
    assert rules == {
        "mesh-ca-tokenreviews": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
        ],
        "mesh-injector-webhook": [
            {
                "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
                "resourceNames": ["mesh-injector"], "verbs": ["get", "patch"],
            }
        ],
    }  # fmt: skip
    reader = next(yaml.safe_load_all((ROOT / "deploy/k8s/endpointslices.yaml").read_text()))["rules"]
    assert reader == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]


def test_every_namespace_says_its_standard_and_denies_by_default() -> None:
    standards = {}
    for where, document in ALL:
        if document["kind"] == "Namespace":
            standards[identity(document)[2]] = document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
            assert labelled(document) is (where in EXAMPLES)
            deny = one("NetworkPolicy", "default-deny", where)
            assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
            assert deny["metadata"]["namespace"] == identity(document)[2]
    assert standards == {NAMESPACE: "restricted", "shop": "privileged", "shop-restricted": "restricted"}


def admitted(where: str) -> set[int]:
    return {
        port["port"]
        for place, document in ALL
        if place == where and document["kind"] == "NetworkPolicy"
        for rule in document["spec"].get("ingress", ())
        for port in rule["ports"]
    }


def test_network_policies_admit_the_ports_that_are_served() -> None:
    assert admitted("base") == {ports.CA, ports.INJECTOR, ports.HEALTH}
    assert admitted("shop") == {8080, ports.HEALTH}  # redirected: callers dial the application's own
    assert admitted("shop-restricted") == {ports.INBOUND, ports.HEALTH}  # the application's own is not reached


@pytest.mark.parametrize(("where", "name"), [(where, name) for where in EXAMPLES for name in ("orders", "web")])
def test_the_examples_policies_are_good(where: str, name: str, tmp_path: Path) -> None:
    pod = one("Deployment", name, where)["spec"]["template"]
    annotations = pod["metadata"]["annotations"]
    data: dict[str, Any] = one("ConfigMap", annotations[f"{names.PREFIX}/config"], where)["data"]
    for file, text in data.items():
        (tmp_path / file).write_text(text)
    explicit = annotations.get(f"{names.PREFIX}/mode") == "explicit"
    assert ("redirect:" in "".join(data.values())) is not explicit
    if not explicit and "redirect" not in Service.__dataclass_fields__:
        pytest.skip("this tree has no redirection yet")
    config = load_config(str(tmp_path / "mesh.yaml"), 0.0)
    assert config.trust_domain.name == TRUST_DOMAIN
    assert set(config.services) == {pod["spec"]["serviceAccountName"]}  # a pod is the service that its account names
    assert config.services[name].identity.path == f"/ns/{where}/sa/{name}"
