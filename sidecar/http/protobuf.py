"""Protocol Buffers, as far as the SPIFFE Workload API needs them: fields of text, bytes, messages and numbers.

The format is that of protobuf.dev/programming-guides/encoding. Writing: join what these functions give. Reading gives
the fields in their order; unknown ones are there and harm nobody. proto3 leaves out what is empty, except in lists.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT: Final = 10  # bytes of a 64-bit number
_LARGEST: Final = 1e300  # an integer of JSON may be larger than any double
MAX_DEPTH: Final = 32  # of a JSON value; protobuf's own limit is 100 messages, three for each level


class InvalidMessage(ValueError):
    """The bytes are no message."""


def varint(number: int) -> bytes:
    """A number of at most 64 bits, 7 bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def data(field: int, value: bytes) -> bytes:
    """A field of bytes, or of another message, written also where it is empty."""
    return varint(field << 3 | _BYTES) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """A field of text; nothing where it is empty."""
    return data(field, value.encode()) if value else b""


def table(field: int, values: Mapping[str, bytes]) -> bytes:
    """A `map<string, bytes>`."""
    return b"".join(data(field, data(1, key.encode()) + data(2, value)) for key, value in values.items())


def fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message: number and value, fixed-width ones as their bytes. Raises InvalidMessage."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise InvalidMessage(f"there is no field {number}")
        if kind == _VARINT:
            value, at = _varint(message, at)
            found.append((number, value))
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise InvalidMessage(f"field {number} is of a kind that does not exist")
        if size > len(message) - at:
            raise InvalidMessage(f"field {number} is cut off")
        found.append((number, message[at : at + size]))
        at += size
    return found


def all_data(message: bytes, field: int) -> list[bytes]:
    """Every value of a repeated field of bytes or messages. Raises InvalidMessage."""
    found = [value for number, value in fields(message) if number == field]
    if any(isinstance(value, int) for value in found):
        raise InvalidMessage(f"field {field} is a number")
    return [value for value in found if isinstance(value, bytes)]


def all_text(message: bytes, field: int) -> list[str]:
    """Every value of a repeated field of text. Raises InvalidMessage."""
    try:
        return [value.decode() for value in all_data(message, field)]
    except UnicodeDecodeError:
        raise InvalidMessage(f"field {field} is not UTF-8") from None


def one_text(message: bytes, field: int) -> str:
    """A field of text, the last where there are several, empty where there is none. Raises InvalidMessage."""
    return (all_text(message, field) or [""])[-1]


def one_data(message: bytes, field: int) -> bytes:
    """A field of bytes, the last where there are several, empty where there is none. Raises InvalidMessage."""
    return (all_data(message, field) or [b""])[-1]


def read_table(message: bytes, field: int) -> dict[str, bytes]:
    """A `map<string, bytes>`; of a key that comes twice the last counts. Raises InvalidMessage."""
    return {one_text(entry, 1): one_data(entry, 2) for entry in all_data(message, field)}


def struct_of(values: Mapping[str, Any], depth: int = 0) -> bytes:
    """A JSON object as google.protobuf.Struct. Raises InvalidMessage where it is nested too deeply."""
    return b"".join(data(1, data(1, key.encode()) + data(2, _value(each, depth + 1))) for key, each in values.items())


def _value(value: Any, depth: int) -> bytes:
    """google.protobuf.Value: which of its fields is set says what it is."""
    if depth > MAX_DEPTH:
        raise InvalidMessage("the claims are nested too deeply")
    match value:
        case None:
            return varint(1 << 3 | _VARINT) + b"\0"
        case bool():
            return varint(4 << 3 | _VARINT) + varint(int(value))
        case int() | float():
            number = float(value) if abs(value) < _LARGEST else _LARGEST if value > 0 else -_LARGEST
            return varint(2 << 3 | _FIXED64) + struct.pack("<d", number)
        case str():
            return data(3, value.encode())
        case Mapping():
            return data(5, struct_of(value, depth))
        case _:
            return data(6, b"".join(data(1, _value(each, depth + 1)) for each in value))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(_MAX_VARINT):
        if at >= len(message):
            raise InvalidMessage("a number is cut off")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number & (1 << 64) - 1, at
    raise InvalidMessage("a number has more than 64 bits")
