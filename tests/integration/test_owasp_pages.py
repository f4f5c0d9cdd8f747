"""docs/owasp: each page's attack is run against its own configuration, and is refused and logged as the page says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.load import load_text
from tests.kit.identities import an_svid
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import LocalSidecar, World

PAGES = Path(__file__).parents[2] / "docs" / "owasp"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
URL = "http://127.0.0.1:9001"


@dataclass(frozen=True)
class Page:
    """What a page shows: the service's config, the attack, the refusal's first line, and the line of the log."""

    config: str
    attack: str
    refusal: str
    line: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Page:
        """Take a page apart."""
        blocks: dict[str, str] = {}
        for language, text in BLOCK.findall(path.read_text()):
            blocks.setdefault(language, text)
        return cls(blocks["yaml"], blocks["sh"], blocks["http"], json.loads(blocks["json"]))


def pages() -> list[Path]:
    return sorted(PAGES.glob("api*.md"))


def world_of(page: Page, folder: Path) -> World:
    """A mesh whose `app` is the page's."""
    app = page.config.partition("\n  app:\n")[2]
    rest = app.partition("    allow:")[2].rstrip()
    world = World(folder, allow=rest.lstrip())
    if "forward_proxy:" in page.config:
        proxy = f"    forward_proxy: 127.0.0.1:{world.ports.proxy}\n    access_log: {{mode: all, path: {folder}/web"
        world.text = world.text.replace(f"    access_log: {{mode: all, path: {folder}/web", proxy)
        world.config = load_text(world.text, str(folder / "mesh.yaml"))
    return world


def attack(page: Page, world: World) -> str:
    """Run the page's lines of curl, once each or as often as its loop says; the head of the last answer."""
    said = ""
    for line in page.attack.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        loop = re.fullmatch(r"for n in \$\(seq (\d+) (\d+)\); do (curl .*?); done", line)
        first, last, command = (int(loop[1]), int(loop[2]), loop[3]) if loop else (1, 1, line)
        for number in range(first, last + 1):
            words = command.replace("$n", str(number)).replace(URL, world.url)
            words = words.replace("127.0.0.1:9000", f"127.0.0.1:{world.ports.proxy}")
            arguments = [each.strip("'") for each in re.findall(r"'[^']*'|\S+", words)]
            assert arguments[0] == "curl"
            said = curl(*arguments[1:]).text
    return said


def line_of(sidecars: list[LocalSidecar], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    lines = [line for sidecar in sidecars for line in sidecar.access_log()]
    return [line for line in lines if wanted.items() <= line.items()]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_the_attack_is_refused_and_logged_as_the_page_says(path: Path, tmp_path: Path) -> None:
    page = Page.read(path)
    world = world_of(page, tmp_path)
    try:
        with echo_app(tmp_path, world.ports.app), world.sidecar("app") as app, world.sidecar("web") as web:
            if "somebody else" in page.attack:
                app.publish(an_svid(world.issuer, "mallory"))
            said = attack(page, world)
            assert said.splitlines()[0].strip() == page.refusal.splitlines()[0].strip(), said
            eventually("the line of the page is in the log", lambda: line_of([web, app], page.line))
    finally:
        world.close()


def test_each_page_is_of_a_risk_and_none_is_missing_from_the_overview() -> None:
    overview = (PAGES / "README.md").read_text()
    for page in pages():
        assert f"({page.name})" in overview
    for page in [*pages(), PAGES / "README.md"]:
        links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text())
        assert [link for link in links if "://" not in link and not (PAGES / link).exists()] == []
