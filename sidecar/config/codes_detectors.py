"""What stands behind the codes about detectors; the others are in `codes`, where all come together."""

from __future__ import annotations

import textwrap
from typing import Final

from sidecar.config.codes_examples import HTTP, TCP, services


def _detectors(wrong: str, right: str, listener: str = HTTP) -> tuple[str, str]:
    """Two configs that differ in their detectors."""
    return services(listener + textwrap.dedent(wrong), listener + textwrap.dedent(right))


# code, title, why, what to do, wrong, right
DETECTORS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH188", "a rate for callers that are not throttled",
        "`rate` is what a caller gets with `action: throttle`. One that is recorded keeps what it has, and one that is "
        "blocked gets nothing.",
        "Write `action: throttle`, or remove `rate`.",
        *_detectors(
            "    detectors: {spikes: {rate: 5/s}}", "    detectors: {spikes: {action: throttle, rate: 5/s}}"
        ),
    ),
    (
        "MESH189", "a detector that nothing comes before",
        "Answers 401 and 403, and ids in paths, are things of HTTP. No listener of this service is judged by HTTP, so "
        "this detector never sees any.",
        "Remove it; `spikes` looks at raw TCP too.",
        *_detectors("    detectors: {stuffing: {}}", "    detectors: {spikes: {}}", TCP),
    ),
    (
        "MESH190", "a number that another one makes useless",
        "Numbers side by side are more conspicuous than any ids, so `sequential` is the smaller number. Where it is "
        "not, `ids` is always reached first.",
        "Make `sequential` smaller than `ids`.",
        *_detectors(
            "    detectors: {enumeration: {ids: 50, sequential: 100}}",
            "    detectors: {enumeration: {ids: 300, sequential: 100}}",
        ),
    ),
    (
        "MESH191", "a detector that spares everybody",
        "What `except` names is left alone. Here that is everybody whom a rule allows, so the detector never says "
        "anything.",
        "Name fewer under `except`, or remove the detector.",
        *_detectors(
            "    detectors: {spikes: {except: ['**']}}", "    detectors: {spikes: {}}"
        ),
    ),
)
