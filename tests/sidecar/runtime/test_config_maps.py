"""Policies from a ConfigMap: each step that a kubelet takes to replace one, seen by a sidecar that looks at any moment.

The steps are those of Kubernetes' AtomicWriter (pkg/volume/util/atomic_writer.go): a new folder is filled, a symlink to
it is renamed over `..data`, names of new keys are made, names of keys that are gone are removed, then the old folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from sidecar.config.load import Loaded
from sidecar.runtime import reload
from tests.sidecar.runtime.test_reload import BROKEN, MORE, TEXT, Desk, look, play

MAIN = "trust_domain: demo.mesh\ninclude: [rules-*.yaml]\n"


def services(text: str) -> str:
    return "services:\n" + text.partition("services:\n")[2]


class Mount:
    """A ConfigMap in a pod."""

    def __init__(self, folder: Path, data: dict[str, str]) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()
        for _ in self.steps(data):
            pass

    def steps(self, data: dict[str, str]) -> Iterator[str]:
        """Replace what is in it; after each step its name."""
        self._number += 1
        fresh = self.folder / f"..2026_11_22_22_00_0{self._number}.1"
        fresh.mkdir()
        for name, text in data.items():
            (fresh / name).write_text(text[: len(text) // 2])
            yield "half a file"
            (fresh / name).write_text(text)
        before = (self.folder / "..data").resolve() if self._number > 1 else None
        (self.folder / "..data_tmp").symlink_to(fresh.name)
        yield "a folder"
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        yield "the swap"
        for name in data:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
                yield "a new name"
        for path in list(self.folder.iterdir()):
            if not path.name.startswith("..") and path.name not in data:
                path.unlink()
                yield "a name gone"
        if before is not None:
            shutil.rmtree(before)
        yield "done"

    def become(self, data: dict[str, str]) -> None:
        for _ in self.steps(data):
            pass


def on_a_mount(folder: Path, data: dict[str, str], story: Callable[[Desk, Mount], Awaitable[None]]) -> Desk:
    mount = Mount(folder / "etc-mesh", data)
    desk = Desk(mount.folder, text="")
    desk.log_file.unlink()  # a mount has no room for it; the open file goes on

    async def whole(desk: Desk) -> None:
        await story(desk, mount)

    play(desk, whole)
    return desk


BEFORE = {"mesh.yaml": MAIN, "rules-a.yaml": services(TEXT)}
STEPWISE = {
    "a rule more": {"mesh.yaml": MAIN, "rules-a.yaml": services(MORE)},
    "another file for the same": {"mesh.yaml": MAIN, "rules-b.yaml": services(MORE)},
    "all in one file": {"mesh.yaml": MORE},
    "in two files": {
        "mesh.yaml": MAIN,
        "rules-a.yaml": services(MORE).replace("  web: {health: {listen: off}}\n", ""),
        "rules-b.yaml": "services:\n  web: {health: {listen: off}}\n",
    },
}


@pytest.mark.parametrize("change", STEPWISE)
def test_every_step_seen_the_moment_it_is_done(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks right after each step has the old configuration or the new one, whole, and never the old one again."""
    monkeypatch.setattr(reload, "SETTLE_SECONDS", 0.0)
    seen: list[tuple[str, ...]] = []

    async def story(desk: Desk, mount: Mount) -> None:
        for _ in mount.steps(STEPWISE[change]):
            await look(desk)
            seen.append(tuple(desk.rules))
        await look(desk)
        seen.append(tuple(desk.rules))
        assert desk.reloader.last is not None
        assert desk.reloader.last.result != "failed"

    desk = on_a_mount(tmp_path, BEFORE, story)
    assert desk.gauge("mesh_config_last_reload_success") == 1
    assert set(seen) == {("readers",), ("readers", "writers")}
    assert seen == sorted(seen, key=len)  # never back again


@pytest.mark.parametrize("change", STEPWISE)
def test_a_kubelet_that_is_slow_between_its_steps_is_waited_for(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "SETTLE_SECONDS", 0.1)

    async def story(desk: Desk, mount: Mount) -> None:
        async def slowly() -> None:
            for step in mount.steps(STEPWISE[change]):
                if step in ("the swap", "a new name", "a name gone"):
                    await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slowly)
            with trio.fail_after(10):
                while not await look(desk):
                    await trio.sleep(0.005)

    desk = on_a_mount(tmp_path, BEFORE, story)
    assert desk.rules == ["readers", "writers"]
    assert desk.gauge('mesh_config_reloads_total{result="failed"}') == 0
    assert desk.gauge("mesh_config_generation") == 2


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ({}, "No such file"),  # every key is gone
        ({"other.yaml": TEXT}, "No such file"),  # ours is
        ({"mesh.yaml": MAIN}, "rules-*.yaml"),  # what it includes is
        ({"mesh.yaml": MAIN, "rules-a.yaml": ""}, "rules-a.yaml"),
        ({"mesh.yaml": BROKEN}, "metod"),
        ({"mesh.yaml": TEXT[: len(TEXT) // 2]}, "mesh.yaml"),
    ],
)
def test_what_is_gone_or_broken_leaves_the_last_good_one_and_an_alarm(
    tmp_path: Path, then: dict[str, str], words: str
) -> None:
    async def story(desk: Desk, mount: Mount) -> None:
        mount.become(then)
        await look(desk)
        assert desk.rules == ["readers"]
        assert desk.gauge("mesh_config_last_reload_success") == 0
        assert desk.reloader.last is not None
        assert words in " ".join(desk.reloader.last.mistakes)
        mount.become(STEPWISE["a rule more"])
        await look(desk)

    desk = on_a_mount(tmp_path, BEFORE, story)
    assert desk.rules == ["readers", "writers"]
    assert desk.gauge("mesh_config_last_reload_success") == 1


@pytest.mark.parametrize("also", ["", "another set of files"])
def test_a_swap_while_the_last_one_is_being_read_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also: str
) -> None:
    """It comes after the files were read and before anybody has noted what they held."""
    read = reload.load
    swaps: list[dict[str, str]] = []

    def load_and_swap(path: str, now: float) -> Loaded:
        loaded = read(path, now)
        if swaps:
            mount[0].become(swaps.pop())
        return loaded

    monkeypatch.setattr(reload, "load", load_and_swap)
    mount: list[Mount] = []

    async def story(desk: Desk, mounted: Mount) -> None:
        mount.append(mounted)
        swaps.append(STEPWISE["a rule more"])
        fewer = services(TEXT).replace("name: readers", "name: lookers")
        first = {"mesh.yaml": MAIN, "rules-a.yaml" if not also else "rules-c.yaml": fewer}
        mounted.become(first)
        await look(desk)
        assert not swaps
        await look(desk)

    assert on_a_mount(tmp_path, BEFORE, story).rules == ["readers", "writers"]


def test_a_failure_is_told_once_although_its_files_are_others(tmp_path: Path) -> None:
    async def story(desk: Desk, mount: Mount) -> None:
        mount.become({"mesh.yaml": MAIN, "rules-x.yaml": services(BROKEN)})
        await look(desk)
        await look(desk)

    desk = on_a_mount(tmp_path, BEFORE, story)
    assert desk.gauge('mesh_config_reloads_total{result="failed"}') == 1
