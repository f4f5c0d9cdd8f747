"""A strict reader of the part of kustomize that our own manifests use; whatever it does not know is a mistake.

The manifests are plain kustomize, so that `kubectl apply -k` works on them, and `mesh install` prints the same without
kubectl: `resources`, `components`, JSON 6902 patches with a target, `replicas` and `images`. Where kubectl is at hand a
test holds both to the same result.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import yaml

Document = dict[str, Any]

FILE: Final = "kustomization.yaml"
_KEYS: Final = {"apiVersion", "kind", "resources", "components", "patches", "replicas", "images"}
_SCALED: Final = ("Deployment", "StatefulSet", "ReplicaSet")  # as kustomize's replica transformer
_POD_SPECS: Final = {
    "Pod": ("spec",),
    "Deployment": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}


class BadManifests(Exception):
    """A kustomization, or a file that it names, is not what this reader knows. The message names the file."""


def render(folder: Path) -> list[Document]:
    """Every object of this kustomization, changed as it says, in the order in which they are named.

    Raises BadManifests.
    """
    said = _said(folder)
    found = [document for each in said.get("resources", []) for document in _resource(folder, each)]
    found += [document for each in said.get("components", []) for document in render(folder / each)]
    if len({identity(document) for document in found}) != len(found):
        raise BadManifests(f"{folder / FILE}: an object is named twice")
    for patch in said.get("patches", []):
        _patch(folder, patch, found)
    for replica in said.get("replicas", []):
        _scale(folder, replica, found)
    for image in said.get("images", []):
        _image(folder, image, found)
    return found


def identity(document: Document) -> tuple[str, str, str]:
    """Kind, namespace and name: what an object is known by."""
    meta = document.get("metadata", {})
    return str(document.get("kind")), str(meta.get("namespace", "")), str(meta.get("name"))


def pod_spec(document: Document) -> Document | None:
    """The pod's part of a workload, None where there is none."""
    found: Any = document if document.get("kind") in _POD_SPECS else None
    for key in _POD_SPECS.get(str(document.get("kind")), ()):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def containers(document: Document) -> list[Document]:
    """Every container of a workload: init containers first."""
    spec = pod_spec(document) or {}
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


# ---- reading ---------------------------------------------------------------------------------------------------------


def _said(folder: Path) -> Document:
    said = _documents(folder / FILE)[0]
    if unknown := said.keys() - _KEYS:
        raise BadManifests(f"{folder / FILE}: {sorted(unknown)[0]!r} is none of {', '.join(sorted(_KEYS))}")
    return said


def _resource(folder: Path, named: str) -> list[Document]:
    place = folder / named
    return render(place) if place.is_dir() else _documents(place)


def _documents(path: Path) -> list[Document]:
    try:
        found = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadManifests(f"{path}: {error}") from None
    if not found or not all(isinstance(each, dict) and each.get("kind") for each in found):
        raise BadManifests(f"{path}: there is a document without `kind`, or none at all")
    return [json.loads(json.dumps(each)) for each in found]  # what anchors share becomes values of their own


# ---- changing --------------------------------------------------------------------------------------------------------


def _patch(folder: Path, patch: Document, found: list[Document]) -> None:
    target = patch.get("target", {})
    if patch.keys() != {"path", "target"} or not target or target.keys() - {"kind", "name", "namespace"}:
        raise BadManifests(f"{folder / FILE}: a patch here has `path`, and a `target` with kind, name or namespace")
    try:
        steps = yaml.safe_load((folder / patch["path"]).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadManifests(f"{folder / patch['path']}: {error}") from None
    for document in _hit(folder, found, lambda each: _fits(each, target), f"patch {patch['path']}"):
        for step in steps if isinstance(steps, list) else [steps]:
            apply_step(document, step, str(folder / patch["path"]))


def _fits(document: Document, target: Document) -> bool:
    kind, namespace, name = identity(document)
    has = {"kind": kind, "namespace": namespace, "name": name}
    return all(has[key] == value for key, value in target.items())


def apply_step(document: Document, step: Any, where: str) -> None:
    """One operation of RFC 6902 (add, replace, remove), in place. Raises BadManifests."""
    known = isinstance(step, dict) and step.get("op") in ("add", "replace", "remove")
    if not known or not str(step.get("path", "")).startswith("/") or ("value" in step) == (step["op"] == "remove"):
        raise BadManifests(f"{where}: an operation here is add, replace or remove, with a path")
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in step["path"][1:].split("/"))
    try:
        spot: Any = document
        for part in way:
            spot = spot[int(part)] if isinstance(spot, list) else spot[part]
        _set(spot, last, step)
    except (KeyError, IndexError, ValueError, TypeError):
        raise BadManifests(f"{where}: there is no {step['path']} in {identity(document)}") from None


def _set(spot: Any, last: str, step: Document) -> None:
    op, value = step["op"], copy.deepcopy(step.get("value"))
    if isinstance(spot, list):
        place = len(spot) if last == "-" and op == "add" else int(last)
        if place < 0 or place >= len(spot) + (op == "add"):
            raise IndexError(place)
        if op == "add":
            spot.insert(place, value)
        elif op == "replace":
            spot[place] = value
        else:
            del spot[place]
    elif op == "remove":
        del spot[last]
    else:
        if op == "replace":
            del spot[last]  # it has to be there
        spot[last] = value


def _scale(folder: Path, said: Document, found: list[Document]) -> None:
    wanted = said.get("name")
    what = f"replicas of {wanted}"

    def fits(document: Document) -> bool:
        return document["kind"] in _SCALED and document["metadata"]["name"] == wanted

    for document in _hit(folder, found, fits, what):
        document["spec"]["replicas"] = int(said["count"])


def _image(folder: Path, said: Document, found: list[Document]) -> None:
    if not said.keys() <= {"name", "newName", "newTag"} or "name" not in said:
        raise BadManifests(f"{folder / FILE}: an image here has `name`, `newName` and `newTag`")
    for document in found:
        for container in containers(document):
            name, _, tag = str(container["image"]).partition(":")
            if name == said["name"]:
                container["image"] = f"{said.get('newName', name)}:{said.get('newTag', tag)}"


def _hit(
    folder: Path, found: list[Document], fits: Callable[[Document], bool], what: str
) -> Iterable[Document]:
    hit = [document for document in found if fits(document)]
    if not hit:
        raise BadManifests(f"{folder / FILE}: {what} fits no object")
    return hit
