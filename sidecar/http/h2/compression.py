"""HPACK (RFC 7541), both ways, with bounds on what reading may cost.

Our own, because the library's (hpack) took more than half of a request's time: it logs each field, copies the rest of
the block for each literal, and searches its table from end to end. Its static table and its Huffman code serve us; the
tests hold us to it, both ways, and to the stories of other encoders.

What we write is never Huffman-coded: between sidecars, and on loopback, a byte is cheaper than the time to save it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable

from sidecar.hop import Headers

TABLE_BYTES: Final = 4096  # of both dynamic tables (RFC 7541 section 4.2), whatever the other side would grant ours
_STATIC: Final = (None, *HeaderTable.STATIC_TABLE)
_DYNAMIC: Final = len(_STATIC)  # index of the newest entry of the dynamic table
_ENTRY: Final = 32  # bytes that an entry counts beside name and value (RFC 7541 section 4.1)
_MAX_TABLE_UPDATES: Final = 2  # in a block (RFC 7541 section 4.2): two can be needed, more never
_MAX_NUMBER_BYTES: Final = 5  # 2^28 and more: no length and no index is that large
_MEMO_STRINGS: Final = 512  # Huffman strings whose meaning is remembered, for all connections together
_MEMO_BYTES: Final = 64  # and how long they may be
_KNOWN_BLOCKS: Final = 32  # whole blocks of which each connection remembers what they mean
_KNOWN_FIELDS: Final = 6  # of a block that we write, to be remembered
_KNOWN_BYTES: Final = 32  # and how long they may be: fields that stand in the tables, a byte or two each

# Fields whose values hardly ever come again: in the table they would only push out what does.
_PASSING: Final = frozenset(
    (b":path", b"content-length", b"date", b"etag", b"last-modified", b"location", b"x-request-id", b"traceparent",
     b"age", b"if-none-match", b"if-modified-since", b"grpc-timeout", b"mesh-decision-id")
)  # fmt: skip
# Values that must not enter a table that is shared by all requests of a connection: with them there, their guessing
# becomes a game of lengths (RFC 7541 section 7.1.3). Short cookies are guessed most easily; Firefox and nghttp2 say 20.
_SECRET: Final = frozenset((b"authorization", b"proxy-authorization"))
_SHORT_COOKIE: Final = 20

_meanings: dict[bytes, bytes] = {}


class NotHpack(Exception):
    """A block that cannot be read; the state of the connection's table is lost with it."""


class TooMuch(Exception):
    """A block that means more than we let it."""


class FieldReader:
    """Reads the blocks of one connection, in their order."""

    __slots__ = ("_entries", "_known", "_limit", "_room", "_size", "list_size")

    def __init__(self, limit: int) -> None:
        self.list_size = 0  # what the last list counts: names, values, and 32 for each field
        self._known: dict[bytes, tuple[Headers, int]] = {}  # what short blocks mean, until the table changes
        self._limit = limit  # bytes that one list may count
        self._entries: deque[tuple[bytes, bytes]] = deque()  # the newest first
        self._size = 0
        self._room = TABLE_BYTES

    def read(self, block: bytes) -> Headers:
        """The fields of a block, to be looked at only. Raises NotHpack or TooMuch."""
        known = self._known.get(block)
        if known is not None:
            fields, self.list_size = known
            return fields
        try:
            return self._read(block)
        except IndexError:
            raise NotHpack("it ends too early, or names an entry that is not there") from None

    def _read(self, block: bytes) -> Headers:
        at, size, total, updates, literals = 0, len(block), 0, 0, False
        fields: Headers = []
        entries = self._entries
        while at < size:
            first = block[at]
            if first & 0x80:  # an entry of a table
                index = first & 0x7F
                at += 1
                if index == 0x7F:
                    index, at = _number(block, at, index)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:  # another size of the table
                updates += 1
                if fields or updates > _MAX_TABLE_UPDATES:
                    raise NotHpack("an update of the table where none may be")
                room, at = first & 0x1F, at + 1
                if room == 0x1F:
                    room, at = _number(block, at, room)
                self._resize(room)
                continue
            else:  # a literal; 01 enters the table, 0001 must never enter any
                literals = True
                enters = first & 0x40
                mask = 0x3F if enters else 0x0F
                index = first & mask
                at += 1
                if index:
                    if index == mask:
                        index, at = _number(block, at, index)
                    name = self._entry(index)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                field = NeverIndexedHeaderTuple(name, value) if first & 0xF0 == 0x10 else (name, value)
                if enters:
                    self._size += len(name) + len(value) + _ENTRY
                    entries.appendleft(field)
                    self._known.clear()
                    if self._size > self._room:
                        self._evict()
            total += len(field[0]) + len(field[1]) + _ENTRY
            if total > self._limit:
                raise TooMuch
            fields.append(field)
        self.list_size = total
        if not literals and size <= _KNOWN_BYTES:  # answers of one application are often the same
            if len(self._known) >= _KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = fields, total
        return fields

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index < _DYNAMIC:
            found = _STATIC[index]
            if found is None:
                raise NotHpack("index 0")
            return found
        return self._entries[index - _DYNAMIC]

    def _resize(self, room: int) -> None:
        if room > TABLE_BYTES:
            raise NotHpack(f"a table of {room} bytes; at most {TABLE_BYTES}")
        self._room = room
        self._known.clear()
        self._evict()

    def _evict(self) -> None:
        while self._size > self._room:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _ENTRY


