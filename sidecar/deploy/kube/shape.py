"""Whether something has the shape of a pod, as far as we read it: after this nobody has to look again.

Only what is read here is judged. The rest is the API server's to judge, and is passed on as it is.
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.deploy.kube.problems import Findings, Place, Pod

Shape = type | dict[str, Any] | list[Any]  # a dict: a mapping with these keys; a list: a list of such items

_PROBE: Final[Shape] = {
    "httpGet": {"httpHeaders": [{"name": str, "value": str}], "path": str, "host": str, "scheme": str},
    "tcpSocket": {"host": str},
    "grpc": {"service": str},
    "exec": dict,
}
_CONTAINER: Final[Shape] = {
    "name": str,
    "ports": [{"name": str, "protocol": str}],
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": dict,
    "securityContext": {"capabilities": {"add": [str]}},
}
_POD: Final[Shape] = {
    "metadata": {"annotations": dict, "labels": dict, "name": str, "namespace": str},
    "spec": {
        "containers": [_CONTAINER],
        "initContainers": [_CONTAINER],
        "volumes": [{"name": str}],
        "securityContext": {"windowsOptions": dict},
        "nodeSelector": dict,
        "os": {"name": str},
        "serviceAccountName": str,
        "serviceAccount": str,
    },
}
_WORDS: Final[dict[type, str]] = {str: "text", dict: "a mapping", list: "a list"}


def check(pod: Pod, findings: Findings) -> bool:
    """Refuse what is no pod; whether it is one."""
    _check(pod, _POD, (), findings)
    if findings.mistakes:
        return False
    spec = pod.get("spec")
    if not spec or not spec.get("containers"):
        findings.refuse(("spec",) if spec else (), "there are no containers", "a pod has at least one")
        return False
    seen: set[str] = set()
    for place, each in named_in(spec):
        name = each.get("name")
        if name is None:
            findings.refuse(place, "this has no name")
        elif place[1] != "volumes" and name in seen:
            findings.refuse((*place, "name"), f"another container is named {name!r} too", "name it otherwise")
        elif place[1] != "volumes":
            seen.add(name)
    return not findings.mistakes


def named_in(spec: dict[str, Any]) -> list[tuple[Place, dict[str, Any]]]:
    """Containers and volumes, with their places."""
    return [
        (("spec", key, index), each)
        for key in ("initContainers", "containers", "volumes")
        for index, each in enumerate(spec.get(key) or [])
    ]


def _check(value: Any, shape: Shape, place: Place, findings: Findings) -> None:
    if value is None and place and not isinstance(place[-1], int):
        return  # in Kubernetes, null is as good as absent
    kind: type = shape if isinstance(shape, type) else type(shape)
    known: Any = value
    if not isinstance(value, kind):
        findings.refuse(place, f"this is not {_WORDS[kind]}", "kubectl explain pod says what Kubernetes has here")
    elif isinstance(shape, dict):
        for key, inner in shape.items():
            if key in known:
                _check(known[key], inner, (*place, key), findings)
    elif isinstance(shape, list):
        for index, item in enumerate(known):
            _check(item, shape[0], (*place, index), findings)
