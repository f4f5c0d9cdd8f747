"""200 copies that leave at random points of an open-loop load, in containers: no request is lost.

Two rollers go on side by side, each with two of the four copies: wait for a random moment, end one, start it again,
wait until its callers take it for well, as a rolling update waits; then the other one. So a copy of each pair is always
there, and the two pairs meet in every phase of each other's. Half of the load is POST without Idempotency-Key.

A leave takes eight to fifteen seconds on two busy cores; `MESH_LEAVES` says another number than 200. What was counted
is printed (`pytest -s`), and the first request that is lost ends it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.containers.conftest import docker as docker
from tests.kit.containers import Docker
from tests.kit.docker_pods import LoadFromInside, Pod, Pods

LEAVES = int(os.environ.get("MESH_LEAVES", "200"))


def roll(pods: Pods, pair: Sequence[Pod], leaves: int, load: LoadFromInside, dice: random.Random) -> None:
    """Let one of the two leave at a random moment and come back, in turn."""
    for number in range(leaves):
        time.sleep(dice.uniform(0.05, 0.8))
        copy = pair[number % len(pair)]
        copy.leave()
        copy.come()
        pods.until_available(copy)
        tally = load.tally
        if tally.failed or tally.torn or tally.crossed:
            return  # the test says which


@pytest.mark.deep
def test_two_hundred_leaves(docker: Docker, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    with Pods(docker, tmp_path, copies=4) as pods:
        pairs = pods.orders[:2], pods.orders[2:]
        with pods.load(seed=seed) as load, ThreadPoolExecutor(len(pairs)) as rollers:
            rolled = [
                rollers.submit(roll, pods, pair, LEAVES // len(pairs), load, random.Random(seed + number))
                for number, pair in enumerate(pairs)
            ]
            for each in rolled:
                each.result()
        tally = load.stop()
    print(f"\n{LEAVES // len(pairs) * len(pairs)} leaves, seed {seed}: {tally.summary()}")
    tally.assert_flawless()
