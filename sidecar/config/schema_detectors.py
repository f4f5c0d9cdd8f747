"""What an operator can say of detectors: what of a caller's traffic is conspicuous, and what then happens to it."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config.terms import Count, Frequency, Often, Seconds, described
from sidecar.patterns import IdentityPattern

Action = Literal["record", "throttle", "block"]
_ACTION = (
    "What happens to the caller: `record` (log, metric, audit), `throttle` (it gets `rate`), or `block` (429)."
)
_FOR = "For how long; and how long nothing more is said of the same caller."
_RATE = "With `action: throttle`: how often it may call meanwhile."
_EXEMPT = "Callers that this detector leaves alone, in the words of rules."
_ONE_A_SECOND = Frequency(1, "s")


@dataclass(frozen=True, slots=True)
class Stuffing:
    """Bursts of 401 and 403, by whoever they were said: passwords, tokens or permissions are being tried."""

    refusals: Count = described(
        "So many within a minute, by one caller on one route, and as many more requests than it usually makes there: "
        "whose usual requests are refused for once is not conspicuous.",
        30,
    )
    action: Action = described(_ACTION, "record")
    seconds: Seconds = described(_FOR, 300.0, yaml="for")
    rate: Often = described(_RATE, _ONE_A_SECOND)
    exempt: tuple[IdentityPattern, ...] = described(_EXEMPT, (), yaml="except", some=True)


@dataclass(frozen=True, slots=True)
class Enumeration:
    """One caller asks for one object after the other: different ids in the same place of a path."""

    ids: Count = described("So many different ones within five minutes, on one route.", 300)
    sequential: Count = described(
        "So many, where they are numbers of which at least half are next to another one of them.",
        60,
    )
    action: Action = described(_ACTION, "record")
    seconds: Seconds = described(_FOR, 300.0, yaml="for")
    rate: Often = described(_RATE, _ONE_A_SECOND)
    exempt: tuple[IdentityPattern, ...] = described(_EXEMPT, (), yaml="except", some=True)


@dataclass(frozen=True, slots=True)
class Spikes:
    """A caller that asks for far more than it ever did; and one that calls what it has never called."""

    least: Count = described("Fewer requests in a minute are never conspicuous.", 120)
    times: Count = described("So many times what the caller usually asks in a minute, at its busiest too.", 3)
    warm_up: Seconds = described("How long a caller is only learned from.", 1800.0)
    new_edges: bool = described("Also tell of the first call of a caller to a route. It is only ever recorded.", True)
    action: Action = described(_ACTION, "record")
    seconds: Seconds = described(_FOR, 300.0, yaml="for")
    rate: Often = described(_RATE, _ONE_A_SECOND)
    exempt: tuple[IdentityPattern, ...] = described(_EXEMPT, (), yaml="except", some=True)


@dataclass(frozen=True, slots=True)
class Detectors:
    """What looks at the traffic that has passed; see docs/detectors.md. Each is off unless it is named: `stuffing: {}`
    records with the defaults.
    """

    stuffing: Stuffing | None = described("Bursts of 401 and 403 by one caller; absent for off.", None)
    enumeration: Enumeration | None = described("One object after the other by one caller; absent for off.", None)
    spikes: Spikes | None = described("Far more than ever, or a route for the first time; absent for off.", None)

    @property
    def named(self) -> tuple[tuple[str, Stuffing | Enumeration | Spikes], ...]:
        """Those that are on, by name."""
        each = (("stuffing", self.stuffing), ("enumeration", self.enumeration), ("spikes", self.spikes))
        return tuple((name, spec) for name, spec in each if spec is not None)
