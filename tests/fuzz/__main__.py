"""Every fuzzer for so many seconds: `python -m tests.fuzz SECONDS [WORD …]`; words choose among the names.

Prints a line for each: how many inputs it has tried, and how long. Ends with 1 where one has failed; the failing input
is printed and kept in `.hypothesis`, so that the next run of the tests begins with it.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.depth import FUZZERS, Check

AT_A_TIME = 2_000  # inputs between two looks at the time


def main(seconds: float, words: list[str]) -> int:
    """Run them one after the other."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.fuzz.{path.stem}")
    failed = 0
    for name, (check, run) in FUZZERS.items():
        if not words or any(word in name for word in words):
            failed += not _for_some_time(name, check, run, seconds)
    return 1 if failed else 0


def _for_some_time(name: str, check: Check, run: Check, seconds: float) -> bool:
    tried, began = 0, time.monotonic()

    @functools.wraps(check)
    def counted(*inputs: object, **named: object) -> None:
        nonlocal tried
        tried += 1
        check(*inputs, **named)

    good = True
    try:
        while time.monotonic() - began < seconds:
            run(AT_A_TIME, counted)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        good = False
        traceback.print_exc()
    took = time.monotonic() - began
    print(f"{name}: {tried:,} inputs in {took:.0f} s, {'nothing found' if good else 'FAILED'}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
