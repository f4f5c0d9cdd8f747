"""Pods in, pods out: what is added, what is kept, who is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.deploy import names
from sidecar.deploy.kube import pod as pods
from sidecar.deploy.kube.annotations import RECORD
from sidecar.deploy.kube.pod import Result, inject, uninject
from sidecar.deploy.kube.record import is_injected
from tests.kit.pods import a_container, a_pod


def injected(pod: dict[str, Any], **options: str) -> dict[str, Any]:
    result = inject(pod, options)
    assert result.outcome == "injected", [str(each) for each in result.mistakes]
    return result.pod


def init(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in pod["spec"]["initContainers"] if each["name"] == name)


def named(items: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in items]


def said(result: Result) -> list[str]:
    return [str(each) for each in result.mistakes]


def test_the_sidecar_is_native_and_comes_before_every_other_init_container():
    own = [a_container("migrate"), a_container("logs", restartPolicy="Always")]
    pod = injected(a_pod(initContainers=own))
    assert named(pod["spec"]["initContainers"]) == ["mesh-redirect", "mesh-sidecar", "migrate", "logs"]
    assert pod["spec"]["initContainers"][2:] == own
    assert init(pod, "mesh-sidecar")["restartPolicy"] == "Always"
    assert "restartPolicy" not in init(pod, "mesh-redirect")
    assert named(pod["spec"]["containers"]) == ["app"]
    assert is_injected(pod)


def test_least_privilege():
    pod = injected(a_pod())
    sidecar = init(pod, "mesh-sidecar")["securityContext"]
    assert sidecar == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
        "runAsGroup": 17000, "runAsNonRoot": True, "runAsUser": 17000, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    redirect = init(pod, "mesh-redirect")["securityContext"]
    assert redirect["capabilities"] == {"add": ["NET_ADMIN"], "drop": ["ALL"]}
    assert not redirect["allowPrivilegeEscalation"]
    assert redirect["readOnlyRootFilesystem"]


def test_the_token_is_for_our_ca_alone_and_state_is_memory():
    volumes = {each["name"]: each for each in injected(a_pod())["spec"]["volumes"]}
    (source,) = volumes["mesh-token"]["projected"]["sources"]
    assert source == {"serviceAccountToken": {"audience": "mesh-ca", "expirationSeconds": 3600, "path": "token"}}
    assert volumes["mesh-state"]["emptyDir"]["medium"] == volumes["mesh-run"]["emptyDir"]["medium"] == "Memory"
    assert volumes["mesh-config"]["configMap"] == {"name": "mesh-config"}
    assert volumes["mesh-enrolment"]["configMap"]["items"] == [{"key": "orders.json", "path": "enrolment.json"}]


def test_what_the_image_and_the_ca_agree_upon_is_where_it_is_mounted():
    sidecar = init(injected(a_pod()), "mesh-sidecar")
    places = [mount["mountPath"] for mount in sidecar["volumeMounts"]]
    for path in (names.CONFIG_PATH, names.ENROLMENT_PATH, names.TOKEN_PATH):
        assert path.rpartition("/")[0] in places
    assert {names.STATE_PATH, names.RUN_PATH} <= set(places)
    assert not [(a, b) for a in places for b in places if a != b and b.startswith(a + "/")]  # none inside another
    assert sidecar["args"] == [
        "run", "-f", names.CONFIG_PATH, "--service", "orders", "--enrolment", names.ENROLMENT_PATH,
    ]  # fmt: skip


def test_the_application_waits_for_a_ready_sidecar_and_nothing_delays_its_end():
    pod = injected(a_pod(terminationGracePeriodSeconds=7))
    sidecar = init(pod, "mesh-sidecar")
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/readyz", "port": 17090}
    assert sidecar["startupProbe"]["failureThreshold"] * sidecar["startupProbe"]["periodSeconds"] == 120
    assert "lifecycle" not in sidecar
    assert pod["spec"]["terminationGracePeriodSeconds"] == 7


@pytest.mark.parametrize(
    ("annotations", "look"),
    [
        ({"service": "billing"}, lambda sidecar, pod: "billing" in sidecar["args"]),
        ({"image": "r.example/mesh:9"}, lambda sidecar, pod: sidecar["image"] == "r.example/mesh:9"),
        ({"image-pull-policy": "Always"}, lambda sidecar, pod: sidecar["imagePullPolicy"] == "Always"),
        ({"cpu-request": "1"}, lambda sidecar, pod: sidecar["resources"]["requests"]["cpu"] == "1"),
        ({"cpu-limit": "2"}, lambda sidecar, pod: sidecar["resources"]["limits"]["cpu"] == "2"),
        ({"memory-request": "1Gi"}, lambda sidecar, pod: sidecar["resources"]["requests"]["memory"] == "1Gi"),
        ({"memory-limit": "1Gi"}, lambda sidecar, pod: sidecar["resources"]["limits"]["memory"] == "1Gi"),
        ({"health-port": "17190"}, lambda sidecar, pod: sidecar["livenessProbe"]["httpGet"]["port"] == 17190),
        ({"health-port": "17190"}, lambda sidecar, pod: "17190" in str(init(pod, "mesh-redirect")["args"])),
        ({"startup-seconds": "9"}, lambda sidecar, pod: sidecar["startupProbe"]["failureThreshold"] == 9),
        ({"state-size": "9Mi"}, lambda sidecar, pod: pod["spec"]["volumes"][3]["emptyDir"]["sizeLimit"] == "9Mi"),
        ({"config": "other"}, lambda sidecar, pod: pod["spec"]["volumes"][0]["configMap"]["name"] == "other"),
        ({"enrolment": "other"}, lambda sidecar, pod: pod["spec"]["volumes"][1]["configMap"]["name"] == "other"),
        ({"api-access": "true"}, lambda sidecar, pod: "serviceaccount" in sidecar["volumeMounts"][-1]["mountPath"]),
        ({"mode": "explicit"}, lambda sidecar, pod: named(pod["spec"]["initContainers"]) == ["mesh-sidecar"]),
        (
            {"mode": "explicit", "inbound-ports": "17500,17501"},
            lambda sidecar, pod: [each["containerPort"] for each in sidecar["ports"]] == [17500, 17501, 17090],
        ),
        (
            {"exclude-inbound-ports": "9100, 9101", "exclude-outbound-cidrs": "10.0.0.0/8"},
            lambda sidecar, pod: init(pod, "mesh-redirect")["args"][2:]
            == ["--exclude-inbound=9100,9101", "--exclude-cidr=10.0.0.0/8"],
        ),
    ],
)
def test_annotations_say_what_is_special(annotations, look):
    pod = injected(a_pod({f"sidecar.mesh/{name}": value for name, value in annotations.items()}))
    assert look(init(pod, "mesh-sidecar"), pod)


def test_options_are_written_on_the_pod_and_the_pod_has_the_last_word():
    pod = injected(a_pod(), mode="explicit", image="a:1")
    assert pod["metadata"]["annotations"] | {RECORD: ""} == {
        RECORD: "", "sidecar.mesh/mode": "explicit", "sidecar.mesh/image": "a:1",
    }  # fmt: skip
    pod = injected(a_pod({"sidecar.mesh/mode": "redirect"}), mode="explicit")
    assert named(pod["spec"]["initContainers"]) == ["mesh-redirect", "mesh-sidecar"]
    # without the option again, it is no more
    assert "sidecar.mesh/image" not in injected(injected(a_pod(), image="a:1"))["metadata"]["annotations"]


# ---- twice is once, and back again ----------------------------------------------------------------------------------

PROBED = a_pod(
    containers=[
        a_container(
            ports=[{"name": "http", "containerPort": 8080}],
            livenessProbe={"httpGet": {"path": "/a?b=c", "port": "http"}, "periodSeconds": 3},
            readinessProbe={"tcpSocket": {"port": 8080}},
            startupProbe={"exec": {"command": ["true"]}},
        )
    ],
    initContainers=[a_container("helper", restartPolicy="Always", startupProbe={"grpc": {"port": 9000}})],
    volumes=[{"name": "data", "emptyDir": {}}],
)


@pytest.mark.parametrize("pod", [a_pod(), a_pod({"a": "b"}), PROBED, {"spec": a_pod()["spec"]}])
@pytest.mark.parametrize("options", [{}, {"mode": "explicit"}, {"image": "x:1", "memory-limit": "1Gi"}])
def test_twice_is_once_and_back_again_is_the_beginning(pod, options):
    before = copy.deepcopy(pod)
    once = inject(pod, options)
    twice = inject(once.pod, options)
    assert pod == before  # what was given is not changed
    assert once.outcome == "injected"
    assert twice.outcome == "unchanged"
    assert json.dumps(twice.pod) == json.dumps(once.pod)
    assert uninject(once.pod).pod == before


def test_an_older_version_is_replaced_in_place(monkeypatch):
    monkeypatch.setattr(pods, "__version__", "0.0.9")
    monkeypatch.setattr("sidecar.deploy.kube.annotations.IMAGE", "mesh:0.0.9")
    old = injected(PROBED)
    monkeypatch.undo()
    result = inject(old)
    assert result.was == "0.0.9"
    assert result.pod == injected(PROBED)
    assert "0.0.9" not in json.dumps(result.pod)


def test_a_pod_that_wants_none_is_left_alone_and_loses_one_that_it_has():
    no = {"sidecar.mesh/inject": "false"}
    plain = a_pod(no)
    assert inject(plain) == Result(plain, "skipped")
    had = injected(a_pod())
    had["metadata"]["annotations"].update(no)
    result = inject(had)
    assert result.outcome == "uninjected"
    assert result.pod == plain


def test_who_must_not_have_one_may_say_so():
    assert inject(a_pod({"sidecar.mesh/inject": "false"}, hostNetwork=True)).outcome == "skipped"


# ---- who is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    (a_pod(hostNetwork=True), "spec.hostNetwork: the pod shares the network of its node"),
    (a_pod(os={"name": "windows"}), "spec.os.name: this pod is for Windows"),
    (a_pod(nodeSelector={"kubernetes.io/os": "windows"}), 'spec.nodeSelector["kubernetes.io/os"]: this pod is for'),
    (a_pod(securityContext={"windowsOptions": {"runAsUserName": "x"}}), "spec.securityContext.windowsOptions: this"),
    (a_pod(securityContext={"runAsUser": 17000}), "spec.securityContext.runAsUser: user 17000 is the sidecar's own"),
    (
        a_pod(containers=[a_container(), a_container("b", securityContext={"runAsUser": 17000})]),
        "spec.containers[1].securityContext.runAsUser: user 17000",
    ),
    (
        a_pod(initContainers=[a_container("b", securityContext={"runAsUser": 17000})]),
        "spec.initContainers[0].securityContext.runAsUser: user 17000",
    ),
    (
        a_pod(containers=[a_container(ports=[{"containerPort": 17090}])]),
        "spec.containers[0].ports[0].containerPort: the sidecar needs port 17090 for its health port",
    ),
    (a_pod(containers=[a_container(ports=[{"containerPort": 17006}])]), "needs port 17006 for what comes in"),
    (
        a_pod({"sidecar.mesh/mode": "explicit"}, containers=[a_container(ports=[{"containerPort": 17443}])]),
        "needs port 17443 for mTLS from peers",
    ),
    (a_pod(containers=[a_container("mesh-sidecar")]), "spec.containers[0].name: a container is named 'mesh-sidecar'"),
    (a_pod(containers=[a_container(), a_container("istio-proxy")]), "is the sidecar of another mesh"),
    (a_pod(initContainers=[a_container("mesh-redirect")]), "spec.initContainers[0].name: a container is named"),
    (a_pod(volumes=[{"name": "mesh-token", "emptyDir": {}}]), "spec.volumes[0].name: a volume is named 'mesh-token'"),
    (a_pod(serviceAccountName=None), "spec: the pod names no service account"),
    (a_pod(serviceAccountName="default"), "spec: the pod names no service account"),
    (a_pod(containers=[]), "spec: there are no containers"),
    ({"metadata": {}}, "there are no containers"),
    (a_pod(containers=["app"]), "spec.containers[0]: this is not a mapping; kubectl explain pod"),
    (a_pod(volumes="all"), "spec.volumes: this is not a list"),
    (a_pod(containers=[a_container(), a_container()]), "spec.containers[1].name: another container is named 'app' too"),
    (a_pod(containers=[{"image": "x"}]), "spec.containers[0]: this has no name"),
    ({"metadata": [], "spec": a_pod()["spec"]}, "metadata: this is not a mapping"),
    (a_pod({"sidecar.mesh/inject": "nope"}), 'metadata.annotations["sidecar.mesh/inject"]: \'nope\' is none of'),
    (a_pod({"sidecar.mesh/inject": False}), 'False is not text; Kubernetes takes only text here: write "false"'),
    (a_pod({"sidecar.mesh/mode": "expliict"}), 'did you mean "explicit"?'),
    (a_pod({"sidecar.mesh/health-port": "0"}), "'0' is not a port"),
    (a_pod({"sidecar.mesh/exclude-outbound-cidrs": "10.0.0.1/8"}), "has '10.0.0.1/8', which is not a network"),
    (a_pod({"sidecar.mesh/exclude-outbound-cidrs": "::/0"}), "'::/0' is everything, so nothing that goes out"),
    (a_pod({"sidecar.mesh/exclude-inbound-ports": "80,17006"}), "17006 is where captured connections go"),
    (a_pod({"sidecar.mesh/memory-limit": "lots"}), "'lots' is not an amount of memory"),
    (a_pod({RECORD: "mine"}), "this is not what `mesh inject` writes"),
    (a_pod({RECORD: '{"version":"1","containers":["app"]}'}), "this is not what `mesh inject` writes"),
    (a_pod({RECORD: '{"version":"1","volumes":["data"]}'}), "this is not what `mesh inject` writes"),
    (
        a_pod(containers=[a_container(livenessProbe={"httpGet": {"port": "web"}})]),
        "spec.containers[0].livenessProbe.httpGet.port: no port of container 'app' is named 'web'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "what"), REFUSED)
def test_a_pod_that_cannot_have_a_sidecar_is_refused_with_the_place_and_left_as_it_was(pod, what):
    before = copy.deepcopy(pod)
    result = inject(pod)
    assert result.outcome == "refused"
    assert any(what in each for each in said(result)), said(result)
    assert result.pod == pod == before


def test_every_mistake_at_once():
    user, volumes = {"runAsUser": 17000}, [{"name": "mesh-run"}]
    pod = a_pod({"sidecar.mesh/mode": "x"}, hostNetwork=True, securityContext=user, volumes=volumes)
    assert len(said(inject(pod))) == 4


@pytest.mark.parametrize(
    ("pod", "what"),
    [
        (a_pod({"sidecar.mesh/memroy-limit": "1Gi"}), 'did you mean "sidecar.mesh/memory-limit"?'),
        (a_pod({"sidecar.mesh/frobnicate": "1Gi"}), "docs/annotations.md has them all"),
        (a_pod(containers=[a_container(securityContext={"privileged": True})]), "a privileged container can take"),
        (
            a_pod(containers=[a_container(securityContext={"capabilities": {"add": ["NET_ADMIN"]}})]),
            "a container with this capability can take the redirect rules away",
        ),
        (
            a_pod(containers=[a_container(lifecycle={"preStop": {"httpGet": {"port": 80}}})]),
            "the kubelet calls this hook from outside the mesh",
        ),
        (
            a_pod({"sidecar.mesh/service": "orders"}, serviceAccountName=None),
            "the service account `default` proves nothing",
        ),
    ],
)
def test_what_is_odd_is_a_warning(pod, what):
    result = inject(pod)
    assert result.outcome == "injected"
    assert what in str(result.warnings)


def test_uninject_of_a_plain_pod_changes_nothing_and_of_a_lost_record_says_so():
    assert uninject(a_pod()).outcome == "unchanged"
    lost = injected(a_pod())
    del lost["metadata"]["annotations"]
    assert "take it out by hand" in said(uninject(lost))[0]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "containers", "initContainers", "volumes", "securityContext", "nodeSelector", "os", "serviceAccountName",
    "hostNetwork",
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(KEYS), anything),
    st.dictionaries(st.sampled_from(["ports", "livenessProbe", "securityContext", "lifecycle", "name"]), anything),
    anything,
)
def test_whatever_it_is_it_is_injected_or_refused_and_never_a_traceback(spec, container, metadata):
    spec = {**a_pod()["spec"], **spec}
    if isinstance(spec["containers"], list):
        spec["containers"] = [*spec["containers"], {**a_container("b"), **container}]
    result = inject({"metadata": metadata, "spec": spec})
    if result.outcome == "injected":
        assert inject(result.pod).outcome == "unchanged"
        assert uninject(result.pod).pod["spec"]["containers"] == spec["containers"]
