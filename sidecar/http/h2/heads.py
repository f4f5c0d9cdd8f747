"""One strict reading of each head, and the way back: fields of HTTP/2 to the heads that all versions share.

What RFC 9113 calls malformed (section 8.1.1) resets the stream with PROTOCOL_ERROR. What is well-formed but has no
place here (too large, a doubtful host, an expectation) leaves the stream open for an answer. Either way nothing of it
goes on.

A request comes out as HTTP/1 would have brought it: `:path` is the target, `:authority` the one Host field in front,
cookie crumbs are one field (RFC 9113 section 8.2.3), and a WebSocket's extended CONNECT (RFC 8441) is the GET with an
Upgrade that it stands for, so that the same rules judge it. So there is one reading of paths, hosts and fields for all
versions, and it is that of `sidecar.http.canonical` and the policies.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import HeadTooLarge, HopError, HostMismatch, ProtocolViolation, UnsupportedFeature
from sidecar.hop import Headers
from sidecar.http.chunks import TOKEN
from sidecar.http.h2.codes import StreamFault
from sidecar.http.headers import FORBIDDEN_TRAILERS, LOOKALIKES, SINGLETONS
from sidecar.http.message import RequestHead, ResponseHead

_LOWER_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9a-z]+"
_NAMES = re.compile(rb"(?:" + _LOWER_TOKEN + rb"\n)*\Z")
_BAD_VALUES = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\n[ \t]|[ \t]\n")  # in values between line feeds
_NAME = re.compile(_LOWER_TOKEN + rb"\Z")
_METHOD = re.compile(TOKEN + rb"\Z")
_TARGET = re.compile(rb"[\x21-\x7e]+\Z")
_STATUS = re.compile(rb"[1-9][0-9]{2}\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")

# RFC 9113 section 8.2.2: what speaks of a connection has no place in a version that frames its messages itself.
CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_CAREFUL = CONNECTION_FIELDS | SINGLETONS | LOOKALIKES | {b"te", b"cookie"}
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_SCHEMES = (b"https", b"http")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*\Z")  # RFC 3986 section 3.1
WEBSOCKET: Final = b"websocket"

_MOST_KNOWN, _LONGEST_KNOWN = 2048, 256  # fields; bytes of a value
_NOT_KEPT = _CAREFUL | {b"set-cookie"}  # what is secret stays nowhere
_well_formed: set[tuple[bytes, bytes]] = set()


def _malformed(detail: str) -> StreamFault:
    return StreamFault(ProtocolViolation(detail))


def _answered(error: HopError) -> StreamFault:
    return StreamFault(error, None)


def read_request(
    fields: Headers, size: int, *, end: bool, head_bytes: int, head_lines: int, extended: bool
) -> RequestHead:
    """The head that these fields mean, which count `size` bytes (RFC 9113 section 6.5.2: names, values, and 32 for
    each); `end`: no body follows; `extended`: RFC 8441 is spoken. Raises StreamFault.
    """
    pseudo, headers, special = _split(fields)
    unknown = pseudo.keys() - _REQUEST_PSEUDO
    if unknown:
        raise _malformed(f"the pseudo-header {_shown(min(unknown))}, which no request has")
    method = pseudo.get(b":method", b"")
    if not _METHOD.match(method):
        raise _malformed("no method, or one that is no token")
    protocol = pseudo.get(b":protocol")
    plain_connect = method == b"CONNECT" and protocol is None
    target = _connect_target(pseudo) if plain_connect else _path_target(pseudo, method)
    _check_size(size, len(headers), head_bytes, head_lines)
    host = _host(pseudo, special)
    if b"host" in special:
        headers = [field for field in headers if field[0] != b"host"]
    headers.insert(0, (b"host", host))
    head = RequestHead(method, target, headers, b"2")
    head.length = _length(special)
    head.body = not end
    if method == b"CONNECT":
        if head.length is not None:
            raise _malformed("a content-length on a CONNECT")
        head.body = False  # what follows belongs to the tunnel
    if end and head.length:
        raise _malformed(f"a content-length of {head.length} without a body")
    _expectation(head, special)
    if protocol is not None:
        _extended(head, protocol, spoken=extended, end=end)
    return head


def read_response(fields: Headers, size: int, *, end: bool, head_bytes: int, head_lines: int) -> ResponseHead:
    """The head that these fields mean, final or 1xx. Raises StreamFault."""
    pseudo, headers, special = _split(fields)
    if pseudo.keys() != {b":status"} or not _STATUS.match(pseudo[b":status"]):
        raise _malformed("no :status of three digits, or another pseudo-header beside it")
    status = int(pseudo[b":status"])
    if status == 101:
        raise _malformed("status 101, which HTTP/2 does not have (RFC 9113 section 8.6)")
    if status < 200 and end:
        raise _malformed("a 1xx response that ends its stream")
    _check_size(size, len(headers), head_bytes, head_lines)
    _length(special)
    return ResponseHead(status, headers, b"", b"2")


def read_trailers(fields: Headers, size: int, *, head_bytes: int, head_lines: int) -> Headers:
    """Fields that follow a body. Raises StreamFault."""
    pseudo, headers, _ = _split(fields)
    if pseudo:
        raise _malformed(f"the pseudo-header {_shown(min(pseudo))} in trailers")
    for name, _value in headers:
        if name in FORBIDDEN_TRAILERS:
            raise _malformed(f"the trailer {_shown(name)} is not allowed")
    _check_size(size, len(headers), head_bytes, head_lines)
    return headers


def length_of(headers: Headers) -> int | None:
    """The content-length of a head that has been read."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


