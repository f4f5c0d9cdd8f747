"""Who notices that the configuration has changed, and what becomes of it: told to everybody, whichever way it goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar.config.diff import Change, diff
from sidecar.config.load import load, load_config
from sidecar.config.schema import MeshConfig
from sidecar.net.clock import SystemClock
from sidecar.runtime.orders import Orders
from sidecar.runtime.reload import CannotReload, Reloader, glance
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics

TEXT = """
trust_domain: demo.mesh
services:
  orders:
    inbound: [{name: http, port: 17443}]
    allow: [{name: readers, from: web, method: GET}]
    health: {listen: off}
  web: {health: {listen: off}}
"""
MORE = TEXT.replace("method: GET}", "method: GET}, {name: writers, from: web, method: POST}")
BROKEN = TEXT.replace("method: GET}", "metod: GET}").replace("port: 17443", "port: many")


class Desk:
    """A reloader on a folder, and what it tells."""

    def __init__(self, folder: Path, name: str = "mesh.yaml", text: str = TEXT) -> None:
        self.file = folder / name
        if text:
            self.file.write_text(text)
        self.log_file = folder / "log"
        self.metrics = Metrics()
        self.refuse: tuple[str, ...] = ()
        self.in_force = load_config(str(self.file))
        with self.log_file.open("ab") as log:
            self.log = Log(fd=os.dup(log.fileno()), human=False)
        self.reloader = Reloader(self.file, self.in_force, self.apply, self.log, self.metrics, SystemClock())

    def apply(self, config: MeshConfig) -> tuple[Change, ...]:
        if self.refuse:
            raise CannotReload(self.refuse)
        changes = diff(self.in_force, config, "orders")
        self.in_force = config
        return changes

    @property
    def rules(self) -> list[str]:
        return [rule.name for rule in self.in_force.services["orders"].allow]

    def gauge(self, name: str) -> float:
        text = self.metrics.render().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def lines(self) -> list[dict[str, object]]:
        self.log.close()
        found = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        for line in found:
            del line["time"]
        return found


def play(desk: Desk, story: Callable[[Desk], object]) -> None:
    async def run() -> None:
        await desk.reloader.adopt()
        await story(desk)  # type: ignore[misc]

    trio.run(run)


async def look(desk: Desk) -> bool:
    """What the poll does; returns whether there was something new."""
    if changed := await desk.reloader._changed():
        await desk.reloader.reload(told=False)
    return changed


def test_who_keeps_the_audit_is_told_of_a_bad_one(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []

    async def story(desk: Desk) -> None:
        desk.reloader.on_refused = told.append
        desk.file.write_text(MORE.replace("allow:", "alow:"))
        assert await look(desk)

    play(Desk(tmp_path), story)
    ((mistake,),) = told
    assert 'did you mean "allow"' in mistake


def test_a_good_change_is_in_force_and_told_line_for_line(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        assert not await look(desk)
        desk.file.write_text(MORE)
        assert await look(desk)
        assert not await look(desk)

    desk = Desk(tmp_path)
    play(desk, story)
    assert desk.rules == ["readers", "writers"]
    assert desk.lines() == [
        {
            "level": "info",
            "message": "the configuration was reloaded",
            "file": str(desk.file),
            "generation": 2,
            "changes": 1,
            "change_1": "orders.allow: + rule writers {from: [web], method: [POST]}",
        }
    ]
    assert desk.gauge("mesh_config_generation") == 2
    assert desk.gauge('mesh_config_reloads_total{result="ok"}') == 1
    assert desk.gauge("mesh_config_last_reload_success") == 1


def test_a_broken_one_leaves_the_old_one_standing_and_every_mistake_is_told(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        before = desk.in_force
        desk.file.write_text(BROKEN)
        assert await look(desk)
        assert desk.in_force is before
        assert desk.gauge("mesh_config_last_reload_success") == 0
        told = desk.reloader.to_json()["last_reload"]
        assert (told["result"], len(told["mistakes"])) == ("failed", 2)
        assert not await look(desk)  # told once, not each second
        desk.file.write_text(TEXT)
        assert await look(desk)
        assert desk.in_force is before
        assert desk.gauge("mesh_config_last_reload_success") == 1
        assert desk.reloader.to_json()["last_reload"]["result"] == "unchanged"

    desk = Desk(tmp_path)
    play(desk, story)
    failed, mended = desk.lines()
    assert failed["level"] == "error"
    assert failed["message"] == "the configuration was not reloaded; the one before stands"
    assert "mesh.yaml:5:" in str(failed["mistake_1"])
    assert "did you mean" in str(failed["mistake_2"])
    assert mended["message"] == "the configuration on disk is the one in force again"
    assert desk.gauge("mesh_config_generation") == 1
    assert desk.gauge('mesh_config_reloads_total{result="failed"}') == 1


def test_one_that_cannot_be_applied_is_failed_and_tried_again_only_when_told(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.refuse = ("cannot listen on 127.0.0.1:1: Address already in use",)
        desk.file.write_text(MORE)
        assert await look(desk)
        assert desk.rules == ["readers"]
        desk.refuse = ()
        assert not await look(desk)
        await desk.reloader.reload(told=True)
        assert desk.rules == ["readers", "writers"]

    desk = Desk(tmp_path)
    play(desk, story)
    assert desk.lines()[0]["mistake_1"] == "cannot listen on 127.0.0.1:1: Address already in use"
    assert desk.gauge("mesh_config_last_reload_success") == 1


def test_an_order_without_a_change_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    play(desk, lambda desk: desk.reloader.reload(told=True))
    assert [line["message"] for line in desk.lines()] == ["the configuration has not changed"]


def test_a_touched_file_is_no_change(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        os.utime(desk.file, (1, 1))
        desk.file.rename(desk.file.with_suffix(".old"))
        desk.file.write_text(TEXT)
        assert not await look(desk)

    play(Desk(tmp_path), story)


def test_what_changed_between_the_start_and_the_first_look_is_found(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        assert desk.rules == ["readers", "writers"]

    desk = Desk(tmp_path)
    desk.file.write_text(MORE)
    play(desk, story)


def test_a_config_map_is_swapped_behind_its_symlink(tmp_path: Path) -> None:
    """As the kubelet does it: mesh.yaml → ..data/mesh.yaml, ..data → ..<time>, and a rename over ..data."""
    mount = tmp_path / "mounted"
    for name, text in (("..1", TEXT), ("..2", MORE)):
        (mount / name).mkdir(parents=True)
        (mount / name / "mesh.yaml").write_text(text)
        os.utime(mount / name / "mesh.yaml", (1, 1))
    (mount / "..data").symlink_to("..1")
    (mount / "mesh.yaml").symlink_to("..data/mesh.yaml")

    async def story(desk: Desk) -> None:
        assert not await look(desk)
        (mount / "..data_tmp").symlink_to("..2")
        (mount / "..data_tmp").rename(mount / "..data")
        assert await look(desk)
        assert desk.rules == ["readers", "writers"]

    play(Desk(mount, text=""), story)


def test_included_files_count_also_those_that_appear_and_vanish(tmp_path: Path) -> None:
    text = TEXT + "include: [parts/*.yaml]\n"
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "a.yaml").write_text("services: {billing: {health: {listen: off}}}\n")

    async def story(desk: Desk) -> None:
        (parts / "b.yaml").write_text("services: {batch: {health: {listen: off}}}\n")
        assert await look(desk)
        assert set(desk.in_force.services) == {"orders", "web", "billing", "batch"}
        (parts / "a.yaml").write_text("services: {billing: {adress: x}}\n")
        assert await look(desk)
        assert desk.gauge("mesh_config_last_reload_success") == 0
        (parts / "a.yaml").unlink()
        assert await look(desk)
        assert set(desk.in_force.services) == {"orders", "web", "batch"}

    play(Desk(tmp_path, text=text), story)


def test_a_file_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.file.unlink()
        assert await look(desk)
        assert desk.reloader.last is not None
        assert "cannot read" in desk.reloader.last.mistakes[0]
        desk.file.write_text(MORE)
        assert await look(desk)
        assert desk.rules == ["readers", "writers"]

    play(Desk(tmp_path), story)


def test_a_file_that_is_still_being_written_is_given_a_moment(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        async with trio.open_nursery() as nursery:

            async def editor() -> None:
                for end in range(0, len(MORE), len(MORE) // 8):
                    desk.file.write_text(MORE[:end])
                    await trio.sleep(0.05)
                desk.file.write_text(MORE)

            nursery.start_soon(editor)
            await trio.sleep(0.02)
            assert await look(desk)
        assert desk.rules == ["readers", "writers"]

    desk = Desk(tmp_path)
    play(desk, story)
    assert [line["level"] for line in desk.lines()] == ["info"]


def test_the_watch_polls_and_ends_with_the_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.runtime.reload.POLL_SECONDS", 0.05)
    desk = Desk(tmp_path)

    async def run() -> None:
        orders = Orders()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.reloader.run, orders)
                await trio.sleep(0.1)
                desk.file.write_text(MORE)
                while desk.rules != ["readers", "writers"]:
                    await trio.sleep(0.01)
                orders.begin_drain("a test")

    trio.run(run)


def test_whoever_tells_it_to_reload_waits_for_no_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.runtime.reload.POLL_SECONDS", 1e6)
    desk = Desk(tmp_path)

    async def run() -> None:
        orders = Orders()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.reloader.run, orders)
                await trio.testing.wait_all_tasks_blocked(0.1)
                desk.file.write_text(MORE)
                orders.reload()
                while desk.rules != ["readers", "writers"]:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    trio.run(run)


def test_a_fault_of_ours_is_a_failed_reload_and_ends_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    good = desk.reloader.apply

    def bad(config: MeshConfig) -> tuple[Change, ...]:
        raise ZeroDivisionError("surprise")

    async def run() -> None:
        orders = Orders()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.reloader.run, orders)
                await trio.sleep(0.1)
                desk.reloader.apply = bad
                desk.file.write_text(MORE)
                orders.reload()
                while desk.reloader.last is None or desk.reloader.last.result != "failed":
                    await trio.sleep(0.01)
                desk.reloader.apply = good
                orders.reload()
                while desk.rules != ["readers", "writers"]:
                    await trio.sleep(0.01)
                orders.begin_drain("a test")

    trio.run(run)
    assert any("ZeroDivisionError" in str(line.get("traceback")) for line in desk.lines())


@pytest.mark.parametrize("name", ["a\0b", "no/such/file", "."])
def test_whatever_cannot_be_read_is_absent(tmp_path: Path, name: str) -> None:
    assert glance([str(tmp_path / name) if "\0" not in name else name], []) != glance([], [])


def test_patterns_are_told_by_the_loader(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(TEXT + "include: ['*.part', other.yaml]\n")
    for name in ("x.part", "other.yaml"):
        (tmp_path / name).write_text("services: {}\n")
    assert load(str(tmp_path / "mesh.yaml")).globs == ((str(tmp_path), "*.part"),)
