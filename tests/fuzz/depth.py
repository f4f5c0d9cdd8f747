"""How a fuzzer is written: a function with an invariant for a docstring, and two depths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

Check = Callable[..., None]
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
FUZZERS: dict[str, tuple[Check, Callable[..., None]]] = {}  # by name, for tests/fuzz/__main__.py
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def fuzz(*inputs: Any, brief: int, long: int) -> Callable[[Check], Check]:
    """Try `brief` random inputs in every run and `long` in `make deep`; examples stand below this decorator."""

    def decorate(check: Check) -> Check:
        assert check.__doc__, f"{check.__name__} has no invariant"
        depths = [pytest.param(brief, id="brief"), pytest.param(long, id="long", marks=pytest.mark.deep)]

        def run(examples: int, tried: Check = check) -> None:
            depth = settings(max_examples=examples, deadline=None, suppress_health_check=SLOW, phases=PHASES)
            depth(given(*inputs)(tried))()

        @pytest.mark.parametrize("examples", depths)
        def test(examples: int) -> None:
            run(examples)

        FUZZERS[check.__name__] = (check, run)
        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate
