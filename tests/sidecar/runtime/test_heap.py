"""When memory is given back: once a crowd has gone, not before, and not again."""

from __future__ import annotations

import pytest

from sidecar.runtime.heap import Heap


@pytest.mark.parametrize(
    ("counts", "trims"),
    [
        ([0, 10, 70, 0], 1),
        ([0, 63, 0], 0),  # too few to be worth it
        ([600, 550, 500, 400, 301], 0),
        ([600, 300, 200, 150, 149], 2),
        ([512] * 50, 0),
        ([100, 0, 100, 0], 2),
    ],
)
def test_a_crowd_that_has_gone_leaves_its_memory(counts: list[int], trims: int) -> None:
    done: list[int] = []
    heap = Heap(lambda: done.append(1), lambda: 0)
    for count in counts:
        heap.look(count)
    assert len(done) == trims


@pytest.mark.parametrize(
    ("used", "requests", "trims"),
    [
        ([60, 57], 0, 1),  # MiB before and after
        ([60, 57, 57, 57, 57], 0, 1),  # nothing has come to it
        ([60, 57, 59, 58, 58], 0, 2),
        ([60], 1, 0),  # not in the middle of something
    ],
)
def test_what_has_come_to_it_goes_in_a_quiet_moment(used: list[int], requests: int, trims: int) -> None:
    done: list[int] = []
    readings = iter(used)
    heap = Heap(lambda: done.append(1), lambda: next(readings) << 20)
    heap._left = 56 << 20
    for _ in range(10 * (len(used) - trims)):
        heap.look(3, requests)
    assert len(done) == trims


def test_the_c_library_can_do_it() -> None:
    heap = Heap()
    heap.look(1000)
    heap.look(0)
