"""What a caller is told of its limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and
`Retry-After` (RFC 9110 section 10.2.3).

Names of limits come from the configuration and are written as structured fields (RFC 9651), so that nothing an operator
may call a limit can break the line. Seconds are rounded up: who comes when it was told is let in.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.hop import Headers
    from sidecar.traffic.gcra import Rate, Standing


def rate_limit(rate: Rate, standing: Standing) -> Headers:
    """The two fields of an answer for the level that has the least left."""
    name = named(rate.name)
    window = max(1, ceil(rate.burst / rate.rate))
    return [
        (b"ratelimit-policy", b"%s;q=%d;w=%d" % (name, standing.limit, window)),
        (b"ratelimit", b"%s;r=%d;t=%d" % (name, standing.remaining, ceil(standing.reset))),
    ]


def quota_fields(rows: Sequence[tuple[str, int, int, int, int]]) -> Headers:
    """The two fields for quotas, each as name, limit, seconds of its window, what is left of it, and seconds until the
    next window.
    """
    return [
        (b"ratelimit-policy", b", ".join([b"%s;q=%d;w=%d" % (named(row[0]), row[1], row[2]) for row in rows])),
        (b"ratelimit", b", ".join([b"%s;r=%d;t=%d" % (named(row[0]), row[3], row[4]) for row in rows])),
    ]


def retry_after(seconds: float) -> tuple[bytes, bytes]:
    """When to come again: at least a second, as the field has no fractions."""
    return b"retry-after", b"%d" % max(1, ceil(seconds))


def named(text: str) -> bytes:
    """A String of a structured field: printable ASCII in quotes; anything else becomes `?`."""
    plain = "".join(ch if " " <= ch <= "~" else "?" for ch in text)
    return b'"%s"' % plain.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
