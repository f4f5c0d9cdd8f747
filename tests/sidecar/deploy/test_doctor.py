"""What `mesh doctor` finds in what sidecars tell of themselves, row by row; a well one gives no finding."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from sidecar.deploy.cluster.escaped import Escaped
from sidecar.deploy.compose.engine import Container
from sidecar.deploy.compose.verify import Finding as Knock
from sidecar.deploy.doctor import (
    Finding,
    of_certificates,
    of_containers,
    of_knocks,
    of_pods,
    of_sidecar,
    of_versions,
)

WELL: dict[str, Any] = {
    "service": "orders", "state": "ready", "not_ready": [], "version": "1.0",
    "identity": {"serial": "4f", "ca_connected": True, "ca_survival_seconds": 80_000.0, "denylist_error": ""},
    "config": {"last_reload": {"result": "done", "mistakes": []}},
    "listeners": [{"name": "http", "posture": "strict"}, {"name": "payments"}],
    "hygiene": {"open_files": 1000, "note": ""}, "engine": {"descriptors": 24},
}  # fmt: skip


def changed(**parts: Any) -> dict[str, Any]:
    """The well one, with parts of it put over."""
    status = deepcopy(WELL)
    for key, value in parts.items():
        status[key] = {**status[key], **value} if isinstance(status.get(key), dict) else value
    return status


def test_of_one_that_is_well_there_is_nothing_to_say() -> None:
    assert list(of_sidecar(WELL)) == []


@pytest.mark.parametrize(
    ("status", "level", "words", "mend"),
    [
        ({"service": "orders", "state": "unreachable", "detail": "refused"}, "wrong", "nobody answers", "mesh run"),
        (changed(not_ready=["no CA", "no policy"]), "wrong", "not ready: no CA; no policy", "mesh status"),
        (changed(state="starting"), "wrong", "its state is starting", "mesh status"),
        (changed(state="draining", not_ready=["it drains"]), "warning", "it drains", "wait"),
        (changed(identity={"serial": "", "last_error": "409 used"}), "wrong", "no certificate: 409 used", "mesh ca"),
        (changed(identity={"ca_connected": False}), "warning", "lives 22.2 h without it", "mesh ca status"),
        (
            changed(identity={"ca_connected": False, "ca_survival_seconds": 3600.0}),
            "wrong", "lives 1.0 h without it", "mesh ca status",
        ),
        (changed(identity={"denylist_error": "a foreign signature"}), "wrong", "a foreign signature", "mesh ca status"),
        (
            changed(config={"last_reload": {"result": "failed", "mistakes": ["mesh.yaml:3 oh", "mesh.yaml:4 no"]}}),
            "wrong", "mesh.yaml:3 oh (and 1 more)", "mesh check",
        ),
        (
            changed(listeners=[{
                "name": "http", "posture": "permissive", "declared_posture": "permissive", "would_refuse": 7,
                "until": "2026-12-01T00:00:00Z",
            }]),
            "warning", "http is permissive until 2026-12-01T00:00:00Z; strict would have refused 7 hops", "migrate",
        ),
        (
            changed(listeners=[{
                "name": "http", "posture": "strict", "declared_posture": "observe", "until": "2026-11-01T00:00:00Z",
            }]),
            "warning", "the observe posture of listener http has ended", "take `posture`",
        ),
        (changed(engine={"descriptors": 850}), "wrong", "850 of 1000 file descriptors", "ulimit -n"),
        (changed(hygiene={"note": "no Landlock here"}), "warning", "no Landlock here", "docs/security.md"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_mends_it(status: dict[str, Any], level: str, words: str, mend: str) -> None:
    (found,) = of_sidecar(status)
    assert (found.level, found.where) == (level, "orders")
    assert words in found.what
    assert mend in found.mend


def test_another_version_is_a_warning() -> None:
    assert list(of_versions([WELL], "1.0")) == []
    (found,) = of_versions([WELL, changed(service="web", version="0.9")], "1.0")
    assert found.as_json() == {
        "level": "warning", "where": "web", "what": "it is version 0.9, this command 1.0",
        "mend": "restart it with the new version; one copy at a time loses no request",
    }  # fmt: skip


def test_certificates_that_end_too_soon() -> None:
    rows = [
        {"of": "orders", "link": "leaf", "ok": True, "detail": ""},
        {"of": "orders", "link": "leaf", "ok": False, "detail": "it is late"},
        {"of": "orders", "link": "root", "ok": False, "detail": "it ends in 3 d"},
    ]
    assert list(of_certificates(rows)) == [
        Finding("wrong", "orders", "leaf: it is late", "mesh certs rotate orders"),
        Finding("wrong", "orders", "root: it ends in 3 d", "mesh ca rotate-root --plan"),
    ]


def a_container(part: str = "sidecar", **changes: Any) -> Container:
    known: dict[str, Any] = {
        "id": "1", "name": f"shop_{part}", "service": "orders", "part": part, "of": "orders", "image": "mesh:1",
        "status": "running", "health": "", "exit_code": 0, "mode": "",
    }  # fmt: skip
    return Container(**(known | changes))


def test_a_project_that_runs_as_it_should_gives_no_finding() -> None:
    keys = a_container("keys", status="exited")
    mine = a_container("", image="shop:3")
    assert list(of_containers([a_container(), keys, mine], "mesh:1", "c.yml")) == []


@pytest.mark.parametrize(
    ("container", "level", "words"),
    [
        (a_container(status="exited", exit_code=137), "wrong", "exited (137)"),
        (a_container("holder", status="exited"), "wrong", "exited (0)"),
        (a_container("keys", status="exited", exit_code=1), "wrong", "exited (1)"),
        (a_container("ca", status="restarting"), "wrong", "restarting"),
        (a_container(health="unhealthy"), "wrong", "health check fails"),
        (a_container(image="mesh:0"), "warning", "its image is mesh:0"),
    ],
)
def test_containers_that_are_not_well(container: Container, level: str, words: str) -> None:
    (found,) = of_containers([a_container("door"), container], "mesh:1", "c.yml")
    assert (found.level, found.where) == (level, container.name)
    assert words in found.what


def test_a_project_without_the_mesh() -> None:
    (found,) = of_containers([a_container("")], "mesh:1", "c.yml")
    assert found == Finding("wrong", "c.yml", "its project runs without the mesh", "mesh compose inject c.yml --diff")


def test_ports_that_answer_strangers() -> None:
    good, bad = Knock("a", "n", "10.0.0.1", 80, "tls"), Knock("orders", "front", "10.0.0.2", 8080, "plaintext")
    (found,) = of_knocks([good, bad])
    assert (found.level, found.where) == ("wrong", "orders")
    assert "port 8080 answers past the mesh on front" in found.what


def test_pods_that_escaped() -> None:
    naked = Escaped("shop", "web-1", "no-sidecar", "", "kubectl …")
    wrong, old = of_pods([naked, Escaped("shop", "web-2", "old-version", "0.0", "x")])
    assert (wrong.level, wrong.where, wrong.mend) == ("wrong", "pod shop/web-1", "kubectl …")
    assert old.level == "warning"
