"""The life of a pod, in containers under open-loop load: half of it POST without Idempotency-Key, nothing sent twice.

The long form, 200 leaves at random points, is tests/deep/test_life.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.kit.containers import Docker
from tests.kit.docker_pods import Pods
from tests.kit.nonce import Tally
from tests.kit.processes import eventually

UNDER_WAY = 12  # requests that may be lost with a process that is killed: those that it was holding


@pytest.fixture(scope="module")
def pods(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    with Pods(docker, tmp_path_factory.mktemp("pods")) as pods:
        yield pods


def only_its_own(tally: Tally) -> None:
    """Whatever failed was with the one that was killed; nothing is torn but what it had begun, nothing crossed."""
    assert tally.sent > 50
    assert not tally.crossed
    assert len(tally.failed) + len(tally.torn) <= UNDER_WAY, tally.summary()


def test_a_copy_that_leaves_takes_no_request_with_it(pods: Pods) -> None:
    dice = random.Random(8)
    with pods.load(seed=8) as load:
        for _ in range(2):
            time.sleep(dice.uniform(0.1, 0.6))
            copy = dice.choice(pods.orders)
            copy.leave()
            copy.come()
            pods.all_available()
    load.stop().assert_flawless()


def test_a_sidecar_that_is_restarted_alone_loses_nothing(docker: Docker, pods: Pods) -> None:
    with pods.load(seed=9) as load:
        time.sleep(0.3)
        docker("restart", "-t", "20", pods.orders[0].sidecar)
        pods.orders[0].until_ready()
    load.stop().assert_flawless()


def test_a_sidecar_that_is_killed_loses_only_what_it_held(docker: Docker, pods: Pods) -> None:
    with pods.load(seed=10) as load:
        time.sleep(0.5)
        docker("kill", pods.orders[1].sidecar)
        docker("start", pods.orders[1].sidecar)
        pods.orders[1].until_ready()
    only_its_own(load.stop())


def test_without_the_ca_everything_goes_on(docker: Docker, pods: Pods) -> None:
    with pods.load(seed=11) as load:
        time.sleep(0.3)
        docker("kill", "ca")
        time.sleep(1.0)
        docker("start", "ca")
        time.sleep(0.5)
    load.stop().assert_flawless()


def test_a_host_that_is_lost_takes_only_what_it_held(docker: Docker, pods: Pods) -> None:
    lost = pods.orders[2]
    with pods.load(seed=12) as load:
        time.sleep(0.5)
        lost.die()
        time.sleep(1.0)
        lost.come()
        eventually("it is up", lambda: docker.state(lost.app)["Status"] == "running")
    only_its_own(load.stop())
