"""What a mesh.yaml, and the Services around a pod, say of how it is injected: whether they agree.

A pod and its mesh.yaml are written in two places and mean nothing without each other. With the rules of mode `redirect`
a sidecar that binds ports of its own is never asked, and one that waits for captured connections gets none without
them; the pod would be ready, or not, and nobody served. So the two are compared where both can be seen: the mesh.yaml
that `mesh inject --config` names, or the ConfigMap of the pod's own name among the manifests.

An application that is captured connects to its upstream's Service, and shows nothing but that one's ClusterIP. Where
the manifests declare such a Service and no upstream holds it, the warning has the line to add (MESH125 says the same of
upstreams that are found by a cluster's slices).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.config.load import load_bytes
from sidecar.config.mistakes import ConfigErrors, meant
from sidecar.config.redirected import held
from sidecar.config.schema import MeshConfig
from sidecar.config.schema_outbound import Outbound
from sidecar.config.terms import Where
from sidecar.deploy.kube.annotations import ANNOTATIONS, Settings
from sidecar.deploy.kube.documents import BadYaml, Document, split
from sidecar.deploy.kube.problems import Findings, Place
from sidecar.deploy.kube.workloads import at
from sidecar.deploy.names import PREFIX

MAIN: Final = "mesh.yaml"  # the key of a ConfigMap that sidecars begin with
_MODE: Final[Place] = (*ANNOTATIONS, f"{PREFIX}/mode")


@dataclass(frozen=True, slots=True)
class Told:
    """One mesh.yaml. `name` is that of its ConfigMap, empty for one that holds for every pod."""

    config: MeshConfig | None  # None where it has mistakes
    name: str = ""
    namespace: str = ""
    file: str = ""  # the manifest that it stands in
    line: int = 0
    keys: Mapping[str, int] = field(default_factory=dict)  # key of the ConfigMap → its line there
    broken: str = ""  # the first mistake

    def place(self, where: Where) -> str:
        """`file:line`, as somebody finds it."""
        if where.file in self.keys:
            return f"{self.file}:{self.keys[where.file] + where.line}"
        return str(where)


@dataclass(frozen=True, slots=True)
class Service:
    """A Service of Kubernetes that has an address of its own."""

    name: str
    namespace: str  # empty where the manifest names none
    address: str  # its ClusterIP, where the manifest names one
    ports: tuple[int, ...]
    place: str  # `file:line`

    def hosts(self, namespace: str) -> set[str]:
        """What it may be called by."""
        full = f"{self.name}.{namespace}"
        return {self.name, full, f"{full}.svc", f"{full}.svc.cluster.local", self.address}


@dataclass(slots=True)
class Around:
    """Every mesh.yaml and Service that stands beside the pods."""

    configs: list[Told] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)

    def broken_in(self, file: str) -> Iterator[Told]:
        """The ConfigMaps in a manifest whose mesh.yaml cannot be read."""
        return (each for each in self.configs if each.broken and each.file == file)

    def compare(self, settings: Settings, namespace: str, findings: Findings) -> None:
        """Note what does not fit between a pod with these settings and its mesh.yaml, if that is here."""
        told = next((each for each in self.configs if _is_for(each, settings, namespace)), None)
        if told is None or told.config is None:
            return
        name = settings["service"]
        service = told.config.services.get(name)
        if service is None:
            hint = meant(name, list(told.config.services), what="it has")
            where = told.place(Where(MAIN, 1)) if told.keys else f"{told.config.files[0]}:1"
            findings.refuse(("spec",), f"{where} has no service {name}, so the sidecar would not start", hint)
            return
        if (service.redirect is not None) != (settings["mode"] == "redirect"):
            what, advice = _CAPTURED_BY_NOBODY if service.redirect is not None else _LED_TO_NOBODY
            where = told.place(service.where)
            findings.refuse(_MODE, what.format(where=where, name=name), advice.format(where=where))
        elif service.redirect is not None:
            for upstream in service.outbound:
                self._called(upstream, told, namespace, findings)

    def _called(self, upstream: Outbound, told: Told, namespace: str, findings: Findings) -> None:
        """Say so where an upstream has a Service among the manifests, by whose address nobody would find it."""
        name, home = _target(upstream)
        found = next((each for each in self.services if each.name == name and each.namespace in ("", home)), None)
        if found is None or upstream.listen is not None:
            return
        if any(each.host in found.hosts(home) and each.port in found.ports for each in held(upstream)):
            return
        said = ", ".join(f"'{name}.{home}.svc:{port}'" for port in found.ports)
        findings.warn(
            ("spec",),
            f"the application connects to {name} by the address of its Service ({found.place}), which the upstream in "
            f"{told.place(upstream.where)} does not hold: such a connection is refused",
            f"write there `addresses: [{said}]`" + (", or the one that is meant" if len(found.ports) > 1 else ""),
        )


_CAPTURED_BY_NOBODY: Final = (
    "mode explicit installs no rules, and {where} says `redirect` of {name}: nothing would bring its sidecar a "
    "connection",
    "leave the mode out here (it is redirect), or take `redirect` out of {where} and name `port` and `listen` there",
)
_LED_TO_NOBODY: Final = (
    "mode redirect, and {where} says no `redirect` of {name}: its rules would lead connections to a sidecar that "
    "does not wait for them",
    "write `redirect: {{}}` in {where}, or inject it with --mode explicit",
)


def given(config: MeshConfig) -> Around:
    """One mesh.yaml for all pods."""
    return Around([Told(config)])


def gather(manifests: Iterable[tuple[str, str]], around: Around) -> Around:
    """Add what these manifests (name and text) declare. What cannot be read is left out: `files.work` says so."""
    for file, text in manifests:
        for document in split(text):
            if "ConfigMap" not in document.body and "Service" not in document.body:
                continue
            try:
                document.read()
            except BadYaml:
                continue
            for plain, place in _objects(document.plain):
                if plain.get("kind") == "ConfigMap" and MAIN in (at(plain, ("data",)) or {}):
                    around.configs.append(_told(plain, document, place, file))
                elif plain.get("kind") == "Service" and (made := _service(plain, document, place, file)) is not None:
                    around.services.append(made)
    return around


def _objects(plain: Any) -> Iterator[tuple[dict[str, Any], Place]]:
    if isinstance(plain, dict):
        yield plain, ()
        items = plain.get("items")
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                yield item, ("items", index)


def _told(plain: dict[str, Any], document: Document, place: Place, file: str) -> Told:
    texts = {str(key): text.encode() for key, text in plain["data"].items() if isinstance(text, str)}
    keys = {key: document.place((*place, "data", key)) for key in texts}
    name, namespace = (str(at(plain, ("metadata", key)) or "") for key in ("name", "namespace"))
    config, broken = None, ""
    try:
        config = load_bytes(texts.pop(MAIN, b""), MAIN, texts, time.time()).config
    except ConfigErrors as error:
        broken = str(error.mistakes[0])
    return Told(config, name, namespace, file, document.place(place), keys, broken)


def _service(plain: dict[str, Any], document: Document, place: Place, file: str) -> Service | None:
    """The Service, if it has a port and an address of its own: a headless one is its pods."""
    spec = plain.get("spec")
    name = at(plain, ("metadata", "name"))
    if not isinstance(spec, dict) or not isinstance(name, str) or spec.get("type") == "ExternalName":
        return None
    address = str(spec.get("clusterIP") or "")
    listed = spec.get("ports")
    found = [each for each in (listed if isinstance(listed, list) else ()) if isinstance(each, dict)]
    ports = [each.get("port") for each in found if each.get("protocol", "TCP") == "TCP"]
    numbers = tuple(port for port in ports if isinstance(port, int))
    if address == "None" or not numbers:
        return None
    namespace = str(at(plain, ("metadata", "namespace")) or "")
    return Service(name, namespace, address, numbers, f"{file}:{document.place(place)}")


def _is_for(told: Told, settings: Settings, namespace: str) -> bool:
    if not told.name:
        return True
    return told.name == settings["config"] and (not told.namespace or told.namespace == namespace or not namespace)


def _target(upstream: Outbound) -> tuple[str, str]:
    """Name and namespace of the Service that stands before an upstream."""
    home = ""
    if upstream.identity is not None:
        match upstream.identity.segments:
            case ("ns", namespace, "sa", _):
                home = namespace
    source = upstream.endpoints_from.kubernetes if upstream.endpoints_from is not None else None
    return (source.service, source.namespace or home) if source is not None else (upstream.to, home)
