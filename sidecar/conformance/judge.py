"""The judgement: what came back and what the origin understood, against what a case accepts. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from sidecar.conformance.answers import Answer
from sidecar.conformance.case import HOST, SPOOF, Case, Reading, Wanted
from sidecar.conformance.origin import Seen


class Outcome(Enum):
    """What became of a message. The first six are safe."""

    FORWARDED = "forwarded"  # in one of the acceptable readings
    REFUSED = "refused"  # 4xx or 5xx, and the origin saw nothing of it
    RESET = "reset"  # HTTP/2: the stream was reset without an answer, and the origin saw nothing of it
    CLOSED = "closed"  # no answer, the connection ended, and the origin saw nothing of it
    ANSWERED = "answered"  # by the proxy itself (a redirect, say), and the origin saw nothing of it
    HELD = "held"  # neither answer nor close while we waited, and the origin saw nothing of it
    PASSED_ON = "passed on"  # one well-formed request, but of a message or with a field that should have been stopped
    MISREAD = "misread"  # another method, target or body than the message can have
    SMUGGLED = "smuggled"  # the origin understood more requests than the message can be
    MALFORMED = "malformed"  # the origin got bytes that have no one reading
    POISONED = "poisoned"  # the next caller did not get its own answer
    NOT_SERVED = "not served"  # a good message was not forwarded


SAFE = (
    Outcome.FORWARDED, Outcome.REFUSED, Outcome.RESET, Outcome.CLOSED, Outcome.ANSWERED, Outcome.HELD,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observation:
    """What one run of a case showed."""

    answers: list[Answer]
    closed: bool
    seen: list[Seen] | None  # None where there is no origin of ours
    canary: str = ""  # what was wrong with the next caller's answer
    reset: str = ""  # HTTP/2: the code with which a stream was reset without an answer
    goaway: str = ""  # and that with which the connection ended


@dataclass(frozen=True, slots=True)
class Verdict:
    """One case against one proxy."""

    case: Case
    outcome: Outcome
    status: int  # of the first final response; 0 where there was none
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong."""
        return self.outcome in SAFE


def judge(case: Case, observed: Observation, host: bytes, origin_host: bytes) -> Verdict:
    """What happened, and whether it may."""
    status = observed.answers[0].status if observed.answers else 0
    if observed.canary:
        return Verdict(case, Outcome.POISONED, status, observed.canary)
    if observed.seen is None:
        return _by_answers(case, observed, status)
    malformed = [seen.malformed for seen in observed.seen if seen.malformed]
    if malformed:
        return Verdict(case, Outcome.MALFORMED, status, f"the origin got {malformed[0]}")
    if not observed.seen:
        return _not_forwarded(case, observed, status)
    faults = [_difference(reading, observed.seen, host, origin_host) for reading in case.accept]
    if "" in faults:
        return Verdict(case, Outcome.FORWARDED, status)
    detail = (faults[0] if len(faults) == 1 else "") or _describe(observed.seen, origin_host)
    return Verdict(case, _kind(case, observed.seen, host), status, detail)


def _kind(case: Case, seen: list[Seen], host: bytes) -> Outcome:
    """How bad it is that the origin understood this."""
    if len(seen) > case.answers:
        return Outcome.SMUGGLED
    sent = case.sent_target(host)  # unchanged is not misread
    for reading in case.accept:
        for wanted, got in zip(reading, seen, strict=False):
            targets = (wanted.target.replace(HOST, host), sent)
            if got.method != wanted.method or got.target not in targets or got.body != wanted.body.replace(HOST, host):
                return Outcome.MISREAD
    return Outcome.PASSED_ON


def _by_answers(case: Case, observed: Observation, status: int) -> Verdict:
    """Without an origin of ours only the number of answers speaks."""
    passed = sum(1 for answer in observed.answers if answer.status < 400)
    if not passed:
        return _not_forwarded(case, observed, status)
    if any(len(reading) == passed for reading in case.accept):
        return Verdict(case, Outcome.FORWARDED, status)
    kind = Outcome.SMUGGLED if passed > case.answers else Outcome.PASSED_ON
    return Verdict(case, kind, status, f"{passed} answers below 400")


def _not_forwarded(case: Case, observed: Observation, status: int) -> Verdict:
    if case.must_pass:
        return Verdict(case, Outcome.NOT_SERVED, status, "a good message must be forwarded")
    if status >= 400:
        return Verdict(case, Outcome.REFUSED, status)
    if status:
        return Verdict(case, Outcome.ANSWERED, status)
    if observed.reset:
        return Verdict(case, Outcome.RESET, 0, observed.reset)
    if observed.closed and observed.goaway:
        return Verdict(case, Outcome.CLOSED, 0, observed.goaway)
    return Verdict(case, Outcome.CLOSED if observed.closed else Outcome.HELD, 0)


def _describe(seen: list[Seen], host: bytes | None = None) -> str:
    """The requests that the origin understood, short enough for a table; hosts only where they are not this one."""
    shown = "; ".join(
        f"{_text(one.method)} {_text(one.target[:60])}"
        + (f" with {len(one.body)} bytes" if one.body else "")
        + (f" for {', '.join(map(_text, hosts))[:60]}" if host and (hosts := one.values(b"host")) != [host] else "")
        for one in seen[:3]
    )
    return f"the origin understood {len(seen)}: {shown}" if len(seen) > 1 else f"the origin understood {shown}"


def _difference(reading: Reading, seen: list[Seen], host: bytes, origin_host: bytes) -> str:
    """Why these requests are not this reading; empty where they are."""
    if len(reading) != len(seen):
        return _describe(seen) + f", not {len(reading)}"
    for wanted, got in zip(reading, seen, strict=True):
        if fault := _differs(wanted, got, host, origin_host):
            return fault
    return ""


def _differs(wanted: Wanted, got: Seen, host: bytes, origin_host: bytes) -> str:
    # An asterisk or a URL as target arrives as it was, unless the proxy speaks origin-form (RFC 9112 section 3.2.1).
    target = wanted.target.replace(HOST, host)
    if (got.method, got.target) != (wanted.method, target):
        return _describe([got]) + f", not {_text(wanted.method)} {_text(target[:60])}"
    if got.body != wanted.body.replace(HOST, host):
        return f"the body is {_text(got.body[:40])} ({len(got.body)} bytes), not {_text(wanted.body[:40])}"
    names = Counter(name.replace(b"_", b"-") for name, _ in (*got.fields, *got.trailers))
    if wanted.host is not None and got.values(b"host") != [wanted.host.replace(HOST, origin_host)]:
        return f"the host is {got.values(b'host')}"
    for name in wanted.without:
        if names[name]:
            return f"{_text(name)} arrived"
    for name in wanted.once:
        if names[name] > 1:
            return f"{_text(name)} arrived {names[name]} times"
    for name, value in wanted.fields:
        if got.values(name) != [value]:
            return f"{_text(name)} arrived as {got.values(name)}"
    if wanted.clean:
        for name, value in (*got.fields, *got.trailers):
            if SPOOF in value:
                return f"{_text(name)}: {_text(value)} arrived"
    return ""


def _text(data: bytes) -> str:
    """Bytes for people: visible ASCII as it is, the rest escaped."""
    return repr(data)[2:-1]
