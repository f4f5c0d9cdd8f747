"""Selectors: which are good, and which entry is meant by what was shown."""

from __future__ import annotations

import pytest

from ca.entries import Entry, NewEntry, check_entry
from ca.errors import InvalidEntry, ProofRefused
from ca.selectors import check_selectors, choose
from certs.spiffe import workload_id
from tests.ca.office import DAY, DEMO

K8S = ("k8s:cluster:prod", "k8s:ns:shop", "k8s:sa:orders")
SHOWN = (*K8S, "k8s:pod:orders-1", "k8s:node:n1")


def entry(name: str, *selectors: str) -> Entry:
    return Entry(f"{name}-1", workload_id(DEMO, "default", name), (), DAY, 0.0, selectors)


@pytest.mark.parametrize(
    "good",
    [(), K8S, (*K8S, "k8s:pod:orders-1", "k8s:pod-uid:ab-cd", "k8s:node:n1"), ("unix:uid:0",),
     ("unix:uid:1000", "unix:gid:100", "unix:path:/usr/bin/orders:v2")],
)  # fmt: skip
def test_selectors_that_name_somebody(good: tuple[str, ...]) -> None:
    check_selectors(good)
    check_entry(NewEntry(workload_id(DEMO, "default", "a"), selectors=good, expired_for=7 * DAY), DEMO)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (("k8s:ns:shop", "k8s:sa:orders"), "fit too many"),
        (("k8s:cluster:prod", "k8s:sa:orders"), "fit too many"),
        (("unix:gid:100",), "fit too many"),
        (("unix:path:/bin/x",), "fit too many"),
        ((*K8S, "unix:uid:0"), "two kinds"),
        ((*K8S, "k8s:ns:shop"), "twice"),
        (("k8s:label:x",), "no kind that there is"),
        (("uid:0",), "no kind that there is"),
        (("unix:uid:",), "no value"),
        (("unix:uid:a b",), "no value"),
        (("unix:uid:root",), "numbers"),
        (("unix:uid:007",), "numbers"),
        (("unix:uid:0", "unix:path:orders"), "absolute"),
        (tuple(f"unix:uid:{number}" for number in range(17)), "at most 16"),
    ],
)
def test_selectors_that_cannot_be_meant(bad: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidEntry, match=words):
        check_selectors(bad)


@pytest.mark.parametrize("seconds", [-1.0, 7 * DAY + 1, float("nan"), float("inf")])
def test_an_expired_certificate_is_good_for_seven_days_at_most(seconds: float) -> None:
    with pytest.raises(InvalidEntry, match="7d"):
        check_entry(NewEntry(workload_id(DEMO, "default", "a"), expired_for=seconds), DEMO)


def test_the_entry_that_asks_for_most_is_meant() -> None:
    any_pod, one_pod = entry("orders", *K8S), entry("first", *K8S, "k8s:pod:orders-1")
    others = [entry("bare"), entry("local", "unix:uid:0"), entry("web", *K8S[:2], "k8s:sa:web")]
    assert choose([*others, any_pod], SHOWN, "a token") is any_pod
    assert choose([*others, any_pod, one_pod], SHOWN, "a token") is one_pod
    assert choose([any_pod, one_pod], SHOWN, "a token", "orders-1") is any_pod
    assert choose([any_pod, one_pod], SHOWN, "a token", any_pod.spiffe_id.text) is any_pod


@pytest.mark.parametrize(
    ("entries", "wanted", "words"),
    [
        ([], "", "no entry has selectors of this kind"),
        ([entry("bare"), entry("local", "unix:uid:0")], "", "no entry has selectors of this kind"),
        ([entry("a", *K8S), entry("b", *K8S)], "", "fits a-1, b-1 alike"),
        ([entry("web", *K8S[:2], "k8s:sa:web"), entry("far", "k8s:cluster:x", "k8s:ns:y", "k8s:sa:z")], "",
         "closest entry: web-1 asks for k8s:sa:web and saw k8s:sa:orders"),
        ([entry("orders", *K8S, "k8s:pod-uid:u9")], "", "k8s:pod-uid:u9 and saw nothing of the kind"),
        ([entry("orders", *K8S), entry("web", *K8S[:2], "k8s:sa:web")], "web-1",
         "web-1 asks for k8s:sa:web and saw k8s:sa:orders"),
        ([entry("orders", *K8S)], "nobody", "no entry 'nobody'"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_shown_and_what_differs(entries: list[Entry], wanted: str, words: str) -> None:
    with pytest.raises(ProofRefused) as caught:
        choose(entries, SHOWN, "a token of cluster prod", wanted)
    assert words in str(caught.value)
    assert "k8s:cluster:prod k8s:ns:shop k8s:sa:orders" in str(caught.value)
