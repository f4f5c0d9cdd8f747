"""The operational log: levels, forms, redaction, repetition held back."""

from __future__ import annotations

import json
import logging
import os

import pytest

from sidecar.telemetry import log as module
from sidecar.telemetry.log import BURST, WINDOW_SECONDS, Log

NOW = 1_700_000_000.0


class Stage:
    """A log into a pipe, with a clock to turn."""

    def __init__(self, **options) -> None:
        self.reader, self.pipe = os.pipe()
        self.time = 0.0
        self.log = Log(fd=self.pipe, wall=lambda: NOW, monotonic=lambda: self.time, **options)

    def text(self) -> str:
        self.log.close()
        os.close(self.pipe)
        with os.fdopen(self.reader) as file:
            return file.read()

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.text().splitlines()]


def test_a_json_line():
    stage = Stage()
    stage.log.info("ready", service="web", listeners=2, skew=0.5, nothing=None, ok=True)
    assert stage.lines() == [
        {"time": "2023-11-14T22:13:20.000000Z", "level": "info", "message": "ready", "service": "web", "listeners": 2,
         "skew": 0.5, "nothing": None, "ok": True}
    ]  # fmt: skip


def test_a_human_line():
    stage = Stage(human=True)
    stage.log.warning("the CA is away", attempt=3)
    assert stage.text() == "22:13:20 warning the CA is away attempt=3\n"


@pytest.mark.parametrize(("level", "passing"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level, passing):
    stage = Stage(level=level)
    for each in module.LEVELS:
        getattr(stage.log, each)(f"a {each}")
    assert [line["level"] for line in stage.lines()] == list(module.LEVELS[-passing:])


def test_secrets_are_redacted():
    stage = Stage()
    stage.log.info(
        "failed: Bearer abcDEF123", join_token="abcDEF123", url="https://u:abcDEF123@ca/x?abcDEF123", nan=float("nan")
    )
    assert "abcDEF123" not in stage.text()


def test_a_value_cannot_forge_a_line():
    stage = Stage(human=True)
    stage.log.info("refused", source="x\n22:13:20 error pwned")
    assert len(stage.text().splitlines()) == 1


def test_repetition_is_held_back_and_told():
    stage = Stage()
    for _ in range(BURST + 10):
        stage.log.warning("again", x=1)
    stage.log.warning("something else")
    stage.time = WINDOW_SECONDS + 1
    stage.log.warning("again")
    lines = stage.lines()
    assert [line["message"] for line in lines] == ["again"] * BURST + ["something else", "again"]
    assert lines[-1]["repeated"] == 10
    assert stage.log.suppressed == 10


def test_a_sweep_tells_of_repetitions_that_ended():
    stage = Stage()
    for _ in range(BURST + 4):
        stage.log.warning("again")
    stage.log.sweep()
    stage.time = WINDOW_SECONDS + 1
    stage.log.sweep()
    stage.log.sweep()
    lines = stage.lines()
    assert len(lines) == BURST + 1
    assert (lines[-1]["of"], lines[-1]["repeated"]) == ("again", 4)


def test_distinct_messages_are_bounded():
    stage = Stage()
    for number in range(2000):
        stage.log.info(f"message {number}")
    assert len(stage.log._seen) <= 256
    stage.text()


def test_a_fault_carries_its_traceback_redacted():
    stage = Stage()
    try:
        raise ValueError("password=abcDEF123")
    except ValueError as error:
        stage.log.fault("it broke", error)
    (line,) = stage.lines()
    assert line["error"] == "ValueError: password=[redacted]"
    assert "test_log.py" in line["traceback"]
    assert "abcDEF123" not in json.dumps(line).replace("raise ValueError", "")


def test_reserved_names_cannot_be_overwritten():
    stage = Stage()
    stage.log.write("info", "m", {"level": "x", "time": "y", "message": "z", "ok": 1})
    assert stage.lines()[0] == {"time": "2023-11-14T22:13:20.000000Z", "level": "info", "message": "m", "ok": 1}


def test_the_standard_logger_of_our_rooms_is_taken_in():
    stage = Stage()
    stage.log.capture("mesh.test")
    logger = logging.getLogger("mesh.test")
    logger.warning("refused: %s", "Bearer abcDEF123")
    try:
        raise RuntimeError("oh")
    except RuntimeError:
        logger.exception("a handler failed")
    first, second = stage.lines()
    assert (logger.handlers, logger.propagate) == ([], True), "given back"
    assert (first["message"], first["detail"]) == ("refused", "refused: Bearer [redacted]")
    assert (second["level"], second["error"]) == ("error", "RuntimeError: oh")


def test_a_closed_standard_error_is_survived():
    reader, pipe = os.pipe()
    os.close(reader)
    log = Log(fd=pipe)
    log.error("nobody reads this")
    log.close(0.2)
    os.close(pipe)
