"""Selectors: facts about a workload that a proof has shown, as `kind:name:value`, and the entry that they fit. Pure.

    k8s:cluster:NAME  k8s:ns:NAMESPACE  k8s:sa:ACCOUNT  k8s:pod:NAME  k8s:pod-uid:UID  k8s:node:NAME
    unix:uid:NUMBER   unix:gid:NUMBER   unix:path:/PROGRAM

An entry fits where *all* of its selectors were shown; more may have been. Of several that fit the one that asks for
most is meant; two that ask for as much are a mistake that only the operator can resolve, so neither is. A refusal says
what was shown, which entry came closest, and which selector of it differs (pain 38).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ca.errors import InvalidEntry, ProofRefused

if TYPE_CHECKING:
    from ca.entries import Entry

MAX_SELECTORS = 16
KINDS = {"k8s": ("cluster", "ns", "sa", "pod", "pod-uid", "node"), "unix": ("uid", "gid", "path")}
# Less than this names nobody: accounts are of a cluster and a namespace, and any user can start any program
_ENOUGH = {"k8s": ({"cluster", "ns", "sa"},), "unix": ({"uid"},)}
_VALUE = re.compile(r"[!-~]{1,256}\Z", re.ASCII)
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,9})\Z", re.ASCII)


def check_selectors(selectors: Sequence[str]) -> None:
    """Raise InvalidEntry unless these are selectors, of one kind of proof, that together name somebody."""
    if len(selectors) > MAX_SELECTORS:
        raise InvalidEntry(f"{len(selectors)} selectors; at most {MAX_SELECTORS} are allowed")
    if len(set(selectors)) != len(selectors):
        raise InvalidEntry("a selector is given twice")
    for selector in selectors:
        _check(selector)
    kinds = {selector.partition(":")[0] for selector in selectors}
    if len(kinds) > 1:
        raise InvalidEntry("selectors of two kinds of proof: nobody can show both at once")
    for kind in kinds:
        names = {selector.split(":", 2)[1] for selector in selectors}
        if not any(enough <= names for enough in _ENOUGH[kind]):
            wanted = " or ".join(", ".join(f"{kind}:{name}:…" for name in sorted(each)) for each in _ENOUGH[kind])
            raise InvalidEntry(f"these selectors would fit too many: at least {wanted} is needed")


def _check(selector: str) -> None:
    kind, _, rest = selector.partition(":")
    name, _, value = rest.partition(":")
    if name not in KINDS.get(kind, ()):
        known = " ".join(f"{kind}:{name}:…" for kind, names in KINDS.items() for name in names)
        raise InvalidEntry(f"selector {selector[:80]!r} is of no kind that there is; there are {known}")
    if not _VALUE.match(value):
        raise InvalidEntry(f"selector {selector[:80]!r} has no value, or one with spaces in it")
    if name in ("uid", "gid") and not _NUMBER.match(value):
        raise InvalidEntry(f"selector {selector!r}: users and groups are numbers")
    if name == "path" and not value.startswith("/"):
        raise InvalidEntry(f"selector {selector!r}: a program is an absolute path")


def choose(entries: Iterable[Entry], shown: Sequence[str], what: str, wanted: str = "") -> Entry:
    """The entry that what was shown fits. `what` says what that was; `wanted`, an entry's id or SPIFFE ID, narrows.

    Raises ProofRefused, with what was shown, the closest entry and what differs.
    """
    said = f"{what} was presented ({' '.join(shown) or 'nothing'}); "
    kind = shown[0].partition(":")[0] if shown else ""
    known = [entry for entry in entries if entry.selectors and entry.selectors[0].startswith(f"{kind}:")]
    fitting = [entry for entry in known if set(entry.selectors) <= set(shown)]
    if wanted:
        meant = [entry for entry in fitting if wanted in (entry.id, entry.spiffe_id.text)]
        if meant:
            return meant[0]
        known = [entry for entry in known if wanted in (entry.id, entry.spiffe_id.text)]
        if not known:
            raise ProofRefused(f"{said}no entry {wanted[:80]!r} has selectors of this kind")
        raise ProofRefused(f"{said}{_difference(known[0], shown)}")
    most = max((len(entry.selectors) for entry in fitting), default=0)
    best = [entry for entry in fitting if len(entry.selectors) == most]
    if len(best) == 1:
        return best[0]
    if best:
        names = ", ".join(entry.id for entry in best)
        raise ProofRefused(f"{said}it fits {names} alike, so make one of them narrower")
    if not known:
        how = "`mesh ca entry add NAME --selector …`"
        raise ProofRefused(f"{said}no entry has selectors of this kind. Add one with {how}")
    closest = max(known, key=lambda entry: (len(set(entry.selectors) & set(shown)) / len(entry.selectors)))
    raise ProofRefused(f"{said}the closest entry: {_difference(closest, shown)}")


def _difference(entry: Entry, shown: Sequence[str]) -> str:
    by_name = {_name(selector): selector for selector in shown}
    wanted = [selector for selector in entry.selectors if selector not in shown]
    found = [by_name.get(_name(selector), "nothing of the kind") for selector in wanted]
    return f"{entry.id} asks for " + ", ".join(f"{a} and saw {b}" for a, b in zip(wanted, found, strict=True))


def _name(selector: str) -> str:
    return ":".join(selector.split(":", 2)[:2])
