"""A clock that is wrong for one process only: libfaketime, with an offset that a test may change while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.tools import need

MINUTES, DAYS = 60.0, 86400.0


class WrongClock:
    """The environment that puts a process's wall clock off by `offset` seconds; the monotonic clock stays right."""

    def __init__(self, folder: Path, offset: float = 0.0) -> None:
        need("faketime")
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            pytest.fail("faketime is installed, its library is not where Debian puts it")
        self._file = folder / "faketime"
        self.set(offset)
        self.env = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: float) -> None:
        """From now on the clock is off by so many seconds; positive is ahead."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset:+.0f}\n")
        fresh.replace(self._file)
