"""Which pods should have a sidecar and have none, or one that does not guard them, and why. Pure: values in and out.

The webhook sees each pod once, when it is made, and only where the namespace has the label. So a pod may stand there
without: made before the label was, by the kubelet itself, or by somebody who said so on the pod. Here is looked at what
*is*, from the outside, whatever an annotation says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.deploy.names import CONTAINER, INIT_CONTAINER, PREFIX, PROXY_UID

LABEL: Final = f"{PREFIX}/inject"
ENABLED: Final = "enabled"
_MODE, _RECORD = f"{PREFIX}/mode", f"{PREFIX}/injected"
_LOOKED_AT: Final = ("name", "namespace", "labels", "annotations", "ownerReferences")
_MIRROR: Final = "kubernetes.io/config.mirror"
_ROLLED: Final = {"DaemonSet": "daemonset", "StatefulSet": "statefulset", "Deployment": "deployment"}

Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Escaped:
    """One pod and one thing that is wrong with it. `why` is one of `WORDS`."""

    namespace: str
    pod: str
    why: str
    detail: str
    mend: str

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return {
            "namespace": self.namespace, "pod": self.pod, "why": self.why, "what": WORDS[self.why],
            "detail": self.detail, "mend": self.mend,
        }  # fmt: skip


WORDS: Final = {
    "host-network": "it has the node's network: a sidecar would stand in front of the node",
    "windows": "it is for Windows, and the sidecar is not",
    "static": "the kubelet made it from a file of its node, so no webhook has seen it",
    "opted-out": "it says itself that it wants none",
    "no-sidecar": "it has no sidecar: made before the namespace was labelled, or while there was no webhook",
    "no-rules": "it has a sidecar, but no step that leads its traffic there",
    "proxy-user": f"a container of its own runs as user {PROXY_UID}, whose traffic goes past the sidecar",
    "old-version": "its sidecar is of another version",
}


def namespaces_to_look_at(namespaces: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The names of those whose pods are to be injected."""
    return frozenset(str(_meta(each, "name")) for each in namespaces if labelled(each))


def labelled(namespace: Mapping[str, Any]) -> bool:
    """Whether the pods of this namespace are to be injected."""
    return _dict(_meta(namespace, "labels")).get(LABEL) == ENABLED


def escapes(pods: Iterable[Pod], namespaces: frozenset[str], image: str) -> list[Escaped]:
    """Everything that is wrong with the pods of these namespaces; `image` is the one that sidecars should have."""
    found = [each for pod in pods if _meta(pod, "namespace") in namespaces for each in look(pod, image)]
    return sorted(found, key=lambda each: (each.namespace, each.pod, each.why))


def small(pod: Pod) -> Pod:
    """What `look` reads of a pod, and no more: a cluster has many."""
    spec, meta = _dict(pod.get("spec")), _dict(pod.get("metadata"))
    keys = ("name", "image", "securityContext")
    kept: dict[str, Any] = {key: spec[key] for key in ("hostNetwork", "os", "securityContext") if key in spec}
    for kind in ("initContainers", "containers"):
        kept[kind] = [{key: each[key] for key in keys if key in each} for each in _list(spec.get(kind))]
    known = {key: meta[key] for key in _LOOKED_AT if key in meta}
    return {"metadata": known, "spec": kept, "status": {"phase": _dict(pod.get("status")).get("phase")}}


def look(pod: Pod, image: str) -> list[Escaped]:
    """What is wrong with one pod of a namespace that is to be injected; nothing where it is well, or over."""
    if _dict(pod.get("status")).get("phase") in ("Succeeded", "Failed"):
        return []
    spec = _dict(pod.get("spec"))
    containers = [*_list(spec.get("initContainers")), *_list(spec.get("containers"))]
    ours = next((each for each in containers if each.get("name") == CONTAINER), None)
    if ours is None:
        return [_without(pod, spec)]
    found = []
    names = {str(each.get("name")) for each in containers}
    if _annotations(pod).get(_MODE, "redirect") != "explicit" and INIT_CONTAINER not in names:
        found.append(_escaped(pod, "no-rules", f"no init container {INIT_CONTAINER}", _again(pod)))
    other_user = "run it as another user (runAsUser), and apply it anew"
    found += [_escaped(pod, "proxy-user", f"container {name}", other_user) for name in _as_proxy(spec, containers)]
    if ours.get("image") != image:
        version = _version(pod)
        made = f", injected by {version}" if version else ""
        found.append(_escaped(pod, "old-version", f"{ours.get('image')}{made}; now it is {image}", _again(pod)))
    return found


def _without(pod: Pod, spec: Mapping[str, Any]) -> Escaped:
    annotations = _annotations(pod)
    if spec.get("hostNetwork") is True:
        move = "take hostNetwork away, or move it to a namespace without the label"
        return _escaped(pod, "host-network", "hostNetwork: true", move)
    if _dict(spec.get("os")).get("name") == "windows":
        return _escaped(pod, "windows", "os.name: windows", "move it to a namespace without the label")
    if _MIRROR in annotations:
        move = "make it a DaemonSet, or name another namespace in its file"
        return _escaped(pod, "static", f"annotation {_MIRROR}", move)
    if str(annotations.get(LABEL)).lower() == "false":
        detail = f'annotation {LABEL}: "false"'
        return _escaped(pod, "opted-out", detail, f"take the annotation away; then: {_again(pod)}")
    return _escaped(pod, "no-sidecar", f"no container {CONTAINER}", _again(pod))


def _as_proxy(spec: Mapping[str, Any], containers: list[dict[str, Any]]) -> list[str]:
    """The containers, not ours, that run as the proxy's user."""
    usual = _dict(spec.get("securityContext")).get("runAsUser")
    return [
        str(each.get("name"))
        for each in containers
        if each.get("name") not in (CONTAINER, INIT_CONTAINER)
        and _dict(each.get("securityContext")).get("runAsUser", usual) == PROXY_UID
    ]


def _version(pod: Pod) -> str:
    try:
        found = json.loads(_annotations(pod).get(_RECORD, "{}")).get("version")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ""
    return found[:40] if isinstance(found, str) and found.isprintable() else ""


def _again(pod: Pod) -> str:
    """The command that makes this pod anew, so that the webhook sees it."""
    namespace = _meta(pod, "namespace")
    owner = next(iter(_list(_meta(pod, "ownerReferences"))), {})
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    hash_ = str(_dict(_meta(pod, "labels")).get("pod-template-hash", ""))
    if kind == "ReplicaSet" and hash_ and name.endswith(f"-{hash_}"):
        kind, name = "Deployment", name.removesuffix(f"-{hash_}")
    if kind in _ROLLED:
        return f"kubectl -n {namespace} rollout restart {_ROLLED[kind]}/{name}"
    if kind:
        return f"delete it, and {kind} {name} makes it anew: kubectl -n {namespace} delete pod {_meta(pod, 'name')}"
    return f"nobody makes it anew; apply it again: kubectl -n {namespace} replace --force -f FILE"


def _escaped(pod: Pod, why: str, detail: str, mend: str) -> Escaped:
    return Escaped(str(_meta(pod, "namespace")), str(_meta(pod, "name")), why, detail, mend)


# ---- objects that may be anything ------------------------------------------------------------------------------------


def _annotations(pod: Pod) -> dict[str, Any]:
    return _dict(_meta(pod, "annotations"))


def _meta(document: Mapping[str, Any], key: str) -> Any:
    return _dict(document.get("metadata")).get(key)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
