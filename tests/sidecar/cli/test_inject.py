"""`mesh inject`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from sidecar.cli.console import Code, Failure
from sidecar.cli.inject import inject
from sidecar.deploy.kube.annotations import markdown
from tests.sidecar.deploy.kube.test_files import HEAD, INPUTS, POD

ROOT = Path(__file__).parents[3]
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}   # kept\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that we are in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, given: str | bytes | None = None) -> Result:
    """`mesh inject` with these arguments."""
    return CliRunner().invoke(inject, arguments, input=given, standalone_mode=False)


def test_the_manifest_goes_to_standard_output_and_what_was_done_to_standard_error(folder):
    (folder / "app.yaml").write_text(f"{SERVICE}---\n{INPUTS['deployment']}")
    result = run("-f", "app.yaml")
    assert result.return_value == 0
    assert result.stdout.startswith(f"{SERVICE}---\n# the shop's front\n")
    assert [each["kind"] for each in yaml.safe_load_all(result.stdout)] == ["Service", "Deployment"]
    assert result.stderr == "Deployment/web: injected (service web, mode redirect)\n"
    (folder / "app.yaml").write_text(result.stdout)
    again = run("-f", "app.yaml")
    assert (again.stdout, again.stderr) == (result.stdout, "Deployment/web: unchanged\n")
    back = run("-f", "app.yaml", "--uninject")
    assert back.stderr == "Deployment/web: uninjected\n"
    assert list(yaml.safe_load_all(back.stdout))[1] == yaml.safe_load(INPUTS["deployment"])


def test_standard_input_folders_and_several_files_make_one_stream(folder):
    deploy = folder / "deploy"
    deploy.mkdir()
    (deploy / "b.yaml").write_text(SERVICE)
    (deploy / "a.yml").write_text(HEAD + POD.rstrip("\n"))
    (deploy / "notes.txt").write_text("not: [a manifest")
    result = run("-f", "deploy", "-f", "-", given=INPUTS["deployment"])
    assert [each["kind"] for each in yaml.safe_load_all(result.stdout)] == ["Pod", "Service", "Deployment"]


def test_in_place_only_what_changes_is_written(folder):
    (folder / "a.yaml").write_text(HEAD + POD)
    (folder / "a.yaml").chmod(0o640)
    (folder / "b.yaml").write_text(SERVICE)
    before = (folder / "b.yaml").stat().st_mtime_ns
    result = run("-f", ".", "--write")
    assert (result.return_value, result.stdout) == (0, "")
    assert "mesh-sidecar" in (folder / "a.yaml").read_text()
    assert (folder / "a.yaml").stat().st_mode & 0o777 == 0o640
    assert (folder / "b.yaml").stat().st_mtime_ns == before
    assert sorted(each.name for each in folder.iterdir()) == ["a.yaml", "b.yaml"]


def test_one_mistake_in_one_file_and_nothing_is_done(folder):
    (folder / "a.yaml").write_text(HEAD + POD)
    (folder / "b.yaml").write_text(HEAD + POD + "  hostNetwork: true\n")
    result = run("-f", "a.yaml", "-f", "b.yaml", "--write")
    assert result.return_value == Code.NEGATIVE
    assert result.stdout == ""
    assert result.stderr == (
        "b.yaml:10: Pod/web: spec.hostNetwork: the pod shares the network of its node, whose other traffic the sidecar "
        'would take; take it out, or set the annotation sidecar.mesh/inject: "false"\n1 mistake; nothing was done\n'
    )
    assert (folder / "a.yaml").read_text() == HEAD + POD


def test_for_programs(folder):
    (folder / "a.yaml").write_text(HEAD + "  annotations: {sidecar.mesh/mdoe: x}\n" + POD)
    document = json.loads(run("-f", "a.yaml", "-o", "json").stdout)
    assert document["ok"]
    assert document["pods"] == [
        {"file": "a.yaml", "line": 1, "workload": "Pod/web", "outcome": "injected", "service": "web",
         "mode": "redirect", "was": ""}
    ]  # fmt: skip
    assert document["warnings"][0]["hint"] == 'did you mean "sidecar.mesh/mode"?'
    assert document["warnings"][0]["line"] == 5
    assert "mesh-sidecar" in document["files"][0]["text"]


def test_options_are_for_pods_that_do_not_say(folder):
    (folder / "a.yaml").write_text(HEAD + "  labels: {app: web}\n" + POD)
    done = run("-f", "a.yaml", "--mode", "explicit", "--image", "r.example/mesh:1", "--set", "memory-limit=1Gi")
    pod, policy = yaml.safe_load_all(done.stdout)
    assert policy["kind"] == "NetworkPolicy"
    assert pod["spec"]["initContainers"][0]["image"] == "r.example/mesh:1"
    assert pod["spec"]["initContainers"][0]["resources"]["limits"] == {"memory": "1Gi"}


def test_no_pods_is_worth_a_word(folder):
    result = run("-f", "-", given=SERVICE)
    assert (result.stdout, result.stderr) == (SERVICE, "there are no pods in this; nothing was done\n")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-f", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["-f", "."], "has no manifests"),
        (["-f", "-", "--write"], "standard input cannot be written"),
        (["-f", "-", "--image", "a b"], "image: 'a b' is not the name of an image"),
        (["-f", "-", "--set", "memroy-limit=1Gi"], "nothing of the name 'memroy-limit' can be set"),
        (["-f", "-", "--set", "service=orders"], "nothing of the name 'service' can be set"),
        (["-f", "-", "--set", "memory-limit"], "memory-limit: '' is not an amount of memory"),
    ],
)
def test_wrong_arguments(folder, arguments, what):
    result = run(*arguments, given=HEAD + POD)
    assert isinstance(result.exception, Failure)
    assert what in str(result.exception)
    assert result.exception.code is Code.USAGE


def test_what_is_no_text_is_told(folder):
    (folder / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in str(run("-f", "a.yaml").exception)


def test_the_reference_of_annotations_is_current():
    printed = (ROOT / "docs" / "annotations.md").read_text()
    assert printed == markdown(), "run: python -m sidecar.deploy.kube.annotations > docs/annotations.md"


def test_with_its_mesh_yaml_a_pod_is_held_to_what_that_says(folder):
    (folder / "app.yaml").write_text(HEAD + POD)
    text = (
        "trust_domain: demo.mesh\nservices:\n  web:\n"
        "    outbound: [{to: db, identity: db, endpoints: '10.0.0.9:17443'}]\n"
    )
    (folder / "mesh.yaml").write_text(text)
    result = run("-f", "app.yaml", "--config", "mesh.yaml")
    assert result.return_value == Code.NEGATIVE
    assert "mesh.yaml:3 says no `redirect` of web" in result.stderr
    assert result.stdout == ""
    (folder / "mesh.yaml").write_text(text + "    redirect: {}\n")
    assert run("-f", "app.yaml", "--config", "mesh.yaml").return_value == 0
    assert run("-f", "app.yaml", "--config", "mesh.yaml", "--uninject").return_value == 0
