"""What is added to a pod: the sidecar, the step that installs the redirect rules, and the volumes they need.

The sidecar is a *native* one: an init container with `restartPolicy: Always` (Kubernetes 1.29 and later). The kubelet
starts what follows only once its startup probe passes, so the application and its own init containers have the mesh
from their first packet; it ends the sidecar after the application, and never waits for it when a Job is done. So there
is no preStop hook, and `terminationGracePeriodSeconds` stays the application's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from sidecar.config import ports
from sidecar.deploy.kube.annotations import Settings
from sidecar.deploy.names import (
    CONFIG_PATH,
    CONTAINER,
    ENROLMENT_PATH,
    INIT_CONTAINER,
    PROXY_GID,
    PROXY_UID,
    RUN_PATH,
    STATE_PATH,
    TOKEN_AUDIENCE,
    TOKEN_PATH,
)

TOKEN_SECONDS: Final = 3600  # read anew at each enrolment; the kubelet replaces it at 80 % of this
API_TOKEN_SECONDS: Final = 3607  # what Kubernetes' own volume asks for
API_ACCESS_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # where clients look for it
# A folder inside the volume: the kubelet gives the volume itself to root and lets everyone write there.
RUN_FOLDER: Final = f"{RUN_PATH}/own"

CONFIG, ENROLMENT, TOKEN = "mesh-config", "mesh-enrolment", "mesh-token"  # names of volumes
STATE, RUN, API = "mesh-state", "mesh-run", "mesh-api-access"
_LEAST: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsGroup": PROXY_GID,
    "runAsNonRoot": True,
    "runAsUser": PROXY_UID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_FOR_RULES: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsGroup": 0,
    "runAsNonRoot": False,
    "runAsUser": 0,  # a capability of a container is in force only for root
    "seccompProfile": {"type": "RuntimeDefault"},
}


def inbound_ports(settings: Settings) -> tuple[int, ...]:
    """The ports of ours that peers call, with mode `explicit`; none with redirection."""
    return () if settings["mode"] == "redirect" else settings["inbound-ports"] or (ports.INBOUND,)


def our_ports(settings: Settings) -> dict[int, str]:
    """Every port that the sidecar may bind in the pod, and what for."""
    found = {settings["health-port"]: "its health port", ports.FORWARD: "its forward proxy"}
    if settings["mode"] == "redirect":
        return found | {ports.CAPTURE_IN: "what comes in", ports.CAPTURE_OUT: "what goes out"}
    return found | dict.fromkeys(inbound_ports(settings), "mTLS from peers")


def redirect(settings: Settings) -> dict[str, Any]:
    """The init container that installs the rules and ends; the only one with a capability."""
    args = ["redirect", "install"]
    for option, name in (
        ("--exclude-inbound", "exclude-inbound-ports"),
        ("--exclude-outbound", "exclude-outbound-ports"),
        ("--exclude-cidr", "exclude-outbound-cidrs"),
    ):
        if settings[name]:
            args.append(f"{option}={','.join(map(str, settings[name]))}")
    if settings["health-port"] != ports.HEALTH:
        args.append(f"--own-ports={ports.INBOUND},{settings['health-port']}")
    return {
        "name": INIT_CONTAINER,
        "image": settings["image"],
        "imagePullPolicy": settings["image-pull-policy"],
        "args": args,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": _copy(_FOR_RULES),
    }


def sidecar(settings: Settings, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar's container. `asked` are the application's probes, as `probes.move` notes them."""
    port = settings["health-port"]
    health = {"health": {"port": port, "probes": asked}}
    return {
        "name": CONTAINER,
        "image": settings["image"],
        "imagePullPolicy": settings["image-pull-policy"],
        "restartPolicy": "Always",
        "args": ["run", "-f", CONFIG_PATH, "--service", settings["service"], "--enrolment", ENROLMENT_PATH],
        "env": [
            {"name": "MESH_STATE_DIR", "value": STATE_PATH},
            {"name": "MESH_RUN_DIR", "value": RUN_FOLDER},
            {"name": "MESH_POD", "value": _env(json.dumps(health, sort_keys=True, separators=(",", ":")))},
        ],
        "ports": _ports(settings),
        "startupProbe": _probe("/readyz", port, periodSeconds=1, failureThreshold=settings["startup-seconds"]),
        "readinessProbe": _probe("/readyz", port, periodSeconds=5, failureThreshold=3),
        "livenessProbe": _probe("/livez", port, periodSeconds=10, failureThreshold=6),
        "resources": _resources(settings),
        "securityContext": _copy(_LEAST),
        "volumeMounts": _mounts(settings),
    }


def volumes(settings: Settings) -> list[dict[str, Any]]:
    """The volumes behind it."""
    token = _token(PurePosixPath(TOKEN_PATH).name, TOKEN_SECONDS, TOKEN_AUDIENCE)
    found: list[dict[str, Any]] = [
        {"name": CONFIG, "configMap": {"name": settings["config"]}},
        {
            "name": ENROLMENT,
            "configMap": {
                "name": settings["enrolment"],
                "items": [{"key": f"{settings['service']}.json", "path": PurePosixPath(ENROLMENT_PATH).name}],
            },
        },
        {"name": TOKEN, "projected": {"sources": [token]}},
        {"name": STATE, "emptyDir": {"medium": "Memory", "sizeLimit": settings["state-size"]}},
        {"name": RUN, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},  # sockets
    ]
    if settings["api-access"]:
        found.append({"name": API, "projected": {"sources": _api_sources()}})
    return found


def _api_sources() -> list[dict[str, Any]]:
    """The same three files that Kubernetes mounts by itself, but not into containers that a webhook has added."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        _token("token", API_TOKEN_SECONDS, None),
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]


def _token(path: str, seconds: int, audience: str | None) -> dict[str, Any]:
    whom = {} if audience is None else {"audience": audience}
    return {"serviceAccountToken": {**whom, "expirationSeconds": seconds, "path": path}}


def _mounts(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": CONFIG, "mountPath": str(PurePosixPath(CONFIG_PATH).parent), "readOnly": True},
        {"name": ENROLMENT, "mountPath": str(PurePosixPath(ENROLMENT_PATH).parent), "readOnly": True},
        {"name": TOKEN, "mountPath": str(PurePosixPath(TOKEN_PATH).parent), "readOnly": True},
        {"name": STATE, "mountPath": STATE_PATH},
        {"name": RUN, "mountPath": RUN_PATH},
    ]
    if settings["api-access"]:
        found.append({"name": API, "mountPath": API_ACCESS_PATH, "readOnly": True})
    return found


def _ports(settings: Settings) -> list[dict[str, Any]]:
    inbound = inbound_ports(settings)
    names = ("mesh-inbound", *(f"mesh-in-{port}" for port in inbound[1:]))
    named = {**dict(zip(names, inbound, strict=False)), "mesh-health": settings["health-port"]}
    return [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in named.items()]


def _resources(settings: Settings) -> dict[str, Any]:
    limits = {"memory": settings["memory-limit"]}
    if settings["cpu-limit"]:
        limits["cpu"] = settings["cpu-limit"]
    return {"requests": {"cpu": settings["cpu-request"], "memory": settings["memory-request"]}, "limits": limits}


def _probe(path: str, port: int, **more: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 2, **more}


def _env(text: str) -> str:
    """A text that Kubernetes leaves as it is: `$(NAME)` would become a variable."""
    return text.replace("$(", "$$(")


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of our own constants, so that no caller changes them."""
    copied: dict[str, Any] = json.loads(json.dumps(value))
    return copied
