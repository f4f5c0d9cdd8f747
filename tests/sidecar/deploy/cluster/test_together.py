"""Manifests, injection and the list of who escaped it: what one makes the others take."""

from __future__ import annotations

import importlib

import click
import kubernetes_validate
import pytest

from sidecar.cli.root import VERBS, mesh
from sidecar.deploy import names
from sidecar.deploy.cluster.escaped import look
from sidecar.deploy.cluster.install import MANIFESTS, Install
from sidecar.deploy.cluster.kustomize import Document, containers, identity, render

EXAMPLES = [
    pytest.param(document, id=f"{where}-{identity(document)[2]}")
    for where in ("shop", "shop-restricted")
    for document in render(MANIFESTS / "examples" / where)
    if document["kind"] == "Deployment"
]
COMMANDS = [
    pytest.param(each["args"], id=each["name"]) for document in Install().documents() for each in containers(document)
]


@pytest.mark.parametrize("args", COMMANDS)
def test_mesh_takes_the_arguments_of_every_container(args: list[str]) -> None:
    if args[0] not in VERBS:
        pytest.skip(f"this tree has no `mesh {args[0]}` yet")
    command, words = mesh.get_command(click.Context(mesh), args[0]), args[1:]
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    assert command is not None
    given = [word.replace("$(MESH_TRUST_DOMAIN)", "a.example").replace("$(MESH_CLUSTER)", "here") for word in words]
    files = ("--ca-file=", "--passphrase-file=")  # click looks whether these are there; test_ca_manifest.py has them
    assert command.make_context(args[0], [word for word in given if not word.startswith(files)])


@pytest.mark.parametrize("deployment", EXAMPLES)
def test_an_example_that_was_injected_is_valid_and_has_not_escaped(deployment: Document) -> None:
    try:
        inject = importlib.import_module("sidecar.deploy.kube.pod").inject
    except ModuleNotFoundError:
        pytest.skip("this tree has no injection yet")
    template = deployment["spec"]["template"]
    bare = {"kind": "Pod", **template, "metadata": {**template["metadata"], "name": "p", "namespace": "shop"}}
    assert [each.why for each in look(bare, names.IMAGE)] == ["no-sidecar"]
    result = inject(bare)
    assert result.outcome == "injected"
    assert not result.warnings
    assert not look(result.pod, names.IMAGE)
    assert [each.why for each in look(result.pod, "mesh:9.9.9")] == ["old-version"]
    pod = {"apiVersion": "v1", **result.pod}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version().rpartition(".")[0], strict=True)
