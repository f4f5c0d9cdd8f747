"""The small patterns of rules: identities, paths, hosts and headers. No regular expressions (decision D3).

Each is parsed once, strictly, and then only matched. Whatever could never match, or would match something other than it
says, is a mistake when it is parsed, not a surprise at run time. The text that was written is kept for messages.

Identity  `orders` is a service of our own namespace, `shop/orders` one of another, `*` any of our own namespace, `**`
          anybody of our own trust domain, `spiffe://td/ns/*/sa/**` the long form. The trust domain is always literal,
          `*` is one whole segment, `**` stands last and means one or more.
Path      `{id}` is one non-empty segment, `/**` stands last and means whatever follows that slash: `/a/**` matches
          `/a/` and `/a/b/c` but not `/a`. A trailing slash is significant, letters are case-sensitive. Other text is
          compared with decoded segments; `%2A` and the like write characters that would mean something else here.
Host      exact, or `*.` for exactly one label; without port.
Header    exact, prefix or present; judged line by line, never split at commas; an absent header satisfies nothing.
Query     the same of a parameter, compared decoded. For routes alone: no rule looks at a query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote, unquote_to_bytes

from certs.errors import InvalidSpiffeId, MeshError
from certs.spiffe import SpiffeId, TrustDomain
from sidecar.errors import HostMismatch
from sidecar.http.canonical import canonical_host

_SCHEME: Final = "spiffe://"
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}\Z", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", re.ASCII)  # RFC 9110 section 5.6.2
_SAFE_IN_TEMPLATE: Final = "!$&'()+,;=:@-._~"  # RFC 3986 pchar without `*`; these stand for themselves

HeaderKind = Literal["exact", "prefix", "present"]


class PatternError(MeshError):
    """A pattern in the configuration cannot be read. The message says what is wrong and what to write."""

    name = "pattern"


@dataclass(frozen=True)
class IdentityPattern:
    """Who may call: one SPIFFE ID, or a family of them within one trust domain."""

    text: str  # as written
    trust_domain: TrustDomain
    segments: tuple[str | None, ...]  # None is `*`
    rest: bool  # `**` follows
    exact: str | None = field(init=False)  # the whole SPIFFE ID where the pattern names just one

    def __post_init__(self) -> None:
        """Know whether just one identity is meant, so that rules can look it up instead of matching."""
        one = not self.rest and None not in self.segments
        text = "/".join((_SCHEME + self.trust_domain.name, *map(str, self.segments)))
        object.__setattr__(self, "exact", text if one else None)

    @classmethod
    def parse(cls, text: str, trust_domain: TrustDomain, namespace: str) -> IdentityPattern:
        """Read a pattern as seen from a service in this trust domain and namespace. Raises PatternError."""
        if text.startswith(_SCHEME):
            authority, slash, path = text[len(_SCHEME) :].partition("/")
            if not slash or not path:
                raise PatternError(f"{text!r} has no path; {text.rstrip('/')}/** is everybody of that trust domain")
            return cls._of(text, _trust_domain(text, authority), path.split("/"))
        if "://" in text:
            raise PatternError(f"{text!r}: an identity is a service name or starts with {_SCHEME}")
        if text == "**":
            return cls(text, trust_domain, (), rest=True)
        parts = text.split("/")
        if len(parts) > 2:
            raise PatternError(f"{text!r}: write `service`, `namespace/service`, or a whole {_SCHEME} identity")
        if "**" in parts:
            raise PatternError(f"{text!r}: `**` stands alone or last in a {_SCHEME} identity; `*` is any one name")
        return cls._of(text, trust_domain, ["ns", parts[0] if len(parts) == 2 else namespace, "sa", parts[-1]])

    @classmethod
    def _of(cls, text: str, trust_domain: TrustDomain, parts: list[str]) -> IdentityPattern:
        rest = parts[-1] == "**"
        segments = tuple(_identity_segment(text, part) for part in (parts[:-1] if rest else parts))
        return cls(text, trust_domain, segments, rest)

    def matches(self, identity: SpiffeId) -> bool:
        """Whether this identity is one of those meant."""
        if self.exact is not None:
            return identity.text == self.exact
        theirs = identity.segments
        length = len(self.segments)
        if identity.trust_domain != self.trust_domain:
            return False
        if len(theirs) <= length if self.rest else len(theirs) != length:
            return False
        return all(ours is None or ours == seen for ours, seen in zip(self.segments, theirs, strict=False))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PathTemplate:
    """Which paths: literal segments, `{id}` for one, `/**` for the rest."""

    text: str  # as written
    segments: tuple[str | None, ...]  # decoded; None is a placeholder
    rest: bool  # `/**` follows
    literal: tuple[str, ...] | None = field(init=False, compare=False)  # the only path meant, where there is just one
    _fixed: tuple[tuple[int, str], ...] = field(init=False, compare=False, repr=False)  # what must stand where
    _free: tuple[int, ...] = field(init=False, compare=False, repr=False)  # where any non-empty segment may stand

    def __post_init__(self) -> None:
        """Lay out what `matches` compares, so that it allocates nothing."""
        fixed = tuple((index, segment) for index, segment in enumerate(self.segments) if segment is not None)
        free = tuple(index for index, segment in enumerate(self.segments) if segment is None)
        one = tuple(segment for _, segment in fixed)
        object.__setattr__(self, "literal", None if self.rest or free else one)
        object.__setattr__(self, "_fixed", fixed)
        object.__setattr__(self, "_free", free)

    @classmethod
    def parse(cls, text: str) -> PathTemplate:
        """Read a template. Raises PatternError."""
        if not text.startswith("/"):
            raise PatternError(f"{text!r}: a path begins with `/`")
        for mark, why in _NOT_IN_A_PATH.items():
            if mark in text:
                raise PatternError(f"{text!r}: {why}")
        parts = text.split("/")[1:]
        rest = parts[-1] == "**"
        if rest:
            parts.pop()
        elif parts[-1] == "":  # a trailing slash
            return cls(text, (*(_path_segment(text, part) for part in parts[:-1]), ""), rest=False)
        return cls(text, tuple(_path_segment(text, part) for part in parts), rest)

    @property
    def names(self) -> tuple[str, ...]:
        """What its placeholders are called, in their order."""
        return tuple(part[1:-1] for part in self.text.split("/") if part.startswith("{") and part.endswith("}"))

    @classmethod
    def naming(cls, segments: tuple[str, ...]) -> PathTemplate:
        """The template that means exactly this path; up to the first empty segment and `/**` where it has `//`."""
        for index, segment in enumerate(segments[:-1]):
            if not segment:
                return cls.parse("/" + "".join(quote(s, _SAFE_IN_TEMPLATE) + "/" for s in segments[:index]) + "**")
        return cls.parse("/" + "/".join(quote(segment, _SAFE_IN_TEMPLATE) for segment in segments))

    def matches(self, segments: tuple[str, ...]) -> bool:
        """Whether a path, split first and decoded once, is one of those meant."""
        if self.literal is not None:
            return segments == self.literal
        length = len(self.segments)
        if len(segments) <= length if self.rest else len(segments) != length:
            return False
        for index, segment in self._fixed:
            if segments[index] != segment:
                return False
        for index in self._free:  # noqa: SIM110 — all() would make a generator for every request
            if not segments[index]:
                return False
        return True

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class HostPattern:
    """Which hosts: one, or `*.` for exactly one more label."""

    text: str  # as written
    host: str  # lower-case; what follows `*.` where `wildcard`
    wildcard: bool

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Read a host or `*.host`. Raises PatternError."""
        wildcard = text.startswith("*.")
        bare = text[2:] if wildcard else text
        bracketed = f"[{bare}]" if bare.count(":") > 1 and not bare.startswith("[") else bare  # bare IPv6
        try:
            host, port = canonical_host(bracketed.encode("utf-8", "surrogatepass"))
        except HostMismatch as error:
            raise PatternError(f"{text!r}: {error}; a host is exact, or `*.` and a name") from None
        if port is not None:
            raise PatternError(f"{text!r}: hosts are compared without port; use `port:` to name a listener")
        if wildcard and (":" in host or host.replace(".", "").isdigit()):
            raise PatternError(f"{text!r}: `*.` goes with a name, not with an address")
        return cls(text, host, wildcard)

    def matches(self, host: str) -> bool:
        """Whether a canonical host (lower-case, no port) is one of those meant. An empty one never is."""
        if not self.wildcard:
            return host == self.host
        label, dot, parent = host.partition(".")
        return bool(label and dot) and parent == self.host

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class HeaderPattern:
    """What a header must say. Every line of that name counts; a value is never split at commas."""

    name: bytes  # lower-case
    kind: HeaderKind
    value: bytes = b""

    @classmethod
    def parse(cls, name: str, spec: object) -> HeaderPattern:
        """Read what stands after a header's name: text, or one of `exact:`, `prefix:`, `present: true`.

        Raises PatternError.
        """
        if not _TOKEN.match(name):
            raise PatternError(f"{name!r} is not a header name")
        key = name.lower()
        if key == "host":
            raise PatternError("use `host:` to match the Host header")
        if isinstance(spec, Mapping):
            if len(spec) != 1:
                raise PatternError(f"header {name}: give exactly one of `exact`, `prefix` or `present`")
            ((kind, value),) = spec.items()
        else:
            kind, value = "exact", spec
        if kind == "present":
            if value is not True:
                raise PatternError(f"header {name}: `present` can only be true; an absent header satisfies nothing")
            return cls(key.encode("ascii"), "present")
        if kind not in ("exact", "prefix"):
            raise PatternError(f"header {name}: {kind!r} is not one of `exact`, `prefix` or `present`")
        return cls(key.encode("ascii"), "exact" if kind == "exact" else "prefix", _header_value(name, kind, value))

    def matches(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the header is there and *every* line of it satisfies this: what an allow rule asks."""
        found = False
        for name, value in headers:
            if name == self.name:
                if not self._accepts(value):
                    return False
                found = True
        return found

    def matches_any(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether *some* line satisfies this: what a deny rule asks, so that a second line cannot hide the first."""
        return any(name == self.name and self._accepts(value) for name, value in headers)

    def _accepts(self, value: bytes) -> bool:
        if self.kind == "exact":
            return value == self.value
        return value.startswith(self.value)  # `present` has an empty value

    def spec(self) -> object:
        """What stands after the name in YAML."""
        if self.kind == "exact":
            return self.value.decode("utf-8")
        return {"present": True} if self.kind == "present" else {"prefix": self.value.decode("utf-8")}

    def __str__(self) -> str:
        name = self.name.decode("ascii")
        return f"{name} present" if self.kind == "present" else f"{name} {self.kind} {self.value.decode('utf-8')!r}"


@dataclass(frozen=True, slots=True)
class QueryPattern:
    """What a query parameter must say. Names and values are compared decoded; `+` is a space."""

    name: bytes
    kind: HeaderKind
    value: bytes = b""

    @classmethod
    def parse(cls, name: str, spec: object) -> QueryPattern:
        """Read what stands after a parameter's name: text, or one of `exact:`, `prefix:`, `present: true`.

        Raises PatternError.
        """
        kind, value = "exact", spec
        if isinstance(spec, Mapping):
            if len(spec) != 1:
                raise PatternError(f"parameter {name}: give exactly one of `exact`, `prefix` or `present`")
            ((kind, value),) = spec.items()
        if kind == "present":
            if value is not True:
                raise PatternError(f"parameter {name}: `present` can only be true; an absent one satisfies nothing")
            return cls(name.encode(), "present")
        if kind not in ("exact", "prefix") or not isinstance(value, str):
            raise PatternError(f"parameter {name}: write text, or one of `exact`, `prefix` or `present`")
        if kind == "prefix" and not value:
            raise PatternError(f"parameter {name}: an empty prefix means `present: true`; write that")
        return cls(name.encode(), "exact" if kind == "exact" else "prefix", value.encode())

    def matches(self, query: bytes) -> bool:
        """Whether it is there and every one of that name satisfies this."""
        found = False
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if _decoded(name) == self.name:
                if not self._accepts(_decoded(value)):
                    return False
                found = True
        return found

    def _accepts(self, value: bytes) -> bool:
        return value == self.value if self.kind == "exact" else value.startswith(self.value)

    def __str__(self) -> str:
        name = self.name.decode()
        return f"{name} present" if self.kind == "present" else f"{name} {self.kind} {self.value.decode()!r}"


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"+" in text or b"%" in text else text


_NOT_IN_A_PATH: Final = {
    "?": "the query is never judged; leave it out",
    "#": "a fragment never reaches a server; leave it out",
    "\\": "a backslash is refused in every request",
    "//": "requests with `//` are refused, and where a route says `unsafe_empty_segments` only `/**` matches them",
}


def _trust_domain(text: str, authority: str) -> TrustDomain:
    if "*" in authority:
        raise PatternError(f"{text!r}: the trust domain must be written out")
    try:
        return TrustDomain.parse(authority)
    except InvalidSpiffeId as error:
        raise PatternError(f"{text!r}: {error}") from None


def _identity_segment(text: str, part: str) -> str | None:
    if part == "*":
        return None
    if part == "**":
        raise PatternError(f"{text!r}: `**` may only stand last")
    if "*" in part:
        raise PatternError(f"{text!r}: `*` stands for one whole segment, not for a part of {part!r}")
    if not part:
        raise PatternError(f"{text!r} has an empty segment")
    if part in (".", "..") or not _SEGMENT.match(part):
        raise PatternError(f"{text!r}: {part!r} may only have letters, digits, `.`, `-` and `_`")
    return part


def _path_segment(text: str, part: str) -> str | None:
    if _PLACEHOLDER.match(part):
        return None
    if part in ("*", "**"):
        raise PatternError(f"{text!r}: write {{id}} for one segment; `/**` may only stand last")
    if any(mark in part for mark in "{}*"):
        raise PatternError(f"{text!r}: {part!r} mixes text and placeholder; literal {{ }} * are written %7B %7D %2A")
    if _BAD_ESCAPE.search(part):
        raise PatternError(f"{text!r}: `%` is not followed by two hexadecimal digits; write %25 for a percent sign")
    try:
        segment = unquote_to_bytes(part).decode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise PatternError(f"{text!r}: {part!r} does not decode to valid UTF-8") from None
    if segment in (".", "..") or any(ch < " " or ch in "\x7f\\" for ch in segment):
        raise PatternError(f"{text!r}: {part!r} is refused in every request; it can never match")
    return segment


def _header_value(name: str, kind: object, value: object) -> bytes:
    if not isinstance(value, str):
        raise PatternError(f"header {name}: the value must be text; put it in quotes")
    trimmed = value.lstrip() if kind == "prefix" else value.strip()  # `Bearer ` is a good prefix
    if value != trimmed or any(ch < " " or ch == "\x7f" or "\ud800" <= ch <= "\udfff" for ch in value):
        raise PatternError(f"header {name}: {value!r} can never match; no control characters, no spaces at the ends")
    if kind == "prefix" and not value:
        raise PatternError(f"header {name}: an empty prefix means `present: true`; write that")
    return value.encode("utf-8")
