"""How single values are written: one entry a kind, used by the reader, the JSON Schema and the reference alike.

YAML readers take plain words and numbers for many things: `no` for false, `1:30` and `22:22` for numbers in base 60,
`010` for eight, `1.10` for 1.1. We read what is written, but a file that another program would read differently is a
trap, so where text is meant such a value needs quotes. A plain decimal integer (`PORT: 8080`) is the one exception:
every reader gives the same digits back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

from certs.errors import InvalidSpiffeId, MeshError
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from sidecar.config.document import Scalar
from sidecar.config.schema import Address
from sidecar.patterns import HostPattern, IdentityPattern, PathTemplate


class BadValue(Exception):
    """A value cannot be read: what is wrong, and what was probably meant; without a hint the kind's own words do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Scope:
    """Against what short names of identities are read."""

    trust_domain: TrustDomain
    namespace: str


TEXTUAL: Final = ["string", "integer"]  # the JSON types of text: plain digits are text too


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to write a value. `what` completes "expected …"; `schema` is its JSON Schema; `show` writes a default."""

    what: str
    read: Callable[[Scalar, Scope], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": TEXTUAL})
    show: Callable[[Any], str] = str


# ---- what plain text may mean to a YAML reader ---------------------------------------------------------------------

_BOOLEAN = re.compile(r"(?:y|n|yes|no|true|false|on|off)\Z", re.IGNORECASE)  # YAML 1.1, tag bool
_NULL = re.compile(r"(?:~|null|)\Z", re.IGNORECASE)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_OCTAL = re.compile(r"[-+]?0(?:o[0-7_]+|[0-9_]+)\Z")
_NUMBER = re.compile(
    r"[-+]?(?:0x[0-9a-f_]+|0b[01_]+|[0-9][0-9_]*\.?[0-9_]*(?:e[-+]?[0-9]+)?|\.[0-9_]+(?:e[-+]?[0-9]+)?|\.inf|\.nan)\Z",
    re.IGNORECASE,
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?\Z")


def taken_for(text: str) -> str:
    """What some YAML reader takes this plain text for; empty where all agree that it is text, or plain digits."""
    if _NULL.match(text):
        return "no value"
    if _BOOLEAN.match(text):
        return "a boolean"
    if _SEXAGESIMAL.match(text):
        return "a number in base 60"
    if _INTEGER.match(text):
        return ""
    if _OCTAL.match(text):
        return "an octal number"
    if _NUMBER.match(text):
        return "a number"
    return "a date" if _DATE.match(text) else ""


def text_of(scalar: Scalar) -> str:
    """The text that is written. Raises BadValue where another YAML reader would see something else."""
    if scalar.plain:
        if not scalar.text:
            raise BadValue("has no value", "remove the key, or give it one")
        seen = taken_for(scalar.text)
        if seen:
            raise BadValue(
                f"YAML readers take {scalar.text} for {seen}", f'if text is meant, quote it: "{scalar.text}"'
            )
    return scalar.text


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
            raise BadValue(f"{_quoted(text)} is not allowed", _better(text, compiled) or hint)
        return text

    return read


def _better(text: str, compiled: re.Pattern[str]) -> str:
    """A nearby spelling that would be valid."""
    for other in (text.lower(), text.upper(), text.strip()):
        if other != text and compiled.match(other):
            return f'did you mean "{other}"?'
    return ""


def _boolean(scalar: Scalar, _: Scope) -> bool:
    if scalar.plain and scalar.text in ("true", "false"):
        return scalar.text == "true"
    lower = scalar.text.lower()
    meant = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}.get(lower, lower)
    hint = f"did you mean {meant}?" if meant in ("true", "false") else "write true or false"
    if not scalar.plain:
        hint = f"write {meant} without quotes" if meant in ("true", "false") else hint
    raise BadValue(f"{_quoted(scalar.text)} is neither true nor false", hint)


def _whole(scalar: Scalar) -> int:
    """A plain decimal integer. Raises BadValue."""
    text = scalar.text
    if scalar.plain and _INTEGER.match(text):
        return int(text)
    if not scalar.plain and _INTEGER.match(text):
        raise BadValue(f"{_quoted(text)} is text", f"write {text} without quotes")
    if scalar.plain and not text:
        raise BadValue("has no value", "remove the key, or give it one")
    if len(text) <= 18 and text.isascii() and text.lstrip("+").replace("_", "").isdigit():
        raise BadValue(f"{text} is read differently by different YAML readers", f"write {_plain(text)}")
    raise BadValue(f"{_quoted(text)} is not a whole number")


def _plain(text: str) -> str:
    """These digits as everybody would write them."""
    return text.lstrip("+").replace("_", "").lstrip("0") or "0"


def _between(low: int, high: int, what: str) -> Callable[[Scalar, Scope], int]:
    def read(scalar: Scalar, _: Scope) -> int:
        number = _whole(scalar)
        if not low <= number <= high:
            raise BadValue(f"{number} is not {what}", f"it goes from {low} to {high}")
        return number

    return read


def _share(scalar: Scalar, _: Scope) -> float:
    if not scalar.plain or not re.match(r"[0-9]+(?:\.[0-9]+)?\Z", scalar.text) or len(scalar.text) > 20:
        percent = re.match(r"([0-9]{1,2})\s*%\Z", scalar.text)
        raise BadValue(
            f"{_quoted(scalar.text)} is not a share",
            f"did you mean {int(percent[1]) / 100}?" if percent else "write a number from 0 to 1",
        )
    number = float(scalar.text)
    if number > 1:
        raise BadValue(f"{scalar.text} is more than the whole", "write a number from 0 to 1")
    return number


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+\Z")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_DURATION_SCHEMA: Final = {"type": "string", "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d))+$"}


def _duration(least: str) -> Callable[[Scalar, Scope], float]:
    def read(scalar: Scalar, _: Scope) -> float:
        if not _DURATION.match(scalar.text):
            raise BadValue(f"{_quoted(scalar.text)} is not a duration", _duration_hint(scalar.text))
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(scalar.text))
        if seconds <= 0 and least:
            raise BadValue(f"{scalar.text} is no time at all", least)
        return seconds

    return read


def _duration_hint(text: str) -> str:
    clock = re.match(r"([0-9]{1,6}):([0-5]?[0-9])\Z", text)
    if clock:
        return f"did you mean {int(clock[1])}m{int(clock[2])}s?"
    number = re.match(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)\Z", text)
    unit = number[2].lower() if number else "?"
    names = {
        "": "s",
        "sec": "s",
        "second": "s",
        "min": "m",
        "minute": "m",
        "hour": "h",
        "hr": "h",
        "day": "d",
        "msec": "ms",
    }
    unit = names.get(unit.removesuffix("s") if len(unit) > 2 else unit, unit)
    if number and unit in _UNITS:
        return f"did you mean {number[1]}{unit}?"
    return "write 500ms, 2s, 5m, 1h or 1d"


_SIZES: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"([1-9][0-9]{0,11})(B|KiB|MiB|GiB)?\Z")


def _size(scalar: Scalar, _: Scope) -> int:
    match = _SIZE.match(scalar.text)
    if match and (match[2] or scalar.plain):
        return int(match[1]) * _SIZES[match[2] or ""]
    if scalar.plain and scalar.text and set(scalar.text) <= {"0"}:
        raise BadValue("0 would let nothing through", "remove the key for the default")
    loose = re.match(r"([1-9][0-9]{0,11})\s*([kmg])i?b?\Z", scalar.text, re.IGNORECASE)
    hint = f"did you mean {loose[1]}{loose[2].upper()}iB?" if loose else "write 65536, 64KiB, 1MiB or 1GiB"
    raise BadValue(f"{_quoted(scalar.text)} is not a size", hint)


_DNS_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_DNS_LABEL}\.)*{_DNS_LABEL}\Z")


def read_host(text: str) -> str:
    """An IP address in its usual form, or a DNS name in lower case. Raises BadValue."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    if not _DNS_NAME.match(text) or text.rpartition(".")[2].isdigit():
        raise BadValue(f"{_quoted(text)} is neither an IP address nor a DNS name")
    return text.lower()


