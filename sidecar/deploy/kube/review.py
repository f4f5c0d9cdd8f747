"""AdmissionReview v1: the question of an API server and our answer to it, as values.

`answer` gives the status of HTTP and the document. What is no question of ours gets 400 and a sentence; the API server
then does what the configuration's `failurePolicy` says, and ours says Fail. A pod that cannot have a sidecar is not
admitted, with every mistake in the message; nothing is ever half injected.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from sidecar.deploy.kube.patch import diff
from sidecar.deploy.kube.pod import Result, inject

VERSION: Final = "admission.k8s.io/v1"
MAX_WARNING: Final = 256  # characters; the API server cuts longer ones (apiserver/pkg/warning)
MAX_MESSAGE: Final = 8 * 1024
_UNPROCESSABLE: Final = 422  # of a refusal: as the API server says Invalid
_POLICY = (
    "mode explicit: without a NetworkPolicy neighbours reach this application past its sidecar; "
    "`mesh inject --mode explicit` writes one"
)


class NotAReview(Exception):
    """This is no AdmissionReview v1 that can be answered; says why."""


def answer(body: bytes, options: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """The answer to one AdmissionReview: HTTP status and document."""
    try:
        request = _request(body)
    except NotAReview as error:
        return 400, {"error": "no_admission_review", "detail": str(error)}
    try:
        response = _judge(request, options or {})
    except RecursionError:
        response = {"uid": request["uid"], **_refusal(400, "BadRequest", "this pod is nested too deeply")}
    return 200, {"apiVersion": VERSION, "kind": "AdmissionReview", "response": response}


def _request(body: bytes) -> dict[str, Any]:
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAReview(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise NotAReview("the body is no AdmissionReview")
    if review.get("apiVersion") != VERSION:
        said = str(review.get("apiVersion"))[:80]
        raise NotAReview(f"apiVersion is {said!r}: say admissionReviewVersions: [v1] in the webhook's configuration")
    request = review.get("request")
    if not isinstance(request, dict):
        raise NotAReview("there is no request in it")
    if not isinstance(request.get("uid"), str) or not 0 < len(request["uid"]) <= 256:
        raise NotAReview("the request has no uid, so no answer can name it")
    return request


def _judge(request: dict[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    uid = {"uid": request["uid"]}
    kind = request.get("kind")
    kind = kind if isinstance(kind, dict) else {}
    ours = (kind.get("group", ""), kind.get("kind")) == ("", "Pod") and not request.get("subResource")
    if not ours or request.get("operation") != "CREATE":
        return {**uid, "allowed": True}
    pod = request.get("object")
    if not isinstance(pod, dict):
        return {**uid, **_refusal(400, "BadRequest", "the request has no object: this webhook judges whole pods")}
    whole = {key: pod[key] for key in ("metadata", "spec") if key in pod}
    result = inject(whole, options)
    warned = {"warnings": warnings} if (warnings := _warnings(result)) else {}
    if result.outcome == "refused":
        said = "; ".join(map(str, result.mistakes))
        text = f"this pod cannot have a sidecar of the mesh: {said}"
        return {**uid, **_refusal(_UNPROCESSABLE, "Invalid", text), **warned}
    operations = diff(whole, result.pod)
    if not operations:
        return {**uid, "allowed": True, **warned}
    patch = base64.b64encode(json.dumps(operations, separators=(",", ":")).encode()).decode()
    return {**uid, "allowed": True, "patchType": "JSONPatch", "patch": patch, **warned}


def _warnings(result: Result) -> list[str]:
    found = [str(each) for each in result.warnings]
    if result.outcome == "injected" and result.settings is not None and result.settings["mode"] == "explicit":
        found.append(_POLICY)
    return [f"mesh: {each}"[:MAX_WARNING] for each in found]


def _refusal(code: int, reason: str, message: str) -> dict[str, Any]:
    status = {"status": "Failure", "code": code, "reason": reason, "message": message[:MAX_MESSAGE]}
    return {"allowed": False, "status": status}
