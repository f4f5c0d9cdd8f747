"""For all tests: no property is judged by the clock, processes start as from a terminal, databases are closed."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings


def pytest_configure() -> None:
    """Take back what a shell does to a job in the background (SIGINT ignored) and what nohup does (SIGHUP ignored).

    What is ignored is inherited, and a shell cannot trap a signal that it was born without. A handler of ours is not
    inherited: our children have the system's own disposition.
    """
    settings.register_profile("mesh", deadline=None)  # no test is judged by how busy the machine is
    settings.load_profile("mesh")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # still not the end of us


@pytest.fixture(autouse=True)
def _no_store_stays_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what databases a test has left open: Python 3.13 warns of each that is only forgotten."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", noted)
    yield
    for each in opened:
        each.close()
