"""Private files: whole or not at all, and nobody else's business."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.errors import PrivateFileUnavailable
from certs.store import MAX_PRIVATE_BYTES, ensure_private_dir, read_private, write_private


@pytest.fixture(autouse=True)
def _careless_umask() -> Iterator[None]:
    """What we promise must not depend on the umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# ---- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"secret", bytes(range(256)) * 400])
def test_what_was_written_is_read_back(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    write_private(path, data)
    assert read_private(path) == data
    assert mode(path) == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_mode_is_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    os.umask(umask)
    write_private(tmp_path / "key", b"x")
    assert mode(tmp_path / "key") == 0o600


def test_an_old_file_is_replaced_and_its_open_readers_keep_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old and longer")
    path.chmod(0o666)
    with path.open("rb") as reader:
        write_private(path, b"new")
        assert reader.read() == b"old and longer"
    assert read_private(path) == b"new"
    assert mode(path) == 0o600


def test_a_symbolic_link_is_replaced_and_what_it_led_to_is_left_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"somebody's")
    link.symlink_to(target)
    write_private(link, b"ours")
    assert target.read_bytes() == b"somebody's"
    assert not link.is_symlink()
    assert link.read_bytes() == b"ours"


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "key"
    write_private(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if step == "replace" else os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, b"new")
    monkeypatch.undo()
    assert read_private(path) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_file_and_folder_are_made_durable_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        synced.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_private(tmp_path / "key", b"x")
    assert synced == ["file", "rename", "folder"]


def test_a_folder_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_private(tmp_path / "nowhere" / "key", b"x")


# ---- reading -----------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(PrivateFileUnavailable) as caught:
        read_private(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("loose", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_file_open_to_others_is_refused(tmp_path: Path, loose: int) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    path.chmod(loose)
    assert f"mode {loose:04o}" in refusal(path)
    assert "chmod 600" in refusal(path)


@pytest.mark.parametrize("tight", [0o600, 0o400, 0o700])
def test_a_file_that_only_we_can_read_is_read(tmp_path: Path, tight: int) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    path.chmod(tight)
    assert read_private(path) == b"secret"


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    write_private(target, b"secret")
    link.symlink_to(target)
    assert read_private(link) == b"secret"
    target.chmod(0o644)
    assert "open to others" in refusal(link)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    assert "not a regular file" in refusal(tmp_path / "fifo")
    assert "folder" in refusal(tmp_path / "folder")
    assert "not a regular file" in refusal(Path("/dev/null"))


def test_a_missing_file_and_a_circle_of_links_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "symbolic links" in refusal(tmp_path / "circle")


def test_a_file_too_large_to_be_a_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"x" * MAX_PRIVATE_BYTES)
    assert len(read_private(path)) == MAX_PRIVATE_BYTES
    write_private(path, b"x" * (MAX_PRIVATE_BYTES + 1))
    assert "larger than" in refusal(path)


def test_somebody_elses_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "belongs to user" in refusal(path)


def test_roots_file_is_as_good_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of root's")
    path = tmp_path / "key"
    write_private(path, b"secret")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert read_private(path) == b"secret"


# ---- folders -----------------------------------------------------------------------------------------------------


def folder_refusal(path: Path) -> str:
    with pytest.raises(PrivateFileUnavailable) as caught:
        ensure_private_dir(path)
    return str(caught.value)


def test_a_folder_and_its_missing_parents_are_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mesh" / "ca"
    ensure_private_dir(path)
    ensure_private_dir(path)
    assert [mode(folder) for folder in (path, path.parent, path.parent.parent)] == [0o700] * 3


@pytest.mark.parametrize("loose", [0o755, 0o711, 0o750])
def test_a_folder_that_others_may_look_into_is_tightened(tmp_path: Path, loose: int) -> None:
    path = tmp_path / "ca"
    path.mkdir()
    path.chmod(loose)
    ensure_private_dir(path)
    assert mode(path) == 0o700


@pytest.mark.parametrize("open_to_all", [0o777, 0o770, 0o707, 0o722, 0o1777])
def test_a_folder_that_others_may_write_into_is_refused(tmp_path: Path, open_to_all: int) -> None:
    path = tmp_path / "ca"
    path.mkdir()
    path.chmod(open_to_all)
    assert "can be written by others" in folder_refusal(path)
    assert mode(path) == open_to_all


def test_a_folder_that_is_a_link_a_file_or_somebody_elses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link, file = tmp_path / "real", tmp_path / "link", tmp_path / "file"
    ensure_private_dir(real)
    link.symlink_to(real)
    file.write_bytes(b"")
    assert "not a folder" in folder_refusal(link)
    assert "not a folder" in folder_refusal(file)
    assert "Not a directory" in folder_refusal(file / "below")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "belongs to user" in folder_refusal(real)
