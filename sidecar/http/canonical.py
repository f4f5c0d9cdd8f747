"""One reading of a request target and of a host, or none: refuse, never rewrite (decision D4).

A path by-passes a rule when the proxy reads it one way and the application another: `/admin%2f..%2fpublic`, `//admin`,
`/admin;x`, `/%2561dmin`. We do not guess which reading the application will choose. Whatever has two of them is refused
with 400, and whatever is accepted goes on byte for byte as it came, so that signatures over it stay valid.

Order matters: the query is cut first and never interpreted, the path is split into segments at its raw slashes, and
each segment is percent-decoded exactly once, as UTF-8. Rules are matched on those segments.

Three things can be opened for single routes, each named `unsafe_…` in the configuration: encoded slashes, empty
segments, and `;`. A route is known only once the path has been read, so: read with the union of what the listener's
routes allow, find the route, then ask whether its own `Leniency` covers what the target `needs`.

Hosts have no second spelling either: a trailing dot, user information, percent-encoding, or a number that some
resolvers take for an IPv4 address (`0x7f.1`, `127.1`) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal, NamedTuple

from sidecar.errors import AmbiguousPath, HostMismatch, ProtocolViolation

Form = Literal["origin", "absolute", "authority", "asterisk"]

MAX_HOST_BYTES: Final = 253  # RFC 1035 section 2.3.4: 255 octets on the wire, which is 253 in text
MAX_LABEL_BYTES: Final = 63  # RFC 1035 section 2.3.4

_VISIBLE = bytes(range(0x21, 0x7F))
_QUERY = _VISIBLE.replace(b"#", b"")  # what may stand in a query that nobody interprets
_PLAIN = bytes(c for c in _VISIBLE if c not in b'#%;?\\')  # path bytes that stand for themselves
_CONTROLS = bytes(range(0x20)) + b"\x7f"
_HEX = frozenset(b"0123456789abcdefABCDEF")
_LABEL = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_DIGITS = b"0123456789"
_ESCAPES = {
    bytes((a, b)): bytes((int(bytes((a, b)), 16),)) for a in sorted(_HEX) for b in sorted(_HEX)
}  # b"2F" -> b"/"
_ESCAPE_LEFT = re.compile(rb"%[0-9A-Fa-f]{2}")  # only asked where a decoded segment still holds a percent sign
_DOTS = frozenset((b".", b".."))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Leniency:
    """Which ambiguities a route accepts; each is `unsafe_…` in the configuration."""

    encoded_slash: bool = False  # %2F inside a segment
    empty_segments: bool = False  # `//`
    path_parameters: bool = False  # `;` in a segment; also for listeners that have no path rules

    def covers(self, needs: Leniency) -> bool:
        """Whether everything in `needs` is accepted here."""
        return (
            self.encoded_slash >= needs.encoded_slash
            and self.empty_segments >= needs.empty_segments
            and self.path_parameters >= needs.path_parameters
        )

    def __or__(self, other: Leniency) -> Leniency:
        """What either accepts."""
        return Leniency(
            self.encoded_slash or other.encoded_slash,
            self.empty_segments or other.empty_segments,
            self.path_parameters or other.path_parameters,
        )


STRICT: Final = Leniency()


class Target(NamedTuple):
    """A request target that has one reading (RFC 9112 section 3.2). A tuple, because one is made for each request."""

    form: Form
    path: bytes  # as received, without query; empty for authority and asterisk form
    segments: tuple[str, ...]  # decoded; `/` is ("",), `/a/` is ("a", ""); () where there is no path
    query: bytes | None = None  # as received, without `?`; None where there is none
    scheme: str = ""  # absolute form only, lower-case
    host: str | None = None  # absolute and authority form
    port: int | None = None
    needs: Leniency = STRICT  # the ambiguities that were accepted

    @property
    def origin_form(self) -> bytes:
        """Path and query byte for byte, as origin servers want them; `/` for no path (RFC 9112 section 3.2.1)."""
        if self.form == "asterisk":
            return b"*"
        path = self.path or b"/"
        return path if self.query is None else path + b"?" + self.query


def canonical_target(target: bytes, method: str, *, leniency: Leniency = STRICT) -> Target:
    """Read a request target whose path will be judged.

    Raises AmbiguousPath for what decision D4 refuses, ProtocolViolation where the form does not fit the method, and
    HostMismatch for a malformed authority.
    """
    if target[:1] != b"/" or method == "CONNECT":
        return _other_form(target, method, leniency)
    path, mark, query = target.partition(b"?")
    if mark and query.translate(None, _QUERY):
        raise AmbiguousPath(_bad_bytes("query", query, _QUERY))
    segments, needs = _segments(path, leniency)
    return Target("origin", path, segments, query if mark else None, "", None, None, needs)


def opaque_target(target: bytes, method: str) -> Target:
    """Read a target that goes to a third party untouched: framing hygiene only, `segments` stays empty (decision D4).

    Raises AmbiguousPath for bytes that cannot stand in a request line, ProtocolViolation and HostMismatch as above.
    """
    if target[:1] != b"/" or method == "CONNECT":
        return _other_form(target, method, None)
    path, query = _cut_query(target)
    return Target("origin", path, (), query)


def request_host(target: Target, hosts: Sequence[bytes], version: str) -> tuple[str, int | None]:
    """The one host a request is for, from its target and its Host lines; `("", None)` only in HTTP/1.0 without Host.

    An absolute target with a differing Host is refused: a deliberate deviation from RFC 9112 section 3.2.2 (D4).
    Raises HostMismatch for a missing, repeated, malformed or differing host.
    """
    if not hosts:
        if version == "1.0":
            return target.host or "", target.port
        raise HostMismatch("no Host line (RFC 9112 section 3.2)")
    if len(hosts) > 1:
        raise HostMismatch(f"{len(hosts)} Host lines; exactly one is allowed")
    host, port = canonical_host(hosts[0])
    if target.host is None:
        return host, port
    if host != target.host or not _same_port(target, port):
        raise HostMismatch("the Host line differs from the host in the request target")
    return target.host, target.port


def canonical_host(value: bytes) -> tuple[str, int | None]:
    """Read `host[:port]`: a name, an IPv4 address, or an IPv6 address in brackets. Raises HostMismatch.

    The host comes back in lower case; an IPv6 address in its shortest spelling (RFC 5952) and without brackets.
    """
    if value[:1] == b"[":
        literal, bracket, rest = value[1:].partition(b"]")
        if not bracket or (rest and rest[:1] != b":"):
            raise HostMismatch("an IPv6 host must be `[address]` or `[address]:port`")
        return _ipv6(literal), _port(rest[1:]) if rest else None
    name, colon, port = value.partition(b":")
    return _name(name), _port(port) if colon else None


# ---- forms --------------------------------------------------------------------------------------------------------


def _other_form(target: bytes, method: str, leniency: Leniency | None) -> Target:
    """Asterisk, authority and absolute form. A leniency of None leaves the path unread."""
    if method == "CONNECT":
        host, port = canonical_host(target)
        if port is None:
            raise ProtocolViolation("CONNECT needs `host:port` (RFC 9112 section 3.2.3)")
        return Target("authority", b"", (), host=host, port=port)
    if target == b"*":
        if method != "OPTIONS":
            raise ProtocolViolation("only OPTIONS may ask for `*` (RFC 9112 section 3.2.4)")
        return Target("asterisk", b"", ())
    scheme, mark, rest = target.partition(b"://")
    name = scheme.lower().decode("latin-1")
    if not mark or name not in _DEFAULT_PORTS:
        raise ProtocolViolation("the request target is neither a path nor an http URL (RFC 9112 section 3.2)")
    return _absolute(name, rest, method, leniency)


def _absolute(scheme: str, rest: bytes, method: str, leniency: Leniency | None) -> Target:
    hierarchy, query = _cut_query(rest)
    authority, slash, tail = hierarchy.partition(b"/")
    host, port = canonical_host(authority)
    path = slash + tail
    if not path:
        if method == "OPTIONS":
            raise AmbiguousPath("OPTIONS for a URL without a path can mean `*` or `/` (RFC 9112 section 3.2.4)")
        return Target("absolute", b"", ("",) if leniency is not None else (), query, scheme, host, port)
    segments, needs = _segments(path, leniency) if leniency is not None else ((), STRICT)
    return Target("absolute", path, segments, query, scheme, host, port, needs)


def _cut_query(target: bytes) -> tuple[bytes, bytes | None]:
    """Everything before the first `?`, and what follows it; both must be visible ASCII without `#`."""
    if target.translate(None, _QUERY):
        raise AmbiguousPath(_bad_bytes("request target", target, _QUERY))
    path, mark, query = target.partition(b"?")
    return path, query if mark else None


def _same_port(target: Target, port: int | None) -> bool:
    """Whether a Host line's port agrees with the target's; CONNECT always names one, Host may leave it out there."""
    if target.form == "authority":
        return port is None or port == target.port
    default = _DEFAULT_PORTS[target.scheme]
    return (port or default) == (target.port or default)


# ---- paths --------------------------------------------------------------------------------------------------------


def _segments(path: bytes, leniency: Leniency) -> tuple[tuple[str, ...], Leniency]:
    """Split at raw slashes, then decode each segment once."""
    odd = path.translate(None, _PLAIN)
    if not odd and b"//" not in path and b"/." not in path:  # nearly every request ends here
        return tuple(path.decode("ascii").split("/")[1:]), STRICT
    if odd.translate(None, b"%;"):
        raise AmbiguousPath(_bad_bytes("path", path, _PLAIN + b"%;"))
    raw = path.split(b"/")[1:]
    needs = STRICT
    decoded = []
    for position, segment in enumerate(raw, 1):
        if not segment:
            if position < len(raw):  # a last empty segment is just a trailing slash
                needs |= _need(leniency, Leniency(empty_segments=True), "the path has an empty segment (`//`)")
            decoded.append("")
        else:
            text, more = _segment(segment, leniency)
            needs |= more
            decoded.append(text)
    return tuple(decoded), needs


def _segment(raw: bytes, leniency: Leniency) -> tuple[str, Leniency]:
    """Decode one non-empty segment and refuse what a second reader could see in it."""
    data = _unescape(raw) if b"%" in raw else raw
    needs = STRICT
    if b"/" in data:
        needs |= _need(leniency, Leniency(encoded_slash=True), "the path has an encoded slash (%2F)")
        if b"//" in data or data[:1] == b"/" or data[-1:] == b"/":
            needs |= _need(leniency, Leniency(empty_segments=True), "an encoded slash (%2F) makes an empty segment")
    if b";" in data:
        needs |= _need(leniency, Leniency(path_parameters=True), "the path has a `;`")
    for part in data.split(b"/"):
        if part.partition(b";")[0] in _DOTS:
            raise AmbiguousPath("the path has a dot segment (`.` or `..`, perhaps encoded)")
    try:
        return data.decode("utf-8"), needs
    except UnicodeDecodeError:
        raise AmbiguousPath("the path does not decode to valid UTF-8") from None


def _unescape(raw: bytes) -> bytes:
    """Percent-decode once; refuse bad escapes, escaped controls and backslashes, and escapes of escapes."""
    head, *escapes = raw.split(b"%")
    parts = [head]
    for escape in escapes:
        byte = _ESCAPES.get(escape[:2])
        if byte is None:
            raise AmbiguousPath("the path has a `%` that is not followed by two hexadecimal digits")
        if byte in _CONTROLS or byte == b"\\":
            raise AmbiguousPath(f"the path has an encoded control character or backslash (%{byte[0]:02X})")
        parts.append(byte + escape[2:])
    data = b"".join(parts)
    if _ESCAPE_LEFT.search(data):
        raise AmbiguousPath("the path is encoded twice (%25 that decodes to another escape)")
    return data


def _need(leniency: Leniency, needed: Leniency, what: str) -> Leniency:
    """`needed`, where the leniency covers it; otherwise AmbiguousPath."""
    if not leniency.covers(needed):
        raise AmbiguousPath(what)
    return needed


def _bad_bytes(where: str, data: bytes, allowed: bytes) -> str:
    """Name the first byte that may not stand there, in a form that is safe in a log."""
    bad = data.translate(None, allowed)[0]
    names = {0x20: "a space", 0x23: "a `#`", 0x5C: "a backslash"}
    kind = "a control character" if bad in _CONTROLS else "a non-ASCII byte"
    return f"the {where} has {names.get(bad, kind)} (0x{bad:02x})"


# ---- hosts --------------------------------------------------------------------------------------------------------


def _name(raw: bytes) -> str:
    """A DNS name or an IPv4 address, in lower case."""
    name = raw.lower()
    if not name:
        raise HostMismatch("the host is empty")
    if len(name) > MAX_HOST_BYTES:
        raise HostMismatch(f"the host is longer than {MAX_HOST_BYTES} bytes")
    labels = name.split(b".")
    for label in labels:
        if not label:
            raise HostMismatch("the host has an empty label; a trailing dot is not accepted")
        if len(label) > MAX_LABEL_BYTES or not _LABEL.issuperset(label) or label[:1] == b"-" or label[-1:] == b"-":
            raise HostMismatch("a host label has 1 to 63 of a-z 0-9 - _ and neither begins nor ends with `-`")
    text = name.decode("ascii")
    if _ends_in_a_number(labels[-1]):
        try:
            return str(IPv4Address(text))
        except AddressValueError:
            raise HostMismatch("the host ends in a number but is not an IPv4 address of four decimal parts") from None
    return text


def _ends_in_a_number(label: bytes) -> bool:
    """Whether some resolver could take a name with this last label for an IPv4 address: `127.1`, `0x7f000001`."""
    return not label.translate(None, _DIGITS) or (label[:2] == b"0x" and _HEX.issuperset(label[2:]))


def _ipv6(raw: bytes) -> str:
    """An IPv6 address without zone, in its shortest spelling."""
    try:
        address = IPv6Address(raw.decode("ascii"))
    except (AddressValueError, UnicodeDecodeError):
        raise HostMismatch("the host is not a valid IPv6 address") from None
    if address.scope_id is not None:
        raise HostMismatch("an IPv6 zone may not stand in a host")
    return address.compressed


def _port(raw: bytes) -> int:
    """A port from 1 to 65535 in plain decimal."""
    if not raw or len(raw) > 5 or raw.translate(None, _DIGITS) or raw[:1] == b"0" or int(raw) > 0xFFFF:
        raise HostMismatch("the port is not a number from 1 to 65535")
    return int(raw)
