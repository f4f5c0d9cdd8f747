"""A compose project as the mesh sees it: who gets a sidecar, on which ports it listens, who calls it and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from ruamel.yaml.comments import CommentedMap

from sidecar.deploy.compose.labels import Told
from sidecar.deploy.compose.ports import Port, Published


@dataclass(frozen=True, slots=True)
class Call:
    """One service may call another on this port, and why we think so."""

    caller: str
    port: Port
    why: str


@dataclass(slots=True)
class Member:
    """A service that gets a sidecar. Those with `network_mode: service:NAME` live in the namespace of that member."""

    name: str
    spec: CommentedMap
    told: Told
    replicas: int = 1
    ports: dict[int, Port] = field(default_factory=dict)
    doors: list[Published] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    companions: list[str] = field(default_factory=list)
    called_by: list[Call] = field(default_factory=list)

    @property
    def networks(self) -> list[str]:
        """The networks it is on, by the keys of the file."""
        return [str(each) for each in self.spec.get("networks") or ["default"]]


@dataclass(slots=True)
class Project:
    """A whole compose file: members of the mesh, services that stay outside it, and what the user should hear."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    outsiders: dict[str, dict[int, Port]] = field(default_factory=dict)
    outside_calls: dict[str, list[tuple[str, Port, str]]] = field(default_factory=dict)  # caller → outsider, port, why
    notes: list[str] = field(default_factory=list)
