"""Two hundred short runs of the nonce client over multiplexed connections: a tenth of its requests are cancelled on
their way, while rotation, reload, drain and restarts come at random points.

`MESH_STORM_RUNS` and `MESH_STORM_FIRST_SEED` choose others. The figures of the last whole run are in docs/limits.md.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.deep.test_random_events import FIRST_SEED, RUNS, total
from tests.kit.nonce_h2 import H2NonceLoad
from tests.kit.programs import echo_app
from tests.kit.random_events import Result, Storm

CANCELLING = partial(H2NonceLoad, cancel_share=0.1)


def test_nothing_is_lost_over_http_2_in_any_run(tmp_path: Path) -> None:
    storm, results = Storm(tmp_path), list[Result]()
    with echo_app(tmp_path, storm.ports.app), storm:
        storm.start_all()
        for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
            results.append(storm.run(seed, load_by=CANCELLING))
            print(results[-1].summary(), flush=True)
        storm.assert_well()
    print(total(results))
    for result in results:
        result.assert_nothing_lost()
    assert sum(len(result.tally.cancelled) for result in results) > 5 * len(results)
