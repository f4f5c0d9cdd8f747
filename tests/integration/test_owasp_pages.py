"""docs/owasp: the attacks of each page work without the mesh, and are refused, logged and counted as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.policy.owasp import RISKS
from tests.kit.cookbook import PAGES, Page, outcomes, pages


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_each_attempt_ends_as_the_page_says(path: Path, tmp_path: Path) -> None:
    found = list(outcomes(path, tmp_path))
    assert [each for each in found if each.wrong] == []
    assert [each for each in found if each.error]


def test_each_risk_has_a_page_with_attack_refusal_line_and_counter() -> None:
    assert [path.stem.upper() for path in pages()] == list(RISKS)
    for path in pages():
        attempts = Page.read(path).attempts
        assert all(each.refusal for each in attempts), path
        assert any(each.line and each.counters for each in attempts), path
        assert "## What it covers, and what not" in path.read_text()


def test_the_overview_has_all_pages_and_no_link_leads_nowhere() -> None:
    overview = (PAGES / "README.md").read_text()
    for path in pages():
        assert f"({path.name})" in overview
    for page in [*pages(), PAGES / "README.md"]:
        links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text())
        assert [link for link in links if "://" not in link and not (PAGES / link).exists()] == []
