"""The three detectors, hop by hop: what is conspicuous, what is usual, who is held, and that memory is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.schema_detectors import Detectors as Spec
from sidecar.config.schema_detectors import Enumeration, Spikes, Stuffing
from sidecar.config.terms import Frequency
from sidecar.errors import CallerBlocked, PolicyDenied
from sidecar.hop import Token
from sidecar.patterns import IdentityPattern
from sidecar.traffic import detectors as module
from sidecar.traffic.detectors import Detection, Detectors
from sidecar.traffic.history import History
from sidecar.traffic.holds import Hold, Holds
from sidecar.traffic.ids import Distinct, ids_of
from tests.kit.hops import DEMO, MALLORY, WEB, a_hop

WEB_PATTERN = IdentityPattern.parse("web", DEMO, "default")


def a_user(subject: str) -> Token:
    return Token("okta", subject, {}, frozenset(), 0.0, "0" * 16)


class Scene:
    """Detectors, and what they said."""

    def __init__(self, *specs: Stuffing | Enumeration | Spikes, began: float = 0.0) -> None:
        given = {type(spec).__name__.lower(): spec for spec in specs}
        self.told: list[Detection] = []
        self.detectors = Detectors(Spec(**given), self.told.append, began)

    def see(self, at: float, count: int = 1, path: str = "/orders/17", **changes: Any) -> list[str]:
        """So many hops of this moment; what was told since the beginning."""
        for _ in range(count):
            self.detectors.observe(a_hop(path, ended=at, started=at, **changes))
        return [each.detector for each in self.told]


# ---- stuffing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": 401}, ["stuffing"]),
        ({"status": 403}, ["stuffing"]),
        ({"status": 200, "grpc_status": "UNAUTHENTICATED"}, ["stuffing"]),
        ({"status": 403, "error": PolicyDenied("no"), "rule": ""}, ["stuffing"]),
        ({"status": 404}, []),
        ({"status": 401, "peer": None}, []),
        ({"status": 401, "direction": "outbound"}, []),
        ({"status": 429, "error": CallerBlocked("no")}, []),
    ],
)
def test_a_burst_of_refusals_is_told_once(changes: dict[str, Any], told: list[str]) -> None:
    scene = Scene(Stuffing(refusals=10))
    assert scene.see(5.0, 9, **changes) == []
    assert scene.see(6.0, 20, **changes) == told


def test_a_release_that_refuses_what_is_usual_is_not_conspicuous_and_more_of_it_is() -> None:
    scene = Scene(Stuffing(refusals=10))
    for minute in range(300):
        scene.see(60.0 * minute + 1.0, 40)
    assert scene.see(60.0 * 300 + 1.0, 40, status=403) == []
    assert scene.see(60.0 * 301 + 1.0, 150, status=403) == []  # who tries again what fails does no more than that
    assert scene.see(60.0 * 302 + 1.0, 600, status=403) == ["stuffing"]


def test_refusals_beside_good_answers_are_told_of_though_the_caller_is_busy() -> None:
    scene = Scene(Stuffing(refusals=10))
    for minute in range(300):
        scene.see(60.0 * minute + 1.0, 40)
    assert scene.see(18_001.0, 40) == []
    assert scene.see(18_002.0, 30, status=403) == ["stuffing"]


@pytest.mark.parametrize(("each", "told"), [(1, []), (2, ["stuffing"]), (9, ["stuffing"])])
def test_refusals_add_up_over_minutes_but_for_a_few_in_each(each: int, told: list[str]) -> None:
    scene = Scene(Stuffing(refusals=10, seconds=10_000.0))
    for minute in range(30):
        scene.see(60.0 * minute + 1.0, each, status=401)
    assert [detection.detector for detection in scene.told] == told


def test_what_was_tried_is_forgotten_in_silence() -> None:
    scene = Scene(Stuffing(refusals=10))
    assert scene.see(1.0, 9, status=401) == []
    assert scene.see(1201.0, 9, status=401) == []


def test_it_is_told_again_when_its_time_is_over_and_never_of_whom_it_spares() -> None:
    scene = Scene(Stuffing(refusals=5, seconds=100.0))
    assert [len(scene.see(at, 30, status=401)) for at in (1.0, 61.0, 121.0)] == [1, 1, 2]
    assert Scene(Stuffing(refusals=5, exempt=(WEB_PATTERN,))).see(1.0, 30, status=401) == []


# ---- enumeration -----------------------------------------------------------------------------------------------------


def walk(scene: Scene, numbers: Any, at: float = 1.0, path: str = "/orders/{}", **changes: Any) -> list[str]:
    for number in numbers:
        scene.see(at, 1, path.format(number), **changes)
    return [each.detector for each in scene.told]


@pytest.mark.parametrize(
    ("numbers", "changes", "told"),
    [
        (range(500, 530), {}, ["enumeration"]),
        (range(530, 500, -1), {}, ["enumeration"]),
        ([*range(500, 530, 2), *range(501, 530, 2)], {}, ["enumeration"]),
        ([17] * 200, {}, []),
        (range(0, 90_000, 4501), {}, []),
        (range(0, 9_000_000, 45_001), {}, ["enumeration"]),
        (range(500, 530), {"route": "/**"}, ["enumeration"]),
        ([f"{n:032x}" for n in range(200)], {"route": "/**"}, ["enumeration"]),
        (["shoes", "hats"] * 200, {"route": "/**"}, []),
        ([f"user{n}" for n in range(200)], {}, ["enumeration"]),
        (range(500, 530), {"peer": None}, []),
    ],
)
def test_ids_side_by_side_or_many_are_conspicuous(numbers: Any, changes: dict[str, Any], told: list[str]) -> None:
    assert walk(Scene(Enumeration(ids=100, sequential=20), began=-3600.0), numbers, **changes) == told


def test_before_anything_is_usual_only_what_is_side_by_side_is_conspicuous() -> None:
    assert walk(Scene(Enumeration(ids=100, sequential=20)), range(0, 9_000_000, 45_001)) == []
    assert walk(Scene(Enumeration(ids=100, sequential=20)), range(500, 530)) == ["enumeration"]


def test_a_walk_is_seen_across_windows_and_among_many_objects() -> None:
    scene = Scene(Enumeration(ids=10_000, sequential=40), began=-3600.0)
    for minute in range(600):
        walk(scene, range(7 * minute, 9_000_000, 450_001), at=60.0 * minute + 1.0)
    assert scene.told == []
    for minute in range(600, 610):
        walk(scene, range(7 * minute, 9_000_000, 450_001), at=60.0 * minute + 1.0)
        walk(scene, range(10 * minute, 10 * minute + 10), at=60.0 * minute + 2.0)
    assert [each.detector for each in scene.told] == ["enumeration"]


def test_objects_that_are_not_there_count_for_more() -> None:
    scattered = range(0, 9_000_000, 225_001)
    assert walk(Scene(Enumeration(ids=100, sequential=20), began=-3600.0), scattered) == []
    assert walk(Scene(Enumeration(ids=100, sequential=20), began=-3600.0), scattered, status=404) == ["enumeration"]


def test_who_always_asks_for_many_is_not_conspicuous() -> None:
    scene = Scene(Enumeration(ids=40, sequential=20, seconds=1.0))
    for window in range(40):
        walk(scene, range(0, 60 * 7001, 7001), at=300.0 * window + 1.0)
    scene.told.clear()
    assert walk(scene, range(0, 60 * 7001, 7001), at=300.0 * 40 + 1.0) == []
    assert walk(scene, range(0, 300 * 7001, 7001), at=300.0 * 40 + 2.0) == ["enumeration"]


def test_places_of_ids_are_bounded() -> None:
    scene = Scene(Enumeration())
    for number in range(100):
        scene.see(1.0, 1, f"/a{number}x/17", route="/**")
    (track,) = scene.detectors._tracks.values()
    assert len(track.places) == module.MOST_PLACES


@pytest.mark.parametrize(
    ("route", "path", "found"),
    [
        ("/orders/{id}", "/orders/17", (("/orders/{id}",), ("17",))),
        ("/c/{c}/o/{o}", "/c/1/o/2", (("/c/{c}/o/{o}",), ("1", "2"))),
        ("/orders", "/orders", (("/orders",), ())),
        ("/orders/**", "/orders/17/lines", (("orders", "*", "lines"), ("17",))),
        ("/{shop}/**", "/nike/17", (("*", "*"), ("nike", "17"))),
        ("", "/x/0123456789abcdef", (("x", "*"), ("0123456789abcdef",))),
        ("/orders/{id}", "/orders", (("/orders/{id}",), ())),
    ],
)
def test_where_ids_stand(route: str, path: str, found: object) -> None:
    assert ids_of(route, tuple(path.split("/")[1:])) == found


@given(st.sets(st.integers(0, 10**18 - 1), max_size=600))
def test_different_ids_are_counted_about_right(numbers: set[int]) -> None:
    distinct = Distinct()
    for number in [*numbers, *numbers]:
        distinct.add((str(number),), False)
    assert abs(distinct.count - len(numbers)) <= 6 + 0.1 * len(numbers)


# ---- spikes ----------------------------------------------------------------------------------------------------------


def learned(**changes: Any) -> Scene:
    scene = Scene(Spikes(least=50, times=3, warm_up=600.0, **changes))
    for minute in range(60):
        scene.see(60.0 * minute + 1.0, 20)
    return scene


def test_far_more_than_ever_is_a_spike_and_a_busy_minute_is_none() -> None:
    scene = learned()
    assert scene.see(3601.0, 45) == []
    assert scene.see(3661.0, 300) == ["spikes"]


def test_a_slow_rise_is_not_measured_by_its_own_beginning() -> None:
    scene = Scene(Spikes(least=50, times=2, new_edges=False))
    for minute in range(400):
        scene.see(60.0 * minute + 1.0, 20)
    for minute in range(12):
        scene.see(24_001.0 + 60.0 * minute, 20 + 6 * minute)
    assert {each.detector for each in scene.told} == {"spikes"}


def test_in_the_warm_up_a_caller_is_only_learned_from() -> None:
    assert Scene(Spikes(least=50, warm_up=600.0)).see(1.0, 500) == []


def test_a_first_call_is_told_of_after_the_warm_up_and_never_acted_upon() -> None:
    scene = learned(action="block")
    assert scene.see(3601.0, route="/admin/**") == ["new_edge"]
    assert scene.see(3602.0, route="/admin/**") == ["new_edge"]
    assert scene.detectors.holds.peers == {}
    assert scene.see(3603.0, route="", error=PolicyDenied("no"), attempts=0, rule="") == ["new_edge"]
    assert learned(new_edges=False).see(3601.0, route="/admin/**") == []


# ---- who is held -----------------------------------------------------------------------------------------------------


def refused(scene: Scene, at: float, **changes: Any) -> bool:
    try:
        scene.detectors.holds.check(a_hop(**changes), at)
    except CallerBlocked:
        return True
    return False


def test_nobody_is_held_for_what_somebody_else_did() -> None:
    scene = Scene(Stuffing(refusals=5, action="block", seconds=60.0))
    scene.see(1.0, 6, status=401, token=a_user("jo"))
    assert refused(scene, 2.0, token=a_user("jo"))
    assert not refused(scene, 2.0, token=a_user("flo"))
    assert not refused(scene, 2.0)
    assert not refused(scene, 2.0, peer=MALLORY, token=a_user("jo"))
    assert not refused(scene, 2.0, peer=None)
    assert not refused(scene, 62.0, token=a_user("jo"))
    assert scene.detectors.holds.peers == {}


def test_who_is_throttled_is_let_in_at_its_rate() -> None:
    scene = Scene(Stuffing(refusals=5, action="throttle", rate=Frequency(1, "s")))
    scene.see(1.0, 6, status=401)
    assert [refused(scene, at) for at in (2.0, 2.1, 3.2)] == [False, True, False]


def test_who_is_let_go_is_counted_anew() -> None:
    scene = Scene(Stuffing(refusals=5, action="block"))
    scene.see(1.0, 6, status=401)
    assert scene.detectors.acts
    assert scene.detectors.lift(WEB.text, "okta:jo", 2.0) == []
    assert [hold.detector for hold in scene.detectors.lift(WEB.text, None, 2.0)] == ["stuffing"]
    assert scene.see(3.0, 4, status=401) == ["stuffing"]
    assert scene.see(3.0, 1, status=401) == ["stuffing", "stuffing"]


def test_holds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.traffic.holds.MOST", 3)
    holds = Holds()
    for number in range(9):
        holds.put(Hold((f"spiffe://demo.mesh/{number}", ""), "spikes", "x", "block", 0.0, 9.0))
    assert len(holds.in_force(1.0)) == len(holds.peers) == 3
    assert holds.in_force(10.0) == []


def test_tracks_and_callers_are_bounded_and_who_came_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TRACKS", 10)
    monkeypatch.setattr(module, "MOST_CALLERS", 4)
    monkeypatch.setattr(module, "MOST_EDGES", 20)
    scene = Scene(Stuffing(refusals=1), Spikes(warm_up=1.0))
    for number in range(60):
        scene.see(60.0 * number + 1.0, 1, route=f"/r{number}", status=401, token=a_user(str(number)))
    tracks, callers = scene.detectors.size()
    assert tracks <= 10
    assert callers <= 4
    assert any(key[2] == "/r59" for key in scene.detectors._tracks)
    assert len(scene.detectors._edges) == 20


# ---- what is usual ---------------------------------------------------------------------------------------------------


def test_a_job_of_each_hour_is_known_by_the_second_time() -> None:
    history = History()
    for hour in range(3):
        history.learn(500.0, hour, 59, hour + 1, 300.0, young=True)
    assert history.usual >= 500.0


def test_one_attack_does_not_make_the_next_one_usual() -> None:
    history = History()
    for minute in range(60 * 30):
        history.learn(20.0, minute // 60, 0, (minute + 1) // 60, 10.0, young=minute < 1440)
    before = history.usual
    for minute in range(60 * 30, 60 * 30 + 10):
        history.learn(5000.0, minute // 60, 0, minute // 60, 10.0, young=False)
    assert history.usual <= 3.0 * before


def test_a_long_silence_leaves_only_what_was_high_at_that_time() -> None:
    history = History()
    history.learn(50.0, 0, 5000, 90, 100.0, young=True)
    assert (history.recent, history.usual) == (0.0, 0.0)
