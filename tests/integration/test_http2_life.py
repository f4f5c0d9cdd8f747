"""Nothing is crossed and nothing lost on multiplexed connections, whatever befalls the sidecars or other streams."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.kit.fleet import settled
from tests.kit.nonce_h2 import H2NonceLoad
from tests.kit.programs import echo_app
from tests.kit.random_events import Storm, _rotate

SEEDS = (5, 6, 11, 20, 23, 26)  # with each kind of event among them, to either sidecar


def test_nothing_is_lost_over_http_2_in_runs_with_random_events(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    storm = Storm(tmp_path)
    with echo_app(tmp_path, storm.ports.app), storm:
        storm.start_all()
        for seed in SEEDS:
            result = storm.run(seed, load_by=H2NonceLoad)
            print(result.summary())
            record_property(f"seed {seed}", result.summary())
            result.assert_nothing_lost()
        storm.assert_well()


def test_cancelled_requests_disturb_nobody_through_reload_rotation_and_renewal(tmp_path: Path) -> None:
    storm = Storm(tmp_path)
    with echo_app(tmp_path, storm.ports.app), storm:
        storm.start_all()
        with H2NonceLoad(storm.ports.door, rate=150, seed=3, connections=2, cancel_share=0.2) as load:
            for _ in range(4):
                time.sleep(0.5)
                for sidecar in storm.both:
                    storm.change_config()
                    sidecar.process.signal(signal.SIGHUP)
            _rotate(storm["web"])
            time.sleep(0.5)
            tally = load.stop()
        print(tally.summary(), len(tally.cancelled), "cancelled")
        assert len(tally.cancelled) > 20
        tally.assert_flawless()
        settled(storm.both)
        storm.assert_well()
