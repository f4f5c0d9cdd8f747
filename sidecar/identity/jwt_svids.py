"""JWT-SVIDs of our own identity, from the CA, kept until half of their life is over.

A token is asked for over mTLS with the current certificate, for one audience at a time; whoever asks for the same
audience meanwhile waits for the same answer. Whatever the application asks for, the CA hears of us only so often: a
burst of 20, then 2 a second. Between half-life and end a token still serves where the CA cannot be had; one whose key
has left the trust bundle does not, nor any once our certificate is on the denylist or the CA says no.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import trio

from certs.denylist import Denylist
from certs.errors import IdentityError
from certs.jwt_svid import LEEWAY, JwtSvid
from sidecar.identity.errors import CaError, CaRefused, CaUnreachable
from sidecar.identity.holdings import Holdings

MAX_KEPT = 128  # audiences; the one asked for longest ago makes room
BURST, RATE = 20.0, 2.0  # tokens asked of the CA at once, and each second
LEAST_LEFT = 5.0  # seconds that a token handed out still has to live
SERVER_ERROR = 500  # from here on the CA says that it failed, not that we may not


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
        held.denylists.subscribe(self._denied)

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
        except (CaError, TooManyTokens) as error:
            refused = isinstance(error, CaRefused) and error.status < SERVER_ERROR
            if refused:
                self._kept.clear()  # those for other audiences are what it would refuse as well
            if kept is None or refused:
                raise
            return kept
        self._kept[audience] = svid
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return svid

    def _denied(self, _: Denylist) -> None:
        if self._held.revoked() is not None:
            self._kept.clear()

    def _find(self, audience: tuple[str, ...]) -> JwtSvid | None:
        """A kept token that lives, by a clock that was not set back, and whose key the bundle still has."""
        kept = self._kept.get(audience)
        now, bundle = self._held.clock.wall(), self._held.bundle()
        if (
            kept is None
            or not kept.issued_at - LEEWAY <= now < kept.expires_at - LEAST_LEFT
            or bundle is None
            or all(key.kid != kept.kid for key in bundle.jwt_keys)
        ):
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
