"""What callers notice of processes that freeze, are killed and come back: applications, their sidecars, all of them.

As in test_links: two callers, three copies, 40 requests a second of each caller, half of it POST.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.kit.processes import Process
from tests.kit.street import House, Street

pytestmark = pytest.mark.alone  # its bounds are of time-outs, and two more meshes beside it would move them

HANDSHAKE, SPARE = 5.0, 0.7  # seconds: of the longest time-out; for a busy machine


def process(house: House, which: str) -> Process:
    """The application, or its sidecar."""
    return house.app if which == "app" else house.sidecar


@pytest.mark.parametrize("which", ["app", "sidecar"])
def test_a_copy_that_freezes_for_five_seconds(street: Street, which: str) -> None:
    """The kernel goes on to accept for it, so nothing tells but silence. Each request that waits makes it look busier,
    so some tens get there; those wait for a time-out (of the answer, or of a handshake: then they go elsewhere), or for
    it to thaw.
    """
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        process(shop, which).signal(signal.SIGSTOP)
        time.sleep(5.0)
        process(shop, which).signal(signal.SIGCONT)
        street.until_well(8.0)
        well = calls.mark()
        time.sleep(0.5)
        story = calls.stop().sound()
    dark = story.during(since, well)
    assert len(dark.failed) <= 0.12 * len(dark.asked), dark.failures
    assert len(dark.slower(1.0)) <= 0.3 * len(dark.asked), dark  # who waits is not yet counted as slow
    assert not dark.slower(HANDSHAKE + SPARE), dark
    assert story.during(well).share_ok() == 1.0, story.failures


@pytest.mark.parametrize("which", ["app", "sidecar"])
def test_a_copy_that_is_killed(street: Street, which: str) -> None:
    """What it was doing at that moment is lost; POSTs are not sent again, and everybody else is answered at once, by
    another: where a sidecar has no application, it says so, and that is as good as nobody being there.
    """
    with street.calls() as calls:
        shop = calls.favourite()
        process(shop, which).kill()
        time.sleep(1.5)
        if which == "app":
            shop.open()
        else:
            shop.start_sidecar()
            shop.wait_ready()
        street.until_well(10.0)
        well = calls.mark()
        time.sleep(0.5)
        story = calls.stop().sound()
    assert len(story.failed) <= 10, story.failures
    assert not story.slower(1.0 + SPARE), story
    assert story.during(well).share_ok() == 1.0, story.failures


def test_all_copies_gone_and_back(street: Street) -> None:
    """Nobody can be asked: that is said at once and not after time-outs. When they come back, it passes by itself."""
    with street.calls() as calls:
        time.sleep(0.5)
        for shop in street.shops:
            shop.sidecar.kill()
        gone = calls.mark()
        time.sleep(2.0)
        back = calls.mark()
        for shop in street.shops:
            shop.start_sidecar()
        for shop in street.shops:
            shop.wait_ready()
        street.until_well(12.0)
        well = calls.mark()
        time.sleep(0.7)
        story = calls.stop().sound()
    dark = story.during(gone, back)
    assert {each.status for each in dark.failed} <= {503}, dark.failures
    assert not dark.slower(1.0 + SPARE), dark
    assert story.during(well).share_ok() == 1.0, story.failures
