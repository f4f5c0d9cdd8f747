"""The trace that a request belongs to (W3C Trace Context), where its application says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sidecar.http.headers import first

if TYPE_CHECKING:
    from sidecar.hop import Headers

# Section 3.2.2: version, trace-id, parent-id, flags. Later versions may have more behind a dash.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?\Z"
)


def trace_of(headers: Headers) -> str:
    """The trace-id of a request; empty where it has none that can be read."""
    value = first(headers, b"traceparent")
    found = _TRACEPARENT.match(value) if value is not None else None
    return found[1].decode("ascii") if found else ""
