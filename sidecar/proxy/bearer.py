"""The user behind the caller: the bearer token of a request is verified before any rule is asked.

Nearly always that takes no waiting: the token was seen before, or its key is at hand. Otherwise the request waits, for
at most `PATIENCE`, until the keys of its issuer have been fetched once more (`sidecar.answer.keys`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.errors import TokenInvalid, TokenMissing, TokenUnverifiable
from sidecar.net.port import NEVER, Expired
from sidecar.policy.jwt import BadToken
from sidecar.policy.tokens import Keys, KeysWanted, ListenerTokens, NoToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.schema import Service
    from sidecar.config.schema_tokens import Issuer, Tokens
    from sidecar.hop import Headers, Hop
    from sidecar.net.port import Port, Signal
    from sidecar.telemetry.record import Recorder

PATIENCE: Final = 2.0  # seconds that a request waits for keys
METRIC: Final = "mesh_tokens_total"
UNKNOWN_KEY: Final = "unknown_key"
NOBODY: Final = "-"  # the issuer of a token that is of none


class Desk(Keys, Protocol):
    """Whoever has the key sets, and can get newer ones."""

    def want(self, issuer: Issuer) -> Signal | None:
        """What happens when a fetch of its keys has ended; None where none may begin now."""
        ...

    def underway(self, issuer: Issuer) -> Signal | None:
        """What happens when the fetch has ended that is under way or about to be; None where none is."""
        ...

    def fresh(self, issuer: Issuer) -> bool:
        """Whether the set in force was fetched a moment ago."""
        ...


class Bearer:
    """The tokens of one listener, for the connections that come in by it."""

    def __init__(self, tokens: ListenerTokens, desk: Desk, recorder: Recorder, wall: Callable[[], float]) -> None:
        self._tokens = tokens
        self._desk = desk
        self.wall = wall  # seconds since the epoch
        self._count = recorder.metrics.counter(METRIC).add
        self._note = recorder.token
        self._forward = tokens.spec.forward

    def before(self, hop: Hop, fingerprint: str) -> Callable[[Port], Awaitable[None]] | None:
        """Set the hop's token; where its keys have to be fetched first, what does that. Raises TokenMissing,
        TokenInvalid, TokenUnverifiable.
        """
        try:
            self._judge(hop, fingerprint, self.wall())
        except KeysWanted as wanted:
            signal = self._desk.want(wanted.issuer)
            if signal is None:
                raise self._untold(wanted) from None
            return partial(self._wait, hop, fingerprint, wanted, signal)
        return None

    def strip(self, headers: Headers) -> Headers:
        """What goes on to the application of a request with a token: without that, where it ends here."""
        return headers if self._forward else [field for field in headers if field[0] != b"authorization"]

    async def _wait(self, hop: Hop, fingerprint: str, wanted: KeysWanted, signal: Signal, port: Port) -> None:
        until = port.now + PATIENCE
        while True:
            port.deadline(until)
            try:
                await port.wait(signal)
            except Expired:
                self._count((wanted.issuer.name, "unverifiable"))
                raise TokenUnverifiable(
                    f"the keys of {wanted.issuer.name} were not to be had within {PATIENCE:g} s"
                ) from None
            port.deadline(NEVER)
            try:
                return self._judge(hop, fingerprint, port.wall())
            except KeysWanted as still:
                behind = None if self._desk.fresh(still.issuer) else self._desk.underway(still.issuer)
                if behind is None:
                    raise self._untold(still) from None
                wanted, signal = still, behind

    def _judge(self, hop: Hop, fingerprint: str, wall: float) -> None:
        """Raises TokenMissing, TokenInvalid, KeysWanted."""
        try:
            raw = self._tokens.find(hop.headers)
            token = self._tokens.known(raw, fingerprint, wall) if raw is not None else None
            if token is None and raw is not None:
                token = self._tokens.verify(raw, fingerprint, wall)
                self._note(hop, token)
        except NoToken:
            self._count((NOBODY, "missing"))
            issuers = " or ".join(self._tokens.spec.issuers)
            raise TokenMissing(f"there is no token of {issuers} in `Authorization`") from None
        except BadToken as bad:
            self._count((bad.issuer or NOBODY, bad.reason))
            raise TokenInvalid(str(bad), reason=bad.reason) from None
        hop.token = token
        if token is not None:
            self._count((token.issuer, "ok"))

    def _untold(self, wanted: KeysWanted) -> TokenInvalid | TokenUnverifiable:
        """What is said of a token whose key is not in the set of now: that there is none, where that set is fresh."""
        name = wanted.issuer.name
        if wanted.known and self._desk.fresh(wanted.issuer):
            self._count((name, UNKNOWN_KEY))
            return TokenInvalid(f"no key of {name} goes by the token's `kid`", reason=UNKNOWN_KEY)
        self._count((name, "unverifiable"))
        if wanted.known:
            return TokenUnverifiable(f"its `kid` is not among the keys of {name} known before; newer are not to be had")
        return TokenUnverifiable(f"there are no keys of {name} yet")


def bearer_of(service: Service, tokens: Tokens, desk: Desk, recorder: Recorder, wall: Callable[[], float]) -> Bearer:
    """What verifies the tokens of a listener of this service."""
    issuers = {each.name: each for each in service.issuers}
    return Bearer(ListenerTokens(tokens, issuers, service.identity.text, desk), desk, recorder, wall)
