"""Pods that cannot have a sidecar, each with its place and what to do; and what its owner should know.

A pod is refused rather than half injected: with a mistake in it nothing is added, neither to it nor to whatever else
stands in the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar.config import ports
from sidecar.deploy.kube.annotations import ANNOTATIONS, Settings
from sidecar.deploy.kube.containers import our_ports
from sidecar.deploy.kube.problems import Findings, Place, Pod
from sidecar.deploy.kube.record import OUR_CONTAINERS
from sidecar.deploy.names import PREFIX, PROXY_UID

_OTHER_MESHES: Final = ("istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane")
_OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")


def containers_of(spec: dict[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every container of a pod, init containers too, with its place."""
    for key in ("initContainers", "containers"):
        for index, each in enumerate(spec.get(key) or []):
            yield ("spec", key, index), each


def look(pod: Pod, settings: Settings, volumes: list[dict[str, Any]], findings: Findings) -> None:
    """Everything that keeps this pod from having a sidecar."""
    spec = pod["spec"]
    _surroundings(spec, findings)
    _names(spec, volumes, findings)
    _users(spec, findings)
    _ports(spec, settings, findings)
    _rights(spec, settings, findings)


def _surroundings(spec: dict[str, Any], findings: Findings) -> None:
    if spec.get("hostNetwork") is True:
        findings.refuse(
            ("spec", "hostNetwork"),
            "the pod shares the network of its node, whose other traffic the sidecar would take",
            'take it out, or set the annotation sidecar.mesh/inject: "false"',
        )
    selector = spec.get("nodeSelector") or {}
    places: list[Place] = [("spec", "nodeSelector", label) for label in _OS_LABELS if selector.get(label) == "windows"]
    if (spec.get("os") or {}).get("name") == "windows":
        places.append(("spec", "os", "name"))
    if (spec.get("securityContext") or {}).get("windowsOptions"):
        places.append(("spec", "securityContext", "windowsOptions"))
    for place in places:
        advice = 'set the annotation sidecar.mesh/inject: "false"'
        findings.refuse(place, "this pod is for Windows, and the sidecar is not", advice)


def _names(spec: dict[str, Any], volumes: list[dict[str, Any]], findings: Findings) -> None:
    for place, container in containers_of(spec):
        if container["name"] in OUR_CONTAINERS:
            what = f"a container is named {container['name']!r}, as one of ours, and we did not add it"
            findings.refuse((*place, "name"), what, "name it otherwise")
        elif container["name"] in _OTHER_MESHES:
            what = f"{container['name']!r} is the sidecar of another mesh, and only one can lead a pod's traffic"
            findings.refuse((*place, "name"), what, "take this pod out of that mesh first")
    ours = {volume["name"] for volume in volumes}
    for index, volume in enumerate(spec.get("volumes") or []):
        if volume["name"] in ours:
            what = f"a volume is named {volume['name']!r}, as one of ours"
            findings.refuse(("spec", "volumes", index, "name"), what, "name it otherwise")


def _users(spec: dict[str, Any], findings: Findings) -> None:
    """Whoever runs as the proxy's user goes around the rules (pain 25)."""
    found: list[tuple[Place, Any]] = [((*place, "securityContext"), each) for place, each in containers_of(spec)]
    for place, holder in [(("spec", "securityContext"), spec), *found]:
        said = holder.get("securityContext")
        if said and said.get("runAsUser") == PROXY_UID:
            findings.refuse(
                (*place, "runAsUser"),
                f"user {PROXY_UID} is the sidecar's own, whose traffic is not redirected",
                "run the application as another user",
            )


def _ports(spec: dict[str, Any], settings: Settings, findings: Findings) -> None:
    ours = our_ports(settings)
    for port in settings["exclude-inbound-ports"]:
        if port in (ports.CAPTURE_IN, ports.CAPTURE_OUT):
            place = (*ANNOTATIONS, f"{PREFIX}/exclude-inbound-ports")
            findings.refuse(place, f"{port} is where captured connections go", "take it out of the list")
    for place, container in containers_of(spec):
        for index, each in enumerate(container.get("ports") or []):
            number = each.get("containerPort")
            if isinstance(number, int) and number in ours and (each.get("protocol") or "TCP") == "TCP":
                findings.refuse(
                    (*place, "ports", index, "containerPort"),
                    f"the sidecar needs port {number} for {ours[number]}",
                    "let the application use another"
                    + (", or set sidecar.mesh/health-port" if number == settings["health-port"] else ""),
                )


def _rights(spec: dict[str, Any], settings: Settings, findings: Findings) -> None:
    """Containers that could undo what the rules do."""
    if settings["mode"] != "redirect":
        return
    for place, container in containers_of(spec):
        said = container.get("securityContext")
        if not said:
            continue
        added = (said.get("capabilities") or {}).get("add") or []
        if said.get("privileged") is True:
            findings.warn(
                (*place, "securityContext", "privileged"),
                "a privileged container can take the redirect rules away",
                "give it the capabilities that it needs instead",
            )
        elif {"NET_ADMIN", "SYS_ADMIN", "ALL", "CAP_NET_ADMIN"} & set(added):
            findings.warn(
                (*place, "securityContext", "capabilities"),
                "a container with this capability can take the redirect rules away",
                "leave it out if the container does without",
            )
