"""What a request sticks to an endpoint by: the value of a header or of a cookie. Nothing of it is ever set by us.

A cookie is read as a server reads it (RFC 6265 section 5.4): pairs behind semicolons, names compared as they are, the
first of its name; quotes are part of a value, and nothing is decoded. HTTP/2 may bring the pairs on several lines
(RFC 9113 section 8.2.3). A value that is empty is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.http.headers import first

if TYPE_CHECKING:
    from sidecar.config.terms import Affinity
    from sidecar.hop import Headers

KeyOf = Callable[["Headers"], bytes]


def key_of(affinity: Affinity | None) -> KeyOf | None:
    """Finds the key of a request in its header fields, `b""` where it has none; None where headers do not decide."""
    if affinity is None or affinity.kind == "caller":
        return None
    name = affinity.name.encode("ascii")
    return _header(name) if affinity.kind == "header" else _cookie(name)


def _header(name: bytes) -> KeyOf:
    def read(headers: Headers) -> bytes:
        return first(headers, name) or b""

    return read


def _cookie(name: bytes) -> KeyOf:
    def read(headers: Headers) -> bytes:
        for field, line in headers:
            if field != b"cookie":
                continue
            for pair in line.split(b";"):
                key, equals, value = pair.strip(b" \t").partition(b"=")
                if equals and key == name and value:
                    return value
        return b""

    return read
