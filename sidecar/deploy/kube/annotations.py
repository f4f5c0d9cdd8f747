"""What an operator may say about one pod: every `sidecar.mesh/…` annotation, in one table.

Annotations stand on the pod, so in a Deployment on `spec.template.metadata`. Each value is text, as Kubernetes demands.
An unknown one is a warning with the nearest spelling; a bad value is refused. docs/annotations.md is printed from here:
`python -m sidecar.deploy.kube.annotations`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config import ports
from sidecar.config.mistakes import meant, nearest
from sidecar.deploy.kube.problems import Findings, Place, Pod
from sidecar.deploy.kube.values import KINDS, BadValue
from sidecar.deploy.names import IMAGE, PREFIX

RECORD: Final = f"{PREFIX}/injected"  # ours alone: see `record`
ANNOTATIONS: Final[Place] = ("metadata", "annotations")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One thing that can be said."""

    name: str  # without the prefix
    kind: str  # of `values.KINDS`
    default: str  # as it would be written; empty for none
    example: str
    doc: str
    filled: str = ""  # what the reference says of the default where that is no constant

    @property
    def key(self) -> str:
        """The whole key."""
        return f"{PREFIX}/{self.name}"


TABLE: Final = tuple(
    Annotation(*row)
    for row in (
        ("inject", "switch", "true", "false", "Whether this pod gets a sidecar at all."),
        (
            "service", "service", "", "orders",
            "Which of the services in `mesh.yaml` this pod is.", "the name of the pod's service account",
        ),
        ("config", "name", "mesh-config", "shop-mesh", "ConfigMap with `mesh.yaml` and the files that it includes."),
        (
            "enrolment", "name", "mesh-enrolment", "shop-enrolment",
            "ConfigMap with the service's enrolment file under the key `SERVICE.json`, as `mesh ca enrolment "
            "--kubernetes` writes it: trust domain, address of the CA, hashes of its roots. It holds no secret.",
        ),
        (
            "mode", "mode", "redirect", "explicit",
            "`redirect`: an init step installs rules that lead all TCP through the sidecar, and the application knows "
            "nothing of it. `explicit`: no rules and no NET_ADMIN; the application calls its upstreams on loopback, "
            "and a NetworkPolicy has to keep others away from its ports (`mesh inject` writes one).",
        ),
        (
            "inbound-ports", "ports", "", "17443,17444",
            "With mode `explicit`: the sidecar's own ports, those of `inbound` in `mesh.yaml`.", f"`{ports.INBOUND}`",
        ),
        (
            "exclude-inbound-ports", "ports", "", "9100",
            "With mode `redirect`: ports that outsiders reach past the sidecar, in plaintext, whoever they are.",
        ),
        (
            "exclude-outbound-ports", "ports", "", "5432",
            "With mode `redirect`: ports that the application calls past it.",
        ),
        (
            "exclude-outbound-cidrs", "cidrs", "", "169.254.169.254/32",
            "With mode `redirect`: networks that the application calls past it.",
        ),
        ("health-port", "port", str(ports.HEALTH), "17190", "Where the sidecar answers probes and Prometheus."),
        (
            "rewrite-probes", "switch", "true", "false",
            "Lead the application's HTTP, TCP and gRPC probes through the health port. Without it they come from "
            "outside the mesh and are refused, unless their port is excluded.",
        ),
        (
            "api-access", "switch", "false", "true",
            "Mount the service account's token for the API server into the sidecar: needed where `mesh.yaml` has "
            "`endpoints_from: {kubernetes: …}`.",
        ),
        ("image", "image", "", "registry.example.com/mesh:0.1.0", "The sidecar's image.", "the one of this version"),
        ("image-pull-policy", "pull", "IfNotPresent", "Always", "`Always`, `IfNotPresent` or `Never`."),
        ("cpu-request", "cpu", "20m", "100m", "CPU that the scheduler sets aside for the sidecar."),
        ("cpu-limit", "cpu", "", "2", "CPU that it may use at most.", "none: a slow sidecar is a slow application"),
        ("memory-request", "memory", "96Mi", "128Mi", "Memory set aside for it; an idle sidecar holds about 60 MiB."),
        (
            "memory-limit", "memory", "256Mi", "512Mi",
            "Memory that it may use; over 90 % of it new connections are refused.",
        ),
        ("state-size", "memory", "64Mi", "128Mi", "Room for state and audit. It is memory and counts as such."),
        (
            "startup-seconds", "count", "120", "300",
            "How long the sidecar may take to get its identity; then it is started anew.",
        ),
    )
)  # fmt: skip
BY_KEY: Final[Mapping[str, Annotation]] = {each.key: each for each in TABLE}


@dataclass(frozen=True, slots=True)
class Settings:
    """The annotations of one pod, read."""

    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def annotations_of(pod: Pod) -> dict[str, Any]:
    """The pod's annotations; empty where there are none."""
    found = (pod.get("metadata") or {}).get("annotations")
    return found if isinstance(found, dict) else {}


def read(pod: Pod, findings: Findings) -> Settings:
    """What the pod's annotations say, defaults where they say nothing. Every bad value is refused."""
    said = annotations_of(pod)
    for key in said:
        if key.startswith(f"{PREFIX}/") and key not in BY_KEY and key != RECORD:
            near = nearest(key.partition("/")[2], [each.name for each in TABLE])
            hint = f'did you mean "{PREFIX}/{near}"?' if near else "docs/annotations.md has them all"
            findings.warn((*ANNOTATIONS, key), "there is no such annotation", hint)
    return Settings({each.name: _value(each, said, findings) for each in TABLE})


def _value(annotation: Annotation, said: Mapping[str, Any], findings: Findings) -> Any:
    text = said.get(annotation.key)
    if text is None:
        text = annotation.default or (IMAGE if annotation.name == "image" else "")
    place = (*ANNOTATIONS, annotation.key)
    if not isinstance(text, str):
        advice = f'Kubernetes takes only text here: write "{str(text).lower()}"'
        findings.refuse(place, f"{text!r} is not text", advice)
        return KINDS[annotation.kind].read(annotation.default) if annotation.default else None
    if not text and annotation.key not in said:
        return KINDS[annotation.kind].nothing
    try:
        return KINDS[annotation.kind].read(text)
    except BadValue as error:
        words = list(KINDS[annotation.kind].words)
        hint = meant(text, words, what="write") if words else KINDS[annotation.kind].how
        findings.refuse(place, f"{text[:80]!r} {error}", hint)
        return KINDS[annotation.kind].nothing


def markdown() -> str:
    """The reference, docs/annotations.md."""
    lines = [
        "# Annotations of pods",
        "",
        "Made from `sidecar/deploy/kube/annotations.py` by `python -m sidecar.deploy.kube.annotations`; do not edit.",
        "",
        "They stand on the pod: in a Deployment under `spec.template.metadata.annotations`. Each value is text, so",
        'write `"true"` and `"8080"` with quotes. An unknown annotation is a warning, a bad value is refused.',
        "`mesh inject` and the webhook read them alike; [docs/kubernetes.md](kubernetes.md) tells what they do.",
        "",
        "| annotation | value | default | example | what it says |",
        "|---|---|---|---|---|",
    ]
    for each in TABLE:
        default = each.filled or (f"`{each.default}`" if each.default else "none")
        value = KINDS[each.kind].how
        lines.append(f'| `{each.key}` | {value} | {default} | `"{each.example}"` | {each.doc} |')
    lines += [
        f"| `{RECORD}` | | | | Ours: the version that injected the pod, and what was there before. Leave it alone. |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
