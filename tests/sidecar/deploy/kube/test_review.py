"""AdmissionReview v1: what comes back, for good questions and bad ones; and that both ways give the same pod."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.deploy.kube import patch
from sidecar.deploy.kube.files import work
from sidecar.deploy.kube.review import answer
from tests.kit.pods import KINDS, a_container, a_pod, a_workload
from tests.sidecar.deploy.kube.test_pod import PROBED, anything


def a_review(pod: Any, **more: Any) -> dict[str, Any]:
    request = {
        "uid": "705ab4f5", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
        "namespace": "shop", "object": pod, **more,
    }  # fmt: skip
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def ask(review: Any, options: dict[str, str] | None = None) -> dict[str, Any]:
    status, document = answer(json.dumps(review).encode(), options)
    assert status == 200
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = document["response"]
    assert response["uid"] == review["request"]["uid"]
    return response


def patched(pod: dict[str, Any], options: dict[str, str] | None = None) -> dict[str, Any]:
    """The pod as the API server would have it."""
    response = ask(a_review(pod), options)
    assert response["allowed"]
    assert response["patchType"] == "JSONPatch"
    made: dict[str, Any] = patch.apply(copy.deepcopy(pod), json.loads(base64.b64decode(response["patch"])))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pod", [a_pod(), PROBED, a_pod({"sidecar.mesh/mode": "explicit", "a": "b"}, volumes=[])])
@pytest.mark.parametrize("options", [{}, {"image": "r.example/mesh:2", "cpu-limit": "1"}])
def test_the_webhook_and_the_file_give_the_same_pod(kind, pod, options):
    workload = a_workload(kind, pod)
    template = workload
    while "containers" not in template.get("spec", {}):
        template = template["spec"].get("template") or template["spec"]["jobTemplate"]
    of_webhook = patched({"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}, options)
    outlook = work("app.yaml", yaml.safe_dump(workload, sort_keys=False), options)
    assert not outlook.mistakes
    of_file = yaml.safe_load(outlook.text.partition("\n---\n")[0])
    while "containers" not in of_file.get("spec", {}):
        of_file = of_file["spec"].get("template") or of_file["spec"]["jobTemplate"]
    for part in ("metadata", "spec"):
        assert of_webhook[part] == of_file[part]


def test_a_pod_that_was_injected_offline_needs_no_patch():
    assert "patch" not in ask(a_review(patched(a_pod())))


@pytest.mark.parametrize(
    "review",
    [
        a_review(a_pod({"sidecar.mesh/inject": "false"})),
        a_review(a_pod(), operation="UPDATE"),
        a_review(None, operation="DELETE"),
        a_review(a_pod(), subResource="ephemeralcontainers"),
        a_review({"spec": {}}, kind={"group": "apps", "version": "v1", "kind": "Deployment"}),
    ],
)
def test_what_is_not_ours_to_change_is_let_pass(review):
    response = ask(review)
    assert response["allowed"]
    assert "patch" not in response


def test_a_pod_that_cannot_have_a_sidecar_is_not_admitted_and_hears_every_reason():
    response = ask(a_review(a_pod(hostNetwork=True, securityContext={"runAsUser": 17000})))
    assert not response["allowed"]
    assert "patch" not in response
    assert (response["status"]["code"], response["status"]["reason"]) == (422, "Invalid")
    assert "spec.hostNetwork" in response["status"]["message"]
    assert "spec.securityContext.runAsUser" in response["status"]["message"]


def test_warnings_come_with_it_each_short_enough_for_the_api_server():
    response = ask(a_review(a_pod({"sidecar.mesh/memroy-limit": "1", "sidecar.mesh/mode": "explicit"})))
    assert response["allowed"]
    assert len(response["warnings"]) == 2
    assert all(len(each) <= 256 for each in response["warnings"])
    assert "memory-limit" in response["warnings"][0]
    assert "NetworkPolicy" in response["warnings"][1]


def test_a_review_without_an_object_is_refused_by_its_uid():
    response = ask(a_review(None))
    assert (response["allowed"], response["status"]["code"]) == (False, 400)
    response = ask(a_review({"kind": "Pod"}))
    assert (response["allowed"], response["status"]["code"]) == (False, 422)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is no AdmissionReview"),
        (b'{"kind":"Pod"}', "is no AdmissionReview"),
        (json.dumps({**a_review({}), "apiVersion": "admission.k8s.io/v1beta1"}).encode(), "admissionReviewVersions"),
        (json.dumps({**a_review({}), "request": None}).encode(), "there is no request in it"),
        (json.dumps(a_review({}, uid="")).encode(), "has no uid"),
        (json.dumps(a_review({}, uid=7)).encode(), "has no uid"),
    ],
)
def test_what_is_no_review_gets_a_sentence(body, why):
    status, document = answer(body)
    assert status == 400
    assert why in document["detail"]


@given(
    st.dictionaries(st.sampled_from(["uid", "kind", "operation", "object", "subResource", "options"]), anything),
    st.dictionaries(st.sampled_from(["metadata", "spec"]), anything),
)
def test_whatever_is_asked_there_is_an_answer_and_what_is_refused_has_no_patch(request, pod):
    status, document = answer(json.dumps(a_review({**a_pod(), **pod}, **request)).encode())
    assert status in (200, 400)
    if status == 200:
        response = document["response"]
        assert response["allowed"] or ("patch" not in response and response["status"]["message"])


def test_a_pod_that_is_nested_too_deeply_is_refused():
    body = json.dumps(a_review(a_pod())).replace('"orders:1"', "[" * 900 + "]" * 900)
    status, document = answer(body.encode())
    assert status == 400 or not document["response"]["allowed"]


def test_a_pod_like_those_that_an_api_server_sends():
    """What admission plug-ins and defaults have put into it before us is kept."""
    mount = {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    pod = a_pod(
        containers=[a_container(volumeMounts=[mount], terminationMessagePath="/dev/termination-log")],
        volumes=[{"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": []}}],
        tolerations=[{"key": "a", "operator": "Exists"}], priority=0, dnsPolicy="ClusterFirst",
    )  # fmt: skip
    pod["metadata"] |= {"generateName": "orders-5d-", "creationTimestamp": None, "ownerReferences": [{"kind": "x"}]}
    made = patched(pod)
    assert made["metadata"].items() >= {**pod["metadata"]}.items()
    assert made["spec"]["containers"] == pod["spec"]["containers"]
    assert made["spec"]["volumes"][0] == pod["spec"]["volumes"][0]
