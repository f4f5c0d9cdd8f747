"""What an upstream's endpoints may be learned from. A source is a value: equal ones are followed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FromName:
    """The addresses of a DNS name among declared endpoints."""

    host: str
    kind: ClassVar[str] = "dns"

    def __str__(self) -> str:
        return self.host


@dataclass(frozen=True, slots=True)
class FromFile:
    """A file with a list."""

    path: str
    kind: ClassVar[str] = "file"

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class FromSrv:
    """The SRV records of a DNS name."""

    name: str
    kind: ClassVar[str] = "srv"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class FromKubernetes:
    """The EndpointSlices of a Kubernetes service. `api` is empty for the cluster that we run in."""

    namespace: str
    service: str
    port: str
    api: str = ""
    token_file: str = field(default="", repr=False)
    ca_file: str = ""
    kind: ClassVar[str] = "kubernetes"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


Source = FromName | FromFile | FromSrv | FromKubernetes