def read_address(text: str) -> Address:
    """`host:port`. Raises BadValue."""
    host, colon, digits = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        hint = "did you mean " + (f"127.0.0.1:{text}?" if _INTEGER.match(text) else f"{_host_hint(text)}:8080?")
        raise BadValue(f"{_quoted(text)} is not host:port", hint)
    if not re.match(r"[1-9][0-9]{0,4}\Z", digits, re.ASCII) or int(digits) > 65535:
        raise BadValue(f"{_quoted(digits)} is not a port", "it goes from 1 to 65535")
    if not host:
        raise BadValue(f"{_quoted(text)} has no host", f"did you mean 127.0.0.1:{digits}?")
    return Address(read_host(host), int(digits))


def _host_hint(text: str) -> str:
    return f"[{text}]" if ":" in text else text[:64]


def _address(scalar: Scalar, _: Scope) -> Address:
    if scalar.plain and _INTEGER.match(scalar.text):
        raise BadValue(f"{scalar.text} is not host:port", f"did you mean 127.0.0.1:{scalar.text}?")
    return read_address(text_of(scalar))


def _host(scalar: Scalar, _: Scope) -> str:
    try:
        return read_host(text_of(scalar))
    except BadValue as error:
        host, colon, port = scalar.text.rpartition(":")
        if colon and port.isdigit():
            raise BadValue(error.message, f'a host stands without port: "{host}"') from None
        raise


def _ip(scalar: Scalar, _: Scope) -> str:
    try:
        return str(ip_address(text_of(scalar)))
    except ValueError:
        raise BadValue(f"{_quoted(scalar.text)} is not an IP address", "write 127.0.0.1, 0.0.0.0 or ::") from None


