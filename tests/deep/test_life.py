"""200 copies that leave at random points of an open-loop load, in containers: no request is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.integration.containers.conftest import docker as docker
from tests.kit.containers import Docker
from tests.kit.docker_pods import Pods

LEAVES = 200


@pytest.mark.deep
def test_two_hundred_leaves(docker: Docker, tmp_path: Path) -> None:
    dice = random.Random()
    with Pods(docker, tmp_path) as pods:
        for number in range(LEAVES):
            with pods.load(seed=number) as load:
                time.sleep(dice.uniform(0.05, 0.8))
                copy = dice.choice(pods.orders)
                copy.leave()
                copy.come()
            tally = load.stop()
            assert tally.sent
            tally.assert_flawless()
