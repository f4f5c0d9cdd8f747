"""Following a cluster's slices, with an API server over real TLS that has good and bad days."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trustme

from sidecar.discovery import kubernetes
from sidecar.discovery.kubernetes import SliceWatch
from sidecar.discovery.listing import Listing
from sidecar.discovery.slice_api import Surroundings
from sidecar.discovery.sources import FromKubernetes
from tests.kit.fake_slices import FakeApi, a_slice

PORTS = {"http": 8080, "mesh": 15006}
Script = Callable[["Scene"], Awaitable[None]]


class Scene:
    """Somebody who follows, and what it was told."""

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api = api
        self.token, self.ca = api.files(folder)
        self.source = FromKubernetes("shop", "orders", "mesh", api.url, str(self.token), str(self.ca))
        self.lists: list[list[str]] = []
        self.errors: list[str] = []

    def begin(self) -> Listing:
        """Once there is a clock."""
        self.listing = Listing(self.source, self._changed, self._failed)
        return self.listing

    def _changed(self, listing: Listing, _: object) -> None:
        self.lists.append([each.address.host for each in listing.entries or ()])

    def _failed(self, listing: Listing, _: bool) -> None:
        self.errors.append(listing.error)

    async def until(self, what: Callable[[], object]) -> None:
        with trio.fail_after(20):
            while not what():
                await trio.sleep(0.01)

    async def watching(self) -> None:
        """Wait until the list is known and a watch stands."""
        await self.until(lambda: self.api.asked and self.api.asked[-1].startswith("watch") and not self.listing.error)


def played(folder: Path, script: Script, *, before: Callable[[Scene], None] = lambda scene: None) -> Scene:
    with FakeApi() as api:
        api.put("orders-a", ["10.0.0.1", "10.0.0.2"], PORTS)
        scene = Scene(api, folder)
        before(scene)

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(SliceWatch(scene.source, scene.begin(), dice=lambda: 1.0).run)
                await script(scene)
                nursery.cancel_scope.cancel()

        trio.run(run)
    return scene


def test_a_list_and_then_what_changes(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.put("orders-b", ["10.0.0.3"], PORTS)
        scene.api.put("orders-a", ["10.0.0.2"], PORTS)
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.2", "10.0.0.3"])
        scene.api.delete("orders-b")
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.2"])

    scene = played(tmp_path, script)
    assert scene.lists[0] == ["10.0.0.1", "10.0.0.2"]
    assert scene.api.asked == ["list", "watch 101"]
    assert not scene.errors


def test_a_watch_is_taken_up_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "SHORTEST_WATCH", 0.0)

    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.bookmark()
        scene.api.bookmark()
        await scene.until(lambda: scene.listing.age() < 0.5)
        await trio.sleep(0.1)
        scene.api.end_watches()
        await scene.until(lambda: len(scene.api.asked) == 3)
        scene.api.put("orders-a", ["10.0.0.9"], PORTS)
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.9"])

    scene = played(tmp_path, script)
    assert scene.api.asked == ["list", "watch 101", "watch 103"]  # it listed once, and knows the bookmarks
    assert not scene.errors


def test_what_happened_while_nobody_watched_is_not_lost(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.end_watches(half=True)  # in the middle of an event
        scene.api.put("orders-a", ["10.0.0.7"], PORTS)
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.7"])

    scene = played(tmp_path, script)
    assert scene.api.asked[0] == "list"
    assert "list" not in scene.api.asked[1:]
    assert "incomplete" in scene.errors[0]


def test_a_version_that_was_forgotten_is_listed_anew(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.put("orders-a", ["10.0.0.4"], PORTS)
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.4"])
        scene.api.slices["orders-a"] = a_slice("orders-a", ["10.0.0.5"], PORTS)
        scene.api.forget()
        scene.api.end_watches()
        await scene.until(lambda: scene.lists[-1] == ["10.0.0.5"])
        await scene.watching()

    scene = played(tmp_path, script)
    assert scene.api.asked == ["list", "watch 101", "watch 102", "list", "watch 103"]
    assert not scene.errors  # that is the ordinary course of things


def test_gone_as_an_event(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.say(json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode() + b"\n")
        await scene.until(lambda: scene.api.asked.count("list") == 2)
        await scene.watching()

    assert not played(tmp_path, script).errors


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{not json\n", "makes no sense"),
        (b'{"type":"MODIFIED"}\n', "makes no sense"),
        (b"[" * 100_000 + b"\n", "makes no sense"),
        (b'{"type":"HUNGRY","object":{"metadata":{"resourceVersion":"7"}}}\n', "unknown type"),
        (b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"resourceVersion":"7"}}}\n', "a Pod where"),
        (b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is tired"}}\n', "etcd is tired"),
        (b"x" * (kubernetes.MAX_EVENT + 1), "more than"),
    ],
)
def test_what_makes_no_sense_is_said_and_everything_listed_anew(tmp_path: Path, line: bytes, why: str) -> None:
    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.say(line)
        await scene.until(lambda: scene.errors)
        assert scene.listing.entries is not None
        await scene.until(lambda: scene.api.asked.count("list") == 2)
        await scene.watching()

    scene = played(tmp_path, script)
    assert why in scene.errors[0]
    assert scene.lists == [["10.0.0.1", "10.0.0.2"]]  # nobody lost an endpoint over it


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"kind": "PodList", "items": []}', "a PodList"),
        (b'{"kind": "EndpointSliceList", "items": []}', "no resourceVersion"),
        (b'{"kind": "EndpointSliceList", "items": [7], "metadata": {"resourceVersion": "1"}}', "object that is none"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, answer: bytes, why: str) -> None:
    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)
        assert scene.listing.entries is None
        scene.api.list_answer = None
        await scene.until(lambda: scene.lists)

    scene = played(tmp_path, script, before=lambda scene: setattr(scene.api, "list_answer", answer))
    assert why in scene.errors[0]


@pytest.mark.parametrize(
    ("status", "message", "why"),
    [
        (403, 'forbidden: User "x" cannot list', "may not list endpointslices in namespace shop (403)"),
        (404, "", "1.21"),
        (500, "no", "answered list with 500"),
        (302, "elsewhere", "302"),
    ],
)
def test_a_refusal_says_what_is_missing(tmp_path: Path, status: int, message: str, why: str) -> None:
    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)

    scene = played(tmp_path, script, before=lambda scene: setattr(scene.api, "refuse", (status, message)))
    assert why in scene.errors[0]
    assert message in scene.errors[0]


def test_a_token_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)
        scene.token.write_text(scene.api.token)
        await scene.until(lambda: scene.lists)

    scene = played(tmp_path, script, before=lambda scene: scene.token.write_text("old"))
    assert f"the token in {scene.token} is not accepted (401)" in scene.errors[0]


def test_files_that_are_not_there_or_hold_something_else(tmp_path: Path) -> None:
    def spoil(scene: Scene) -> None:
        scene.token.unlink()
        scene.ca.rename(tmp_path / "kept")
        scene.ca.write_text("no")

    async def script(scene: Scene) -> None:
        await scene.until(lambda: len(scene.errors) == 1)
        scene.token.write_text("two words")
        await scene.until(lambda: len(scene.errors) == 2)
        scene.token.write_text(scene.api.token)
        await scene.until(lambda: len(scene.errors) == 3)
        (tmp_path / "kept").rename(scene.ca)
        await scene.until(lambda: scene.lists)

    scene = played(tmp_path, script, before=spoil)
    assert "token cannot be read" in scene.errors[0]
    assert "No such file" in scene.errors[0]
    assert "holds no token" in scene.errors[1]
    assert "holds no certificate" in scene.errors[2]


def test_a_server_of_another_ca_is_not_asked(tmp_path: Path) -> None:
    def elsewhere(scene: Scene) -> None:
        scene.ca.write_bytes(trustme.CA().cert_pem.bytes())

    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)

    scene = played(tmp_path, script, before=elsewhere)
    assert "its certificate is refused" in scene.errors[0]
    assert not scene.api.asked  # it never saw the token


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "LIST_SECONDS", 0.3)

    async def script(scene: Scene) -> None:
        await scene.until(lambda: scene.errors)
        scene.api.silent = False
        await scene.until(lambda: scene.lists)

    scene = played(tmp_path, script, before=lambda scene: setattr(scene.api, "silent", True))
    assert "no answer within 0.3 s" in scene.errors[0]


def test_the_last_list_stands_while_the_server_is_away(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.watching()
        scene.api.refuse = (503, "away")
        scene.api.end_watches()
        await scene.until(lambda: len(scene.errors) >= 2)
        assert [each.address.host for each in scene.listing.entries or ()] == ["10.0.0.1", "10.0.0.2"]
        assert scene.listing.to_json()["age_s"] > 0.3
        assert "503" in scene.listing.to_json()["error"]

    assert played(tmp_path, script).lists == [["10.0.0.1", "10.0.0.2"]]


def test_outside_a_pod_somebody_has_to_say_where_the_server_is(tmp_path: Path) -> None:
    with FakeApi() as api:
        scene = Scene(api, tmp_path)
        source = replace(scene.source, api="")

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(SliceWatch(source, scene.begin(), surroundings=Surroundings.of({})).run)
                await scene.until(lambda: scene.errors)
                nursery.cancel_scope.cancel()

        trio.run(run)
    assert "KUBERNETES_SERVICE_HOST is not set" in scene.errors[0]
    assert str(Surroundings.of({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}).api()) == (
        "https://[fd00::1]"
    )
