"""When to replace an SVID and how long to wait after a failure: arithmetic only.

The rules (semantics S5, decision D17): renew at half of what is left, ±10 % of that half so that a fleet which started
together does not renew together; after a failure wait a random time below a ceiling that doubles from 0.5 s to 150 s;
keep the old certificate to its last second, so never wait past its end; never renew twice within 10 s, whatever the
clock says.

Two clocks, because each lies in its own way. The wall clock jumps: forward after a sleep (renew now), or back (alone it
would have us renew days late). The monotonic clock does not jump, but stands still while a laptop sleeps. A renewal is
due as soon as *either* has seen enough time pass; only the floor of 10 s belongs to the monotonic clock alone.

Dice are numbers in [0, 1) that the caller throws; times are seconds, `now` and the like since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

RENEWAL_POINT = 0.5  # of the time left when obtained: Istio, ztunnel and SPIRE all use half
RENEWAL_SPREAD = 0.1  # of that half, either way: SPIRE's jitter
MIN_RENEWAL_SECONDS = 10.0  # decision D17
RECHECK_SECONDS = 30.0  # look at the wall clock at least this often, so that a sleep is noticed
BACKOFF_BASE_SECONDS = 0.5  # ztunnel's first step
BACKOFF_CAP_SECONDS = 150.0  # ztunnel's ceiling
_LAST_PART = 0.1  # decision D17: in the last tenth of its time a connection ends at the first quiet second


def renewal_at(not_before: float, not_after: float, obtained_at: float, dice: float) -> float:
    """When to renew a certificate obtained at this moment of our own clock; at least 10 s later.

    The time left is what our clock sees until `not_after`, but never more than the whole life that the CA gave: with a
    clock that is days behind, half of what *we* see would come long after the real end.
    """
    left = max(0.0, min(not_after - obtained_at, not_after - not_before))
    share = RENEWAL_POINT * (1 + RENEWAL_SPREAD * (2 * dice - 1))
    return obtained_at + max(MIN_RENEWAL_SECONDS, left * share)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The plan for the SVID in hand: obtained when, by both clocks, and to be renewed when."""

    obtained_at: float  # seconds since the epoch, by our wall clock
    obtained_monotonic: float
    renew_at: float  # seconds since the epoch, by our wall clock

    @classmethod
    def plan(cls, not_before: float, not_after: float, *, now: float, monotonic: float, dice: float) -> Renewal:
        """The plan for a certificate obtained just now."""
        return cls(now, monotonic, renewal_at(not_before, not_after, now, dice))

    def wait(self, now: float, monotonic: float) -> float:
        """Seconds until the renewal is due; 0 where it is."""
        by_monotonic = monotonic - self.obtained_monotonic
        elapsed = max(now - self.obtained_at, by_monotonic)
        due_in = (self.renew_at - self.obtained_at) - elapsed
        return max(0.0, due_in, MIN_RENEWAL_SECONDS - by_monotonic)

    def next_look(self, now: float, monotonic: float) -> float:
        """Seconds to sleep before looking at both clocks again: until due, but at most 30."""
        return min(self.wait(now, monotonic), RECHECK_SECONDS)


def backoff(attempt: int, dice: float) -> float:
    """Seconds to wait after failure number `attempt` (0 is the first): full jitter below 0.5 s, 1 s, 2 s … 150 s."""
    doublings = min(max(attempt, 0), 16)  # 2**16 is far past the ceiling; more would only overflow
    return dice * min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2.0**doublings)


def retry_wait(attempt: int, dice: float, now: float, not_after: float | None) -> float:
    """The back-off, cut so that the next try is not after the certificate's end; None or a past end cut nothing."""
    wait = backoff(attempt, dice)
    return wait if not_after is None or not_after <= now else min(wait, not_after - now)


def worth_waiting(wait: float, now: float, not_after: float | None) -> bool:
    """Whether after this wait (a Retry-After, say) the certificate in hand would still be valid."""
    return not_after is not None and now + wait < not_after


def in_last_tenth(not_before: float, not_after: float, now: float) -> bool:
    """Whether a certificate is in the last tenth of its life, or past it."""
    return now >= not_after - _LAST_PART * (not_after - not_before)
