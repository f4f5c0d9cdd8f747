"""What happens on an HTTP/2 connection, for whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.errors import HopError
    from sidecar.http.h2.stream import H2Stream


@dataclass(frozen=True, slots=True)
class Opened:
    """A request has begun: its stream wants to be served, also where its `error` says that it could not be read."""

    stream: H2Stream


@dataclass(frozen=True, slots=True)
class Stirred:
    """Something has happened on a stream: it has an event or an error, or all that it had to send is on its way."""

    stream: H2Stream


@dataclass(frozen=True, slots=True)
class Leaving:
    """The other side takes no new streams (GOAWAY); those that it will not serve have failed with UpstreamRefused."""

    last_stream: int
    code: int


@dataclass(frozen=True, slots=True)
class Dismissed:
    """We take no new streams of the other side, for something that it did too often; those under way go on."""

    error: HopError


@dataclass(frozen=True, slots=True)
class Pong:
    """A PING of ours has come back."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection cannot go on: write what there is to send, then close it. Its streams have failed with it."""

    error: HopError


@dataclass(frozen=True, slots=True)
class Ended:
    """The other side has closed the connection; streams that were not whole have failed."""


H2Event = Opened | Stirred | Leaving | Dismissed | Pong | Failed | Ended
