"""Real sidecars on hosts of their own, between which packets are lost, links are narrow and hosts part."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.street import Street
from tests.kit.town import Town, a_town
from tests.kit.village import TWO_SERVICES, Village


@pytest.fixture(scope="session")
def whole_street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """Two callers and three copies of what they call; up in two seconds, and the same for all tests of a run."""
    with Street(tmp_path_factory.mktemp("street")) as street:
        yield street


@pytest.fixture
def street(whole_street: Street) -> Iterator[Street]:
    """The same, healed, with good applications and nothing held against anybody; afterwards nothing inside broke."""
    whole_street.open()
    yield whole_street
    whole_street.assert_well()


@pytest.fixture(scope="session")
def whole_village() -> Iterator[Village]:
    """Two services whose connections are captured, and a stranger; up in three seconds."""
    with Village(TWO_SERVICES) as village:
        yield village


@pytest.fixture
def village(whole_village: Village) -> Iterator[Village]:
    """The same, under its own config; afterwards nothing inside broke."""
    whole_village.restore()
    yield whole_village
    whole_village.assert_well()


@pytest.fixture(scope="session")
def whole_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A shop with an application and a sidecar that is none, and two neighbours."""
    with a_town(tmp_path_factory.mktemp("town")) as town:
        yield town


@pytest.fixture
def town(whole_town: Town) -> Iterator[Town]:
    """The same without rules, before and after."""
    yield whole_town
    whole_town.mesh("remove")
