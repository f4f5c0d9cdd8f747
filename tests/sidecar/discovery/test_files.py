"""Files of endpoints: what they may say, and what becomes of those that change, break, go and come."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.document import MAX_BYTES
from sidecar.config.terms import Address
from sidecar.discovery.file_list import read_list, read_strictly
from sidecar.discovery.file_watch import LOOK_SECONDS, MOST_MISTAKES, SETTLE_SECONDS, FileWatch
from sidecar.discovery.listing import Listing
from sidecar.discovery.quick_list import read_quickly
from sidecar.discovery.sources import FromFile
from sidecar.traffic.endpoints import MOST, Declared

# ---- what it may say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("[]", []),
        ("- 10.0.0.1:80\n- '[fd00::1]:81'\n", [("10.0.0.1", 80, 1, ""), ("fd00::1", 81, 1, "")]),
        ("- {address: Orders.Test:80, weight: 3, zone: eu-1a}\n", [("orders.test", 80, 3, "eu-1a")]),
        ('[\n\t"10.0.0.1:80",\n\t{"address": "b.test:80", "weight": 2}\n]',
         [("10.0.0.1", 80, 1, ""), ("b.test", 80, 2, "")]),
        ("# they stand here\n- 10.0.0.1:80  # the first\n", [("10.0.0.1", 80, 1, "")]),
    ],
)  # fmt: skip
def test_lists(text: str, entries: list[tuple[str, int, int, str]]) -> None:
    found = read_list(text.encode(), "e.yaml")
    assert not found.mistakes
    assert list(found.entries) == [
        Declared(Address(host, port), weight, zone) for host, port, weight, zone in entries
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "e.yaml:1:1: the file is empty; write [] for no endpoints"),
        ("# soon\n", "e.yaml:1:1: the file is empty; write [] for no endpoints"),
        ("null", "e.yaml:1:1: a file of endpoints is a list; - host:port on each line, or []"),
        ("orders: 1", "e.yaml:1:1: a file of endpoints is a list; - host:port on each line, or []"),
        ("- 10.0.0.1", 'e.yaml:1:3: [0]: "10.0.0.1" is not host:port; did you mean 10.0.0.1:8080?'),
        ("- 10.0.0.1:80\n- {adress: 10.0.0.2:80}", 'e.yaml:2:4: [1].adress: unknown key; did you mean "address"?'),
        ("- 10.0.0.1:80\n- 10.0.0.1:80", "e.yaml:2:3: [1]: 10.0.0.1:80 is listed twice; it stands in line 1 already"),
        ("- unix:/run/x", "e.yaml:1:3: [0]: a Unix socket; a file lists host:port; name sockets under endpoints:"),
        ("- {address: unix:/run/x}", "name sockets under endpoints:"),
        ("- {address: 10.0.0.1:80, weight: 0}", "e.yaml:1:34: [0].weight: 0 is not a weight"),
        ("- [10.0.0.1:80]", "expected a mapping, found a list"),
        ("[10.0.0.1:80", "not YAML"),
        ("- 10.0.0.1:80\n---\n- 10.0.0.2:80", "a second document"),
        ("- &a 10.0.0.1:80\n- *a", "an anchor"),
        ("- \x00", "U+0000"),
    ],
)
def test_mistakes(text: str, mistake: str) -> None:
    found = read_list(text.encode(), "e.yaml")
    assert mistake in str(found.mistakes[0])
    assert not found.entries


def test_bounds() -> None:
    text = "\n".join(f"- 10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80" for n in range(MOST + 10))
    found = read_list(text.encode(), "e.yaml")
    assert (len(found.entries), found.left_out) == (MOST, 10)
    assert "at most" in str(read_list(b"#" * (MAX_BYTES + 1), "e.yaml").mistakes[0])


@given(st.binary(max_size=200) | st.text(alphabet="-[]{}:, \n\t.0a\"'&*#|>%", max_size=60).map(str.encode))
def test_whatever_it_holds_is_a_list_or_has_mistakes(data: bytes) -> None:
    found = read_list(data, "e.yaml")
    assert not (found.mistakes and found.entries)


PLAIN = [
    b"[]", b'["10.0.0.1:80","[fd00::1]:81"]', b"- 10.0.0.1:80\n- orders.test:443\n",
    b'[\n\t{"address": "A.test:1", "weight": 100, "zone": "eu-1a"}, {"address": "b:2", "zone": "x9"}\n]\n',
]  # fmt: skip


@pytest.mark.parametrize("data", PLAIN)
def test_what_programs_write_is_read_quickly(data: bytes) -> None:
    assert read_quickly(data) is not None
    assert tuple(read_quickly(data) or ()) == read_strictly(data, "e.yaml").entries


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[1]", b'["10.0.0.1:80","10.0.0.1:80"]', b'[{"address":"a:1","address":"b:1"}]',
        b'["unix:/run/x"]', b'["\\u0061:1"]', b"[" * 9999, b"- 10.0.0.1:80", b"- a:80\n-  b:1\n",
        b'[{"address":"a:1","weight":true}]', b'[{"address":"a:1","weight":101}]', b'[{"address":"a:1","zone":""}]',
        b'[{"address":"a:1","zone":"no "}]',
    ],
)  # fmt: skip
def test_whatever_is_not_plain_gets_a_closer_look(data: bytes) -> None:
    assert read_quickly(data) is None


ENTRY = st.sampled_from(
    ["10.0.0.1:80", "a.test:1", "A:65535", "[::1]:9", "a_b:7", "1.2:3", ":5", "unix:/x", "a:0", "-:1", "yes:1", "10:30"]
)
WEIGHT, ZONE = st.sampled_from([0, 1, 7, 100, 101, True, "3"]), st.sampled_from(["a", "eu-1", "", "-x", "no", "1e"])
RECORD = st.fixed_dictionaries(
    {"address": ENTRY}, optional={"weight": WEIGHT, "zone": ZONE}
)


@given(st.lists(ENTRY | RECORD, max_size=4), st.booleans())
def test_both_readers_read_the_same(entries: list[object], lines: bool) -> None:
    data = json.dumps(entries).encode()
    if lines:
        data = "".join(f"- {each}\n" for each in entries).encode()
    quick, strict = read_quickly(data), read_strictly(data, "e.yaml")
    if quick is not None:
        assert not strict.mistakes
        assert tuple(quick) == strict.entries


# ---- what becomes of it ----------------------------------------------------------------------------------------------


class Scene:
    """A watched file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lists: list[list[str]] = []
        self.errors: list[str] = []

    def begin(self) -> None:
        self.listing = Listing(FromFile(str(self.path)), self._changed, self._failed)
        self.watch = FileWatch(str(self.path), self.listing)
        self.watch.begin()

    def _changed(self, listing: Listing, _: object) -> None:
        self.lists.append([str(each.address) for each in listing.entries or ()])

    def _failed(self, listing: Listing, _: bool) -> None:
        self.errors.append(listing.error)


