"""HPACK of our own against the library's, both ways, and against the stories of other encoders."""

from __future__ import annotations

import json
from pathlib import Path

import hpack
import pytest
from hpack.exceptions import HPACKError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.hop import Headers
from sidecar.http.h2.compression import FieldReader, FieldWriter, NotHpack, TooMuch
from tests.kit.vectors import folder

ENCODERS = ("go-hpack", "nghttp2", "nghttp2-change-table-size")
NAMES = st.sampled_from(
    [b":path", b":method", b":status", b"a", b"bb", b"cookie", b"authorization", b"x-long", b"te", b""]
)
VALUES = st.sampled_from([b"GET", b"/", b"200", b"", b"v", b"w" * 300, b"z" * 4100, b"\xff\x00"])
LISTS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=6), max_size=8)
SIZES = st.sampled_from([None, None, None, 0, 100, 200, 4096])


@settings(deadline=None, max_examples=60)
@given(LISTS, st.lists(SIZES, max_size=8))
@example([[(b"a", b"v")], [(b"a", b"v")], [(b"a", b"v")]], [None, 0, 4096])
def test_the_library_reads_what_we_write(lists: list[Headers], sizes: list[int | None]) -> None:
    writer, reader = FieldWriter(), hpack.Decoder(1 << 20)
    for at, fields in enumerate(lists):
        size = sizes[at] if at < len(sizes) else None
        if size is not None:
            writer.resize(size)
        assert [tuple(field) for field in reader.decode(writer.write(fields), raw=True)] == fields


@settings(deadline=None, max_examples=60)
@given(LISTS, st.lists(SIZES, max_size=8), st.booleans())
def test_we_read_what_the_library_writes(lists: list[Headers], sizes: list[int | None], huffman: bool) -> None:
    writer, reader = hpack.Encoder(), FieldReader(1 << 20)
    for at, fields in enumerate(lists):
        size = sizes[at] if at < len(sizes) else None
        if size is not None:
            writer.header_table_size = size
        assert [tuple(field) for field in reader.read(writer.encode(fields, huffman=huffman))] == fields


@settings(deadline=None, max_examples=60)
@given(LISTS, st.lists(SIZES, max_size=8))
def test_we_read_what_we_write(lists: list[Headers], sizes: list[int | None]) -> None:
    writer, reader = FieldWriter(), FieldReader(1 << 20)
    for at, fields in enumerate(lists):
        size = sizes[at] if at < len(sizes) else None
        if size is not None:
            writer.resize(size)
        assert [tuple(field) for field in reader.read(writer.write(fields))] == fields


ODD = [
    b"\x82", b"\xbe", b"\xbf", b"\x40\x01a\x01b", b"\x00\x01a\x01b", b"\x10\x01a\x01b", b"\x41\x01h", b"\x7f\x00\x01v",
    b"\x20", b"\x3f\xe1\x1f", b"\x3f\x45", b"\x80", b"\xff\x00", b"\xff\x80\x01", b"\x44\x83\xff\xff\xff",
    b"\x0f\x2f\x01v",
    b"\x40\x01a\x7f\x80\x1e" + b"v" * 3967, b"\x44\x82\x63\x5f", b"\xff\xff\xff\xff\xff\x7f",
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(ODD) | st.binary(max_size=6), max_size=5).map(b"".join), max_size=4))
@example([b"\x20\x20\x82"])
def test_we_and_the_library_read_the_same_or_nothing(blocks: list[bytes]) -> None:
    mine, theirs = FieldReader(1 << 16), hpack.Decoder(1 << 16)
    for block in blocks:
        try:
            found = mine.read(block)
        except (NotHpack, TooMuch) as problem:
            if "update" not in str(problem) and "number" not in str(problem):  # there we are stricter
                with pytest.raises((HPACKError, IndexError)):
                    theirs.decode(block, raw=True)
            return
        wanted = list(theirs.decode(block, raw=True))
        assert [tuple(field) for field in found] == [tuple(field) for field in wanted]
        never = hpack.NeverIndexedHeaderTuple
        assert [type(field) is never for field in found] == [type(field) is never for field in wanted]


def stories(encoder: str) -> list[Path]:
    return sorted(folder("hpack", encoder).glob("*.json"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_stories_are_read_as_they_were_meant(encoder: str) -> None:
    found = stories(encoder)
    assert found
    for story in found:
        reader = FieldReader(1 << 16)
        writer, library = FieldWriter(), hpack.Decoder(1 << 16)
        for case in json.loads(story.read_bytes())["cases"]:
            wanted = [(name.encode(), value.encode()) for field in case["headers"] for name, value in field.items()]
            assert reader.read(bytes.fromhex(case["wire"])) == wanted, (story.name, case["seqno"])
            if story.stem < "story_2":
                assert library.decode(writer.write(wanted), raw=True) == wanted


@pytest.mark.parametrize(
    ("what", "block"),
    [
        ("index 0", b"\x80"),
        ("an entry that is not there", b"\xbe"),
        ("a name that is not there", b"\x7e\x01v"),
        ("a string that is cut off", b"\x00\x05abc"),
        ("a number that is cut off", b"\xff\x80"),
        ("a number without end", b"\xff" + b"\x80" * 100 + b"\x00"),
        ("a table that is too large", b"\x3f\xe2\x1f"),
        ("three updates of the table", b"\x20\x20\x20"),
        ("an update behind a field", b"\x82\x20"),
        ("Huffman with EOS", b"\x00\x84\xff\xff\xff\xfc\x00"),
        ("Huffman padded with zeros", b"\x00\x81\x00\x00"),
        ("Huffman padded with a byte", b"\x00\x82\x1f\xff\x00"),
    ],
)
def test_what_is_no_hpack(what: str, block: bytes) -> None:
    with pytest.raises(NotHpack):
        FieldReader(1 << 16).read(block)


def test_a_list_that_is_too_long() -> None:
    with pytest.raises(TooMuch):
        FieldReader(1000).read(b"\x82" * 30)


def test_tables_stay_within_their_bounds() -> None:
    writer, reader = FieldWriter(), FieldReader(1 << 20)
    writer.resize(1 << 30)
    for at in range(1000):
        reader.read(writer.write([(b"x-%d" % at, b"v" * (at % 200))]))
        assert max(writer._size, reader._size) <= 4096
    assert sum(number > 0 for number in writer._exact.values()) == len(writer._entries) == len(reader._entries)
    assert set(writer._names) == {name for name, _ in writer._entries}


def test_secrets_never_enter_a_table() -> None:
    writer = FieldWriter()
    marked = hpack.NeverIndexedHeaderTuple(b"x-secret", b"1")
    for _ in range(2):
        block = writer.write([(b"authorization", b"Bearer x"), (b"cookie", b"short=1"), marked])
    assert not writer._entries
    assert block[0] & 0xF0 == 0x10
    assert all(not field.indexable for field in hpack.Decoder().decode(block, raw=True))
    (again,) = FieldReader(1000).read(writer.write([marked]))
    assert type(again) is hpack.NeverIndexedHeaderTuple  # an intermediary keeps the mark (RFC 7541 section 6.2.3)
