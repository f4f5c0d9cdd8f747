"""`make bench ARGS=--flame`: a flame graph of our inbound hop under a row, by py-spy, and what costs most in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.rows import Row
from tests.bench.stage import staged

DOCS = Path(__file__).resolve().parents[2] / "docs" / "bench"
PY_SPY = Path(sys.executable).with_name("py-spy")
SECONDS, RATE, TOP = 12, 200, 40
LINE = re.compile(r":\d+\)$")
COMMAND = re.compile(r"[^<>]*py-spy record[^<>]*")  # which py-spy writes on top, with this machine's folders


def flame(row: Row, program: Path) -> int:
    """Profile one sidecar under the row's load; writes docs/bench/flame.svg and prints the functions that cost most."""
    if not PY_SPY.exists():
        print(f"no {PY_SPY}: scripts/bench-env.sh installs it from PyPI", file=sys.stderr)
        return 1
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mesh-flame-") as name:
        folder = Path(name)
        with (
            staged(row, folder / row.name, program, ["mesh"]) as stage,
            stage.load("mesh", 2 * SECONDS + 4)() as load,
        ):
            load.wait_for("BEGIN")
            pid = str(stage.contestants["mesh"][0])
            for kind, output in (("raw", folder / "raw"), ("flamegraph", DOCS / "flame.svg")):
                command = [str(PY_SPY), "record", "-p", pid, "-d", str(SECONDS), "-r", str(RATE), "-f", kind, "-F"]
                subprocess.run([*command, "-o", str(output)], check=True, capture_output=True)
        print_functions((folder / "raw").read_text())
    svg = DOCS / "flame.svg"
    svg.write_text(COMMAND.sub(f"mesh, row {row.name}: time of the inbound hop's threads", svg.read_text()))
    print(f"\nflame graph: {DOCS / 'flame.svg'}")
    return 0


def print_functions(raw: str) -> None:
    """Self and cumulative shares of what the reactor did."""
    alone: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    total = 0
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [LINE.sub(")", frame) for frame in stack.split(";")]
        if not any("reactor.py" in frame for frame in frames):
            continue
        total += int(count)
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            with_callees[frame] += int(count)
    print(f"{total} samples in the reactor")
    for title, counter in (("self", alone), ("with what they call", with_callees)):
        print(f"\n{title}")
        for frame, count in counter.most_common(TOP):
            print(f"  {count / max(total, 1):6.1%}  {frame}")
