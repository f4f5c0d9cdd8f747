"""The audit's chain: across restarts, rotations and crashes; and what `Verifier` finds when somebody has been at it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.config.schema_audit import Audit as Config
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.audit_verify import Report, Verifier, Witness, in_order
from sidecar.telemetry.chain import Chain, hash_of, head_file, link_of

SERVICE = "spiffe://demo.mesh/orders"


def write(path: Path, lines: int, instance: str = "0a1b2c3d") -> Chain:
    """One life of a sidecar that writes so many lines besides `start` and `stop`."""
    audit = Audit(Config(), str(path), instance=instance, service=SERVICE, wall=lambda: 0.0)
    for number in range(lines):
        audit.event("admin", {"number": number})
    assert audit.close(0.0) == 0
    return audit.chain


def verified(*texts: bytes, witnesses: tuple[Witness, ...] = ()) -> Report:
    verifier = Verifier(witnesses)
    for number, text in enumerate(texts):
        verifier.read(f"file{number}", text.splitlines(keepends=True))
    return verifier.finish()


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    write(tmp_path / "audit.jsonl", 8)
    return (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)


def seen(lines: list[bytes], number: int, at: float = 7.0) -> Witness:
    line = lines[number - 1].rstrip(b"\n")
    link = link_of(line)
    assert link is not None
    assert link.number == number
    return Witness(SERVICE, link.chain, number, hash_of(line), at)


def test_an_untouched_record_holds_and_says_what_is_only_chained(lines):
    report = verified(b"".join(lines), witnesses=(seen(lines, 4),))
    (chain,) = report.chains.values()
    assert (report.ok, chain.first, chain.last, chain.witnessed_to) == (True, 1, 10, 4)
    assert chain.as_json()["only_chained"] == 6


def test_the_chain_goes_on_after_a_restart_and_a_rotation(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 3)
    write(path, 2)
    path.rename(tmp_path / "audit.jsonl.1")
    write(path, 4)
    parts = (tmp_path / "audit.jsonl.1").read_bytes(), path.read_bytes()
    report = verified(*parts)
    assert report.ok
    (chain,) = report.chains.values()
    assert chain.last == 5 + 4 + 6
    assert list(in_order([("new", parts[1]), ("old", parts[0])])) == ["old", "new"]


def test_the_chain_goes_on_where_the_rotated_file_was_packed(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 3)
    old = path.read_bytes()
    path.unlink()
    assert head_file(path).is_file()
    write(path, 1)
    assert verified(old, path.read_bytes()).ok


def test_a_crash_in_mid_line_is_a_note_and_no_finding(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 3)
    whole = path.read_bytes()
    head_file(path).unlink()  # it died before it could be written
    path.write_bytes(whole[: whole.rfind(b"\n", 0, -1) + 20])
    assert verified(path.read_bytes()).ok
    write(path, 2)
    report = verified(path.read_bytes())
    assert report.ok
    assert any(" is half " in note for note in report.notes)


def test_a_tail_cut_before_a_restart_shows_as_a_gap(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 5)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    write(path, 1)
    report = verified(path.read_bytes())
    assert [True for finding in report.findings if "missing" in finding] == [True]


def test_a_changed_line_is_found(lines):
    lines[3] = lines[3].replace(b'"number":2', b'"number":7')
    report = verified(b"".join(lines))
    assert ["line 4 was changed" in finding for finding in report.findings] == [True]


def test_a_dropped_line_is_found(lines):
    del lines[3]
    assert any("line 4 of chain" in finding and "missing" in finding for finding in verified(b"".join(lines)).findings)


def test_lines_that_were_exchanged_are_found(lines):
    lines[3], lines[4] = lines[4], lines[3]
    assert any("reordered" in finding for finding in verified(b"".join(lines)).findings)


def test_a_line_that_is_there_twice_is_found(lines):
    assert any("twice" in finding for finding in verified(b"".join([*lines[:5], *lines[4:]])).findings)


def test_a_line_that_was_slipped_in_is_found(lines):
    lines.insert(4, b'{"v":1,"kind":"refusal"}\n')
    assert any("slipped in" in finding for finding in verified(b"".join(lines)).findings)


def test_a_cut_tail_is_found_by_its_witness_alone(lines):
    cut = b"".join(lines[:6])
    assert verified(cut).ok, "the chain alone cannot know"
    assert verified(cut, witnesses=(seen(lines, 6),)).ok
    assert any("cut off" in finding for finding in verified(cut, witnesses=(seen(lines, 9),)).findings)


def written_anew(lines: list[bytes], path: Path) -> list[bytes]:
    """All lines from the third on once more, with other contents and good hashes."""
    path.write_bytes(b"".join(lines[:2]))
    write(path, 8, "ffffffff")
    return path.read_bytes().splitlines(keepends=True)


def test_a_record_that_was_written_anew_is_found_by_its_witness(lines, tmp_path):
    other = written_anew(lines, tmp_path / "other")
    assert verified(b"".join(other)).ok, "the chain alone cannot know"
    assert any("witnessed" in f for f in verified(b"".join(other), witnesses=(seen(lines, 5),)).findings)


def test_two_forks_are_found(lines, tmp_path):
    other = written_anew(lines, tmp_path / "other")
    assert any("two forks" in finding for finding in verified(b"".join(lines), b"".join(other)).findings)
    both = (seen(lines, 5), seen(other, 5))
    assert any("two forks" in finding for finding in verified(b"".join(lines), witnesses=both).findings)


def test_lines_older_than_the_chain_are_told(lines):
    report = verified(b'{"v":1,"kind":"start"}\n' * 3 + b"".join(lines))
    assert report.ok
    assert any("3 lines are older" in note for note in report.notes)


def test_nothing_at_all_does_not_hold():
    assert not verified(b"").ok


@example(place=26272, change=2)  # the chain's name in the first line: the line looks like a chain of its own
@given(place=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
def test_any_changed_byte_up_to_the_witnessed_line_is_found(tmp_path_factory, place, change):
    path = tmp_path_factory.getbasetemp() / "chain-bytes.jsonl"
    if not path.exists():
        write(path, 4)
    whole = bytearray(path.read_bytes())
    witness = seen(bytes(whole).splitlines(keepends=True), 6)
    whole[place % (len(whole) - 1)] ^= change
    verifier = Verifier((witness,))
    verifier.read("file", [part + b"\n" for part in bytes(whole).split(b"\n")[:-1]])
    assert not verifier.finish().ok


def test_the_head_beside_the_file_is_that_of_the_last_line(tmp_path):
    chain = write(tmp_path / "audit.jsonl", 2)
    said = json.loads(head_file(tmp_path / "audit.jsonl").read_text())
    assert chain.written is not None
    assert (said["n"], said["hash"]) == (4, chain.written.hash)
