"""What an operator can say of detectors: what of a caller's traffic is conspicuous, and what then happens to it."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config.terms import Count, Frequency, Often, Seconds, described
from sidecar.patterns import IdentityPattern

Action = Literal["record", "throttle", "block"]


@dataclass(frozen=True, slots=True)
class Detector:
    """What becomes of a caller that one of them finds conspicuous."""

    action: Action = described(
        "What happens to the caller: `record` (log, metric, audit), `throttle` (it gets `rate`), or `block` (429).",
        "record",
    )
    seconds: Seconds = described(
        "For how long; and how long nothing more is said of the same caller.", 300.0, yaml="for"
    )
    rate: Often = described("With `action: throttle`: how often it may call meanwhile.", Frequency(1, "s"))
    exempt: tuple[IdentityPattern, ...] = described(
        "Callers that this detector leaves alone, in the words of rules.", (), yaml="except", some=True
    )


@dataclass(frozen=True, slots=True)
class Stuffing(Detector):
    """Bursts of 401 and 403, by whoever they were said: passwords, tokens or permissions are being tried."""

    refusals: Count = described(
        "So many, by one caller on one route, on top of the requests that it usually makes there: whose usual requests "
        "are refused for once is not conspicuous. They add up over minutes, but for a tenth of this in each.",
        30,
    )


@dataclass(frozen=True, slots=True)
class Enumeration(Detector):
    """One caller asks for one object after the other: different ids in the same place of a path."""

    ids: Count = described(
        "So many different ones within five to ten minutes, on one route, and half as many again as usual; those that "
        "were refused or are not there (401, 403, 404, 410) count three times.",
        300,
    )
    sequential: Count = described(
        "So many numbers that are next to another one of them, and half as many again as usual.", 60
    )


@dataclass(frozen=True, slots=True)
class Spikes(Detector):
    """A caller that asks for far more than it ever did; and one that calls what it has never called."""

    least: Count = described("Fewer requests in a minute are never conspicuous.", 120)
    times: Count = described("So many times what the caller usually asks in a minute, at its busiest too.", 2)
    warm_up: Seconds = described("How long a caller is only learned from.", 1800.0)
    new_edges: bool = described("Also tell of the first call of a caller to a route. It is only ever recorded.", True)


@dataclass(frozen=True, slots=True)
class Detectors:
    """What looks at the traffic that has passed; see docs/detectors.md. Each is off unless it is named: `stuffing: {}`
    records with the defaults.
    """

    stuffing: Stuffing | None = described("Bursts of 401 and 403 by one caller; absent for off.", None)
    enumeration: Enumeration | None = described("One object after the other by one caller; absent for off.", None)
    spikes: Spikes | None = described("Far more than ever, or a route for the first time; absent for off.", None)

    @property
    def named(self) -> tuple[tuple[str, Detector], ...]:
        """Those that are on, by name."""
        each = (("stuffing", self.stuffing), ("enumeration", self.enumeration), ("spikes", self.spikes))
        return tuple((name, spec) for name, spec in each if spec is not None)
