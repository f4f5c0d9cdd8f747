"""Lines reach the file in order, whole and once; what cannot is counted exactly."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.telemetry import writer as w
from sidecar.telemetry.writer import LineWriter


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Another thread is at work: look until it has done it."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        threading.Event().wait(0.002)


def a_writer(path: Path, capacity: int = 100_000, **options) -> LineWriter:
    return LineWriter(str(path), capacity=capacity, name="test", batch_seconds=0.0, retry_seconds=0.005, **options)


def line(number: int) -> bytes:
    return b"line %06d\n" % number


def test_lines_arrive_in_order(tmp_path):
    writer = a_writer(tmp_path / "log")
    for number in range(5000):
        assert writer.put(line(number))
    assert writer.close() == 0
    assert (tmp_path / "log").read_bytes() == b"".join(map(line, range(5000)))
    assert (writer.waiting_bytes, writer.lost) == (0, 0)


def test_the_file_is_ours_alone(tmp_path):
    writer = a_writer(tmp_path / "log")
    writer.put(line(1))
    writer.close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_nothing_is_opened_before_the_first_line(tmp_path):
    assert a_writer(tmp_path / "log").close() == 0
    assert not (tmp_path / "log").exists()


def test_what_does_not_fit_is_dropped_and_counted(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    writer = a_writer(tmp_path / "log", capacity=10 * len(line(0)))
    results = [writer.put(line(number)) for number in range(25)]
    assert results == [True] * 10 + [False] * 15
    assert writer.lost == 15
    assert not writer.has_room()
    assert writer.close(0.5) == 10


def test_a_full_disk_is_reported_once_and_nothing_kept_is_lost(tmp_path):
    path, problems = tmp_path / "log", []
    path.symlink_to("/dev/full")
    writer = a_writer(path, on_problem=problems.append)
    for number in range(3):
        writer.put(line(number))
    eventually(lambda: writer.problem != "")
    for number in range(3, 6):
        writer.put(line(number))
    threading.Event().wait(0.05)
    (tmp_path / "new").symlink_to(tmp_path / "room")
    (tmp_path / "new").replace(path)
    eventually(lambda: writer.waiting_bytes == 0)
    assert (tmp_path / "room").read_bytes() == b"".join(map(line, range(6)))
    assert writer.problem == ""
    assert problems == ["No space left on device"]
    writer.close()


def test_a_partial_write_goes_on_where_it_stopped(tmp_path, monkeypatch):
    real, calls = os.write, []

    def meagre(fd: int, data) -> int:
        calls.append(len(data))
        if len(calls) % 3 == 0:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data[:7]))

    monkeypatch.setattr(w.os, "write", meagre)
    writer = a_writer(tmp_path / "log")
    for number in range(20):
        writer.put(line(number))
    eventually(lambda: writer.waiting_bytes == 0)
    writer.close()
    assert (tmp_path / "log").read_bytes() == b"".join(map(line, range(20)))


def test_a_moved_file_is_opened_anew(tmp_path):
    writer = a_writer(tmp_path / "log")
    writer.put(line(1))
    eventually(lambda: writer.waiting_bytes == 0)
    (tmp_path / "log").rename(tmp_path / "log.1")
    writer.put(line(2))
    writer.close()
    assert (tmp_path / "log.1").read_bytes() == line(1)
    assert (tmp_path / "log").read_bytes() == line(2)


def test_a_half_line_of_a_predecessor_is_ended(tmp_path):
    (tmp_path / "log").write_bytes(b'{"half":')
    writer = a_writer(tmp_path / "log")
    writer.put(line(1))
    writer.close()
    assert (tmp_path / "log").read_bytes() == b'{"half":\n' + line(1)


def test_a_folder_that_comes_later(tmp_path):
    writer = a_writer(tmp_path / "later" / "log")
    writer.put(line(1))
    eventually(lambda: writer.problem == "No such file or directory")
    (tmp_path / "later").mkdir()
    eventually(lambda: writer.waiting_bytes == 0)
    writer.close()


def test_a_pipe_that_nobody_reads_holds_up_neither_put_nor_close():
    reader, pipe = os.pipe()
    os.set_blocking(pipe, False)
    writer = LineWriter("", fd=pipe, capacity=1_000_000, name="test", batch_seconds=0.0)
    for number in range(20_000):
        writer.put(line(number))
    started = time.monotonic()
    left = writer.close(0.2)
    assert time.monotonic() - started < 2
    assert left > 0
    os.close(reader)
    os.close(pipe)


def test_a_pipe_without_a_reader_is_a_problem_not_a_crash():
    reader, pipe = os.pipe()
    os.close(reader)
    writer = LineWriter("", fd=pipe, capacity=1000, name="test", batch_seconds=0.0, retry_seconds=0.005)
    writer.put(line(1))
    eventually(lambda: writer.problem == "Broken pipe")
    assert writer.close(0.5) == 1
    os.close(pipe)


def test_after_closing_lines_are_counted_as_lost(tmp_path):
    writer = a_writer(tmp_path / "log")
    writer.close()
    assert not writer.put(line(1))
    assert writer.lost == 1


@pytest.mark.parametrize("size", [1, 100])
def test_room_is_exact(tmp_path, size):
    (tmp_path / "log").symlink_to("/dev/full")
    writer = a_writer(tmp_path / "log", capacity=size)
    assert writer.has_room(size)
    assert not writer.has_room(size + 1)
    assert writer.put(b"x" * size)
    assert not writer.has_room()
    writer.close(0.2)
