"""The CA's tables on a terminal: aligned where they fit, one block a row where they would be broken in two."""

from __future__ import annotations

import shutil
import sys
from os import terminal_size

import pytest

from ca.cli_common import table

TITLES = ("NO", "SPIFFE ID", "SERIAL")
ROWS = [("1", "spiffe://demo.mesh/ns/default/sa/orders", "c6070494bfd97d7c7a74e70369992d91")]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: terminal_size((80, 24)))


def test_a_row_that_does_not_fit_is_a_block(narrow: None) -> None:
    wide = [(ROWS[0][0], ROWS[0][1] + "-of-a-long-name", ROWS[0][2])]
    assert table(TITLES, wide, "none") == [
        "NO 1",
        "  SPIFFE ID  spiffe://demo.mesh/ns/default/sa/orders-of-a-long-name",
        "  SERIAL     c6070494bfd97d7c7a74e70369992d91",
    ]


def test_what_fits_or_goes_to_a_program_is_a_table(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table(TITLES, ROWS, "none")[0].split() == ["NO", "SPIFFE", "ID", "SERIAL"]
    wide = [(ROWS[0][0], ROWS[0][1] + "-of-a-long-name", ROWS[0][2])]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert len(table(TITLES, wide, "none")) == 2
    assert table(TITLES, [], "none") == ["none"]
