"""How single values are written: one entry a kind, used by the reader, the JSON Schema and the reference alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from certs.errors import InvalidSpiffeId, MeshError
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from sidecar.config.addresses import address_of, endpoint_of, host_of, ip_of, network_of, read_host, socket_of
from sidecar.config.balancing import (
    AFFINITY_SCHEMA,
    STATUSES_SCHEMA,
    read_affinity,
    read_checked_path,
    read_statuses,
)
from sidecar.config.conditions import Condition
from sidecar.config.destinations import DESTINATION_SCHEMA, read_destination
from sidecar.config.document import Scalar
from sidecar.config.grpc_statuses import GRPC_STATUSES, read_grpc_status, show_grpc_status
from sidecar.config.mistakes import meant
from sidecar.config.plain import BadValue, Scope, quoted, text_of
from sidecar.config.posture import MOMENT_SCHEMA, read_moment, show_moment
from sidecar.config.quantities import (
    DURATION_SCHEMA,
    between,
    duration,
    read_boolean,
    read_share,
    read_size,
    show_seconds,
    show_size,
)
from sidecar.config.quotas import (
    AMOUNT_SCHEMA,
    BANDWIDTH_SCHEMA,
    TIME_ZONE_SCHEMA,
    read_amount,
    read_bandwidth,
    read_time_zone,
    show_bandwidth,
)
from sidecar.config.rates import FREQUENCY_SCHEMA, PER_SCHEMA, read_frequency, read_per
from sidecar.config.redis_url import REDIS_SCHEMA, read_redis
from sidecar.config.terms import Address
from sidecar.config.urls import HTTPS_SCHEMA, URL_SCHEMA, read_https, read_url
from sidecar.http.changes import changeable, field_text, prefix
from sidecar.patterns import HostPattern, IdentityPattern, PathTemplate

LONGEST_PAUSE: Final = 60.0  # seconds; sidecar.traffic.faults.LONGEST, and a test holds the two together
TEXTUAL: Final = ["string", "integer"]  # the JSON types of text: plain digits are text too


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to write a value. `what` completes "expected …"; `schema` is its JSON Schema; `show` writes a default."""

    what: str
    read: Callable[[Scalar, Scope], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": TEXTUAL})
    show: Callable[[Any], str] = str


# ---- readers -----------------------------------------------------------------------------------------------------


def _text(scalar: Scalar, _: Scope) -> str:
    return text_of(scalar)


def _matching(pattern: str, limit: int, hint: str) -> Callable[[Scalar, Scope], str]:
    compiled = re.compile(rf"(?:{pattern})\Z", re.ASCII)

    def read(scalar: Scalar, _: Scope) -> str:
        text = text_of(scalar)
        if len(text) > limit:
            raise BadValue(f"is {len(text)} characters long", f"at most {limit} are allowed")
        if not compiled.match(text):
            raise BadValue(f"{quoted(text)} is not allowed", _better(text, compiled) or hint)
        return text

    return read


def _better(text: str, compiled: re.Pattern[str]) -> str:
    """A nearby spelling that would be valid."""
    for other in (text.lower(), text.upper(), text.strip()):
        if other != text and compiled.match(other):
            return f'did you mean "{other}"?'
    return ""


def _trust_domain(scalar: Scalar, _: Scope) -> TrustDomain:
    text = text_of(scalar)
    try:
        return TrustDomain.parse(text)
    except InvalidSpiffeId as error:
        bare = text.removeprefix("spiffe://").partition("/")[0].lower()
        near = re.match(r"[a-z0-9._-]+\Z", bare) is not None and bare != text
        raise BadValue(str(error), f'did you mean "{bare}"?' if near else "") from None


def _identity(scalar: Scalar, scope: Scope) -> SpiffeId:
    text = text_of(scalar)
    try:
        if "://" in text:
            return SpiffeId.parse(text)
        namespace, slash, service = text.rpartition("/")
        if "/" in namespace or (slash and not namespace):
            raise InvalidSpiffeId(f"{quoted(text)} is no identity")
        return workload_id(scope.trust_domain, namespace or scope.namespace, service)
    except InvalidSpiffeId as error:
        raise BadValue(str(error), "write a service, namespace/service, or a whole spiffe:// identity") from None


def _upstream_host(scalar: Scalar, scope: Scope) -> str:
    text = text_of(scalar)
    if not text.startswith("*."):
        return host_of(scalar, scope)
    try:
        rest = read_host(text[2:])
    except BadValue as error:
        raise BadValue(error.message, "write *. and a host: *.partner.com") from None
    if Address(rest, 1).named and "." in rest:
        return f"*.{rest}"
    raise BadValue(f"{quoted(text)} would stand for everything below one label", "write *. and two labels at least")


def _expected(scalar: Scalar, _: Scope) -> str:
    text = scalar.text
    if text in ("permit", "deny") or _REFUSAL.match(text):
        return text
    if text.isdigit():
        raise BadValue(f"{quoted(text)} is no status that a sidecar refuses with", "400 to 599; or permit, or deny")
    raise BadValue(f"{quoted(text)} is no verdict", meant(text, ("permit", "deny"), what="permit, deny or a status"))


def _pause(scalar: Scalar, scope: Scope) -> float:
    seconds = duration("")(scalar, scope)
    if seconds > LONGEST_PAUSE:
        raise BadValue(f"{quoted(scalar.text)} is longer than a request is held on purpose", "at most 60s")
    return seconds


def _caller(scalar: Scalar, scope: Scope) -> Any:
    return _mesh(lambda text: IdentityPattern.parse(text, scope.trust_domain, scope.namespace), scalar)


def _mesh(parse: Callable[[str], Any], scalar: Scalar) -> Any:
    try:
        return parse(text_of(scalar))
    except MeshError as error:
        raise BadValue(str(error), "") from None


# ---- the table ---------------------------------------------------------------------------------------------------

_FIELD_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_SERVICE: Final = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
_SCOPE: Final = r"[!#-\[\]-~]+"  # RFC 6749 section 3.3
_OPERATION: Final = r"[!-~]+"
_METHOD: Final = r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*"
_MEDIA: Final = r"[a-z0-9!#$&^_.+-]+/(?:\*|[a-z0-9!#$&^_.+-]+)"
_GRPC: Final = r"(?:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)?"
_REFUSAL: Final = re.compile(r"[45][0-9]{2}\Z", re.ASCII)
_ENVIRONMENT: Final = r"[A-Za-z_][A-Za-z0-9_]*"


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": TEXTUAL, "pattern": f"^(?:{pattern})$"}


def _named(what: str, pattern: str, limit: int, hint: str) -> Kind:
    return Kind(what, _matching(pattern, limit, hint), _pattern(pattern))


KINDS: Final[Mapping[str, Kind]] = {
    "text": Kind("text", _text),
    "path": Kind("a file path", _text),
    "boolean": Kind("true or false", read_boolean, {"type": "boolean"}, lambda value: str(value).lower()),
    "count": Kind("a whole number from 1", between(1, 10**9, "a count"), {"type": "integer", "minimum": 1}),
    "few": Kind("a whole number from 0 to 10", between(0, 10, "it"), {"type": "integer", "minimum": 0, "maximum": 10}),
    "weight": Kind(
        "a weight from 1 to 100", between(1, 100, "a weight"), {"type": "integer", "minimum": 1, "maximum": 100}
    ),
    "status": Kind(
        "an HTTP status from 400", between(400, 599, "a status"), {"type": "integer", "minimum": 400, "maximum": 599}
    ),
    "expected": Kind("permit, deny, or the status of a refusal", _expected),
    "grpc_status": Kind(
        "a status of gRPC, by name", read_grpc_status, {"enum": [*GRPC_STATUSES]}, show_grpc_status
    ),
    "port": Kind("a port", between(1, 65535, "a port"), {"type": "integer", "minimum": 1, "maximum": 65535}),
    "share": Kind(
        "a number from 0 to 1", read_share, {"type": "number", "minimum": 0, "maximum": 1}, lambda v: f"{v:g}"
    ),
    "portion": Kind(
        "a whole number from 0 to 1000000", between(0, 10**6, "a weight"),
        {"type": "integer", "minimum": 0, "maximum": 10**6},
    ),
    "pause": Kind("a duration up to 60s", _pause, DURATION_SCHEMA, show_seconds),
    "seconds": Kind("a duration", duration("write at least 1ms"), DURATION_SCHEMA, show_seconds),
    "delay": Kind("a duration, or 0s", duration(""), DURATION_SCHEMA, show_seconds),
    "moment": Kind("a date or a moment", read_moment, MOMENT_SCHEMA, show_moment),
    "size": Kind(
        "a size",
        read_size,
        {"type": ["string", "integer"], "pattern": "^[1-9][0-9]{0,11}(B|KiB|MiB|GiB)$", "minimum": 1},
        show_size,
    ),
    "frequency": Kind("how often, like 100/s", read_frequency, FREQUENCY_SCHEMA),
    "per": Kind("`listener`, `caller`, `endpoint`, or `header` or `claim` and its name", read_per, PER_SCHEMA),
    "affinity": Kind("`caller`, or `header` or `cookie` and its name", read_affinity, AFFINITY_SCHEMA),
    "statuses": Kind("a range of HTTP statuses", read_statuses, STATUSES_SCHEMA),
    "checked_path": Kind("a path", read_checked_path, {"type": "string", "pattern": "^/[!-~]*$"}),
    "grpc_service": _named("the name of a gRPC service", _GRPC, 255, 'write package.Service, or "" for the server'),
    "redis": Kind("a Redis, like redis://HOST:6379", read_redis, REDIS_SCHEMA),
    "https": Kind("an https:// URL", read_https, HTTPS_SCHEMA),
    "audience": _named("a name as it stands in tokens", "[!-~]+", 512, "write it letter by letter as tokens have it"),
    "amount": Kind("how many, like 10000/d", read_amount, AMOUNT_SCHEMA),
    "time_zone": Kind("a time zone, like Europe/Berlin", read_time_zone, TIME_ZONE_SCHEMA),
    "bandwidth": Kind("bytes a second, like 10MiB/s", read_bandwidth, BANDWIDTH_SCHEMA, show_bandwidth),
    "label": _named("a name", _LABEL, 64, "use letters, digits, . _ and -"),
    "service": _named("a service name", _SERVICE, 63, "use lower-case letters, digits, _ and -"),
    "owner": _named("a line of text", r"[^\x00-\x1f\x7f]*", 128, "write one line: a team, or an address"),
    "namespace": _named("a namespace", _LABEL, 63, "use letters, digits, . _ and -"),
    "listener": Kind(
        "the name or port of an inbound listener",
        _matching(_LABEL, 64, "use letters, digits, . _ and -"),
        _pattern(_LABEL),
    ),
    "method": _named("an HTTP method", _METHOD, 32, "write an HTTP method in upper case: GET"),
    "media_type": _named("a media type", _MEDIA, 127, "write application/json or text/*"),
    "header": Kind(
        "a header name",
        _matching(_FIELD_NAME, 64, "use letters, digits and -"),
        _pattern(_FIELD_NAME),
        lambda value: str(value).lower(),
    ),
    "changed_header": Kind(
        "a header that a route may change", lambda scalar, _: _mesh(changeable, scalar), _pattern(_FIELD_NAME)
    ),
    "field_text": Kind("what a header field may say", lambda scalar, _: _mesh(field_text, scalar)),
    "path_prefix": Kind(
        "a path without placeholders", lambda scalar, _: _mesh(prefix, scalar), {"type": "string", "pattern": "^/"}
    ),
    "environment": _named("a name of an environment variable", _ENVIRONMENT, 256, "use letters, digits and _"),
    "host": Kind("an IP address or a DNS name", host_of),
    "ip": Kind("an IP address", ip_of),
    "address": Kind(
        "host:port", address_of, {"type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):[0-9]{1,5}$"}
    ),
    "endpoint": Kind(
        "host:port, or unix:/path",
        endpoint_of,
        {"type": "string", "pattern": r"^(unix:/.{1,106}|(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):[0-9]{1,5})$"},
    ),
    "socket": Kind(
        "unix:/path", socket_of, {"type": "string", "pattern": r"^unix:/.{1,106}$"},
    ),
    "url": Kind("an http:// or https:// URL", read_url, URL_SCHEMA),
    "claim": _named("the name of a claim", r"[!-~]+", 255, "write the claim's name as the token has it"),
    "client_id": _named("a client id", r"[ -~]+", 255, "write it as the token endpoint knows it"),
    "audience_asked": _named("an audience", r"[!-~]+", 1024, "write it as the token endpoint knows it"),
    "pin": _named("a pin", r"sha256/[A-Za-z0-9+/]{43}=", 51, "write sha256/ and the base64 of 32 bytes"),
    "upstream_host": Kind("a host, or *. and a host", _upstream_host),
    "uid": Kind(
        "a user id", between(0, 2**32 - 2, "a user id"), {"type": "integer", "minimum": 0, "maximum": 2**32 - 2}
    ),
    "network": Kind("a network in CIDR notation", network_of),
    "destination": Kind("a network or an address, with or without a port", read_destination, DESTINATION_SCHEMA),
    "trust_domain": Kind("a trust domain", _trust_domain, _pattern("[a-z0-9._-]+")),
    "identity": Kind("an identity", _identity),
    "caller": Kind("an identity pattern", _caller),
    "host_pattern": Kind("a host, or *. and a host", lambda scalar, _: _mesh(HostPattern.parse, scalar)),
    "condition": Kind("a condition", lambda scalar, _: _mesh(Condition.parse, scalar)),
    "scope": _named("a scope", _SCOPE, 128, "one scope an entry, without blanks or quotes"),
    "operation": _named("an operationId", _OPERATION, 128, "write it as the contract does"),
    "path_template": Kind(
        "a path template", lambda scalar, _: _mesh(PathTemplate.parse, scalar), {"type": "string", "pattern": "^/"}
    ),
}
