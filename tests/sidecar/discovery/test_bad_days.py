"""An API server on its worse days: pages, forgotten tokens, overload, restarts, silence, restored stores."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from sidecar.discovery import kubernetes
from sidecar.discovery.slice_api import SliceApi, Surroundings
from sidecar.net import http_client
from sidecar.net.http_message import Answer
from sidecar.net.kube_api import forgotten, retry_after
from tests.kit.fake_slices import a_slice
from tests.sidecar.discovery.test_kubernetes import PORTS, Scene, Script, played

MANY = 7  # slices, in pages of three
ALL = sorted(f"10.0.1.{number}" for number in range(MANY))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "PAGE", 3)
    monkeypatch.setattr(kubernetes, "FIRST_WAIT", 0.02)


def many(scene: Scene) -> None:
    scene.api.delete("orders-a")
    for number in range(MANY):
        scene.api.put(f"orders-{number}", [f"10.0.1.{number}"], PORTS)


def listed(folder: Path, spoil: Callable[[Scene], None], *, more: Script | None = None) -> Scene:
    """Play until all slices are known and watched."""

    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.lists and scene.lists[-1] == ALL)
        if more is not None:
            await more(scene)
        await scene.watching()

    def before(scene: Scene) -> None:
        many(scene)
        spoil(scene)

    return played(folder, script, before=before)


def test_a_list_comes_in_pages_over_one_connection(tmp_path: Path) -> None:
    scene = listed(tmp_path, lambda scene: None)
    assert scene.api.asked[:3] == ["list", "page", "page"]
    assert set(scene.api.limits) == {3}
    assert scene.lists == [ALL]  # nobody was told of half a list
    assert not scene.errors


def test_a_server_that_closes_after_each_page(tmp_path: Path) -> None:
    scene = listed(tmp_path, lambda scene: setattr(scene.api, "closes", True))
    assert scene.lists == [ALL]
    assert not scene.errors


def test_a_token_for_the_next_page_that_was_forgotten(tmp_path: Path) -> None:
    def spoil(scene: Scene) -> None:
        scene.api.bad_days = [("page", 410, "The provided continue parameter is too old", {})]

    scene = listed(tmp_path, spoil)
    assert scene.api.asked[:5] == ["list", "page", "list", "page", "page"]
    assert scene.lists == [ALL]
    assert not scene.errors  # the ordinary course of things


def test_a_server_that_restarts_in_the_middle_of_a_list(tmp_path: Path) -> None:
    scene = listed(tmp_path, lambda scene: setattr(scene.api, "breaks", 2))
    assert scene.api.asked[:7] == ["list", "page", "list", "page", "list", "page", "page"]
    assert scene.lists == [ALL]
    assert len(scene.errors) == 2


def test_a_server_that_answers_the_same_page_for_ever(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)

    token = base64.urlsafe_b64encode(json.dumps({"rv": 101, "start": 0}).encode()).decode()
    meta = {"resourceVersion": "1", "continue": token}
    page = {"kind": "EndpointSliceList", "metadata": meta, "items": [a_slice("a")]}
    answer = json.dumps(page).encode()
    scene = played(tmp_path, script, before=lambda scene: setattr(scene.api, "list_answer", answer))
    assert "the same page" in scene.errors[0]
    assert not scene.lists


@pytest.mark.parametrize(("status", "said"), [(429, "too busy for a list (429)"), (503, "list with 503")])
def test_an_overloaded_server_is_left_alone_for_as_long_as_it_asks(tmp_path: Path, status: int, said: str) -> None:
    times: list[float] = []

    def spoil(scene: Scene) -> None:
        scene.api.bad_days = [("list", status, "please retry later", {"retry-after": "1"})]
        fail = scene._failed
        scene._failed = lambda *words: (times.append(trio.current_time()), fail(*words))[0]  # type: ignore[method-assign]

    async def more(scene: Scene) -> None:
        times.append(trio.current_time())

    scene = listed(tmp_path, spoil, more=more)
    assert said in scene.errors[0]
    assert "please retry later" in scene.errors[0]
    assert times[1] - times[0] > 0.9
    assert scene.lists == [ALL]


def test_it_fails_on_every_step_once_and_nothing_is_lost(tmp_path: Path) -> None:
    def spoil(scene: Scene) -> None:
        scene.api.bad_days = [
            ("list", 500, "etcdserver: request timed out", {}), ("page", 500, "no leader", {}),
            ("watch", 500, "no", {}), ("watch", 429, "later", {}), ("watch", 401, "Unauthorized", {}),
        ]  # fmt: skip

    scene = listed(tmp_path, spoil, more=lambda scene: scene.until(lambda: len(scene.errors) == 5))
    assert scene.lists == [ALL]
    assert not scene.api.bad_days


def test_a_token_that_is_replaced_while_we_watch(tmp_path: Path) -> None:
    async def more(scene: Scene) -> None:
        await scene.watching()
        scene.token.write_text("the-next-one")
        scene.api.token = "the-next-one"
        scene.api.end_watches()
        await scene.until(lambda: scene.api.tokens[-1] == "the-next-one")
        scene.api.put("orders-new", ["10.0.2.1"], PORTS)
        await scene.until(lambda: scene.lists[-1] == [*ALL, "10.0.2.1"])

    scene = listed(tmp_path, lambda scene: None, more=more)
    assert scene.api.asked.count("list") == 1
    assert not scene.errors


def test_a_watch_that_has_died_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bookmarks came, and then nothing, not even an end: it is taken up where it was, and what was missed is told."""
    monkeypatch.setattr(kubernetes, "SILENCE", 0.3)

    async def more(scene: Scene) -> None:
        await scene.watching()
        scene.api.bookmark()
        await scene.until(lambda: scene.listing.age() < 0.2)
        await trio.sleep(0.05)
        scene.api.mute = True
        scene.api.put("orders-new", ["10.0.2.1"], PORTS)
        await scene.until(lambda: len(scene.api.asked) == 5)
        scene.api.mute = False
        await scene.until(lambda: scene.lists[-1] == [*ALL, "10.0.2.1"])

    scene = listed(tmp_path, lambda scene: None, more=more)
    assert scene.api.asked.count("list") == 1
    assert not scene.errors


