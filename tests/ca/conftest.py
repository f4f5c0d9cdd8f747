"""Keys of tests are stretched little: a hundred CAs are made here. tests/certs/test_keys.py sees the real figure."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.keys.KDF_ROUNDS", 2048)
