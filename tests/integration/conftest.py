"""Integration tests: real processes on real sockets. Every test here is marked `integration`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.programs import curl, echo_app

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="module")
def shared_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """web → app with the echo application behind it, for all tests of a module."""
    folder = tmp_path_factory.mktemp("pair")
    pair = Pair(folder, defaults="{timeouts: {drain: 5s}}")
    with echo_app(folder, pair.ports.app), pair:
        pair.start_all()
        yield pair


@pytest.fixture
def pair(shared_pair: Pair) -> Iterator[Pair]:
    """The shared pair; after the test a plain request must still work and nothing inside may have broken."""
    yield shared_pair
    assert_still_serving(shared_pair)


def assert_still_serving(pair: Pair, path: str = "/after") -> None:
    """A good request right now, and nothing inside any sidecar broke."""
    done = curl("-o", "/dev/null", "-w", "%{http_code}", pair.url + path)
    assert done.text == "200", done
    pair.assert_well()
