"""Every verb of `mesh certs` with `-o json`, against sidecars and a CA that run: one JSON document; tables fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.meshes import Pair

WIDTH = 80  # columns of a terminal that nobody made wider

VERBS = [
    "list", "show web", "verify web", "check", "check --ca-dir CA", "export web --what bundle", "rotate web --dry-run",
    "rotate --all --dry-run", "revoke --list --ca-dir CA", "issue --enrolment ENROLMENT --out OUT",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_one_document(pair: Pair, verb: str, tmp_path: Path) -> None:
    places = {"CA": pair.folder / "ca", "ENROLMENT": pair.enrolment("web"), "OUT": tmp_path / "out"}
    done = pair.mesh("certs", *(str(places.get(word, word)) for word in verb.split()), "-o", "json")
    assert done.returncode == 0, done
    assert isinstance(json.loads(done.stdout), dict | list)


def test_revoke_one_and_lift_it(pair: Pair, tmp_path: Path) -> None:
    """A certificate that only its file holds, so that nobody is cut off."""
    words = ("--enrolment", str(pair.enrolment("web")), "--out", str(tmp_path / "out"))
    serial = json.loads(pair.mesh("certs", "issue", *words, "-o", "json").stdout)["serial"]
    for verb in ("revoke", "unrevoke"):
        done = pair.mesh("certs", verb, serial, "--ca-dir", str(pair.folder / "ca"), "-o", "json")
        assert done.returncode == 0, done
        assert isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize("verb", ["rotate --all --dry-run", "check"])
def test_lines_for_people_fit(pair: Pair, verb: str) -> None:
    done = pair.mesh("certs", *verb.split())
    assert done.returncode == 0, done
    assert [line for line in done.stdout.splitlines() if len(line) > WIDTH] == []
