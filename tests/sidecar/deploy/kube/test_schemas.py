"""Everything that injection gives is what Kubernetes' own schemas allow, unknown fields excluded: four versions."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from sidecar.deploy.kube.files import work
from tests.kit.pods import KINDS, a_pod, a_workload
from tests.sidecar.deploy.kube.test_files import INPUTS
from tests.sidecar.deploy.kube.test_pod import PROBED

KNOWN = kubernetes_validate.utils.all_versions()  # in their order
VERSIONS = list(dict.fromkeys(map(kubernetes_validate.utils.major_minor, KNOWN)))[-4:]
PODS = [
    a_pod(),
    PROBED,
    a_pod({"sidecar.mesh/mode": "explicit", "sidecar.mesh/inbound-ports": "17443,17444"}),
    a_pod({"sidecar.mesh/api-access": "true", "sidecar.mesh/cpu-limit": "0.5", "sidecar.mesh/health-port": "17190"}),
]
TEXTS = [
    *(yaml.safe_dump(a_workload(kind, PROBED), sort_keys=False) for kind in KINDS),
    *(yaml.safe_dump(a_workload("Deployment", pod), sort_keys=False) for pod in PODS),
    *(text for name, text in INPUTS.items() if name != "shared"),  # the schemas know no List
]


def test_there_are_four_minor_versions():
    assert len(VERSIONS) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_injected_is_valid(version):
    for text in TEXTS:
        outlook = work("app.yaml", text)
        assert not outlook.mistakes
        documents = list(yaml.safe_load_all(outlook.text))
        for document in documents:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_would_notice():
    pod = yaml.safe_load(work("app.yaml", TEXTS[0]).text)
    pod["spec"]["initContainers"][0]["restartPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)
