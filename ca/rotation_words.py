"""A rotation of the root in words and as data: for `mesh ca rotate-root` and `mesh ca status`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ca.cli_common import moment, table
from ca.durations import format_duration
from ca.enrolment_files import stale
from ca.live import live_leaves
from ca.rotation import MEANING, Laggard, Rotation, waited_for
from ca.store.base import Store

if TYPE_CHECKING:
    from ca.rehearsal import Trial


def rotation_facts(directory: Path, store: Store, now: float) -> dict[str, Any]:
    """Where the last rotation is, as data: for `--status` and `mesh ca status`."""
    rotation = store.rotation()
    if rotation is None:
        return {"phase": None, "laggards": [], "stale_files": []}
    leaves = live_leaves(store, now) if rotation.under_way else ()
    laggards = waited_for(rotation, leaves, store.bundle_sequence())
    files = stale(directory, store)
    return {
        "phase": rotation.phase,
        "meaning": MEANING[rotation.phase],
        "aborted": rotation.aborted,
        "outgoing": rotation.outgoing,
        "incoming": rotation.incoming,
        "began": rotation.began,
        "since": rotation.since,
        "live": len(leaves),
        "laggards": [_laggard(one, now) for one in laggards],
        "can_abort": not rotation.aborted and rotation.phase in ("announced", "switched"),
        "stale_files": [
            {"spiffe_id": one.spiffe_id.text, "key_id": one.key_id, "created_at": one.created_at} for one in files
        ],
    }


def _laggard(one: Laggard, now: float) -> dict[str, Any]:
    return {**asdict(one.leaf), "why": one.why, "skipped": one.skipped, "ends_in": one.leaf.not_after - now}


def status_lines(facts: dict[str, Any]) -> Iterator[str]:
    """`rotation_facts` as lines for people."""
    if facts["phase"] is None:
        yield "there has been no rotation of the root; mesh ca rotate-root --plan says what it would do"
        return
    turned = ", TURNED BACK" if facts["aborted"] else ""
    yield f"root {facts['outgoing'][:12]} goes, root {facts['incoming'][:12]} stays{turned}"
    yield f"{facts['phase']} since {moment(facts['since'])}: {facts['meaning']}"
    waiting = [one for one in facts["laggards"] if not one["skipped"]]
    if facts["phase"] != "done":
        yield f"{facts['live']} live certificates, {len(waiting)} of them are waited for"
    rows = [
        (
            one["spiffe_id"],
            one["serial"],
            f"skipped: {one['skipped']}" if one["skipped"] else one["why"],
            "connected" if one["connected"] else "not connected",
            f"ends in {format_duration(one['ends_in'])}",
        )
        for one in facts["laggards"]
    ]
    if rows:
        yield from table(("LAGGARD", "SERIAL", "WHY", "WATCH", "CERTIFICATE"), rows, "")
    for one in facts["stale_files"]:
        yield (
            f"STALE enrolment file of {one['spiffe_id']}, key {one['key_id'][:12]}, of {moment(one['created_at'])}:"
            " it does not pin the new root; hand out another (mesh ca key)"
        )
    if waiting and facts["can_abort"]:
        yield "it goes on by itself; without somebody: --go --skip ID --reason WHY; back: --abort"


def trial_lines(trials: Sequence[Trial]) -> Iterator[str]:
    """A rehearsal as a table, and its sum."""
    rows = [
        (
            "ok" if trial.ok else "FAILED",
            trial.phase,
            str(trial.client),
            str(trial.server),
            "shakes hands" if not trial.failure else trial.failure,
        )
        for trial in trials
    ]
    yield from table(("", "PHASE", "CALLER", "CALLED", "RESULT"), rows, "")
    bad = sum(not trial.ok for trial in trials)
    yield f"{len(trials)} handshakes, {bad or 'none'} other than it must be"


def in_words(rotation: Rotation, now: float) -> str:
    """One line about a rotation that is under way, for `mesh ca status`."""
    turned = " (turned back)" if rotation.aborted else ""
    since = format_duration(max(0.0, now - rotation.since))
    return f"root rotation{turned}: {rotation.phase} for {since}; see mesh ca rotate-root --status"


def laggard_lines(facts: dict[str, Any], most: int = 5) -> Iterator[str]:
    """Who a rotation waits for, by name, for `mesh ca status`."""
    waiting = [one for one in facts["laggards"] if not one["skipped"]]
    for one in waiting[:most]:
        watch = "connected" if one["connected"] else "not connected"
        yield f"  waits for {one['spiffe_id']} ({watch}): {one['why']}"
    if len(waiting) > most:
        yield f"  and for {len(waiting) - most} more"
