"""The audit file as a queue: nothing is left out, across restarts and rotations; what is, is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.telemetry.chain import Chain
from sidecar.telemetry.export.feed import ALARM, Feed


class Stage:
    """An audit of plain lines, and a feed on it."""

    def __init__(self, folder: Path, backlog: int = 1 << 20) -> None:
        self.path, self.cursor, self.backlog = folder / "audit.jsonl", folder / "cursor.json", backlog
        self.chain = Chain(str(self.path))
        self.count = 0
        self.feed = self.start()

    def start(self) -> Feed:
        return Feed(self.path, self.cursor, self.backlog)

    def write(self, lines: int) -> None:
        texts = [b'{"number":%d}\n' % (self.count + one) for one in range(1, lines + 1)]
        self.count += lines
        with self.path.open("ab") as file:
            file.write(b"".join(self.chain.seal(texts)))

    def rotate(self) -> None:
        for number in range(8, 0, -1):
            old = self.path.with_name(f"audit.jsonl.{number}")
            if old.exists():
                old.rename(self.path.with_name(f"audit.jsonl.{number + 1}"))
        self.path.rename(self.path.with_name("audit.jsonl.1"))

    def drain(self, *, take: bool = True) -> list[int]:
        found: list[int] = []
        at = self.feed.at
        while (batch := self.feed.read(at)).after != at:
            found += [event.values["number"] for event in batch.events]
            at = batch.after
        if take:
            self.feed.taken(at)
        return found


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_everything_comes_once_and_in_order(stage):
    stage.write(1200)
    assert stage.drain() == list(range(1, 1201))
    assert stage.drain() == []
    stage.write(3)
    assert stage.drain() == [1201, 1202, 1203]


def test_what_was_not_taken_comes_again_after_a_restart(stage):
    stage.write(10)
    assert stage.drain() == list(range(1, 11))
    stage.write(5)
    assert stage.drain(take=False) == [11, 12, 13, 14, 15]
    stage.feed = stage.start()
    assert stage.drain() == [11, 12, 13, 14, 15]


def test_rotations_leave_nothing_out(stage):
    stage.write(4)
    assert stage.drain() == [1, 2, 3, 4]
    stage.write(2)
    stage.rotate()
    stage.write(3)
    stage.rotate()
    stage.write(1)
    stage.feed = stage.start()
    assert stage.drain() == [5, 6, 7, 8, 9, 10]
    assert stage.feed.dropped == 0


def test_a_file_that_was_emptied_in_place_is_read_from_its_beginning(stage):
    stage.write(4)
    assert stage.drain() == [1, 2, 3, 4]
    stage.path.write_bytes(b"")  # copytruncate
    stage.write(6)
    assert stage.drain() == [5, 6, 7, 8, 9, 10]


def test_a_rotated_file_that_has_gone_is_counted(stage):
    stage.write(4)
    assert stage.drain() == [1, 2, 3, 4]
    stage.write(3)
    stage.path.unlink()
    stage.write(2)
    assert stage.drain() == [8, 9]
    assert stage.feed.dropped == 3


def test_a_gap_is_counted_once_however_often_it_is_read(stage):
    stage.write(1)
    assert stage.drain() == [1]
    stage.write(3)
    stage.path.unlink()
    stage.write(2)
    for _ in range(3):
        assert stage.drain(take=False) == [5, 6]
    assert stage.feed.dropped == 3


def test_half_a_line_waits_for_its_other_half(stage):
    stage.write(1)
    (whole,) = stage.chain.seal([b'{"number":2}\n'])
    with stage.path.open("ab") as file:
        file.write(whole[:20])
    assert stage.drain() == [1]
    with stage.path.open("ab") as file:
        file.write(whole[20:])
    assert stage.drain() == [2]


def test_over_the_backlog_the_oldest_is_skipped_and_counted(tmp_path):
    stage = Stage(tmp_path, backlog=2000)
    stage.write(100)
    assert len(stage.feed.read(stage.feed.at).events) == 100, "the first look only says that it is too much"
    assert (stage.feed.full > 1, stage.feed.dropped) == (True, 0)
    for _ in range(3):  # the receiver is away, and what was read is read again
        found = [event.values["number"] for event in stage.feed.read(stage.feed.at).events]
        assert found == list(range(101 - len(found), 101))
        assert 0 < len(found) < 30
        assert stage.feed.dropped == 100 - len(found), "each line is counted once"
    assert stage.drain() == found


def test_the_alarm_comes_before_anything_is_dropped(tmp_path):
    stage = Stage(tmp_path, backlog=10_000)
    while stage.feed.full < ALARM:
        stage.write(1)
        stage.feed.read(stage.feed.at)
    assert stage.feed.dropped == 0
    assert stage.feed.full < 1


def test_a_cursor_that_cannot_be_read_begins_anew(stage):
    stage.cursor.write_text("{")
    stage.feed = stage.start()
    stage.write(2)
    assert stage.drain() == [1, 2]


def test_there_is_nothing_before_the_first_line(stage):
    assert stage.drain() == []
