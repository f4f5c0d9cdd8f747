"""Header hygiene: what belongs to one connection stays on it, and what belongs to the mesh is not taken from
strangers.
"""

from __future__ import annotations

from sidecar.errors import ProtocolViolation
from sidecar.hop import Headers

# RFC 9110 section 7.6.1, and the proxy-only fields of section 11.7. Transfer-Encoding is made anew for each connection.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"proxy-authenticate",
     b"proxy-authorization", b"http2-settings")
)  # fmt: skip
# Fields that no Connection header may name: taking them away would change what the message means or who is believed.
PROTECTED = frozenset(
    (b"host", b"content-length", b"content-type", b"content-encoding", b"authorization", b"cookie", b"set-cookie",
     b"expect", b"date", b"cache-control", b"trailer", b"x-forwarded-client-cert", b"x-forwarded-for")
)  # fmt: skip
# A message with two of these has two meanings (RFC 9110 section 5.3).
SINGLETONS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"proxy-authorization",
     b"expect")
)  # fmt: skip
# CGI and its heirs (WSGI, Rack, PHP) cannot tell `_` from `-`. What they might take for framing is refused.
LOOKALIKES = frozenset((b"content_length", b"transfer_encoding"))
# RFC 9110 section 6.5.1: what would change framing, routing or the caller's rights must not come after the body.
FORBIDDEN_TRAILERS = HOP_BY_HOP | SINGLETONS | PROTECTED | {b"content-range", b"max-forwards", b"te", b"cookie"}
XFCC = b"x-forwarded-client-cert"
RESERVED = b"mesh-"


def first(headers: Headers, name: bytes) -> bytes | None:
    """The value of the first field of this name."""
    for field, value in headers:
        if field == name:
            return value
    return None


def tokens(headers: Headers, name: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated list field, over all of its lines."""
    found = []
    for field, value in headers:
        if field == name:
            found += [token for part in value.split(b",") if (token := part.strip(b" \t").lower())]
    return found


def end_to_end(headers: Headers) -> Headers:
    """The fields that travel on: without hop-by-hop fields and those that Connection names.

    Raises ProtocolViolation where Connection names a field that must not be taken away.
    """
    dropped = HOP_BY_HOP
    named = tokens(headers, b"connection")
    if named:
        for token in named:
            if token in PROTECTED or token.startswith(RESERVED):
                raise ProtocolViolation(f"Connection names {token.decode('latin-1')}, which is no hop-by-hop field")
        dropped = dropped | set(named)
    return [field for field in headers if field[0] not in dropped]


def is_reserved(name: bytes) -> bool:
    """Whether the mesh keeps this name to itself, also when spelled with `_` for `-` (decision D21)."""
    name = name.replace(b"_", b"-")
    return name.startswith(RESERVED) or name == XFCC


def without_reserved(headers: Headers) -> Headers:
    """The fields without `mesh-*` and `x-forwarded-client-cert`, in any spelling that some server reads as such."""
    return [field for field in headers if field[0][:1] not in b"mx" or not is_reserved(field[0])]
