"""Pods and workloads for tests, as JSON has them."""

from __future__ import annotations

import copy
from typing import Any

KINDS = {
    "Pod": "v1", "Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "ReplicaSet": "apps/v1",
    "Job": "batch/v1", "CronJob": "batch/v1",
}  # fmt: skip


def a_pod(annotations: dict[str, Any] | None = None, /, **spec: Any) -> dict[str, Any]:
    """The pod of a service `orders`; `spec` is put over its spec, and a key of None is left out."""
    whole: dict[str, Any] = {
        "metadata": {"labels": {"app": "orders"}},
        "spec": {"serviceAccountName": "orders", "containers": [a_container()]},
    }
    if annotations is not None:
        whole["metadata"]["annotations"] = annotations
    whole["spec"].update(spec)
    whole["spec"] = {key: value for key, value in whole["spec"].items() if value is not None}
    return whole


def a_container(name: str = "app", **more: Any) -> dict[str, Any]:
    """A container."""
    return {"name": name, "image": "orders:1", **more}


def a_workload(kind: str, pod: dict[str, Any], name: str = "orders") -> dict[str, Any]:
    """An object of this kind with this pod in it, complete enough for Kubernetes' schemas."""
    pod = copy.deepcopy(pod)
    top: dict[str, Any] = {"apiVersion": KINDS[kind], "kind": kind, "metadata": {"name": name, "namespace": "shop"}}
    if kind == "Pod":
        return {**top, "metadata": {**top["metadata"], **pod.get("metadata", {})}, "spec": pod["spec"]}
    if kind in ("Job", "CronJob"):
        pod["spec"]["restartPolicy"] = "Never"
        job = {"template": pod}
        spec = job if kind == "Job" else {"schedule": "0 3 * * *", "jobTemplate": {"spec": job}}
        return {**top, "spec": spec}
    spec = {"selector": {"matchLabels": {"app": "orders"}}, "template": pod}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {**top, "spec": spec}
