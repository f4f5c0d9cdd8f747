"""The operational log: what the sidecar itself has to say, on standard error.

One JSON object a line, or a short human line where standard error is a terminal. Messages are constant text, details
are fields; that is what lets repetition be held back: of one message five pass in ten seconds, the rest are counted,
and the next that passes tells how many there were. Every value goes through the redactor. Lines are written by a
thread, so a stuck terminal or collector stops nobody.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

from sidecar.telemetry import redact
from sidecar.telemetry.clock import rfc3339
from sidecar.telemetry.lines import json_line
from sidecar.telemetry.writer import LineWriter

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

BURST = 5  # of one message …
WINDOW_SECONDS = 10.0  # … in this time
_CAPACITY = 1024 * 1024
_MAX_MESSAGES = 256  # distinct messages remembered for the rate limit
_MAX_TRACE = 4096
_RESERVED = ("time", "level", "message")


class Log:
    """A levelled log. May be used from any thread."""

    def __init__(
        self,
        *,
        level: Level = "info",
        human: bool | None = None,
        fd: int = 2,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.suppressed = 0  # messages held back since the start
        self._threshold = LEVELS.index(level)
        self._human = os.isatty(fd) if human is None else human
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._writer = LineWriter("", capacity=_CAPACITY, name="log", fd=fd, batch_seconds=0.0)
        self._seen: dict[str, _Window] = {}
        self._captured: list[tuple[logging.Logger, logging.Handler]] = []

    def debug(self, message: str, **fields: object) -> None:
        """For whoever looks into the sidecar's workings."""
        self.write("debug", message, fields)

    def info(self, message: str, **fields: object) -> None:
        """What happens in the ordinary course of things."""
        self.write("info", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """What an operator may want to look at."""
        self.write("warning", message, fields)

    def error(self, message: str, **fields: object) -> None:
        """What an operator must look at."""
        self.write("error", message, fields)

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        """A fault of our own, with its traceback."""
        trace = "".join(traceback.format_exception(error))[-_MAX_TRACE:]
        self.write("error", message, {**fields, "error": f"{type(error).__name__}: {error}", "traceback": trace})

    def write(self, level: Level, message: str, fields: dict[str, object]) -> None:
        """Write a message unless its level is below ours or it repeats too fast."""
        if LEVELS.index(level) < self._threshold:
            return
        with self._lock:
            held_back = self._pass(message)
            if held_back is None:
                self.suppressed += 1
                return
            self._put(level, message, fields | {"repeated": held_back} if held_back else fields)

    def sweep(self) -> None:
        """Tell of repetitions whose window has passed; called now and then."""
        now = self._monotonic()
        with self._lock:
            for message, window in list(self._seen.items()):
                if now - window.since > WINDOW_SECONDS:
                    del self._seen[message]
                    if window.held_back:
                        self._put("info", "a message was repeated", {"of": message, "repeated": window.held_back})

    def capture(self, logger: str = "mesh") -> None:
        """Take in, until `close`, what our own rooms write to this standard-library logger."""
        handler = _Handler(self)
        target = logging.getLogger(logger)
        target.addHandler(handler)
        target.propagate = False
        self._captured.append((target, handler))

    def close(self, timeout: float = 1.0) -> None:
        """Write what waits, for at most `timeout` seconds; what is logged later is dropped."""
        for target, handler in self._captured:
            target.removeHandler(handler)
            target.propagate = not target.handlers
        self._captured.clear()
        self._writer.close(timeout)

    def _pass(self, message: str) -> int | None:
        """None where this message repeats too fast, else how many were held back before it."""
        now = self._monotonic()
        window = self._seen.get(message)
        if window is None or now - window.since > WINDOW_SECONDS:
            if len(self._seen) >= _MAX_MESSAGES:
                self._seen.clear()
            self._seen[message] = _Window(now)
            return window.held_back if window is not None else 0
        window.count += 1
        if window.count > BURST:
            window.held_back += 1
            return None
        return 0

    def _put(self, level: Level, message: str, fields: dict[str, object]) -> None:
        clean = {name: _value(name, value) for name, value in fields.items() if name not in _RESERVED}
        moment = rfc3339(self._wall())
        message = redact.text(message)
        if self._human:
            details = "".join(f" {name}={value}" for name, value in clean.items() if name != "traceback")
            line = f"{moment[11:19]} {level:<7} {message}{details}\n".encode()
        else:
            line = json_line({"time": moment, "level": level, "message": message, **clean})
        self._writer.put(line)


class _Window:
    __slots__ = ("count", "held_back", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 1
        self.held_back = 0


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "info" if record.levelno < logging.WARNING else "warning"
        if record.levelno < logging.INFO:
            level = "debug"
        elif record.levelno >= logging.ERROR:
            level = "error"
        fields: dict[str, object] = {"logger": record.name}
        if record.args:
            fields["detail"] = record.getMessage()
        message = _constant(str(record.msg)) if record.args else str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            self._log.fault(message, record.exc_info[1], **fields)
        else:
            self._log.write(level, message, fields)


def _constant(template: str) -> str:
    """What a message of the standard library says before its first placeholder: the same text each time."""
    return template.partition("%")[0].rstrip(" :,(") or template


def _value(name: str, value: object) -> Any:
    if redact.is_credential(name.lower().replace("_", "-").encode()):
        return redact.REDACTED
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return redact.text(str(value), _MAX_TRACE if name == "traceback" else redact.MAX_TEXT)
