"""Numbers of HTTP/2 (RFC 9113), and the two ways in which reading it can fail: a stream of it, or the connection."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.errors import HopError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
LAST_STREAM: Final = 2**31 - 1
MAX_WINDOW: Final = 2**31 - 1  # RFC 9113 section 6.9.1
DEFAULT_WINDOW: Final = 65_535  # of a stream and of the connection, before any SETTINGS
FRAME_BYTES: Final = 16_384  # what everybody must take (RFC 9113 section 4.2); we neither send nor take larger ones


class Code(IntEnum):
    """Why a stream or a connection ends (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def code_name(code: int) -> str:
    """The name of an error code; an unknown one is shown as its number."""
    try:
        return Code(code).name
    except ValueError:
        return f"0x{code:x}"


class Kind:
    """Types of frames that we read; all others are ignored (RFC 9113 section 5.5). Plain numbers: they are compared a
    dozen times a request.
    """

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


KIND_NAMES: Final = {number: name for name, number in vars(Kind).items() if isinstance(number, int)}
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20


class Setting(IntEnum):
    """Settings that we know (RFC 9113 section 6.5.2, RFC 8441 section 3); all others are ignored."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class Abuse(Enum):
    """Ways to waste our time or memory within the letter of the protocol: what a counter and an operator call them."""

    RAPID_RESET = "rapid_reset"  # requests begun only to be cancelled (CVE-2023-44487), or made to be reset by us
    RESET_FLOOD = "reset_flood"  # requests cancelled by the hundred and for long, at whatever age
    EXCESS_STREAMS = "excess_streams"  # far more streams than MAX_CONCURRENT_STREAMS allows
    CONTINUATION_FLOOD = "continuation_flood"  # a header block that does not end (CVE-2024-27316)
    HPACK_BOMB = "hpack_bomb"  # a small header block that means a huge list (CVE-2016-6581)
    PING_FLOOD = "ping_flood"
    SETTINGS_FLOOD = "settings_flood"
    PRIORITY_FLOOD = "priority_flood"
    WINDOW_UPDATE_FLOOD = "window_update_flood"
    EMPTY_FRAME_FLOOD = "empty_frame_flood"  # DATA without data (CVE-2019-9518)
    UNKNOWN_FRAME_FLOOD = "unknown_frame_flood"
    UNREAD_ANSWERS = "unread_answers"  # goes on asking while it reads nothing of what we say
    ZERO_WINDOW = "zero_window"  # an answer that is asked for and not taken (CVE-2019-9517)
    SLOW_HEAD = "slow_head"  # half a preface, or half a header block


class ConnectionFault(Exception):
    """The whole connection must end."""

    def __init__(self, code: Code, detail: str, abuse: Abuse | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.abuse = abuse


class StreamFault(Exception):
    """One stream must end, by a reset with this code; None where the stream may still carry an answer."""

    def __init__(self, error: HopError, code: Code | None = Code.PROTOCOL_ERROR) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = code
