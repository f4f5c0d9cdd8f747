"""JWT-SVIDs of our own identity, from the CA, kept until half of their life is over.

A token is asked for over mTLS with the current certificate, for one audience at a time; whoever asks for the same
audience meanwhile waits for the same answer. Whatever the application asks for, the CA hears of us only so often: a
burst of 20, then 2 a second. Between half-life and end a token still serves where the CA cannot be had.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import trio

from certs.errors import IdentityError
from certs.jwt_svid import LEEWAY, JwtSvid
from sidecar.identity.errors import CaError, CaUnreachable
from sidecar.identity.holdings import Holdings

MAX_KEPT = 128  # audiences; the one asked for longest ago makes room
BURST, RATE = 20.0, 2.0  # tokens asked of the CA at once, and each second
LEAST_LEFT = 5.0  # seconds that a token handed out still has to live


class TooManyTokens(IdentityError):
    """The application asks for tokens faster than this sidecar asks the CA."""

    name: ClassVar[str] = "too_many_tokens"


class JwtSvids:
    """The tokens of one sidecar."""

    def __init__(self, held: Holdings) -> None:
        self._held = held
        self._kept: OrderedDict[tuple[str, ...], JwtSvid] = OrderedDict()
        self._asking: dict[tuple[str, ...], trio.Lock] = {}
        self._level, self._filled_at = BURST, held.clock.monotonic()

    async def fetch(self, audience: tuple[str, ...]) -> JwtSvid:
        """A token for this audience (sorted, each once). Raises CaError's kinds, TooManyTokens."""
        lock = self._asking.setdefault(audience, trio.Lock())
        async with lock:
            try:
                return await self._fetch(audience)
            finally:
                if not lock.statistics().tasks_waiting:
                    self._asking.pop(audience, None)

    async def _fetch(self, audience: tuple[str, ...]) -> JwtSvid:
        kept = self._find(audience)
        if kept is not None and self._held.clock.wall() < kept.renew_at:
            return kept
        try:
            svid = await self._ask(audience)
        except (CaError, TooManyTokens):
            if kept is None:
                raise
            return kept
        self._kept[audience] = svid
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return svid

    def _find(self, audience: tuple[str, ...]) -> JwtSvid | None:
        """A kept token that is ours and lives: not from before an identity changed, nor from a clock set back."""
        kept = self._kept.get(audience)
        now = self._held.clock.wall()
        if kept is None or not kept.issued_at - LEEWAY <= now < kept.expires_at - LEAST_LEFT:
            self._kept.pop(audience, None)
            return None
        self._kept.move_to_end(audience)
        return kept

    async def _ask(self, audience: tuple[str, ...]) -> JwtSvid:
        svid = self._held.valid_svid()
        if svid is None:
            raise CaUnreachable("there is no valid certificate to ask for a token with")
        self._take()
        async with await self._held.connect_with(svid) as session:
            return await session.jwt_svid(audience, svid.spiffe_id)

    def _take(self) -> None:
        now = self._held.clock.monotonic()
        self._level = min(BURST, self._level + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._level < 1.0:
            raise TooManyTokens("the application asks for tokens for more audiences than the CA is to be troubled with")
        self._level -= 1.0
