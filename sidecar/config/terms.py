"""The words that the schema is written in: kinds of values, addresses, how often, and where something stands.

A field's documentation is `metadata["doc"]`; `metadata["yaml"]` is its key where that differs from the attribute. The
type says how a value is written: `Seconds` as `2s`, `500ms`, `5m`, `1h`; `Bytes` as `64KiB`, `1MiB`; a `Moment` as
`2026-01-31T18:00:00Z`; an address as `host:port`. The names inside `Annotated` are those of `sidecar.config.kinds`.
"""


from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

UNIX = "unix:"  # before the path of a socket
Protocol = Literal["http", "tcp", "auto"]
KeyKind = Literal["p256", "p384", "ed25519", "rsa3072"]  # certs.keys.KEY_KINDS; a test holds the two together
HttpVersion = Literal["auto", "http1", "http2"]  # by which an application is asked
ProxyHeaders = Literal["none", "v1", "v2"]  # that we send
SocketMode = Literal["owner", "group"]
Effect = Literal["allow", "deny"]

Seconds = Annotated[float, "seconds"]  # more than none
Delay = Annotated[float, "delay"]  # none is allowed
Bytes = Annotated[int, "size"]
Count = Annotated[int, "count"]  # at least 1
Few = Annotated[int, "few"]  # 0 to 10
ErrorStatus = Annotated[int, "status"]  # 400 to 599
GrpcStatus = Annotated[int, "grpc_status"]  # by name
Share = Annotated[float, "share"]  # 0 to 1
Weight = Annotated[int, "weight"]  # 1 to 100
Portion = Annotated[int, "portion"]  # 0 to 1,000,000
Pause = Annotated[float, "pause"]  # seconds, 0 to 60
Moment = Annotated[float, "moment"]  # seconds since the epoch
PortNumber = Annotated[int, "port"]
Label = Annotated[str, "label"]  # the name of a rule or a listener
ServiceName = Annotated[str, "service"]
Owner = Annotated[str, "owner"]  # a line of text
Namespace = Annotated[str, "namespace"]
HostName = Annotated[str, "host"]  # an IP address or a DNS name
BindAddress = Annotated[str, "ip"]
ListenerRef = Annotated[str, "listener"]
Method = Annotated[str, "method"]
Scope = Annotated[str, "scope"]  # of a bearer token
Operation = Annotated[str, "operation"]  # an `operationId`
MediaType = Annotated[str, "media_type"]
CheckedPath = Annotated[str, "checked_path"]  # with its query, if it has one
GrpcService = Annotated[str, "grpc_service"]  # empty for the whole server
HeaderName = Annotated[str, "header"]
ChangedHeader = Annotated[str, "changed_header"]  # one that a route may change, lower-case
FieldText = Annotated[str, "field_text"]  # what may stand in a header field
PathPrefix = Annotated[str, "path_prefix"]
EnvironmentName = Annotated[str, "environment"]
FilePath = Annotated[str, "path"]
UserId = Annotated[int, "uid"]
Command = Annotated[tuple[str, ...], "command"]
Json = Annotated[object, "json"]  # any value that JSON has, but for fractions
Expected = Annotated[str, "expected"]  # permit, deny, or the status of a refusal


def described(
    doc: str,
    default: Any = ...,
    *,
    yaml: str | None = None,
    factory: Any = None,
    filled: str = "",
    hidden: bool = False,
    some: bool = False,
    alone: bool = False,
    off: bool = False,
) -> Any:
    """A dataclass field that carries its documentation, and its YAML key where it is not the attribute's name.

    `filled` says in words what the loader puts in where the key is absent; `hidden` fields are not written in YAML at
    all; `some` forbids an empty list, which would otherwise read as "does not narrow"; a single value that is `alone`
    may be written in the place of its whole record; `off` lets that word stand for none, where none is what an absent
    key means too, unless a default says otherwise.
    """
    metadata = {
        "doc": doc, "yaml": yaml, "filled": filled, "hidden": hidden, "some": some, "alone": alone, "off": off,
    }  # fmt: skip
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a config file, for messages and `mesh explain`. Lines and columns count from 1; 0 is unknown."""

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Address:
    """`host:port`; the host is an IP address or a DNS name, IPv6 in brackets. Or `unix:/path`, whose port is 0."""

    host: str
    port: int

    @property
    def unix(self) -> bool:
        """Whether it is a Unix socket of this machine."""
        return self.host.startswith(UNIX)

    @property
    def named(self) -> bool:
        """Whether the host is a DNS name that somebody has to be asked for; `localhost` is not (RFC 6761)."""
        return not self.unix and ":" not in self.host and not self.host[-1:].isdigit() and self.host != "localhost"

    @property
    def path(self) -> str:
        """Where that socket is; empty for any other address."""
        return self.host[len(UNIX) :] if self.unix else ""

    def __str__(self) -> str:
        if self.unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Frequency:
    """`100/s`: so many in a second, minute, hour or day."""

    count: int
    unit: Literal["s", "m", "h", "d"]

    @property
    def per_second(self) -> float:
        """The same as a rate."""
        return self.count / {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[self.unit]

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"


@dataclass(frozen=True, slots=True)
class Per:
    """Who has a limit together: all at a listener, each caller, each endpoint, or each value of a header or claim."""

    kind: Literal["listener", "caller", "endpoint", "header", "claim"]
    header: str = ""  # lower-case; only of that kind
    claim: str = ""  # of a bearer token; only of that kind

    @property
    def invented(self) -> bool:
        """Whether its keys are what a caller writes, so that it may come with another one each time."""
        return self.kind in ("header", "claim")

    def __str__(self) -> str:
        name = self.header or self.claim
        return f"{self.kind} {name}" if name else self.kind


@dataclass(frozen=True, slots=True)
class Affinity:
    """What decides which endpoint a request goes to, always the same: a header, a cookie, or who calls."""

    kind: Literal["header", "cookie", "caller"]
    name: str = ""  # of a header, in lower case, or of a cookie

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class StatusRange:
    """`200-399`: HTTP statuses from and to, both included."""

    least: int
    most: int

    def __contains__(self, status: int) -> bool:
        return self.least <= status <= self.most

    def __str__(self) -> str:
        return f"{self.least}-{self.most}" if self.least != self.most else str(self.least)


@dataclass(frozen=True, slots=True)
class Amount:
    """`10000/d`: so many in an hour, a day or a month of the calendar."""

    count: int
    window: Literal["h", "d", "month"]

    def __str__(self) -> str:
        return f"{self.count}/{self.window}"


Endpoint = Annotated[Address, "endpoint"]  # host:port, or a Unix socket
Often = Annotated[Frequency, "frequency"]
Whose = Annotated[Per, "per"]
By = Annotated[Affinity, "affinity"]
Statuses = Annotated[StatusRange, "statuses"]
HowMany = Annotated[Amount, "amount"]
TimeZone = Annotated[str, "time_zone"]  # of the IANA database: Europe/Berlin
Bandwidth = Annotated[int, "bandwidth"]  # bytes a second
ClaimName = Annotated[str, "claim"]
ClientId = Annotated[str, "client_id"]  # RFC 6749 section 2.2, as far as a config can sensibly hold it
TokenAudience = Annotated[str, "audience_asked"]  # of visible ASCII
Pin = Annotated[str, "pin"]  # sha256/BASE64, as in RFC 7469 section 2.4
UpstreamHost = Annotated[str, "upstream_host"]  # a host, or *. and a host
Socket = Annotated[Address, "socket"]  # a Unix socket and nothing else