# ---- the parts ------------------------------------------------------------------------------------------------------


def _split(fields: Headers) -> tuple[dict[bytes, bytes], Headers, dict[bytes, bytes]]:
    """Pseudo-headers, fields, and those fields of which there may be one: each held to its grammar."""
    new = [field for field in fields if field not in _well_formed]
    if new:
        _check_grammar(new)
    pseudo: dict[bytes, bytes] = {}
    special: dict[bytes, bytes] = {}
    headers: Headers = []
    for field in fields:
        name, value = field
        if name[:1] == b":":
            if headers:
                raise _malformed(f"the pseudo-header {_shown(name)} after a field")
            if name in pseudo:
                raise _malformed(f"the pseudo-header {_shown(name)} is repeated")
            pseudo[name] = value
        elif name in _CAREFUL:
            _careful(field, headers, special)
        else:
            headers.append(field)
    return pseudo, headers, special


def _check_grammar(fields: Headers) -> None:
    """Hold names and values to their grammar, all at once. Most fields come in every request, so those that are well
    formed are known the next time.
    """
    regular = [name for name, _ in fields if name[:1] != b":"]
    names = b"\n".join([*regular, b""])
    values = b"\n".join([b"", *[value for _, value in fields], b""])
    if (
        not _NAMES.match(names)
        or names.count(b"\n") != len(regular)
        or _BAD_VALUES.search(values)
        or values.count(b"\n") != len(fields) + 1
    ):
        raise _what_is_wrong(fields)
    if len(_well_formed) + len(fields) > _MOST_KNOWN:
        _well_formed.clear()
    _well_formed.update([field for field in fields if len(field[1]) <= _LONGEST_KNOWN and field[0] not in _NOT_KEPT])


def _careful(field: tuple[bytes, bytes], headers: Headers, special: dict[bytes, bytes]) -> None:
    name, value = field
    if name in CONNECTION_FIELDS:
        raise _malformed(f"the field {_shown(name)}, which belongs to a connection of HTTP/1")
    if name in LOOKALIKES:
        raise _malformed(f"the field {_shown(name)}, which some servers read as a framing field")
    if name == b"te" and value.lower() != b"trailers":
        raise _malformed("the field te with more than `trailers` in it")
    if name in special:
        if name != b"cookie":
            raise _malformed(f"the field {_shown(name)} is repeated")
        at, before = next((at, v) for at, (n, v) in enumerate(headers) if n == b"cookie")
        headers[at] = (name, b"; ".join(crumb for crumb in (before, value) if crumb))  # no blank at either end
        return
    special[name] = value
    headers.append(field)


