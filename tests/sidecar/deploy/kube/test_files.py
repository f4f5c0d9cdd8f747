"""Files in, files out: what is not changed stays byte for byte, and every mistake has its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deploy.kube.documents import split
from sidecar.deploy.kube.files import work
from sidecar.deploy.kube.pod import inject
from sidecar.deploy.kube.workloads import at, pods_in
from tests.kit.pods import KINDS, a_pod, a_workload
from tests.sidecar.deploy.kube.test_pod import PROBED, anything

SNAPSHOTS = Path(__file__).resolve().parents[3] / "snapshots" / "inject"
POD = "spec:\n  serviceAccountName: web\n  containers:\n  - name: app\n    image: web:1\n"
PLAIN = "kind: Pod\napiVersion: v1\n"
HEAD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n"

BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)

UNTOUCHED = [
    "",
    "\n",
    "# only a comment\n",
    "---\n",
    "---\n---\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name:   web}   # kept\nspec:\n    ports:\n    - port:    80\n",
    "apiVersion: example.com/v1\nkind: Pod\nspec: {containers: [{name: a}]}\n",  # another group's
    "apiVersion: apps/v1\nkind: Frob\nspec:\n  template: {}\n",
    "apiVersion: v1\r\nkind: ConfigMap\r\ndata:\r\n  a: |\r\n    --- no marker\r\n    b\r\n",
    "kind: ConfigMap\napiVersion: v1\ndata:\n  x: &a [1, 2]\n  y: *a\n...\n# the end\n---\nnull\n",
    "%YAML 1.2\n---\na: !custom b\n",
    "- a\n- b\n",
    '{"kind": "ConfigMap", "apiVersion": "v1"}',
    "apiVersion: v1\nkind: ConfigMap\ndata: {a: \u2028, b: \x85}\n",
    f"{HEAD}  annotations: {{sidecar.mesh/inject: 'false'}}   # kept\n{POD}",
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_where_nothing_is_injected_the_bytes_stay(text):
    outlook = work("app.yaml", text)
    assert not outlook.mistakes
    assert outlook.text == text


@pytest.mark.parametrize("text", UNTOUCHED)
def test_around_an_injected_document_the_bytes_stay_too(text):
    end = "" if text.endswith("\n") or not text else "\n"
    whole = f"{text}{end}---\n{HEAD}{POD}---\n{text.removeprefix('---')}"
    if "%YAML" in text or "..." in text:
        return  # a directive only stands where a file or a document ends
    outlook = work("app.yaml", whole)
    assert not outlook.mistakes
    before, after = whole.split(f"{HEAD}{POD}")
    assert outlook.text.startswith(before)
    assert outlook.text.endswith(after)
    assert "mesh-sidecar" in outlook.text


LINES = ["---\n", "--- # x\n", "a: b\n", "...\n", "# c\n", "\n", "  --- x\n", "|\n", "--- a\n", "x"]


@given(st.lists(st.sampled_from(LINES)))
def test_the_pieces_put_together_are_the_file(lines):
    text = "".join(lines)
    assert "".join(document.text for document in split(text)) == text


INPUTS = {
    "deployment": """\
# the shop's front
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # as in DNS
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations:
        # it reads endpoints from the cluster
        sidecar.mesh/api-access: "true"
        sidecar.mesh/exclude-inbound-ports: "9100"
    spec:
      serviceAccountName: web
      initContainers:
        - name: migrate     # needs the network
          image: migrate:1
      containers:
        - name: app
          image: "web:1"
          ports:
            - {name: http, containerPort: 8080}
          readinessProbe:
            periodSeconds: 5
            httpGet:        # with a query
              path: /healthz?deep=1
              port: http
""",
    "explicit": """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        metadata:
          labels: {app: nightly}
          annotations: {sidecar.mesh/mode: explicit}
        spec:
          serviceAccountName: nightly
          restartPolicy: Never
          containers:
          - {name: job, image: "job:1"}
