"""What an operator can say of where endpoints are to be learned from.

None of this decides who is trusted: whatever a source lists has to show the identity of the upstream's own entry.
"""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.terms import FilePath, HostName, Label, ListenerRef, described


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The EndpointSlices of one Kubernetes service, listed and then watched; needs the rights of
    deploy/k8s/endpointslices.yaml.
    """

    service: Label = described("The Kubernetes service.")
    port: ListenerRef = described(
        "Its port by name, as the slices have it; or a number, which is taken as it is: pods may listen on ports that "
        "no service declares.",
    )
    namespace: Label = described(
        "Its namespace.", "", filled="that in the upstream's identity; needed where none can be read there"
    )
    api: str = described(
        "The API server, an `https://` URL.", "", filled="that of `KUBERNETES_SERVICE_HOST` and `_PORT`, at run time"
    )
    token_file: FilePath = described(
        "Our service account's token, read again at each request.",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
    )
    ca_file: FilePath = described(
        "The certificates that the API server is judged by, read again at each connection.",
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    )


@dataclass(frozen=True, slots=True)
class EndpointsFrom:
    """Exactly one of these; see docs/discovery.md."""

    file: FilePath = described(
        "A YAML or JSON list, seen from this file's folder and followed as it changes: `host:port`, or "
        "`{address, weight, zone}`.",
        "",
    )
    srv: HostName = described("A DNS name with SRV records: `_mesh._tcp.orders.example.org`.", "")
    kubernetes: Kubernetes | None = described("A service of a Kubernetes cluster.", None)