def _what_is_wrong(fields: Headers) -> StreamFault:
    for name, value in fields:
        if name[:1] != b":" and not _NAME.match(name):
            kind = "in upper case" if _NAME.match(name.lower()) else "that is no token"
            return _malformed(f"a field name {kind}: {_shown(name)}")
        if _BAD_VALUES.search(value) or b"\n" in value:
            return _malformed(f"a control character in the value of {_shown(name)}")
        if value.strip(b" \t") != value:
            return _malformed(f"the value of {_shown(name)} begins or ends with a blank")
    return _malformed("a field that cannot be read")


def _shown(name: bytes) -> str:
    return repr(name[:60])[2:-1]


def _check_size(size: int, lines: int, head_bytes: int, head_lines: int) -> None:
    if lines > head_lines:
        raise _answered(HeadTooLarge(f"{lines} fields; at most {head_lines} are allowed"))
    if size > head_bytes:
        raise _answered(HeadTooLarge(f"a head of {size} bytes (names, values, and 32 for each); at most {head_bytes}"))


def _connect_target(pseudo: dict[bytes, bytes]) -> bytes:
    if b":scheme" in pseudo or b":path" in pseudo:
        raise _malformed("a CONNECT with :scheme or :path (RFC 9113 section 8.5)")
    target = pseudo.get(b":authority", b"")
    if not _TARGET.match(target):
        raise _malformed("a CONNECT without :authority")
    return target


def _path_target(pseudo: dict[bytes, bytes], method: bytes) -> bytes:
    scheme = pseudo.get(b":scheme", b"")
    if scheme not in _SCHEMES:
        if _SCHEME.match(scheme):
            raise _answered(UnsupportedFeature(f"the :scheme {_shown(scheme)}; only http and https are served"))
        raise _malformed("no :scheme, or one that is none")
    path = pseudo.get(b":path", b"")
    if not _TARGET.match(path):
        raise _malformed("no :path, or one with bytes that are not visible ASCII")
    if path[:1] != b"/" and (path != b"*" or method != b"OPTIONS"):
        raise _malformed("a :path that does not begin with `/`")
    return path


def _host(pseudo: dict[bytes, bytes], special: dict[bytes, bytes]) -> bytes:
    authority, host = pseudo.get(b":authority"), special.get(b"host")
    if authority is None:
        if host is None:
            raise _answered(HostMismatch("neither :authority nor host"))
        return host
    if host is not None and host.lower() != authority.lower():
        raise _malformed_host("the field host differs from :authority")
    return authority


def _malformed_host(detail: str) -> StreamFault:
    return StreamFault(HostMismatch(detail))


def _length(special: dict[bytes, bytes]) -> int | None:
    value = special.get(b"content-length")
    if value is None:
        return None
    if not _DIGITS.match(value):
        raise _malformed(f"content-length {value[:30]!r} is not a plain number")
    return int(value)


def _expectation(head: RequestHead, special: dict[bytes, bytes]) -> None:
    value = special.get(b"expect")
    if value is None:
        return
    if value.lower() != b"100-continue":
        raise _answered(UnsupportedFeature(f"Expect: {value[:60]!r}"))
    head.expects_continue = head.body


def _extended(head: RequestHead, protocol: bytes, *, spoken: bool, end: bool) -> None:
    """RFC 8441: CONNECT with :protocol asks for what an Upgrade asks for in HTTP/1."""
    if head.method != b"CONNECT":
        raise _malformed(":protocol without CONNECT")
    if not spoken:
        raise _malformed(":protocol, although ENABLE_CONNECT_PROTOCOL was not offered")
    if end:
        raise _malformed("an extended CONNECT that ends its stream")
    if protocol != WEBSOCKET:
        raise _answered(UnsupportedFeature(f"the protocol {_shown(protocol)} in a CONNECT; only websocket is known"))
    head.method = b"GET"
    head.protocol = protocol
    head.headers += [(b"connection", b"upgrade"), (b"upgrade", protocol)]