def played(path: Path, script: Callable[[Scene], Awaitable[None]]) -> Scene:
    """The clock jumps only while nobody reads."""
    scene = Scene(path)

    async def run() -> None:
        scene.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.watch.run)
            await script(scene)
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.02))
    return scene


async def a_look() -> None:
    await trio.sleep(2 * LOOK_SECONDS + 2 * SETTLE_SECONDS)


def test_a_change_and_a_mistake_and_the_mending(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("[10.0.0.1:80]")

    async def script(scene: Scene) -> None:
        path.write_text("[10.0.0.2:80]")
        await a_look()
        path.write_text("\n".join("- x" for _ in range(9)))
        await a_look()
        await a_look()
        path.write_text("[10.0.0.2:80]")
        await a_look()
        assert scene.listing.error == ""
        path.unlink()
        await a_look()
        path.write_text("[]")
        await a_look()

    scene = played(path, script)
    assert scene.lists == [["10.0.0.1:80"], ["10.0.0.2:80"], []]
    assert len(scene.errors) == 2  # each once, however often we look
    assert f"{9 - MOST_MISTAKES} more" in scene.errors[0]
    assert "No such file" in scene.errors[1]


def test_a_configmap_that_is_swapped_behind_its_symlink(tmp_path: Path) -> None:
    for name, address in (("..1", "10.0.0.1:80"), ("..2", "10.0.0.2:80")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "e.yaml").write_text(f"[{address}]")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "e.yaml").symlink_to("..data/e.yaml")

    async def script(scene: Scene) -> None:
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        await a_look()

    assert played(tmp_path / "e.yaml", script).lists == [["10.0.0.1:80"], ["10.0.0.2:80"]]


def test_half_a_list_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("- 10.0.0.1:80\n- 10.0.0.2:80\n")

    async def script(scene: Scene) -> None:
        while scene.listing.age() > 0.0:  # just looked
            await trio.sleep(0.1)
        await trio.sleep(LOOK_SECONDS - 0.05)
        path.write_text("- 10.0.0.3:80\n")  # it is being written, not replaced
        await trio.sleep(SETTLE_SECONDS / 2)
        path.write_text("- 10.0.0.3:80\n- 10.0.0.4:80\n")
        await a_look()

    assert played(path, script).lists[1:] == [["10.0.0.3:80", "10.0.0.4:80"]]


def test_what_is_no_file_is_said_and_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "folder", "none", "nul\0"):
        if name == "folder":
            (tmp_path / name).mkdir()

        async def script(scene: Scene) -> None:
            await trio.lowlevel.checkpoint()

        scene = played(tmp_path / name, script)
        assert scene.errors
        assert not scene.lists
