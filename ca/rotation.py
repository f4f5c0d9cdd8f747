"""The rotation of a root, as a table that can be read aloud. Pure: leaves and acknowledgements in, laggards out.

    phase      in the bundle       signs     goes on when every live …             `--abort` leads to
    announced  outgoing, incoming  outgoing  sidecar has acknowledged the bundle   withdrawn, of the incoming root
    switched   outgoing, incoming  incoming  leaf is under the incoming root       switched, the other way round
    withdrawn  incoming            incoming  sidecar has acknowledged the bundle   nothing: it is the last
    done       incoming            incoming  -                                     -

Aborting is a rotation too: the two roots change places, and the one that was to come is the one that leaves. So whoever
holds a leaf of either root is trusted by everybody until nobody holds one, in both directions.

Live is whoever holds a leaf that has not ended and is not revoked (decision D10). A leaf is given up once it has been
renewed and its successor was heard of on a watch; a renewal whose answer was lost proves nothing. Where nobody can say
so (a sidecar that was started anew enrols, it does not renew), the leaf is waited for until it ends, or until somebody
skips it by name, with a reason.

Each phase is one line of the log, written in the transaction that moves the slots. What a killed CA left is that line,
and the next round goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Phase = Literal["announced", "switched", "withdrawn", "done"]
PHASES: tuple[Phase, ...] = ("announced", "switched", "withdrawn", "done")
MEANING: dict[Phase, str] = {
    "announced": "both roots are in the bundle, the old one signs: every live sidecar has to acknowledge the bundle",
    "switched": "the new root's issuing CA signs: every live certificate has to be renewed under it",
    "withdrawn": "the old root has left the bundle: every live sidecar has to acknowledge that",
    "done": "nothing is left to do",
}


@dataclass(frozen=True, slots=True)
class Skip:
    """A sidecar that is not waited for: its SPIFFE ID or the serial of its certificate, and why not."""

    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """Where a rotation is. Roots by SHA-256; times in seconds since the epoch; `line` is that of the log."""

    phase: Phase
    outgoing: str
    incoming: str
    began: float
    since: float
    aborted: bool = False
    """The incoming root is the one that was there before."""

    issuer_pem: str = ""
    """The issuing CA that the incoming root's own PKI signed, and what lies between; empty where we make one."""

    skipped: tuple[Skip, ...] = ()
    line: int = 0

    @property
    def under_way(self) -> bool:
        """Whether anything is left to do."""
        return self.phase != "done"

    def at(self, phase: Phase, now: float) -> Rotation:
        """The same rotation in another phase, from now on."""
        return replace(self, phase=phase, since=now)

    def facts(self) -> dict[str, Any]:
        """What its line in the log says."""
        return {
            "phase": self.phase,
            "outgoing": self.outgoing,
            "incoming": self.incoming,
            "began": self.began,
            "aborted": self.aborted,
            "issuer_pem": self.issuer_pem,
            "skipped": [[skip.target, skip.reason] for skip in self.skipped],
        }

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Rotation:
        """Read a line of the log. Raises KeyError, TypeError or ValueError where it is none of ours."""
        phase: Phase = PHASES[PHASES.index(facts["phase"])]
        return cls(
            phase=phase,
            outgoing=str(facts["outgoing"]),
            incoming=str(facts["incoming"]),
            began=float(facts["began"]),
            since=float(facts["at"]),
            aborted=bool(facts["aborted"]),
            issuer_pem=str(facts["issuer_pem"]),
            skipped=tuple(Skip(str(target), str(reason)) for target, reason in facts["skipped"]),
            line=int(facts["n"]),
        )


@dataclass(frozen=True, slots=True)
class Leaf:
    """A live certificate: under which root, the last bundle that its holder acknowledged (0: none), last heard of."""

    spiffe_id: str
    serial: str
    root: str
    not_after: float
    bundle: int = 0
    heard_at: float = 0.0
    connected: bool = False


@dataclass(frozen=True, slots=True)
class Laggard:
    """Somebody whom this phase waits for, or who was skipped (then `skipped` says why)."""

    leaf: Leaf
    why: str
    skipped: str = ""


def waited_for(rotation: Rotation, leaves: Iterable[Leaf], sequence: int) -> tuple[Laggard, ...]:
    """Who keeps this phase from ending, and who would but for being skipped. `sequence` is that of the bundle now."""
    found = []
    for leaf in leaves:
        why = _why(rotation, leaf, sequence)
        if why:
            found.append(Laggard(leaf, why, _skipped(rotation.skipped, leaf)))
    return tuple(found)


def next_phase(rotation: Rotation, laggards: Sequence[Laggard]) -> Phase | None:
    """The phase that follows now; None while somebody is waited for, and after the last."""
    if not rotation.under_way or any(not laggard.skipped for laggard in laggards):
        return None
    return PHASES[PHASES.index(rotation.phase) + 1]


def turned_back(rotation: Rotation, now: float) -> Rotation | None:
    """Where `--abort` leads from here; None where there is no way back, or it is under way already."""
    if rotation.aborted or rotation.phase not in ("announced", "switched"):
        return None
    phase: Phase = "withdrawn" if rotation.phase == "announced" else "switched"
    back = replace(rotation, outgoing=rotation.incoming, incoming=rotation.outgoing, aborted=True, issuer_pem="")
    return back.at(phase, now)


def _why(rotation: Rotation, leaf: Leaf, sequence: int) -> str:
    if rotation.phase == "switched":
        return "holds a certificate under the root that leaves" if leaf.root == rotation.outgoing else ""
    if leaf.bundle >= sequence or not rotation.under_way:
        return ""
    return f"has acknowledged bundle {leaf.bundle}, not {sequence}" if leaf.bundle else "has acknowledged no bundle yet"


def _skipped(skips: Iterable[Skip], leaf: Leaf) -> str:
    return next((skip.reason for skip in skips if skip.target in (leaf.spiffe_id, leaf.serial)), "")
