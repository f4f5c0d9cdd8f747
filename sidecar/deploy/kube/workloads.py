"""Which kinds of objects have a pod in them, and where. Whatever is not here is left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sidecar.deploy.kube.problems import Place

_TEMPLATE: Final[Place] = ("spec", "template")
KINDS: Final[dict[tuple[str, str], Place]] = {  # (group, kind) → where the pod is
    ("", "Pod"): (),
    ("", "ReplicationController"): _TEMPLATE,
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("batch", "Job"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class Held:
    """A pod, or the template of one, in an object."""

    workload: Place  # of the object that holds it
    place: Place  # of the pod itself
    whose: str  # `Deployment/web`


def pods_in(document: Any, place: Place = ()) -> Iterator[Held]:
    """The pods in this object; those in a List as well."""
    if not isinstance(document, dict):
        return
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        return
    items = document.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            yield from pods_in(item, (*place, "items", index))
        return
    group = version.rpartition("/")[0]
    if (way := KINDS.get((group, kind))) is not None:
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        yield Held(place, (*place, *way), f"{kind}/{name or '?'}")


def at(document: Any, place: Place) -> Any:
    """What stands at a place; None where the way there breaks off."""
    for step in place:
        if isinstance(step, int):
            document = document[step] if isinstance(document, list) and step < len(document) else None
        else:
            document = document.get(step) if isinstance(document, dict) else None
    return document
