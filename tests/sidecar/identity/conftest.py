"""One fixture: a story with a CA, a folder, and hours to spare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.kit.fake_ca import FakeCa
from tests.kit.trio_time import in_virtual_time

Story = Callable[[FakeCa, Path], Awaitable[None]]


@pytest.fixture
def with_ca(tmp_path: Path) -> Callable[[Story], None]:
    """Run an async story in virtual time with a fresh FakeCa and an empty folder."""

    def run(story: Story) -> None:
        @in_virtual_time
        async def whole() -> None:
            async with trio.open_nursery() as nursery:
                await story(FakeCa(nursery), tmp_path)
                nursery.cancel_scope.cancel()

        whole()

    return run
