"""What we added to a pod, written on the pod itself in one annotation, so that it can be taken away whole.

An injected pod is injected again by taking away what was added and adding it anew. So doing it twice is doing it once,
and a newer version replaces what an older one has added. The record names containers, volumes and annotations, and
holds the application's own probes as they were. Whoever forges one can only name what is ours to name.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.deploy.kube.annotations import ANNOTATIONS, BY_KEY, RECORD, annotations_of
from sidecar.deploy.kube.problems import Findings, Pod
from sidecar.deploy.names import CONTAINER, INIT_CONTAINER

OUR_CONTAINERS: Final = frozenset({CONTAINER, INIT_CONTAINER})
VOLUME_PREFIX: Final = "mesh-"  # of every volume that we add
PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
HANDLERS: Final = ("httpGet", "tcpSocket", "grpc")  # exec runs inside the container and needs no help
_LISTS: Final = ("initContainers", "containers")


@dataclass(frozen=True, slots=True)
class Record:
    """What was added, and what was there."""

    version: str
    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    probes: Mapping[str, Any] = field(default_factory=dict)  # "container/livenessProbe" → {"httpGet": {…}}

    def text(self) -> str:
        """As the annotation's value: the same bytes for the same record."""
        document = {
            "version": self.version, "containers": self.containers, "volumes": self.volumes,
            "annotations": self.annotations, "probes": self.probes,
        }  # fmt: skip
        said = {key: value for key, value in document.items() if value}
        return json.dumps(said, sort_keys=True, separators=(",", ":"))


def record_of(pod: Pod, findings: Findings) -> Record | None:
    """The record on this pod; None where there is none. One that is not ours is refused."""
    text = annotations_of(pod).get(RECORD)
    if text is None:
        return None
    try:
        return _parse(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        findings.refuse((*ANNOTATIONS, RECORD), "this is not what `mesh inject` writes", "take the annotation out")
        return None


def is_injected(pod: Pod) -> bool:
    """Whether this pod has our sidecar: by the container, not by what an annotation claims."""
    found = (pod.get("spec") or {}).get("initContainers") or []
    return any(isinstance(each, dict) and each.get("name") == CONTAINER for each in found)


def _parse(document: Any) -> Record:
    known = {"version", "containers", "volumes", "annotations", "probes"}
    if not isinstance(document, dict) or document.keys() - known or not isinstance(document.get("version"), str):
        raise ValueError
    probes = document.get("probes", {})
    if not isinstance(probes, dict) or not all(map(_is_handler, probes.values())):
        raise ValueError
    containers, volumes, annotations = (_names(document, key) for key in ("containers", "volumes", "annotations"))
    ours = set(containers) <= OUR_CONTAINERS and set(annotations) <= set(BY_KEY)
    if not ours or not all(name.startswith(VOLUME_PREFIX) for name in volumes):
        raise ValueError
    return Record(document["version"], containers, volumes, annotations, probes)


def _is_handler(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and set(value) <= set(HANDLERS)


def _names(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def take_away(pod: Pod, record: Record) -> Pod:
    """A copy of the pod without anything that this record names, its probes as they were."""
    pod = copy.deepcopy(pod)
    spec = pod.get("spec")
    if isinstance(spec, dict):
        _drop(spec, "initContainers", record.containers)
        _drop(spec, "volumes", record.volumes)
        for container in (each for key in _LISTS for each in spec.get(key) or [] if isinstance(each, dict)):
            for kind in PROBES:
                handler = record.probes.get(f"{container.get('name')}/{kind}")
                if handler is not None and isinstance(container.get(kind), dict):
                    container[kind] = with_handler(container[kind], handler)
    for key in (RECORD, *record.annotations):
        annotations_of(pod).pop(key, None)
    metadata = pod.get("metadata")
    if isinstance(metadata, dict) and metadata.get("annotations") == {}:
        del metadata["annotations"]
        if not metadata:
            del pod["metadata"]
    return pod


def with_handler(probe: Mapping[str, Any], handler: Mapping[str, Any]) -> dict[str, Any]:
    """The probe with another way of asking, everything else as it is."""
    return {**handler, **{key: value for key, value in probe.items() if key not in (*HANDLERS, "exec")}}


def _drop(spec: dict[str, Any], key: str, names: tuple[str, ...]) -> None:
    found = spec.get(key)
    if not isinstance(found, list) or not names:
        return
    kept = [each for each in found if not (isinstance(each, dict) and each.get("name") in names)]
    if kept:
        spec[key] = kept
    else:
        del spec[key]
