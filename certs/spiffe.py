"""SPIFFE IDs and trust domains: parsed once, strictly, and from then on compared as values.

We refuse rather than repair (SPIFFE-ID.md sections 2 to 2.4): an identity that two readers could read
differently is no identity. The scheme and the trust domain are compared without case by the standard; since we accept
only their lower-case form in text, plain equality is enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from certs.errors import InvalidSpiffeId

MAX_ID_BYTES = 2048  # SPIFFE-ID.md section 2.3: implementations must support 2048 and should not exceed it
MAX_TRUST_DOMAIN_BYTES = 255  # SPIFFE-ID.md section 2.3

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+\Z", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """The name of one root of trust, such as `prod.example.org`."""

    name: str

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Read a bare trust domain name. Raises InvalidSpiffeId."""
        if not text:
            raise InvalidSpiffeId("the trust domain is empty")
        if len(text) > MAX_TRUST_DOMAIN_BYTES:
            raise InvalidSpiffeId(f"the trust domain is {len(text)} bytes long; {MAX_TRUST_DOMAIN_BYTES} are allowed")
        if not _TRUST_DOMAIN.match(text):
            raise InvalidSpiffeId(f"trust domain {text!r}: only a-z 0-9 . - _ are allowed")
        return cls(text)

    def id(self, *segments: str) -> SpiffeId:
        """The SPIFFE ID with these path segments in this trust domain. Raises InvalidSpiffeId."""
        return SpiffeId.parse("/".join((_SCHEME + self.name, *segments)))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class SpiffeId:
    """One workload's name: `spiffe://<trust domain>/<path>`. `path` is empty or starts with a slash."""

    trust_domain: TrustDomain
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read a SPIFFE ID. Raises InvalidSpiffeId, saying what is wrong and where."""
        if not text.startswith(_SCHEME):
            raise InvalidSpiffeId(f"{text[:64]!r} does not start with {_SCHEME!r}")
        if len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            raise InvalidSpiffeId(f"the SPIFFE ID is longer than {MAX_ID_BYTES} bytes")
        authority, slash, rest = text[len(_SCHEME) :].partition("/")
        trust_domain = TrustDomain.parse(authority)
        if slash:
            for segment in rest.split("/"):
                if not segment:
                    raise InvalidSpiffeId(f"{text!r} has an empty path segment or a trailing slash")
                if segment in (".", ".."):
                    raise InvalidSpiffeId(f"{text!r} has a dot segment")
                if not _SEGMENT.match(segment):
                    raise InvalidSpiffeId(f"{text!r}: segment {segment!r} may only have letters, digits, . - and _")
        return cls(trust_domain, slash + rest)

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path, split: `("ns", "default", "sa", "web")`."""
        return tuple(self.path.split("/")[1:])

    @cached_property
    def text(self) -> str:
        """The whole SPIFFE ID as a URI."""
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"

    @cached_property
    def short(self) -> str:
        """What people call this workload: its service, or `namespace/service` outside the default one (D2)."""
        match self.segments:
            case ("ns", "default", "sa", service):
                return service
            case ("ns", namespace, "sa", service):
                return f"{namespace}/{service}"
        return self.path.lstrip("/") or self.trust_domain.name

    def __str__(self) -> str:
        return self.text


def workload_id(trust_domain: TrustDomain, namespace: str, service: str) -> SpiffeId:
    """The ID of a service: `spiffe://<trust domain>/ns/<namespace>/sa/<service>` (D2). Raises InvalidSpiffeId."""
    return trust_domain.id("ns", namespace, "sa", service)


def ca_id(trust_domain: TrustDomain) -> SpiffeId:
    """The ID under which the bundled CA itself serves: `/mesh/ca` (decision D2)."""
    return trust_domain.id("mesh", "ca")
