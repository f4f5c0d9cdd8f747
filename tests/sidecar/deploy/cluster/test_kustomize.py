"""The reader of kustomize's part that we use: what it does, and that whatever it does not know is a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.deploy.cluster.kustomize import BadManifests, apply_step, render

HEAD = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
APP = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": "x"},
    "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "mesh:1"}]}}},
}  # fmt: skip


def folder(place: Path, said: Any, **files: Any) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "kustomization.yaml").write_text(yaml.safe_dump(said if isinstance(said, list) else {**HEAD, **said}))
    for name, value in files.items():
        text = value if isinstance(value, str) else yaml.safe_dump_all(value if isinstance(value, list) else [value])
        (place / f"{name}.yaml").write_text(text)
    return place


def test_resources_components_replicas_images_and_patches(tmp_path: Path) -> None:
    folder(tmp_path / "base", {"resources": ["app.yaml"]}, app=APP)
    config_map = {"kind": "ConfigMap", "metadata": {"name": "m"}}
    folder(tmp_path / "more", {"kind": "Component", "resources": ["map.yaml"]}, map=config_map)
    steps = "- {op: add, path: /spec/template/spec/containers/-, value: {name: b, image: 'other:1'}}\n"
    top = folder(
        tmp_path / "top",
        {
            "resources": ["../base"], "components": ["../more"], "replicas": [{"name": "app", "count": 3}],
            "images": [{"name": "mesh", "newName": "registry.example/mesh", "newTag": "2"}],
            "patches": [{"path": "steps.yaml", "target": {"kind": "Deployment"}}],
        },
        steps=steps,
    )  # fmt: skip
    app, config = render(top)
    assert config["kind"] == "ConfigMap"
    assert app["spec"]["replicas"] == 3
    images = [each["image"] for each in app["spec"]["template"]["spec"]["containers"]]
    assert images == ["registry.example/mesh:2", "other:1"]
    assert APP["spec"]["replicas"] == 1  # type: ignore[index]


def test_what_an_anchor_shares_is_not_shared_any_more(tmp_path: Path) -> None:
    text = "kind: ConfigMap\nmetadata: {name: m}\na: &x {v: [1]}\nb: *x\n"
    (document,) = render(folder(tmp_path, {"resources": ["m.yaml"]}, m=text))
    document["a"]["v"].append(2)
    assert document["b"] == {"v": [1]}


PATCH = {"resources": ["app.yaml"], "patches": [{"path": "p.yaml", "target": {"name": "app"}}]}


@pytest.mark.parametrize(
    ("said", "files", "why"),
    [
        ({"namePrefix": "x-"}, {}, "'namePrefix' is none of"),
        ({"resources": ["missing.yaml"]}, {}, "No such file"),
        ({"resources": ["app.yaml", "again.yaml"]}, {"app": APP, "again": APP}, "named twice"),
        ({"resources": ["app.yaml"]}, {"app": "a: [1"}, "app.yaml"),
        ({"resources": ["app.yaml"]}, {"app": "- 1"}, "without `kind`"),
        ({"resources": ["app.yaml"]}, {"app": ""}, "none at all"),
        (PATCH, {"app": APP, "p": "- {op: move, path: /a, from: /b}"}, "add, replace or remove"),
        (PATCH, {"app": APP, "p": "- {op: remove, path: /spec/nothing}"}, "there is no /spec/nothing"),
        (PATCH, {"app": APP, "p": "- {op: replace, path: /spec/nothing, value: 1}"}, "there is no"),
        (PATCH, {"app": APP}, "No such file"),
        ({**PATCH, "patches": [{"patch": "x", "target": {"name": "app"}}]}, {"app": APP}, "a patch here has `path`"),
        ({**PATCH, "patches": [{"path": "p.yaml"}]}, {"app": APP}, "a patch here has `path`"),
        (
            {**PATCH, "patches": [{"path": "p.yaml", "target": {"name": "other"}}]}, {"app": APP, "p": "[]"},
            "patch p.yaml fits no object",
        ),
        ({"resources": ["app.yaml"], "replicas": [{"name": "no", "count": 2}]}, {"app": APP}, "fits no object"),
        ({"resources": ["app.yaml"], "images": [{"name": "a", "digest": "x"}]}, {"app": APP}, "an image here"),
    ],
)  # fmt: skip
def test_whatever_it_does_not_know_is_a_mistake(tmp_path: Path, said: Any, files: Any, why: str) -> None:
    with pytest.raises(BadManifests) as caught:
        render(folder(tmp_path, said, **files))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("step", "then"),
    [
        ({"op": "add", "path": "/a/0", "value": 9}, {"a": [9, 1, 2], "k/s": {"~": 3}}),
        ({"op": "add", "path": "/a/2", "value": 9}, {"a": [1, 2, 9], "k/s": {"~": 3}}),
        ({"op": "remove", "path": "/a/1"}, {"a": [1], "k/s": {"~": 3}}),
        ({"op": "replace", "path": "/a/1", "value": 9}, {"a": [1, 9], "k/s": {"~": 3}}),
        ({"op": "replace", "path": "/k~1s/~0", "value": 9}, {"a": [1, 2], "k/s": {"~": 9}}),
        ({"op": "remove", "path": "/k~1s/~0"}, {"a": [1, 2], "k/s": {}}),
        ({"op": "add", "path": "/new", "value": None}, {"a": [1, 2], "k/s": {"~": 3}, "new": None}),
        ({"op": "add", "path": "/a/3", "value": 9}, None),
        ({"op": "add", "path": "/a/-1", "value": 9}, None),
        ({"op": "remove", "path": "/a/-"}, None),
        ({"op": "replace", "path": "/a/x", "value": 1}, None),
        ({"op": "add", "path": "a", "value": 1}, None),
        ({"op": "add", "path": "/a"}, None),
        ({"op": "remove", "path": "/a", "value": 1}, None),
        (7, None),
    ],
)
def test_steps_of_rfc_6902(step: Any, then: Any) -> None:
    document = {"a": [1, 2], "k/s": {"~": 3}}
    if then is None:
        with pytest.raises(BadManifests):
            apply_step(document, step, "here")
    else:
        apply_step(document, step, "here")
        assert document == then
