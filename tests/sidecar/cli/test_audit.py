"""`mesh audit verify` and `show`, as somebody at a terminal or a script has them."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from sidecar.cli import audit
from sidecar.cli.root import run_command
from sidecar.telemetry.chain import Chain

LINES = 45_000


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of some megabytes."""
    path: Path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    lines = [b'{"v":1,"kind":"%s","time":"2026-01-31T12:00:00Z","caller":"spiffe://demo.mesh/web","number":%d}\n'
             % (b"permit" if one % 3 else b"refusal", one) for one in range(LINES)]  # fmt: skip
    path.write_bytes(b"".join(Chain(str(path)).seal(lines)))
    return path


def test_on_a_terminal_a_long_file_shows_how_far_it_is(long, monkeypatch, capsys) -> None:
    monkeypatch.setattr(audit, "PROGRESS_BYTES", 2 << 20)
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal)
        assert run_command(["audit", "verify", str(long)]) == 0
    told = os.read(ours, 65_536).decode()
    os.close(ours)
    sizes = [int(size) for size in re.findall(rf"{re.escape(str(long))}: (\d+) MiB\r\n", told)]
    assert sizes == sorted(set(sizes))
    assert 2 <= sizes[0] <= sizes[-1] <= long.stat().st_size >> 20
    assert "the record holds" in capsys.readouterr().out


def test_a_script_is_not_told(long, monkeypatch, capsys) -> None:
    monkeypatch.setattr(audit, "PROGRESS_BYTES", 2 << 20)
    assert run_command(["audit", "verify", str(long), "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    assert (report["ok"], report["lines"], report["chains"][0]["only_chained"]) == (True, LINES, LINES)


def test_a_record_in_pieces_and_packed_is_read_in_its_order(long, tmp_path, capsys) -> None:
    lines = long.read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.jsonl.2.gz").write_bytes(gzip.compress(b"".join(lines[:20_000])))
    (tmp_path / "audit.jsonl.1").write_bytes(b"".join(lines[20_000:40_000]))
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[40_000:]))
    names = [str(tmp_path / name) for name in ("audit.jsonl", "audit.jsonl.1", "audit.jsonl.2.gz")]
    assert run_command(["audit", "verify", *names]) == 0
    assert f"lines 1 to {LINES}" in capsys.readouterr().out
    assert run_command(["audit", "verify", names[0], names[2]]) == 1
    assert "line 20001 to 40000" in capsys.readouterr().out


def test_what_is_not_there_or_cut_within_its_packing_is_exit_2(long, tmp_path, capsys) -> None:
    assert run_command(["audit", "verify", str(tmp_path / "none")]) == 2
    packed = tmp_path / "audit.jsonl.gz"
    packed.write_bytes(gzip.compress(long.read_bytes())[:-100])
    assert run_command(["audit", "verify", str(packed)]) == 2
    assert "audit.jsonl.gz" in capsys.readouterr().err


def test_show_picks_lines_and_leaves_them_as_they_are(long, capsys) -> None:
    assert run_command(["audit", "show", str(long), "--kind", "refusal", "--caller", "web"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == LINES // 3
    assert shown[0].encode() == long.read_bytes().splitlines()[0]
    assert run_command(["audit", "show", str(long), "--since", "1h"]) == 0
    assert capsys.readouterr().out == ""
