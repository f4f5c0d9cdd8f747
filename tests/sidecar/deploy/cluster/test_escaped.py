"""Pods that escaped injection: tables of pods, and whatever else may come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.deploy.cluster.escaped import WORDS, escapes, look, namespaces_to_look_at, small
from sidecar.deploy.names import CONTAINER, IMAGE, INIT_CONTAINER, PROXY_UID

OURS = [{"name": INIT_CONTAINER, "image": IMAGE}, {"name": CONTAINER, "image": IMAGE, "restartPolicy": "Always"}]
OTHER_USER = {"name": "app", "securityContext": {"runAsUser": 7}}
APP = {"name": "app", "image": "app:1"}


def a_pod(init: Any = OURS, containers: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    meta = {"name": "orders-1", "namespace": "shop", "annotations": more.pop("annotations", {})}
    meta |= {key: more.pop(key) for key in ("labels", "ownerReferences") if key in more}
    spec = {"initContainers": init, "containers": containers or [APP], **more}
    return {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Running"}}


OLD = [OURS[0], {"name": CONTAINER, "image": "mesh:0.0.9"}]
RECORD = {"sidecar.mesh/injected": json.dumps({"version": "0.0.9"})}


@pytest.mark.parametrize(
    ("pod", "whys", "words"),
    [
        (a_pod(), [], ""),
        (a_pod([], [OURS[1], APP], annotations={"sidecar.mesh/mode": "explicit"}), [], ""),  # as in podman kube play
        (a_pod([]), ["no-sidecar"], "no container mesh-sidecar"),
        (a_pod([], hostNetwork=True), ["host-network"], "hostNetwork"),
        (a_pod([], os={"name": "windows"}), ["windows"], "os.name"),
        (a_pod([], annotations={"kubernetes.io/config.mirror": "x"}), ["static"], "config.mirror"),
        (a_pod([], annotations={"sidecar.mesh/inject": "false"}), ["opted-out"], '"false"'),
        (a_pod([OURS[1]]), ["no-rules"], "mesh-redirect"),
        (a_pod([OURS[1]], annotations={"sidecar.mesh/mode": "explicit"}), [], ""),
        (a_pod(OLD), ["old-version"], "mesh:0.0.9"),
        (a_pod(OLD, annotations=RECORD), ["old-version"], "injected by 0.0.9"),
        (a_pod(OLD, annotations={"sidecar.mesh/injected": "[["}), ["old-version"], "mesh:0.0.9"),
        (a_pod(containers=[APP | {"securityContext": {"runAsUser": PROXY_UID}}]), ["proxy-user"], "container app"),
        (a_pod(securityContext={"runAsUser": PROXY_UID}), ["proxy-user"], "container app"),
        (a_pod(containers=[OTHER_USER], securityContext={"runAsUser": PROXY_UID}), [], ""),
    ],
)
def test_what_is_wrong_with_a_pod(pod: dict[str, Any], whys: list[str], words: str) -> None:
    found = look(pod, IMAGE)
    assert [each.why for each in found] == whys
    assert words in " ".join(each.detail for each in found)
    assert look(small(pod), IMAGE) == found  # what is kept is enough
    assert all(each.mend for each in found)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_what_is_over_needs_no_sidecar(phase: str) -> None:
    assert not look(a_pod([]) | {"status": {"phase": phase}}, IMAGE)


@pytest.mark.parametrize(
    ("kind", "name", "labels", "mend"),
    [
        (
            "ReplicaSet", "orders-5d4f", {"pod-template-hash": "5d4f"},
            "kubectl -n shop rollout restart deployment/orders",
        ),
        ("ReplicaSet", "bare", {}, "delete it, and ReplicaSet bare makes it anew: kubectl -n shop delete pod orders-1"),
        ("StatefulSet", "db", {}, "kubectl -n shop rollout restart statefulset/db"),
        ("DaemonSet", "log", {}, "kubectl -n shop rollout restart daemonset/log"),
        ("Job", "j", {}, "delete it, and Job j makes it anew: kubectl -n shop delete pod orders-1"),
    ],
)
def test_the_command_that_mends_it(kind: str, name: str, labels: dict[str, str], mend: str) -> None:
    (found,) = look(a_pod([], labels=labels, ownerReferences=[{"kind": kind, "name": name}]), IMAGE)
    assert found.mend == mend


def test_a_pod_of_nobody() -> None:
    (found,) = look(a_pod([]), IMAGE)
    assert "apply it again" in found.mend


def test_only_labelled_namespaces_count() -> None:
    def namespace(name: str, **labels: str) -> dict[str, Any]:
        return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}

    listed = [
        namespace("shop", **{"sidecar.mesh/inject": "enabled"}), namespace("plain"),
        namespace("off", **{"sidecar.mesh/inject": "disabled"}), {"metadata": None}, {},
    ]  # fmt: skip
    chosen = namespaces_to_look_at(listed)
    assert chosen == {"shop"}
    other = a_pod([])
    other["metadata"]["namespace"] = "plain"
    assert [each.namespace for each in escapes([a_pod([]), other, a_pod()], chosen, IMAGE)] == ["shop"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([CONTAINER, "false", "{}"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "image", "spec", "metadata", "containers", "initContainers", "annotations"]), inner
    ),
    max_leaves=15,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), JSON))
def test_whatever_comes_is_judged(pod: dict[str, Any]) -> None:
    for each in look(pod, IMAGE):
        assert each.why in WORDS
    assert look(small(pod), IMAGE) == look(pod, IMAGE)
