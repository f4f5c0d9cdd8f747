"""What is special of upstreams outside the mesh: where their names may lead, TLS as on the web, a token of ours, and
what may be asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.errors import PrivateAddress, TokenUnavailable
from sidecar.net.port import Unreachable

if TYPE_CHECKING:
    from sidecar.config.terms import Address
    from sidecar.hop import Headers, Hop, TlsInfo
    from sidecar.net.port import Port, Wire
    from sidecar.policy.egress import EgressRules
    from sidecar.policy.reach import Reach
    from sidecar.proxy.side import Plan

AUTHORIZATION: Final = b"authorization"
BEARER: Final = b"Bearer "


class Tokens(Protocol):
    """Who has a token for an upstream: `sidecar.answer.credentials`, and whoever stands for it in a test."""

    problem: str

    def ready(self) -> bytes | None:
        """The token of now; None where there is none."""
        ...

    async def wait(self, port: Port) -> bytes | None:
        """The token, once there is one; None where there will be none soon."""
        ...

    async def renewed(self, port: Port, token: bytes) -> bytes | None:
        """Another token in the place of one that was refused; None where there is none."""
        ...


class Secured(Protocol):
    """Whoever shakes hands with a host of the web."""

    async def connect(self, port: Port, wire: Wire, *, http: bool, h2: bool, within: float) -> tuple[Wire, TlsInfo]:
        """Raises HandshakeFailed; the wire is closed then."""
        ...


@dataclass(frozen=True, slots=True)
class OutsideWay:
    """How a connection to one is made. `declared`: addresses that stand in the configuration, which nobody judges."""

    tls: Secured | None
    reach: Reach
    declared: frozenset[Address]

    async def dial(self, port: Port, endpoint: Address) -> Wire:
        """Connect, to an address that was judged. Raises Unreachable, PrivateAddress."""
        if endpoint.unix or (endpoint in self.declared and not endpoint.named):
            return await port.dial(endpoint.host, endpoint.port)
        found = await port.lookup(endpoint.host) if endpoint.named else [endpoint.host]
        refused = [why for why in map(self.reach.why_not, found) if why]
        good = [address for address in found if not self.reach.why_not(address)]
        if refused and not good:
            of_name = f"{endpoint.host}: " if endpoint.named else ""
            raise PrivateAddress(f"{of_name}{'; '.join(refused[:3])}, and `private` does not list it")
        problem = Unreachable(f"{endpoint.host} has no address")
        for address in good:
            try:
                return await port.dial(address, endpoint.port)
            except Unreachable as error:
                problem = error
        raise problem


@dataclass(frozen=True, slots=True)
class Outsider:
    """One of them. `way` is None for a member of the mesh of which not everything may be asked."""

    name: str
    way: OutsideWay | None = None
    tokens: Tokens | None = None
    allow: EgressRules | None = None

    @property
    def express(self) -> bool:
        """Whether plain requests need not be looked at."""
        return self.tokens is None and self.allow is None

    @property
    def secure(self) -> bool:
        """Whether it is asked by TLS."""
        return self.way is not None and self.way.tls is not None

    def admit(self, hop: Hop, plan: Plan) -> None:
        """Judge what is asked, and see to the token. Raises EgressDenied, AmbiguousPath."""
        if self.allow is not None:
            self.allow.check(hop.method, plan.target)
        if self.tokens is None:
            return
        token = self.tokens.ready()
        if token is None:
            plan.ask = partial(self._attach, plan)
        else:
            self._put(plan, token)

    def _put(self, plan: Plan, token: bytes) -> None:
        plan.headers = with_token(plan.headers, token)
        plan.renew = partial(self._renew, plan, token)

    async def _attach(self, plan: Plan, port: Port) -> None:
        """Wait for the first token. Raises TokenUnavailable: nothing is ever asked without one."""
        assert self.tokens is not None
        token = await self.tokens.wait(port)
        if token is None:
            raise TokenUnavailable(f"no token for {self.name}: {self.tokens.problem}")
        self._put(plan, token)

    async def _renew(self, plan: Plan, token: bytes, port: Port) -> None:
        """The upstream has refused the token: put another in its place, if there is one."""
        assert self.tokens is not None
        other = await self.tokens.renewed(port, token)
        if other is not None:
            plan.headers = with_token(plan.headers, other)


def with_token(headers: Headers, token: bytes) -> Headers:
    """The header fields, with this token in the place of any other authorization."""
    return [field for field in headers if field[0] != AUTHORIZATION] + [(AUTHORIZATION, BEARER + token)]