def test_a_watch_that_the_server_ends_in_its_time_is_taken_up_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "WATCH_SECONDS", 2.0)  # the dice of `played` halve it

    async def more(scene: Scene) -> None:
        await scene.watching()
        scene.api.put("orders-new", ["10.0.2.1"], PORTS)
        await scene.until(lambda: len([each for each in scene.api.asked if "watch" in each]) == 3)

    scene = listed(tmp_path, lambda scene: None, more=more)
    assert scene.api.asked[-3:] == ["watch 109", "watch 110", "watch 110"]
    assert scene.api.asked.count("list") == 1
    assert not scene.errors


def test_a_network_that_swallows_everything_is_noticed_by_the_kernel(tmp_path: Path) -> None:
    """Within a minute: keep-alives after 30 s of silence, three of them ten seconds apart."""

    async def script(scene: Scene) -> None:
        await scene.watching()
        async with SliceApi(scene.source, Surroundings("", "")).asking(5.0) as asking:
            stream = asking.client.stream
            assert isinstance(stream, trio.SSLStream)
            get = stream.transport_stream.socket.getsockopt
            assert get(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, interval, count = (
                get(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + interval * count <= 60

    played(tmp_path, script)


def test_a_server_that_sends_no_bookmarks_is_not_held_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "SILENCE", 0.1)

    async def more(scene: Scene) -> None:
        await scene.watching()
        await trio.sleep(0.5)

    scene = listed(tmp_path, lambda scene: None, more=more)
    assert scene.api.asked == ["list", "page", "page", "watch 109"]


def test_without_bookmarks_a_dead_watch_is_over_at_its_own_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "WATCH_SECONDS", 0.4)
    monkeypatch.setattr(kubernetes, "GRACE", 0.1)

    async def more(scene: Scene) -> None:
        await scene.watching()
        scene.api.mute = True
        scene.api.put("orders-new", ["10.0.2.1"], PORTS)
        await scene.until(lambda: len(scene.api.asked) >= 5)
        scene.api.mute = False
        await scene.until(lambda: scene.lists[-1] == [*ALL, "10.0.2.1"])

    assert listed(tmp_path, lambda scene: None, more=more).api.asked.count("list") == 1


def test_a_store_that_was_restored_from_a_back_up_is_listed_anew(tmp_path: Path) -> None:
    """Its versions are lower than ours: no watch from ours will ever begin."""

    async def more(scene: Scene) -> None:
        await scene.watching()
        scene.api.rewind(50)
        scene.api.slices = {"orders-a": a_slice("orders-a", ["10.0.0.9"], PORTS, version=40)}
        scene.api.end_watches()
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.9"])

    scene = listed(tmp_path, lambda scene: None, more=more)
    assert scene.api.asked[-1] == "watch 50"
    assert not scene.errors


def test_pages_of_large_slices_become_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER", 1200)  # bytes; two of these slices
    monkeypatch.setattr(kubernetes, "PAGE", 16)
    scene = listed(tmp_path, lambda scene: None)
    assert scene.api.limits[:3] == [16, 4, 1]
    assert scene.lists == [ALL]
    assert not scene.errors


def test_a_slice_that_is_too_large_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER", 300)

    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)

    assert "larger than 300 bytes" in played(tmp_path, script, before=many).errors[0]


