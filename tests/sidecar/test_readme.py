"""Every shell block of the README and of docs/ is run, or says why not; every file that the README names is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.demo.config import DEFAULT_BASE
from tests.kit.free_ports import free_base
from tests.kit.tools import need

HERE = Path(__file__).resolve().parents[2]
README = (HERE / "README.md").read_text()
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match["mark"] or "", match["text"]) for match in BLOCK.finditer(README) if match["kind"] == "sh"]
DOCS = {path.name: path.read_text() for path in sorted((HERE / "docs").glob("*.md"))}
NEXT = "run: after the block before"


def stories(text: str) -> list[tuple[str, str]]:
    """The shell blocks of a page with their marks; those that go on where the one before has ended are one with it."""
    found: list[tuple[str, str]] = []
    for match in BLOCK.finditer(text):
        if match["kind"] == "sh" and match["mark"] == NEXT:
            mark, before = found.pop()
            found.append((mark, before + match["text"]))
        elif match["kind"] == "sh":
            found.append((match["mark"] or "", match["text"]))
    return found


DOC_BLOCKS = [
    pytest.param(mark, block, id=f"{name}-{number}")
    for name, text in DOCS.items()
    for number, (mark, block) in enumerate(stories(text))
]
PORT = re.compile(r"\b17(\d{3})\b")


def blocks(mark: str) -> list[str]:
    return [text for marked, text in BLOCKS if marked == mark]


class Shell:
    """Runs blocks in a folder of their own, with `mesh` on the PATH and the default ports moved to free ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = free_base()
        programs = folder / "bin"
        programs.mkdir()
        mesh = programs / "mesh"
        mesh.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m sidecar.cli "$@"\n')
        mesh.chmod(0o755)
        self.env = {
            **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "MESH_RUN_DIR": str(folder / "run"),
            "PYTHONPATH": str(HERE), "TMPDIR": str(folder),
        }  # fmt: skip

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        moved = PORT.sub(lambda match: str(self.base - DEFAULT_BASE + 17000 + int(match[1])), text)
        return subprocess.run(
            [need("bash"), "-eu", "-o", "pipefail", "-c", moved], env=self.env, cwd=self.folder, capture_output=True,
            text=True, timeout=150, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_each_shell_block_is_marked_and_the_two_commands_come_first() -> None:
    assert [text for _, text in BLOCKS][:2] == ["make demo\n", "make test\n"]
    for mark, text in BLOCKS:
        assert mark.startswith(("run: ", "not run by a test: ")), text
    assert sum(len(blocks(mark)) for mark in ("run: while the demo runs", "run: in an empty folder")) == len(BLOCKS) - 2


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (HERE / target).exists(), target


@pytest.mark.integration
@pytest.mark.parametrize("text", blocks("run: in an empty folder"))
def test_a_block_that_stands_alone_runs(shell: Shell, text: str) -> None:
    need("curl")
    done = shell.run(text)
    assert done.returncode == 0, done.stdout + done.stderr
    if "mesh ca serve" in text:
        assert "reader may GET any path" in done.stdout
        assert done.stdout.count("trust_domain: example.mesh") == 1  # the file, fetched through both sidecars


@pytest.mark.integration
@pytest.mark.parametrize(("mark", "text"), DOC_BLOCKS)
def test_a_block_of_the_docs_runs_or_says_why_not(shell: Shell, mark: str, text: str) -> None:
    if not mark.startswith(("not run by a test: ", "not run: ")):
        assert mark == "run: in an empty folder", text
        done = shell.run(text)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_what_to_try_while_the_demo_runs(shell: Shell) -> None:
    need("curl")
    demo = subprocess.Popen(
        ["mesh", "up", "--port-base", str(shell.base)], env=shell.env, cwd=shell.folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert demo.stderr is not None
        deadline = time.monotonic() + 30
        while "payments may not" not in (line := demo.stderr.readline()) and "mesh status" not in line:
            assert time.monotonic() < deadline
            assert line, "the demo ended"
        for text in blocks("run: while the demo runs"):
            done = shell.run(text)
            assert done.returncode == 0, done.stdout + done.stderr
            said = ("no rule allows it", "orders-read", "permit: orders POST", "has a new certificate", "connected")
            assert [words for words in said if words not in done.stdout] == []
    finally:
        demo.terminate()
        demo.communicate(timeout=20)
    assert demo.returncode == 0
