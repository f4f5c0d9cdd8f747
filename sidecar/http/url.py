"""An absolute `http://` or `https://` URL, taken apart in the one way of RFC 3986; no Python library is asked.

A user, a password and a fragment have no place here: the one is a secret that would end up in logs, the other is never
sent. A query stays as it is, for those who allow one. Nothing is decoded and nothing repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

PORTS: Final = {"http": 80, "https": 443}
MAX_LENGTH: Final = 2048  # characters; discovery documents name their key sets in a tenth of that
_PCHAR: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"  # RFC 3986 section 3.3
_URL: Final = re.compile(
    rf"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([1-9][0-9]{{0,4}}))?((?:/{_PCHAR}*)*)(\?(?:{_PCHAR}|[/?])*)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """A URL in its parts. `host` in lower case, an address of IPv6 without its brackets."""

    scheme: str
    host: str
    port: int
    path: str  # as written; empty where there is none
    query: str  # with its question mark; empty where there is none


def take_apart(text: str) -> Parts:
    """Read a URL. Raises ValueError, whose text says what is wrong and repeats nothing of it."""
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ValueError("has a user or a password in it")
    if "#" in text:
        raise ValueError("has a fragment, which is not sent")
    match = _URL.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None or int(match[3] or 1) > 65535:
        raise ValueError("is no URL")
    scheme, host = match[1].lower(), match[2].lower().strip("[]")
    if match[2].startswith("["):
        try:
            host = str(IPv6Address(host))
        except AddressValueError:
            raise ValueError("is no URL") from None
    return Parts(scheme, host, int(match[3] or PORTS[scheme]), match[4], match[5] or "")
