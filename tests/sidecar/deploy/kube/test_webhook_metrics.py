"""What the injector tells Prometheus, and that the page about it tells the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sidecar.deploy.kube.review import answer
from sidecar.deploy.kube.webhook_metrics import RESULTS, WebhookMetrics, result_of
from tests.kit.pods import a_pod
from tests.sidecar.deploy.kube.test_review import a_review

PAGE = Path(__file__).parents[4] / "docs" / "kubernetes.md"


def samples(metrics: WebhookMetrics, *, not_after: float = 0.0, ready: bool = False, bundle: bool = False) -> dict:
    """What a scrape has: value by name and labels."""
    text = metrics.render(ready=ready, not_after=not_after, bundle=bundle).decode()
    return {name: float(value) for name, value in re.findall(r"^(mesh_\S+) (\S+)$", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("review", "result"),
    [
        (a_review(a_pod()), "injected"),
        (a_review(a_pod({"sidecar.mesh/inject": "false"})), "left_alone"),
        (a_review(a_pod(hostNetwork=True)), "refused"),
        ({"kind": "Review"}, "not_understood"),
    ],
)
def test_an_answer_is_counted_as_what_it_says(review, result):
    _, document = answer(json.dumps(review).encode())
    assert result_of(document) == result


def test_counts_are_there_before_anything_happened_and_go_up():
    metrics = WebhookMetrics()
    before = samples(metrics)
    assert [before[f'mesh_injector_reviews_total{{result="{each}"}}'] for each in RESULTS] == [0.0] * len(RESULTS)
    assert before["mesh_injector_certificate_expires_at_seconds"] == before["mesh_injector_ready"] == 0.0
    metrics.count("refused", 0.003)
    after = samples(metrics, not_after=1e9, ready=True, bundle=True)
    assert after['mesh_injector_reviews_total{result="refused"}'] == 1.0
    assert after['mesh_injector_review_seconds_bucket{le="0.0025"}'] == 0.0
    assert after['mesh_injector_review_seconds_bucket{le="0.005"}'] == 1.0
    assert after["mesh_injector_certificate_expires_at_seconds"] == 1e9
    assert after["mesh_injector_ready"] == after["mesh_injector_ca_bundle_current"] == 1.0


def test_the_page_has_them_all_and_no_other():
    text = WebhookMetrics().render(ready=True, not_after=0.0, bundle=True).decode()
    named = re.findall(r"^# TYPE (mesh_injector_\w+) ", text, re.MULTILINE)
    there = {name for name in named if not name.endswith("_created")}
    table = dict(re.findall(r"^\| `(mesh_injector_\w+)` \| \w+ \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert set(table) == there
    assert all(f"`{each}`" in table["mesh_injector_reviews_total"] for each in RESULTS)
