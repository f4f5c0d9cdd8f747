"""Probes are moved, each kind of them, and what the injector writes the sidecar can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.pod_health import PodHealth
from sidecar.deploy.kube.pod import inject, uninject
from tests.kit.pods import a_container, a_pod


def moved(probe: dict[str, Any], **container: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The probe after injection, and what the sidecar is to ask in its place."""
    result = inject(a_pod(containers=[a_container(readinessProbe=probe, **container)]))
    assert result.outcome == "injected", result.mistakes
    (sidecar,) = [each for each in result.pod["spec"]["initContainers"] if each["name"] == "mesh-sidecar"]
    return result.pod["spec"]["containers"][0]["readinessProbe"], pod_of(sidecar)


def pod_of(sidecar: dict[str, Any]) -> dict[str, Any]:
    (text,) = [each["value"] for each in sidecar["env"] if each["name"] == "MESH_POD"]
    assert "$(" not in text.replace("$$(", "")  # Kubernetes would put a variable there
    text = text.replace("$$(", "$(")
    PodHealth.parse(text)  # the sidecar can read it
    asked: dict[str, Any] = json.loads(text)["health"]["probes"]
    return asked


MOVED = {"path": "/app-health/app/readyz", "port": 17090}


@pytest.mark.parametrize(
    ("probe", "asked"),
    [
        ({"httpGet": {"port": 8080}}, {"http": {"port": 8080, "path": "/"}, "timeout": 1}),
        (
            {"httpGet": {"port": "web", "path": "/a?b=c&d", "scheme": "HTTPS"}, "timeoutSeconds": 5},
            {"http": {"port": 9999, "path": "/a?b=c&d", "scheme": "https"}, "timeout": 5},
        ),
        (
            {"httpGet": {"port": 8080, "path": "/x", "httpHeaders": [{"name": "Host", "value": "a.example"}]}},
            {"http": {"port": 8080, "path": "/x", "headers": [["Host", "a.example"]]}, "timeout": 1},
        ),
        ({"httpGet": {"port": "8080", "path": "a b"}}, {"http": {"port": 8080, "path": "a%20b"}, "timeout": 1}),
        ({"httpGet": {"port": 80, "path": "/$(HOME)"}}, {"http": {"port": 80, "path": "/$(HOME)"}, "timeout": 1}),
        ({"httpGet": {"port": 80, "host": "localhost"}}, {"http": {"port": 80, "path": "/"}, "timeout": 1}),
        ({"tcpSocket": {"port": "web"}}, {"tcp": {"port": 9999}, "timeout": 1}),
        ({"grpc": {"port": 9000}}, {"grpc": {"port": 9000, "service": ""}, "timeout": 1}),
        ({"grpc": {"port": 9000, "service": "a.B"}}, {"grpc": {"port": 9000, "service": "a.B"}, "timeout": 1}),
    ],
)
def test_a_probe_is_led_to_the_health_port_and_asked_from_there(probe, asked):
    more = {"periodSeconds": 7, "failureThreshold": 2}
    after, told = moved({**probe, **more}, ports=[{"name": "web", "containerPort": 9999}])
    timeout = {"timeoutSeconds": probe["timeoutSeconds"]} if "timeoutSeconds" in probe else {}
    assert after == {"httpGet": MOVED, **more, **timeout}
    assert told == {"app/readyz": asked}


@pytest.mark.parametrize(
    "probe", [{"exec": {"command": ["true"]}}, {"httpGet": {"host": "10.9.9.9", "port": 80}}, {"periodSeconds": 1}, {}]
)
def test_what_does_not_ask_the_application_over_the_network_stays(probe):
    assert moved(probe) == (probe, {})


def test_the_probes_of_a_native_sidecar_of_the_pods_own_are_moved_too():
    own = a_container("logs", restartPolicy="Always", livenessProbe={"tcpSocket": {"port": 1}})
    pod = inject(a_pod(initContainers=[own])).pod
    assert pod["spec"]["initContainers"][2]["livenessProbe"]["httpGet"]["path"] == "/app-health/logs/livez"


def test_a_header_that_cannot_be_sent_is_refused():
    probe = {"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": "x"}]}}
    (mistake,) = inject(a_pod(containers=[a_container(livenessProbe=probe)])).mistakes
    assert "'a b' is no header that can be sent" in str(mistake)


def test_a_pod_may_keep_its_probes():
    probe = {"httpGet": {"port": 8080}}
    pod = inject(a_pod({"sidecar.mesh/rewrite-probes": "false"}, containers=[a_container(livenessProbe=probe)])).pod
    assert pod["spec"]["containers"][0]["livenessProbe"] == probe


texts = st.text(max_size=12)
ports = st.integers(1, 65535)
handlers = st.one_of(
    st.fixed_dictionaries(
        {"port": ports},
        optional={
            "path": texts, "scheme": st.sampled_from(["HTTP", "HTTPS"]),
            "httpHeaders": st.lists(st.fixed_dictionaries({"name": texts, "value": texts}), max_size=2),
        },
    ).map(lambda said: {"httpGet": said}),
    st.fixed_dictionaries({"port": ports}).map(lambda said: {"tcpSocket": said}),
    st.fixed_dictionaries({"port": ports}, optional={"service": texts}).map(lambda said: {"grpc": said}),
)  # fmt: skip


@given(handlers, st.integers(1, 600))
def test_whatever_a_probe_says_the_sidecar_can_read_it_or_it_is_refused(handler, timeout):
    pod = a_pod(containers=[a_container(livenessProbe={**handler, "timeoutSeconds": timeout})])
    result = inject(pod)
    if result.outcome == "injected":
        pod_of(result.pod["spec"]["initContainers"][1])
        assert uninject(result.pod).pod == pod
    else:
        assert "is no header" in str(result.mistakes[0])
