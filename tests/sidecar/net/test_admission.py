"""The books of open connections: each limit refuses, says why, and gives its places back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.config.schema import Limits
from sidecar.net.admission import Admission, memory_used
from sidecar.net.memory import MemoryPort

DESCRIPTORS = 100_000


def an_admission(descriptors: int = DESCRIPTORS, **limits: int) -> tuple[Admission, list[str]]:
    refused: list[str] = []
    admission = Admission(
        replace(Limits(), **limits),  # type: ignore[arg-type]
        descriptors=descriptors,
        on_refused=lambda direction, listener, why: refused.append(f"{direction} {listener} {why}"),
    )
    return admission, refused


def test_over_all_connections_a_new_one_is_refused_until_one_leaves():
    admission, refused = an_admission(connections=2)
    assert [admission.enter(way, "http") for way in ("inbound", "outbound", "inbound")] == [True, True, False]
    assert refused == ["inbound http connections"]
    admission.leave("outbound")
    assert admission.enter("inbound", "http")
    assert (admission.refused, admission.open) == (1, {"inbound": 2, "outbound": 0})


@pytest.mark.parametrize(
    ("descriptors", "most", "of_a_peer"), [(100_000, 8192, 512), (1024, 460, 230), (100, 45, 22), (1, 1, 1)]
)
def test_descriptors_bound_everything_and_one_identity_gets_half_at_most(descriptors, most, of_a_peer):
    admission, _ = an_admission(descriptors)
    assert (admission.most, admission.most_of_a_peer) == (most, of_a_peer)


@pytest.mark.parametrize(
    ("descriptors", "limits", "most"),
    [
        (1024, {}, 408),  # 40 % of the descriptors, but for rounding
        (100, {}, 40),
        (100_000, {"connections": 450}, 400),  # as many of the connections, where they are fewer
        (1024, {"streams": 0.1}, 102),
        (1024, {"streams": 0.0}, 0),
    ],
)
def test_what_lasts_has_a_share_of_the_descriptors(descriptors, limits, most):
    admission, _ = an_admission(descriptors, **limits)
    assert admission.most_streams == most


def test_short_of_memory_nobody_new_comes_in():
    admission, refused = an_admission()
    admission.short_of_memory = True
    assert not admission.enter("inbound", "http")
    admission.short_of_memory = False
    assert admission.enter("inbound", "http")
    assert refused == ["inbound http memory"]


def test_an_identity_uses_up_its_own_places_only():
    admission, refused = an_admission(connections_per_peer=2)
    assert [admission.enter_peer(peer, "http") for peer in ("web", "web", "web", "batch")] == [True, True, False, True]
    assert refused == ["inbound http peer"]
    admission.leave_peer("web")
    assert admission.enter_peer("web", "http")


def test_the_oldest_stranger_makes_room():
    admission, refused = an_admission(handshakes_open=2)
    port = MemoryPort()
    ended: list[int] = []

    async def stranger(number: int) -> None:
        task = port.current
        assert task is not None
        admission.stranger(task, "http")
        try:
            await port.sleep(60)
        finally:
            admission.known(task)
            ended.append(number)

    async def story() -> None:
        tasks = [port.spawn(stranger(number)) for number in range(3)]
        await port.sleep(1)
        assert ended == [0]
        for task in tasks[1:]:
            task.cancel()

    port.run(story())
    assert refused == ["inbound http half_open"]
    assert ended == [0, 1, 2]


def test_the_silent_make_room_first_and_those_who_wait_for_their_turn_last():
    """However old they are: everybody who means it sends a ClientHello at once, and goes on once we have answered."""
    admission, refused = an_admission(handshakes_open=3, handshakes_per_second=2)
    port = MemoryPort()
    ended: list[str] = []

    async def stranger(name: str) -> None:
        task = port.current
        assert task is not None
        admission.stranger(task, name)
        try:
            if name != "silent":
                await admission.turn(port)
            await port.sleep(60)
        finally:
            admission.known(task)
            ended.append(name)

    async def story() -> None:
        names = ["answered", "answered too", "waits", "silent", "waits too", "waits as well", "waits last"]
        tasks = []
        for name in names:
            tasks.append(port.spawn(stranger(name)))
            await port.sleep(0.001)
        assert ended == ["answered", "silent", "answered too", "waits"]
        assert admission.crowded
        for task in tasks:
            task.cancel()

    port.run(story())
    assert refused == [f"inbound {name} half_open" for name in ("answered", "silent", "answered too", "waits")]
    assert not admission.crowded


def test_handshakes_beyond_the_rate_wait_their_turn():
    admission, _ = an_admission(handshakes_per_second=10)
    port = MemoryPort()
    at: list[float] = []

    async def one() -> None:
        await admission.turn(port)
        at.append(port.now - began)

    async def story() -> None:
        for task in [port.spawn(one()) for _ in range(30)]:
            await port.wait(task)

    began = port.now
    port.run(story())
    assert [second for second in at if second < 0.05] == [0.0] * 10  # the burst
    assert max(at) == pytest.approx(2.0, abs=0.2)


def test_an_address_with_many_handshakes_waiting_delays_others_by_two_of_them():
    admission, _ = an_admission(handshakes_per_second=1)
    port = MemoryPort()
    served: list[str] = []

    async def one(source: str) -> None:
        await admission.turn(port, source)
        served.append(source)

    async def story() -> None:
        flood = [port.spawn(one("10.0.0.1")) for _ in range(20)]
        await port.sleep(0.5)
        assert (served, admission.waiting, admission.crowded) == (["10.0.0.1"], 19, True)
        await port.wait(port.spawn(one("10.0.0.2")))
        assert served == ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"]
        for task in flood:
            task.cancel()

    port.run(story())
    assert admission.waiting == 0


def test_new_limits_hold_from_now_on():
    admission, refused = an_admission(connections=1)
    assert admission.enter("inbound", "http")
    admission.adopt(replace(Limits(), connections=2), DESCRIPTORS)
    assert admission.enter("inbound", "http")
    admission.adopt(replace(Limits(), connections=1), DESCRIPTORS)
    assert not admission.enter("inbound", "http")
    assert refused == ["inbound http connections"]


def test_memory_used_is_that_of_a_python_process():
    assert 5 << 20 < memory_used() < 4 << 30
