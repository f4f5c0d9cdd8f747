"""`make bench [ARGS="--row NAME …"]`: see `tests/bench/__init__.py` for what is measured, `rows.py` for the bars."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import decisions
from tests.bench.flame import flame
from tests.bench.judge import disturbed
from tests.bench.load import NoLoad, build
from tests.bench.machine import put_first
from tests.bench.publish import publish
from tests.bench.report import environment, interpreter, on_debians_python, print_row
from tests.bench.rows import ROWS, Row
from tests.bench.stage import Stage, measure, staged

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "bench"
LONGEST_TURN = 80.0  # seconds that `--lock` is held at a time
AGAIN = 2  # how often a round is repeated that others disturbed


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS], help="this row; may be repeated")
    parser.add_argument("--peer", action="append", help="only this peer, beside us; may be repeated; `none` for none")
    parser.add_argument("--rounds", type=int, help="instead of the row's own number (7 for latency, else 5)")
    parser.add_argument("--seconds", type=float, help="of each measurement (30 for latency, else 5)")
    parser.add_argument("--short", action="store_true", help="3 rounds of 2 seconds: a first look")
    parser.add_argument("--lock", type=Path, help="hold this file's lock while measuring, at most 80 s at a time")
    parser.add_argument("--first", action="store_true", help="all of ours at nice -20, so that others wait (root)")
    parser.add_argument("--flame", action="store_true", help="instead: what our hop does under the row, docs/bench/")
    parser.add_argument("--publish", action="store_true", help="instead: write docs/ from the figures measured last")
    parser.add_argument("-o", "--output", type=Path, default=CACHE / "figures.json", help="JSON; rows are replaced")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    rows = [row for row in ROWS if not options.row or row.name in options.row]
    if options.publish:
        return publish(options.output)
    if options.flame:
        return flame(rows[0], build(CACHE))
    print(f"{interpreter()}; proxies on core 0, load and back end on core 1")
    if not on_debians_python():
        print("!! The bars are meant for Debian's /usr/bin/python3.11; these figures are of another interpreter.")
    if options.first:
        with contextlib.suppress(PermissionError):
            os.setsid()  # a session of our own, with whatever we start in it
        put_first([os.getpid()])
    try:
        program = build(CACHE)
        for row in rows:
            figures, missing = play(row, program, options)
            print_row(row, figures, missing)
            keep(options.output, row, figures, missing)
        if not options.row:
            print("\ndecisions: what the policies of traffic cost by themselves, CPU time, best of five")
            decisions.main()
    except NoLoad as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\nfigures: {options.output}")
    return 0


def play(row: Row, program: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """All rounds of a row: interleaved, each in the reverse order of the one before."""
    rounds = options.rounds or (3 if options.short else row.rounds)
    seconds = options.seconds or (2.0 if options.short else row.seconds)
    names = ["mesh", *(row.peers if not options.peer else [name for name in row.peers if name in options.peer])]
    figures: list[dict[str, Any]] = []
    missing: list[str] = []
    stages = rounds if row.work.mode == "hold" else 1  # memory that was given back once is no longer new
    for number in range(stages):
        with (
            tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder,
            staged(row, Path(folder) / row.name, program, names) as stage,
        ):
            if options.first:
                put_first([*stage.others, *(pid for pids in stage.contestants.values() for pid in pids)])
            for turn in range(number, number + rounds // stages):
                figures += one_round(stage, turn, seconds, Quiet(options.lock))
                print(".", end="", flush=True, file=sys.stderr)
            missing = stage.missing
    print(file=sys.stderr)
    return figures, missing


def one_round(stage: Stage, number: int, seconds: float, quiet: Quiet) -> list[dict[str, Any]]:
    """Everybody once."""
    figures = []
    try:
        for name in list(stage.contestants)[:: 1 if number % 2 == 0 else -1]:
            quiet.turn(seconds + 2)
            figures.append({"round": number, **measured(stage, name, seconds)})
    finally:
        quiet.end()
    return figures


def measured(stage: Stage, name: str, seconds: float) -> dict[str, Any]:
    """A measurement that nobody disturbed, or the last of several."""
    figure = measure(stage, name, seconds)
    for _ in range(0 if stage.scene.row.work.mode == "hold" else AGAIN):
        if not disturbed(figure):
            break
        figure = measure(stage, name, seconds)
    return figure


class Quiet:
    """A lock on a file, held alone while we measure, and let go now and then so that others get their turn."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a") if path is not None else None
        self._since: float | None = None

    def turn(self, seconds: float) -> None:
        """Before a measurement that will take so long: take the lock, unless we have it and may keep it."""
        if self._file is None:
            return
        if self._since is not None and time.monotonic() + seconds > self._since + LONGEST_TURN:
            self.end()
            time.sleep(1.0)
        if self._since is None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._since = time.monotonic()

    def end(self) -> None:
        """Let the others in."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._since = None


def keep(path: Path, row: Row, figures: list[dict[str, Any]], missing: list[str]) -> None:
    """Write the row into the file of figures; other rows that stand there stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    document["rows"][row.name] = {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "environment": environment(), "missing": missing,
        "figures": figures,
    }  # fmt: skip
    document["written"] = time.time()
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
