"""Whom the denylist in force denies: the gate's question, asked once for each handshake and each new denylist.

Never for a request. A denylist that denies more than the one before is told to whoever holds open connections, and they
judge all of them by `why`, which costs two look-ups each; one that denies the same, or less, touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from certs.denylist import Denylist

if TYPE_CHECKING:
    from certs.source import Source
    from certs.spiffe import SpiffeId
    from certs.svid import X509Svid

REVOKED, STALE = "revoked", "denylist_stale"  # short names of the two reasons


class Denials:
    """What of the denylist matters to connections. `on_more` is called whenever more is denied than before."""

    def __init__(self, denylists: Source[Denylist] | None, on_more: Callable[[], None]) -> None:
        self.max_age: float | None = None  # seconds (`revocation.max_age`); None: age closes nothing
        self.stale = False  # nothing is believed any more
        self.lists = 0  # how many there have been
        self._denylist: Denylist | None = None
        self._on_more = on_more
        if denylists is not None:
            denylists.subscribe(self._changed)

    def _changed(self, denylist: Denylist) -> None:
        before, self._denylist = self._denylist, denylist
        self.lists += 1
        if not _covers(before, denylist):
            self._on_more()

    def look(self, wall: float) -> None:
        """Find out whether the denylist is too old by now."""
        limit, denylist = self.max_age, self._denylist
        before = self.stale
        self.stale = limit is not None and (denylist is None or wall - denylist.at > limit)
        if self.stale and not before:
            self._on_more()

    def why(self, spiffe_id: SpiffeId, serial: str, issuers: tuple[str, ...]) -> tuple[str, str] | None:
        """Short reason and words for why this peer's certificate holds no more; None where it does.

        `serial` is the leaf's and `issuers` those of the CAs above it, in lower-case hex.
        """
        if self.stale:
            return STALE, "the denylist is missing, or older than revocation.max_age, and so nobody is believed"
        words = self._named(spiffe_id, serial, issuers)
        return (REVOKED, words) if words else None

    def why_ours(self, svid: X509Svid) -> str:
        """Why our own certificate holds no more; empty where it does. Its list's age is for our peers to judge."""
        serial, *issuers = (f"{one.serial_number:x}" for one in svid.chain)
        return self._named(svid.spiffe_id, serial, tuple(issuers))

    def _named(self, spiffe_id: SpiffeId, serial: str, issuers: tuple[str, ...]) -> str:
        denylist = self._denylist
        kind = denylist.denies(spiffe_id, serial, issuers) if denylist is not None else None
        if denylist is None or kind is None:
            return ""
        what = {
            "spiffe_id": f"{spiffe_id} was revoked",
            "serial": f"the certificate {serial} of {spiffe_id} was revoked",
            "issuer": f"the certificate {serial} of {spiffe_id} is by an issuing CA that was revoked",
        }[kind]
        return f"{what} (denylist {denylist.sequence})"


def _covers(before: Denylist | None, after: Denylist) -> bool:
    """Whether all that is denied now was denied before."""
    if before is None:
        return not len(after)
    return (
        after.serials <= before.serials and after.spiffe_ids <= before.spiffe_ids and after.issuers <= before.issuers
    )
