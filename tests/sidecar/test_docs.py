"""What docs/ names is there: files that are linked to, verbs and their options' commands, and whole meshes in YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.cli.root import VERBS
from sidecar.config.load import load_text

HERE = Path(__file__).resolve().parents[2]
PAGES = sorted([*(HERE / "docs").glob("*.md"), *HERE.glob("*.md"), *(HERE / "deploy").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
VERB = re.compile(r"`mesh ([a-z][a-z-]+)")
MESH = re.compile(r"^```yaml\n(trust_domain: .*?)^```$", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return str(page.relative_to(HERE))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_verbs_are_verbs(page: Path) -> None:
    assert set(VERB.findall(page.read_text())) <= VERBS.keys()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_meshes_can_be_read(page: Path) -> None:
    for text in MESH.findall(page.read_text()):
        load_text(text)
