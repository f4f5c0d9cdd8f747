"""The chain as a tree with lifetimes as bars: roots, under each its issuing CAs, under each the leaves that hold still.

    root 3f9a2c10aa01          active    ██████████████████████▉░  9y 340d left, key here
    ├─ issuing CA 77aa01bc0f2e retiring  ██▋░░░░░░░░░░░░░░░░░░░░░  4d 2h left
    │  └─ 12 certificates, the last ends in 23h 59m
    └─ issuing CA 81b0ffee77aa active    ███████████████████████░  29d 1h left
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ca.durations import format_duration
from ca.roots import certificate_of, chain_of, find, life_of
from ca.slots import next_date
from ca.store.base import Slot, Store

WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def chain_facts(store: Store, now: float) -> list[dict[str, Any]]:
    """Every root with its issuing CAs, oldest first, as data; those that are retired for good are left out."""
    slots = [slot for slot in store.slots() if slot.state != "retired"]
    roots = [slot for slot in slots if slot.kind == "root"]
    issuers = [slot for slot in slots if slot.kind == "issuer"]
    return [
        {**_facts(root), "issuers": [_issuer(store, one, now) for one in issuers if one.root == root.sha256]}
        for root in roots
    ]


def next_change(store: Store, now: float) -> float | None:
    """When the schedule will prepare, activate or retire an issuing CA, in seconds since the epoch."""
    return next_date([life_of(slot) for slot in store.slots() if slot.kind == "issuer"], now)


def next_words(store: Store, now: float) -> str | None:
    """What the schedule does next, and when, for people; None where nothing is planned."""
    lives = [life_of(slot) for slot in store.slots() if slot.kind == "issuer"]
    due = next_date(lives, now)
    if due is None:
        return None
    what = "an issuing CA changes its state"
    active = next((life for life in lives if life.state == "active"), None)
    if active is not None and due == active.activate_at:
        what = "the next issuing CA takes over"
    elif active is not None and due == active.prepare_at:
        what = "the next issuing CA is prepared"
    elif any(life.state == "retiring" and life.ends == due for life in lives):
        what = "a retiring issuing CA is retired, and its key destroyed"
    return f"next by schedule, in {format_duration(due - now)}: {what}"


def draw(facts: Sequence[dict[str, Any]], now: float) -> Iterator[str]:
    """The tree as lines of text."""
    for root in facts:
        key = "key here" if root["key_here"] else "key elsewhere"
        yield f"{_line('root', root, now)}, {key}"
        issuers = root["issuers"]
        for number, issuer in enumerate(issuers):
            last = number == len(issuers) - 1
            yield ("└─ " if last else "├─ ") + _line("issuing CA", issuer, now)
            indent = "   " if last else "│  "
            for between in issuer["chain"]:
                yield f"{indent}   signed through {between}"
            if issuer["live"]:
                ends = format_duration(issuer["last_ends"] - now)
                noun = "certificate" if issuer["live"] == 1 else "certificates"
                yield f"{indent}└─ {issuer['live']} {noun}, the last ends in {ends}"


def bar(begins: float, ends: float, now: float, width: int = WIDTH) -> str:
    """How much of a life is left: full at its beginning, empty at its end."""
    share = 0.0 if ends <= begins else min(1.0, max(0.0, (ends - now) / (ends - begins)))
    eighths = round(share * width * 8)
    if eighths == 0 and share > 0:
        eighths = 1  # what still lives is never drawn as dead
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width, "░")


def _line(name: str, one: dict[str, Any], now: float) -> str:
    left = one["not_after"] - now
    word = f"{format_duration(left)} left" if left > 0 else f"EXPIRED {format_duration(-left)} ago"
    if one["not_before"] > now:
        word = f"not valid for another {format_duration(one['not_before'] - now)}"
    label = f"{name} {one['serial'][:12]}"
    drawn = bar(one["not_before"], one["not_after"], now)
    return f"{label:<{26 if name == 'root' else 23}} {one['state']:<8}  {drawn}  {word}"


def _issuer(store: Store, slot: Slot, now: float) -> dict[str, Any]:
    facts = _facts(slot)
    live, first, last = store.issued_by(facts["serial"], now)
    above = [one.subject.rfc4514_string() for one in chain_of(slot)]
    return {**facts, "chain": above, "live": live, "first_ends": first, "last_ends": last}


def _facts(slot: Slot) -> dict[str, Any]:
    certificate = certificate_of(slot)
    return {
        "serial": f"{certificate.serial_number:x}",
        "sha256": slot.sha256,
        "state": slot.state,
        "subject": certificate.subject.rfc4514_string(),
        "not_before": certificate.not_valid_before_utc.timestamp(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "since": slot.changed_at,
        "key_here": slot.has_key,
    }


def has_issuer(store: Store) -> bool:
    """Whether there is an active issuing CA at all."""
    return find(store.slots(), "issuer", "active") is not None
