"""Frames that speak of the connection: SETTINGS, PING, GOAWAY, windows; and PRIORITY, which is only counted."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from sidecar.http.h2 import frames
from sidecar.http.h2.codes import ACK, KIND_NAMES, MAX_WINDOW, Abuse, Code, ConnectionFault, Setting, StreamFault
from sidecar.http.h2.events import Pong
from sidecar.http.h2.sending import Sending

if TYPE_CHECKING:
    from sidecar.http.h2.frames import Frame
    from sidecar.http.h2.limits import H2Limits

_LARGEST_FRAME: Final = range(1 << 14, 1 << 24)  # what SETTINGS_MAX_FRAME_SIZE may say
_KNOWN: Final = frozenset(Setting)
_SETTINGS_FOR_ONE: Final = 32  # settings in one frame that cost as much as a frame


class Control(Sending):
    """The connection itself, without what its streams carry."""

    def __init__(self, limits: H2Limits, now: float) -> None:
        super().__init__(limits, now)
        self.peer_streams = 100  # how many streams it takes at once; RFC 9113 section 6.5.2 advises no less
        self.speaks_connect = False  # it takes extended CONNECT (RFC 8441)
        self._greeted = False  # their SETTINGS have come
        self._unacked = 1  # SETTINGS of ours

    @property
    def greeted(self) -> bool:
        """Whether the other side has said its preface and SETTINGS."""
        return self._greeted

    def _take(self, abuse: Abuse, cost: float = 1) -> None:
        """Pay for a frame. Raises ConnectionFault where nothing is left."""
        if not self._budgets.take(abuse, self.now, cost):
            detail = f"too many at once: {abuse.value.replace('_', ' ')}"
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, detail, abuse)

    def _check_size(self, frame: Frame, size: int) -> None:
        if len(frame.raw) != 9 + size:
            detail = f"a {KIND_NAMES[frame.kind]} frame of {len(frame.raw) - 9} bytes, not {size}"
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, detail)

    def _check_connection(self, frame: Frame) -> None:
        if frame.stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a {KIND_NAMES[frame.kind]} frame on a stream")

    def _check_not_idle(self, frame: Frame) -> None:
        """Raises ConnectionFault for a stream that nobody has opened, 0 included."""
        if frame.stream % 2 == 0 or frame.stream > self.highest:
            detail = f"a {KIND_NAMES[frame.kind]} frame on stream {frame.stream}, which is idle"
            raise ConnectionFault(Code.PROTOCOL_ERROR, detail)

    def _on_priority(self, frame: Frame) -> None:
        """Ignored (RFC 9113 section 5.3.2), as are the priorities of RFC 9218."""
        if not frame.stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(frame.raw) != 14:
            if frame.stream not in self.streams:
                self._check_size(frame, 5)
            raise StreamFault(self._violation("a PRIORITY frame of another size than 5"), Code.FRAME_SIZE_ERROR)
        self._take(Abuse.PRIORITY_FLOOD)

    def _on_settings(self, frame: Frame) -> None:
        self._check_connection(frame)
        payload = frame.payload
        if frame.flags & ACK:
            self._check_size(frame, 0)
            if self._unacked:
                self._unacked -= 1
            else:
                self._take(Abuse.SETTINGS_FLOOD)
            return
        if len(payload) % 6:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a SETTINGS frame of {len(payload)} bytes")
        self._greeted = True
        values = frames.settings_of(payload)
        self._take(Abuse.SETTINGS_FLOOD, 1 + len(values) // _SETTINGS_FOR_ONE)
        known = [(key, value) for key, value in values if key in _KNOWN and self._setting(key, value)]
        self._emit(self._engine.on_settings(known))
        self._unblock()

    def _setting(self, key: int, value: int) -> bool:
        """Take note of a setting; whether the engine should, too. Raises ConnectionFault for one out of range."""
        if key == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE of {value}")
        if key == Setting.MAX_FRAME_SIZE and value not in _LARGEST_FRAME:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE of {value}")
        if key == Setting.MAX_CONCURRENT_STREAMS:
            self.peer_streams = value
        if key in (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL):
            if value > 1 or (key == Setting.ENABLE_PUSH and self.is_client and value):
                raise ConnectionFault(Code.PROTOCOL_ERROR, f"SETTINGS_{Setting(key).name} of {value}")
            if key == Setting.ENABLE_CONNECT_PROTOCOL:
                if self.speaks_connect and not value:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS_ENABLE_CONNECT_PROTOCOL taken back")
                self.speaks_connect = bool(value)
            return False
        return True

    def _on_push(self, frame: Frame) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody has allowed")

    def _on_ping(self, frame: Frame) -> None:
        self._check_connection(frame)
        self._check_size(frame, 8)
        if frame.flags & ACK:
            self._on_pong(frame.payload)
        else:
            self._take(Abuse.PING_FLOOD)
            self._emit(frames.ping(frame.payload, ack=True))

    def _on_pong(self, payload: bytes) -> None:
        self._events.append(Pong(payload))

    def _on_goaway(self, frame: Frame) -> None:
        self._check_connection(frame)
        if len(frame.raw) < 17:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a GOAWAY frame of less than 8 bytes")
        self._take(Abuse.SETTINGS_FLOOD)
        self._on_leaving(frames.word(frame.raw[9:13]), frames.error_code(frame.raw[13:17]))

    def _on_window_update(self, frame: Frame) -> None:
        self._check_size(frame, 4)
        increment = frames.word(frame.payload)
        if frame.stream:
            self._check_not_idle(frame)
        stream = self.streams.get(frame.stream)
        if not increment:
            if stream is None and not frame.stream:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0")
            if stream is not None:
                raise StreamFault(self._violation("a WINDOW_UPDATE of 0"))
        self._take(Abuse.WINDOW_UPDATE_FLOOD)
        if not frame.stream:
            self._engine.on_window(0, increment)
            self._unblock()
        elif stream is not None and not self._engine.on_window(stream.id, increment):
            raise StreamFault(self._violation("a window of more than 2^31 - 1 bytes"), Code.FLOW_CONTROL_ERROR)
        elif stream is not None and self._blocked.pop(stream.id, None) is not None:
            self._ready[stream.id] = stream

    @abstractmethod
    def _on_leaving(self, last_stream: int, code: int) -> None:
        """The other side has said GOAWAY."""
