"""Two hundred short runs of the nonce client with rotation, reload, drain and restarts at random points.

`MESH_STORM_RUNS` and `MESH_STORM_FIRST_SEED` choose others. The figures of the last whole run are in docs/limits.md.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from tests.kit.programs import echo_app
from tests.kit.random_events import Result, Storm

RUNS = int(os.environ.get("MESH_STORM_RUNS", "200"))
FIRST_SEED = int(os.environ.get("MESH_STORM_FIRST_SEED", "1000"))


def test_nothing_is_lost_in_any_run(tmp_path: Path) -> None:
    storm, results = Storm(tmp_path), list[Result]()
    with echo_app(tmp_path, storm.ports.app), storm:
        storm.start_all()
        for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
            results.append(storm.run(seed))
            print(results[-1].summary(), flush=True)
        storm.assert_well()
    print(total(results))
    for result in results:
        result.assert_nothing_lost()


def total(results: list[Result]) -> str:
    """All runs in a few lines."""
    events = Counter(f"{event.kind} {event.target}" for result in results for event in result.events)
    flags = sum((result.flags for result in results), Counter[str]())
    numbers = {
        "sent": sum(result.tally.sent for result in results),
        "POST": sum(result.tally.posts for result in results),
        "ok": sum(len(result.ok) for result in results),
        "refused": sum(len(result.refused) for result in results),
        "cancelled": sum(len(result.tally.cancelled) for result in results),
        "lost": sum(len(result.lost) for result in results),
        "crossed": sum(len(result.tally.crossed) for result in results),
        "torn": sum(len(result.tally.torn) for result in results),
    }
    return f"{len(results)} runs: {numbers}; events {dict(events)}; flags of refusals {dict(flags)}"