@pytest.mark.parametrize(("what", "most"), [("MAX_SLICES", 5), ("MAX_PODS", 6)])
def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, most: int) -> None:
    monkeypatch.setattr(kubernetes, what, most)

    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)
        scene.api.delete("orders-5")
        scene.api.delete("orders-6")
        await scene.until(lambda: scene.lists)
        await scene.watching()
        scene.api.put("orders-x", ["10.0.3.1", "10.0.3.2"], PORTS)
        await scene.until(lambda: len(scene.errors) > 1)
        assert len(scene.lists[-1]) == 5

    scene = played(tmp_path, script, before=many)
    assert all("more than" in each for each in scene.errors)


def test_what_comes_in_one_burst_is_told_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large service in a roll-out: telling all of it for each of its events would leave no time for requests."""
    monkeypatch.setattr(kubernetes, "INLINE", 0)
    monkeypatch.setattr(kubernetes, "PAUSE_SHARE", 1e6)  # as if it took long
    monkeypatch.setattr(kubernetes, "LONGEST_PAUSE", 0.3)

    async def more(scene: Scene) -> None:
        await scene.watching()
        for number in range(200):
            scene.api.put("orders-0", [f"10.0.4.{number}"], PORTS)
        await scene.until(lambda: "10.0.4.199" in scene.lists[-1])

    scene = listed(tmp_path, lambda scene: None, more=more)
    assert len(scene.lists) < 12


def test_a_change_is_told_although_its_watch_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "PAUSE_SHARE", 1e9)
    monkeypatch.setattr(kubernetes, "LONGEST_PAUSE", 3600.0)

    async def more(scene: Scene) -> None:
        await scene.watching()
        scene.api.put("orders-new", ["10.0.2.1"], PORTS)
        await trio.sleep(0.2)
        assert scene.lists[-1] == ALL  # it waits for its turn
        scene.api.refuse = (503, "away")
        scene.api.end_watches()
        await scene.until(lambda: scene.lists[-1] == [*ALL, "10.0.2.1"])
        await scene.until(lambda: scene.errors)
        scene.api.refuse = None

    listed(tmp_path, lambda scene: None, more=more)


@pytest.mark.parametrize(
    ("status", "body", "verb", "is_gone"),
    [
        (410, b"", "list", True),
        (504, b'{"message": "Timeout: Too large resource version: 9, current: 3"}', "watch", True),
        (500, b'{"message": "Too large resource version"}', "watch", True),
        (400, b'{"message": "invalid resource version \\"x\\""}', "watch", True),
        (504, b'{"message": "Timeout"}', "watch", False),
        (504, b'{"message": "Too large resource version"}', "list", False),
        (429, b"resource version", "watch", False),
    ],
)
def test_what_means_that_our_version_is_unknown(status: int, body: bytes, verb: str, is_gone: bool) -> None:
    assert forgotten(Answer(status, (), body), verb) is is_gone


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(b"7", 7.0), (b"0", 0.0), (b"99999", 120.0), (b"9" * 40, 0.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", 0.0)],
)
def test_how_long_it_wants_to_be_left_alone(said: bytes, seconds: float) -> None:
    assert retry_after(Answer(429, ((b"retry-after", said),), b"")) == seconds


def test_nobody_waits_where_nothing_is_said() -> None:
    assert retry_after(Answer(429, (), b"")) == 0.0
