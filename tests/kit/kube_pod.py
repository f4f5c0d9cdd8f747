"""An injected pod on its way to `podman kube play`, which knows most of a pod but not native sidecars.

Podman 4.3 runs init containers to their end, one after the other, and has no projected tokens. So exactly
four things are changed, and `assert_same_pod` undoes them and compares, so that a fifth would be seen:

    the sidecar        moves from initContainers to the front of containers
    long annotations   (our record) are left out: podman refuses values above 63 characters, which Kubernetes does not;
                       one of podman's own has it keep init containers that have ended (it stumbles over removing them)
    ports              are left out: podman publishes them on its machine, where two pods would collide; Kubernetes
                       only notes them
    volumes of ours    (token, enrolment, config, memory) become folders of the test, by hostPath

Order and end of a native sidecar are shown by tests.kit.kubelet instead.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sidecar.deploy.names import CONTAINER, ENROLMENT_PATH, PROXY_UID

Pod = dict[str, Any]
MINE = "mesh-"  # how the volumes of ours are called
LONGEST = 63  # characters of an annotation (podman 4.3 holds them to the rule of labels)
KEEP = {"io.podman.annotations.init.container.type": "always"}
EMPTY_DIR = 0o777  # how the kubelet makes a folder in memory, and root's


def for_podman(pod: Pod, folders: Mapping[str, Path]) -> Pod:
    """The pod as podman can play it; `folders` has one for each volume of ours, by the volume's name."""
    played = copy.deepcopy(pod)
    spec = played["spec"]
    ours = [each for each in spec["initContainers"] if each["name"] == CONTAINER]
    assert len(ours) == 1, "an injected pod has one sidecar"
    spec["initContainers"].remove(ours[0])
    spec["containers"].insert(0, ours[0])
    for number, volume in enumerate(spec["volumes"]):
        if volume["name"].startswith(MINE):
            spec["volumes"][number] = {"name": volume["name"], "hostPath": _host(folders[volume["name"]])}
    played["metadata"]["annotations"] = _short(pod["metadata"]["annotations"])
    for container in (*spec["initContainers"], *spec["containers"]):
        container.pop("ports", None)
    assert_same_pod(pod, played)
    return played


def _short(annotations: Mapping[str, str]) -> dict[str, str]:
    return {**{key: value for key, value in annotations.items() if len(value) <= LONGEST}, **KEEP}


def _host(folder: Path) -> dict[str, str]:
    return {"path": str(folder), "type": "Directory"}


def assert_same_pod(injected: Pod, played: Pod) -> None:
    """What is played is what was injected but for those four things."""
    undone = copy.deepcopy(played)
    spec = undone["spec"]
    place = [each["name"] for each in injected["spec"]["initContainers"]].index(CONTAINER)
    assert spec["containers"][0]["name"] == CONTAINER
    spec["initContainers"].insert(place, spec["containers"].pop(0))
    for number, volume in enumerate(injected["spec"]["volumes"]):
        if volume["name"].startswith(MINE):
            assert set(spec["volumes"][number]) == {"name", "hostPath"}
            spec["volumes"][number] = copy.deepcopy(volume)
    assert undone["metadata"]["annotations"] == _short(injected["metadata"]["annotations"])
    undone["metadata"]["annotations"] = injected["metadata"]["annotations"]
    for key in ("initContainers", "containers"):
        for here, there in zip(spec[key], injected["spec"][key], strict=True):
            assert "ports" not in here
            here |= {"ports": there["ports"]} if "ports" in there else {}
    assert undone == injected


def volume_folders(
    folder: Path, pod: Pod, config: str, enrolment: str, owner: int | None = PROXY_UID
) -> dict[str, Path]:
    """A folder for each volume of ours, filled as the kubelet fills it: what it makes of a ConfigMap belongs to root
    and anybody may read it, the enrolment with its key only the sidecar; a folder in memory is root's, open to all.
    """
    found: dict[str, Path] = {}
    for volume in pod["spec"]["volumes"]:
        name = volume["name"]
        if not name.startswith(MINE):
            continue
        found[name] = place = folder / name
        place.mkdir(parents=True)
        place.chmod(EMPTY_DIR if "emptyDir" in volume else 0o755)
        if name == "mesh-config":
            (place / "mesh.yaml").write_text(config)
            (place / "mesh.yaml").chmod(0o644)
        if name == "mesh-enrolment":
            key = place / Path(ENROLMENT_PATH).name
            key.write_text(enrolment)
            key.chmod(0o600)
            for path in (place, key):
                if owner is not None:
                    os.chown(path, owner, owner)
    return found


def play_file(folder: Path, pod: Pod) -> Path:
    """The pod in a file."""
    path = folder / f"{pod['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump(pod, sort_keys=False))
    return path
