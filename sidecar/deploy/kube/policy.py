"""The NetworkPolicy that guards a pod without redirection (decision D28).

Without rules in the pod, an application that listens beyond loopback answers every neighbour past its sidecar. The
policy admits only the sidecar's own ports, so the cluster's network has to do what the rules would have done. It does
nothing where the network plug-in knows no policies.
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.deploy.kube.annotations import Settings
from sidecar.deploy.kube.containers import inbound_ports
from sidecar.deploy.kube.problems import Findings, Place
from sidecar.deploy.kube.workloads import at
from sidecar.deploy.names import PREFIX

MADE_BY: Final = f"{PREFIX}/made-by"  # a label: whatever carries it is ours to replace and to take away
MAKER: Final = "mesh-inject"


def is_ours(document: Any) -> bool:
    """Whether an earlier `mesh inject` wrote this document."""
    if not isinstance(document, dict) or document.get("kind") != "NetworkPolicy":
        return False
    return bool(at(document, ("metadata", "labels", MADE_BY)) == MAKER)


def network_policy(
    workload: dict[str, Any], pod: dict[str, Any], settings: Settings, place: Place, findings: Findings
) -> dict[str, Any] | None:
    """The policy for one workload's pods; None, and a mistake, where they have no labels to be known by."""
    labels = at(workload, ("spec", "selector", "matchLabels")) or at(pod, ("metadata", "labels"))
    if not labels or not isinstance(labels, dict):
        what = "a pod without redirection is guarded by a NetworkPolicy, and without labels none can mean it"
        findings.refuse(place, what, "give the pod a label of its own")
        return None
    name = f"{at(workload, ('metadata', 'name')) or 'pod'}-mesh"
    said = at(workload, ("metadata", "namespace"))
    namespace = {"namespace": said} if said else {}
    ports = [*inbound_ports(settings), settings["health-port"]]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, **namespace, "labels": {MADE_BY: MAKER}},
        "spec": {
            "podSelector": {"matchLabels": dict(labels)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}],
        },
    }