def _network(scalar: Scalar, _: Scope) -> Any:
    text = text_of(scalar)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        hint = f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        hint = "write 10.0.0.0/8 or fd00::/8"
    raise BadValue(f"{_quoted(text)} is not a network in CIDR notation", hint)


def _trust_domain(scalar: Scalar, _: Scope) -> TrustDomain:
    text = text_of(scalar)
    try:
        return TrustDomain.parse(text)
    except InvalidSpiffeId as error:
        bare = text.removeprefix("spiffe://").partition("/")[0].lower()
        raise BadValue(str(error), f'did you mean "{bare}"?' if bare != text else "") from None


def _identity(scalar: Scalar, scope: Scope) -> SpiffeId:
    text = text_of(scalar)
    try:
        if "://" in text:
            return SpiffeId.parse(text)
        namespace, _, service = text.rpartition("/")
        return workload_id(scope.trust_domain, namespace or scope.namespace, service)
    except InvalidSpiffeId as error:
        raise BadValue(str(error), "write a service, namespace/service, or a whole spiffe:// identity") from None


def _caller(scalar: Scalar, scope: Scope) -> Any:
    return _mesh(lambda text: IdentityPattern.parse(text, scope.trust_domain, scope.namespace), scalar)


def _mesh(parse: Callable[[str], Any], scalar: Scalar) -> Any:
    try:
        return parse(text_of(scalar))
    except MeshError as error:
        raise BadValue(str(error), "") from None


def _quoted(text: str) -> str:
    return f'"{text[:64]}…"' if len(text) > 64 else f'"{text}"'


# ---- the table ---------------------------------------------------------------------------------------------------

_FIELD_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_SERVICE: Final = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
_METHOD: Final = r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*"
_MEDIA: Final = r"[a-z0-9!#$&^_.+-]+/(?:\*|[a-z0-9!#$&^_.+-]+)"
_ENVIRONMENT: Final = r"[A-Za-z_][A-Za-z0-9_]*"


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": TEXTUAL, "pattern": f"^(?:{pattern})$"}


def _show_seconds(value: float) -> str:
    for unit in ("d", "h", "m", "s"):
        if value and value % _UNITS[unit] == 0:
            return f"{int(value / _UNITS[unit])}{unit}"
    return "0s" if not value else f"{round(value * 1000)}ms"


def _show_size(value: int) -> str:
    unit = next((name for name in ("GiB", "MiB", "KiB") if value % _SIZES[name] == 0), "")
    return f"{value // _SIZES[unit]}{unit}"


def _named(what: str, pattern: str, limit: int, hint: str) -> Kind:
    return Kind(what, _matching(pattern, limit, hint), _pattern(pattern))


KINDS: Final[Mapping[str, Kind]] = {
    "text": Kind("text", _text),
    "path": Kind("a file path", _text),
    "boolean": Kind("true or false", _boolean, {"type": "boolean"}, lambda value: str(value).lower()),
    "count": Kind("a whole number from 1", _between(1, 10**9, "a count"), {"type": "integer", "minimum": 1}),
    "port": Kind("a port", _between(1, 65535, "a port"), {"type": "integer", "minimum": 1, "maximum": 65535}),
    "share": Kind("a number from 0 to 1", _share, {"type": "number", "minimum": 0, "maximum": 1}, lambda v: f"{v:g}"),
    "seconds": Kind("a duration", _duration("write at least 1ms"), _DURATION_SCHEMA, _show_seconds),
    "delay": Kind("a duration, or 0s", _duration(""), _DURATION_SCHEMA, _show_seconds),
    "size": Kind(
        "a size",
        _size,
        {"type": ["string", "integer"], "pattern": "^[1-9][0-9]{0,11}(B|KiB|MiB|GiB)$", "minimum": 1},
        _show_size,
    ),
    "label": _named("a name", _LABEL, 64, "use letters, digits, . _ and -"),
    "service": _named("a service name", _SERVICE, 63, "use lower-case letters, digits, _ and -"),
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
    "environment": _named("a name of an environment variable", _ENVIRONMENT, 256, "use letters, digits and _"),
    "host": Kind("an IP address or a DNS name", _host),
    "ip": Kind("an IP address", _ip),
    "address": Kind(
        "host:port", _address, {"type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):[0-9]{1,5}$"}
    ),
    "network": Kind("a network in CIDR notation", _network),
    "trust_domain": Kind("a trust domain", _trust_domain, _pattern("[a-z0-9._-]+")),
    "identity": Kind("an identity", _identity),
    "caller": Kind("an identity pattern", _caller),
    "host_pattern": Kind("a host, or *. and a host", lambda scalar, _: _mesh(HostPattern.parse, scalar)),
    "path_template": Kind(
        "a path template", lambda scalar, _: _mesh(PathTemplate.parse, scalar), {"type": "string", "pattern": "^/"}
    ),
}
