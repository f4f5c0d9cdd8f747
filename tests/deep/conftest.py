"""Long tests: soak, two hundred runs, whole bodies. Every test here is marked `deep` and `integration`."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.deep)
            item.add_marker(pytest.mark.integration)
