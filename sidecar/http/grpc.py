"""What a proxy must know of gRPC: that it is gRPC, how to refuse it, its deadline, and where its messages end.

gRPC tells success and failure by `grpc-status`, not by HTTP's status: a client that is refused with a bare 403 sees a
transport error and no reason. So our own refusals come as *trailers-only* (PROTOCOL-HTTP2.md of grpc): one head with
status 200 and the gRPC status in it, and the stream ends. gRPC-Web (`application/grpc-web…`) is another protocol that
browsers speak over any version; it passes untouched and is refused in plain HTTP.
"""

from __future__ import annotations

from enum import IntEnum
from math import ceil
from typing import Final

from sidecar import errors
from sidecar.errors import ProtocolViolation
from sidecar.hop import Headers
from sidecar.http.headers import first
from sidecar.http.message import ResponseHead

_TYPE: Final = b"application/grpc"
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_FINEST: Final = ((b"n", 10**9), (b"u", 10**6), (b"m", 10**3), (b"S", 1))
_MAX_DIGITS: Final = 8  # PROTOCOL-HTTP2.md: a positive integer of at most 8 digits
_PREFIX: Final = 5  # of each message: a byte for its compression, four for its length
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}  # what grpc-message may hold as it is


class Status(IntEnum):
    """Codes of gRPC (its doc/statuscodes.md)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# The twin of `sidecar.proxy.respond.TABLE` (semantics S24). What may be tried again is UNAVAILABLE, since gRPC clients
# retry that by default; what came to the caller's own limit of time is DEADLINE_EXCEEDED; for the rest, gRPC's own
# mapping of HTTP statuses (its doc/http-grpc-status-mapping.md).
STATUS: Final[dict[type[errors.HopError], Status]] = {
    errors.ProtocolViolation: Status.INTERNAL,
    errors.AbusivePeer: Status.INTERNAL,
    errors.AmbiguousPath: Status.INVALID_ARGUMENT,
    errors.HostMismatch: Status.INVALID_ARGUMENT,
    errors.HeadTooLarge: Status.RESOURCE_EXHAUSTED,
    errors.BodyTooLarge: Status.RESOURCE_EXHAUSTED,
    errors.UnsupportedContentType: Status.INVALID_ARGUMENT,
    errors.ContractBroken: Status.INVALID_ARGUMENT,
    errors.OperationGone: Status.UNIMPLEMENTED,
    errors.AnswerBroken: Status.INTERNAL,
    errors.UnsupportedFeature: Status.UNIMPLEMENTED,
    errors.RequestTimeout: Status.DEADLINE_EXCEEDED,
    errors.DeadlinePast: Status.DEADLINE_EXCEEDED,
    errors.DownstreamIdle: Status.DEADLINE_EXCEEDED,
    errors.DownstreamGone: Status.CANCELLED,
    errors.LoopDetected: Status.FAILED_PRECONDITION,
    errors.PolicyDenied: Status.PERMISSION_DENIED,
    errors.IdentityRefused: Status.PERMISSION_DENIED,
    errors.TokenMissing: Status.UNAUTHENTICATED,
    errors.TokenInvalid: Status.UNAUTHENTICATED,
    errors.TokenEnded: Status.UNAUTHENTICATED,
    errors.TokenUnverifiable: Status.UNAVAILABLE,
    errors.RateLimited: Status.RESOURCE_EXHAUSTED,
    errors.LimiterAway: Status.UNAVAILABLE,
    errors.ResponseTimeout: Status.DEADLINE_EXCEEDED,
    errors.UpstreamIdle: Status.DEADLINE_EXCEEDED,
    errors.UpstreamProtocolViolation: Status.INTERNAL,
    errors.NoRoute: Status.UNIMPLEMENTED,
    errors.InternalError: Status.INTERNAL,
    errors.HopError: Status.UNAVAILABLE,
}


# PROTOCOL-HTTP2.md, HTTP2 Transport Mapping: what a reset of the stream means; INTERNAL where it is not here.
OF_RESET: Final[dict[int, Status]] = {
    7: Status.UNAVAILABLE,  # REFUSED_STREAM
    8: Status.CANCELLED,  # CANCEL
    11: Status.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    12: Status.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}
# doc/http-grpc-status-mapping.md: what clients make of an answer without a grpc-status; UNKNOWN where it is not here.
OF_HTTP: Final[dict[int, Status]] = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
# What we say ourselves of these: a fault is meant to look as the failure does that it stands for.
_OF_FAULT: Final = {429: Status.RESOURCE_EXHAUSTED, 504: Status.DEADLINE_EXCEEDED}
STATUS_FIELD: Final = b"grpc-status"
TIMEOUT_FIELD: Final = b"grpc-timeout"
LEAST_SECONDS: Final = 1e-9  # that grpc-timeout can say
NAMES: Final = (*(status.name for status in Status), "other")  # all that a log or a counter ever says
# What HTTP tells by 5xx: no fault of the caller's. Clients take a number that they do not know for UNKNOWN.
FAILURES: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "other")
)
_NAME_OF: Final = {b"%d" % status: status.name for status in Status}


def status_name(value: bytes) -> str:
    """The name of what a `grpc-status` says; `other` for a number that gRPC does not know."""
    return _NAME_OF.get(value, "other")


def without_status(http_status: int) -> str:
    """What clients make of an answer that has no `grpc-status`."""
    return OF_HTTP.get(http_status, Status.UNKNOWN).name


def is_grpc(headers: Headers) -> bool:
    """Whether a request is gRPC: `application/grpc`, perhaps with `+proto` or parameters; not gRPC-Web."""
    value = first(headers, b"content-type")
    if value is None:
        return False
    kind = value[: len(_TYPE) + 1].lower()
    return kind[:-1] == _TYPE and kind[-1:] in b"+; " if len(kind) > len(_TYPE) else kind == _TYPE


def status_of(error: errors.HopError) -> Status:
    """The gRPC status of an error: its own, or that of the nearest kind above it; of a stream that the upstream has
    reset, what a client would make of that itself; of a fault, what its HTTP status stands for.
    """
    if isinstance(error, errors.UpstreamReset) and error.code is not None:
        return OF_RESET.get(error.code, Status.INTERNAL)
    if isinstance(error, errors.FaultInjected):
        return _OF_FAULT.get(error.status) or OF_HTTP.get(error.status, Status.UNKNOWN)
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def refusal(error: errors.HopError, title: str, extra: Headers) -> ResponseHead:
    """A refusal as trailers-only, to be sent with nothing behind it. `title` is all that a peer may read of it."""
    return ResponseHead(200, [(b"content-type", _TYPE), *last_words(error, title, extra)])


def last_words(error: errors.HopError, title: str, extra: Headers) -> Headers:
    """The same as trailers, behind whatever has been sent of an answer."""
    words = [(STATUS_FIELD, b"%d" % status_of(error)), (b"grpc-message", message(title)), *extra]
    if isinstance(error, errors.RateLimited):  # gRFC A6: who tries again by itself waits as long
        words.append((b"grpc-retry-pushback-ms", b"%d" % min(ceil(error.wait * 1e3), 2**31 - 1)))
    return words


def message(text: str) -> bytes:
    """Text as grpc-message has it: percent-encoded UTF-8 (PROTOCOL-HTTP2.md, Responses)."""
    return b"".join(bytes((c,)) if c in _PLAIN else b"%%%02X" % c for c in text.encode())


def timeout_of(headers: Headers) -> float | None:
    """The seconds that a caller gives its request; None where it sets no deadline. Raises ProtocolViolation."""
    value = first(headers, TIMEOUT_FIELD)
    if value is None:
        return None
    digits, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise ProtocolViolation(f"grpc-timeout {value[:20]!r} is not up to 8 digits and one of H M S m u n")
    return int(digits) * unit


def timeout(seconds: float) -> bytes:
    """So many seconds as grpc-timeout: never more than that, in the finest unit that has room; at least `0n`."""
    nanoseconds = max(0, int(seconds * 10**9))
    for unit, in_a_second in _FINEST:
        number = nanoseconds * in_a_second // 10**9
        if number < 10**_MAX_DIGITS:
            return b"%d" % number + unit
    return b"%dH" % min(nanoseconds // (3600 * 10**9), 10**_MAX_DIGITS - 1)


class Messages:
    """Follows the messages in one direction of a call, which pass as they are: how many, and whether one is cut off."""

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0  # messages that have come whole
        self._left = 0  # bytes of the current one still to come
        self._prefix = b""

    def feed(self, data: bytes) -> None:
        """More of the body. Raises ProtocolViolation where it cannot be gRPC."""
        at, size = 0, len(data)
        fresh = not self._left and not self._prefix
        if fresh and size > _PREFIX and data[0] <= 1 and int.from_bytes(data[1:_PREFIX], "big") == size - _PREFIX:
            self.count += 1  # most pieces are one message
            return
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                step = min(_PREFIX - len(self._prefix), size - at)
                self._prefix += data[at : at + step]
                at += step
                if len(self._prefix) < _PREFIX:
                    return
                if self._prefix[0] > 1:
                    raise ProtocolViolation("a gRPC message with a compression flag other than 0 and 1")
                self._left, self._prefix = int.from_bytes(self._prefix[1:], "big"), b""
            if not self._left and not self._prefix:
                self.count += 1

    @property
    def cut_off(self) -> bool:
        """Whether a message has begun and is not whole: an end here is not the end of a call."""
        return bool(self._left or self._prefix)