def _number(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """A number that had no room in its first byte (RFC 7541 section 5.1), and where it ends."""
    number, shift, most = prefix, 0, at + _MAX_NUMBER_BYTES
    while at < most:
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise NotHpack("a number of too many bytes")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string (RFC 7541 section 5.2), and where it ends."""
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _number(block, at, length)
    end = at + length
    if end > len(block):
        raise NotHpack("a string that is longer than its block")
    raw = block[at:end]
    return (_unpacked(raw) if first & 0x80 else raw), end


def _unpacked(raw: bytes) -> bytes:
    """A string in the Huffman code; those that come often are remembered."""
    found = _meanings.get(raw)
    if found is None:
        try:
            found = decode_huffman(raw)
        except HPACKError:
            raise NotHpack("a string that is not in the Huffman code") from None
        if len(raw) <= _MEMO_BYTES:
            if len(_meanings) >= _MEMO_STRINGS:
                _meanings.clear()
            _meanings[raw] = found
    return found


class FieldWriter:
    """Writes the blocks of one connection."""

    __slots__ = ("_entered", "_entries", "_exact", "_known", "_names", "_room", "_size", "_smallest")

    def __init__(self) -> None:
        self._entries: deque[tuple[bytes, bytes]] = deque()  # the oldest first
        self._entered = 0  # entries so far: an entry's number is how many were before it
        self._exact = dict(_STATIC_EXACT)  # field → its number, or less than 0: its index in the static table
        self._names: dict[bytes, int] = {}
        self._size = 0
        self._room = TABLE_BYTES
        self._smallest: int | None = None  # size of the table since the last block, where it has changed
        self._known: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}  # blocks of fields that stand in the tables

    def resize(self, room: int) -> None:
        """The other side's table has so many bytes from now on; ours never has more than usual."""
        room = min(room, TABLE_BYTES)
        if room != self._room or self._smallest is not None:
            self._smallest = room if self._smallest is None else min(room, self._smallest)
            self._room = room
            self._known.clear()
            self._evict()

    def write(self, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
        """A block that means these fields."""
        key = tuple(fields) if len(fields) <= _KNOWN_FIELDS else None
        known = self._known.get(key) if key is not None else None
        if known is not None and NeverIndexedHeaderTuple not in map(type, fields):
            return known
        out, literals = bytearray(), self._smallest is not None
        if self._smallest is not None:
            for room in sorted({self._smallest, self._room}):
                _put_number(out, room, 0x1F, 0x20)
            self._smallest = None
        exact = self._exact
        for field in fields:
            number, marked = exact.get(field), type(field) is NeverIndexedHeaderTuple
            if number is not None and not marked:
                index = -number if number < 0 else _DYNAMIC + self._entered - number
                if index < 0x7F:
                    out.append(0x80 | index)
                else:
                    _put_number(out, index, 0x7F, 0x80)
                continue
            name, value = field
            literals = True
            if marked or name in _SECRET or (name == b"cookie" and len(value) < _SHORT_COOKIE):
                self._literal(out, name, value, 0x0F, 0x10)
            elif name in _PASSING:
                self._literal(out, name, value, 0x0F, 0x00)
            else:
                self._literal(out, name, value, 0x3F, 0x40)
                self._enter(field)
        block = bytes(out)
        if key is not None and not literals:
            if len(self._known) >= _KNOWN_BLOCKS:
                self._known.clear()
            self._known[key] = block
        return block

    def _literal(self, out: bytearray, name: bytes, value: bytes, mask: int, kind: int) -> None:
        index = _STATIC_NAMES.get(name, 0)
        if not index:
            number = self._names.get(name)
            index = _DYNAMIC + self._entered - number if number is not None else 0
        if index < mask:
            out.append(kind | index)
        else:
            _put_number(out, index, mask, kind)
        if not index:
            _put_number(out, len(name), 0x7F, 0)
            out += name
        size = len(value)
        if size < 0x7F:
            out.append(size)
        else:
            _put_number(out, size, 0x7F, 0)
        out += value

    def _enter(self, field: tuple[bytes, bytes]) -> None:
        name, value = field
        self._entries.append((name, value))
        self._entered += 1
        self._known.clear()
        self._exact[(name, value)] = self._names[name] = self._entered
        self._size += len(name) + len(value) + _ENTRY
        if self._size > self._room:
            self._evict()

    def _evict(self) -> None:
        while self._size > self._room:
            number = self._entered - len(self._entries) + 1
            field = self._entries.popleft()
            name, value = field
            self._size -= len(name) + len(value) + _ENTRY
            if self._exact.get(field) == number:
                del self._exact[field]
            if self._names.get(name) == number:
                del self._names[name]


def _put_number(out: bytearray, number: int, mask: int, kind: int) -> None:
    """A number whose first byte has room for `mask` beside what kind it is (RFC 7541 section 5.1)."""
    if number < mask:
        out.append(kind | number)
        return
    out.append(kind | mask)
    number -= mask
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


_STATIC_EXACT: Final[dict[tuple[bytes, bytes], int]] = {}
_STATIC_NAMES: Final[dict[bytes, int]] = {}
for _index, _field in enumerate(HeaderTable.STATIC_TABLE, 1):
    _STATIC_EXACT.setdefault(_field, -_index)
    _STATIC_NAMES.setdefault(_field[0], _index)
