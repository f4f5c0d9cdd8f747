"""Limits that all sidecars of a service keep together: the question, what an answer means, and what silence does.

Theory of operation. A shared limit is an ordinary rate in each sidecar, and besides that a number in Redis: the
theoretical arrival time of its key by Redis' own clock. A request asks the rate here first. Where that refuses, so
would the other, since it counts the same and more; so whoever is far over its limit costs Redis nothing. Where it lets
in, Redis is asked, for all shared limits of the request at once, and takes from all or from none. Either way it tells
how far each key is *ahead* of its clock, and the rate here goes on from there.

So the answer while Redis is away is there already: the same limit, held by this sidecar alone, from where all of them
had come to. It is never no limit.

A key of Redis is named by what counts: the service's identity, the limit's facts, and whom it is for, as a digest that
nobody can bring together with another. A header's value or a claim is never to be read there, and no key is longer than
another. The part in braces keeps all keys of a service in one slot, for a cluster behind a proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.errors import LimiterAway
from sidecar.traffic.gcra import Refused
from sidecar.traffic.limits import facts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.errors import HopError
    from sidecar.traffic.limits import Dues, Limit

MICRO: Final = 1e6

# KEYS: one for each limit. ARGV: of each its interval and its lead, in microseconds. Returns 1 or 0, whether all let it
# in; and of each how many microseconds it is ahead of the clock now, or -1 where what stands there is not ours.
# One script runs at a time, whole. A TAT that is farther ahead than a full bucket can be is of a clock that went back
# (a replica took over, say): it counts as one full bucket. A key goes when its bucket is full again.
SCRIPT: Final = """\
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local tats, fits = {}, 1
for i, key in ipairs(KEYS) do
  local interval, lead = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local found, tat = redis.pcall('GET', key), -1
  if found == false then
    tat = now
  elseif type(found) == 'string' and #found <= 24 and string.match(found, '^%d+%.?%d*$') then
    tat = math.min(math.max(tonumber(found), now), now + lead + interval)
  end
  if tat - now > lead then fits = 0 end
  tats[i] = tat
end
local answer = {fits}
for i, key in ipairs(KEYS) do
  local tat = tats[i]
  if tat >= 0 and fits == 1 then
    tat = tat + tonumber(ARGV[2 * i - 1])
    redis.call('SET', key, string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
  end
  answer[i + 1] = tat >= 0 and math.ceil(tat - now) or -1
end
return answer
"""


class Question(NamedTuple):
    """What Redis is asked for one request."""

    keys: tuple[bytes, ...]
    arguments: tuple[str, ...]  # interval and lead of each, in microseconds


@dataclass(frozen=True, slots=True)
class Answered:
    """What Redis says of a request."""

    fits: bool
    ahead: tuple[float | None, ...]  # seconds, of each key of the question; None where what stands there is not ours


@dataclass(frozen=True, slots=True)
class Away:
    """Redis says nothing, and why not."""

    why: str  # `away`, `slow`, `error`, `full`


class Names:
    """How the keys of one service are called in Redis."""

    def __init__(self, prefix: str, identity: str) -> None:
        slot = blake2b(identity.encode(), digest_size=8).hexdigest()
        self._stem = f"{prefix}:{{{slot}}}"

    def question(self, dues: Dues, keys: Sequence[str]) -> Question:
        """What is to be asked for a request with these keys."""
        names, arguments = [], []
        for place in dues.shared:
            limit = dues.limits[place]
            names.append(self.key(limit, keys[place]))
            interval = MICRO / limit.rate.rate
            arguments += [f"{interval:.6f}", f"{interval * (limit.rate.burst - 1 + SLACK):.6f}"]
        return Question(tuple(names), tuple(arguments))

    def key(self, limit: Limit, key: str) -> bytes:
        """The name of one key of a limit: always as long as all others of that limit."""
        digest = blake2b(repr(facts_of(limit.spec)).encode(), digest_size=20)
        digest.update(b"\0" + key.encode("utf-8", "surrogatepass"))
        return f"{self._stem}:{limit.spec.name}:{digest.hexdigest()}".encode()


SLACK: Final = 1e-3  # of an interval, as in sidecar.traffic.gcra


def settle(dues: Dues, now: float, keys: Sequence[str], answer: Answered) -> Refused | None:
    """Go on from what all sidecars together have let in; and where they refuse, say which limit takes longest. What the
    request has taken here has been given back then.
    """
    worst: Refused | None = None
    for place, ahead in zip(dues.shared, answer.ahead, strict=True):
        rate, key = dues.limits[place].rate, keys[place]
        if ahead is None:
            continue
        rate.learn(now, key, ahead)
        wait = rate.standing(now, key).wait
        if not answer.fits and (worst is None or wait > worst.wait):
            worst = Refused(rate, key, wait)
    return worst


def refusal(limits: Sequence[Limit], why: str) -> HopError:
    """What a request is refused with while Redis is away and nobody is to be let in (`redis.when_away: refuse`)."""
    names = ", ".join(limit.spec.name for limit in limits)
    return LimiterAway(f"the Redis in which {names} is counted does not answer ({why}), and redis.when_away is refuse")