""",
    "shared": """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: one, labels: {app: one}}
  spec: &spec
    serviceAccountName: web
    containers:
    - name: app
      image: web:1
      livenessProbe: &probe
        httpGet: {path: /live, port: 80}
      readinessProbe: *probe
- apiVersion: v1
  kind: Pod
  metadata: {name: two}
  spec:
    <<: *spec
    serviceAccountName: two
- apiVersion: v1
  kind: Pod
  metadata: {name: three, annotations: {sidecar.mesh/inject: "false"}}
  spec: *spec
""",
}


@pytest.mark.parametrize("name", INPUTS)
def test_snapshots(name):
    """MESH_UPDATE_INJECTED=1 writes them anew."""
    outlook = work("app.yaml", INPUTS[name])
    assert not outlook.mistakes
    path = SNAPSHOTS / f"{name}.yaml"
    if os.environ.get("MESH_UPDATE_INJECTED"):
        path.write_text(outlook.text)
    assert outlook.text == path.read_text()
    assert work("app.yaml", outlook.text).text == outlook.text  # twice is once, byte for byte
    back = work("app.yaml", outlook.text, take_out=True)
    assert not back.mistakes
    assert list(yaml.safe_load_all(back.text)) == list(yaml.safe_load_all(INPUTS[name]))


def test_a_pod_that_shares_its_spec_with_another_is_changed_alone():
    one, two, three = yaml.safe_load(work("app.yaml", INPUTS["shared"]).text)["items"]
    for pod, service in ((one, "web"), (two, "two")):
        assert service in pod["spec"]["initContainers"][1]["args"]
        assert pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/app-health/app/livez"
        assert pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/app-health/app/readyz"
    assert three == yaml.safe_load(INPUTS["shared"])["items"][2]


def test_comments_order_quotes_and_indents_are_kept():
    text = work("app.yaml", INPUTS["deployment"]).text
    for line in INPUTS["deployment"].splitlines():
        if not any(word in line for word in ("httpGet", "/healthz", "port: http")):
            assert line in text.splitlines()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_ends_are_kept(ending):
    text = work("app.yaml", (HEAD + POD).replace("\n", ending)).text
    assert text.count("\n") == text.count(ending)


def test_a_document_on_the_line_of_its_marker_and_one_in_json():
    text = '--- {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"serviceAccountName": "a",' \
        ' "containers": [{"name": "app", "image": "a"}]}}\n'  # fmt: skip
    for each in (text, text.removeprefix("--- ")):
        made = work("app.json", each)
        assert not made.mistakes
        assert yaml.safe_load(made.text)["spec"]["initContainers"][1]["name"] == "mesh-sidecar"
        assert work("app.json", made.text).text == made.text


def test_a_name_that_yaml_1_1_takes_for_something_else_is_quoted():
    pod = work("app.yaml", (HEAD + POD).replace("serviceAccountName: web", 'serviceAccountName: "on"')).text
    assert "on" in yaml.safe_load(pod)["spec"]["initContainers"][1]["args"]  # PyYAML reads YAML 1.1, as Kubernetes does


def test_yes_is_true_where_kubernetes_says_so():
    (mistake,) = work("app.yaml", HEAD + POD + "  hostNetwork: yes\n").mistakes
    assert "shares the network of its node" in mistake.what


def test_every_mistake_of_every_document_with_its_line_and_nothing_done():
    text = (
        "kind: Service\napiVersion: v1\n---\n" + HEAD + POD + "  hostNetwork: true\n"
        "---\n# second\n" + HEAD + POD.replace("image: web:1", "securityContext: {runAsUser: 17000}")
        + "---\n" + HEAD + POD
    )  # fmt: skip
    outlook = work("app.yaml", text)
    assert outlook.text == text
    lines = text.splitlines()
    assert [(each.line, lines[each.line - 1].strip()) for each in outlook.mistakes] == [
        (13, "hostNetwork: true"), (24, "securityContext: {runAsUser: 17000}"),
    ]  # fmt: skip
    assert str(outlook.mistakes[0]).startswith("app.yaml:13: Pod/web: spec.hostNetwork: the pod shares")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: b\n---\na: [\n", 3, "this YAML cannot be read"),
        ("a: b\n---\n# c\na: 1\na: 2\n", 5, "this YAML cannot be read: found duplicate key"),
        ("a:\n\t- b\n", 2, "this YAML cannot be read"),
        ("kind: Deployment\napiVersion: apps/v1\n", 1, "there is no pod template"),
        ("kind: Pod\napiVersion: v1\nspec: []\n", 3, "this is not a mapping"),
        (PLAIN + "metadata: {annotations: {sidecar.mesh/mode: explicit}}\n" + POD, 3, "without labels"),
        (BOMB, 1, "with its aliases this has more than 500000 nodes"),
    ],
)
def test_what_cannot_be_read_or_cannot_be_is_told_with_its_line(text, line, what):
    outlook = work("app.yaml", text)
    (mistake,) = outlook.mistakes
    assert (mistake.line, outlook.text) == (line, text)
    assert what in str(mistake)


def test_an_annotation_on_the_workload_is_a_warning_for_no_webhook_sees_it():
    said = "name: web\n  annotations: {sidecar.mesh/inject: 'false'}   #"
    text = INPUTS["deployment"].replace("name: web   #", said, 1)
    (warning,) = work("app.yaml", text).warnings
    assert "move it to spec.template.metadata.annotations" in str(warning)
    assert warning.line == 6


@settings(deadline=None, max_examples=40)  # ruamel.yaml takes a tenth of a second for each
@given(
    st.sampled_from(list(KINDS)), st.sampled_from([a_pod(), PROBED, a_pod({"sidecar.mesh/mode": "explicit"})]),
    st.sampled_from([None, True, False]), st.integers(2, 6), st.integers(20, 200), st.booleans(),
)  # fmt: skip
def test_however_it_is_written_twice_is_once_and_what_it_says_is_what_injection_gives(
    kind, pod, flow, indent, width, explicit
):
    workload = a_workload(kind, pod)
    text = yaml.safe_dump(
        workload, default_flow_style=flow, indent=indent, width=width, explicit_start=explicit, sort_keys=False
    )
    once = work("app.yaml", text)
    assert not once.mistakes
    assert work("app.yaml", once.text).text == once.text
    (held,) = pods_in(workload)
    template = at(workload, held.place)
    made = inject({key: template[key] for key in ("metadata", "spec")}).pod
    got = at(next(yaml.safe_load_all(once.text)), held.place)
    assert {key: got[key] for key in made} == made
    assert next(yaml.safe_load_all(work("app.yaml", once.text, take_out=True).text)) == workload


@settings(deadline=None)
@given(st.sampled_from(list(KINDS)), st.dictionaries(st.sampled_from(["metadata", "spec"]), anything), anything)
def test_whatever_a_document_says_there_is_no_traceback(kind, top, inner):
    workload = a_workload(kind, a_pod({"sidecar.mesh/mode": "explicit"}))
    if isinstance(workload["spec"], dict):
        workload["spec"] = {**workload["spec"], "selector": inner}
    text = yaml.safe_dump({**workload, **top}, allow_unicode=True)
    outlook = work("app.yaml", text)
    assert outlook.text == text or not outlook.mistakes


def test_a_policy_is_written_once_and_goes_with_the_sidecar():
    once = work("app.yaml", INPUTS["explicit"]).text
    _, policy = yaml.safe_load_all(once)
    assert policy["metadata"] == {
        "name": "nightly-mesh", "namespace": "shop", "labels": {"sidecar.mesh/made-by": "mesh-inject"}
    }  # fmt: skip
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"app": "nightly"}}, "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 17443, "protocol": "TCP"}, {"port": 17090, "protocol": "TCP"}]}],
    }  # fmt: skip
    assert len(list(yaml.safe_load_all(work("app.yaml", once).text))) == 2
    redirected = work("app.yaml", once.replace("sidecar.mesh/mode: explicit", "sidecar.mesh/mode: redirect"))
    assert "NetworkPolicy" not in redirected.text
