"""Bad input keeps nobody else waiting: no step of a sidecar that judges it takes more than 50 ms of the processor
(here twice that, for slow machines; `python -m tests.bench.stalls` holds it to the bound).
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.stalls import MOST, measured


def test_bad_input_is_refused_in_short_steps(tmp_path: Path) -> None:
    found = measured(tmp_path, slow=False)
    assert {row.kind: f"{1000 * row.longest:.0f} ms" for row in found if row.longest > 2 * MOST} == {}
    assert {status for row in found for status in row.statuses} == {200, 400, 401, 413, 415}
