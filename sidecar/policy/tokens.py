"""What a listener does with the bearer tokens of its callers: finds the token, knows it again, or has it verified.

A token comes in the one `Authorization` field, by the scheme `Bearer` (RFC 6750 section 2.1), and nowhere else: neither
form nor query is looked at. One that was found good is known by its bytes for as long as it is valid and the key set
that has verified it is the current one; so a token that was seen before costs a look-up, and a withdrawn key costs its
tokens at the next fetch. Only good tokens are kept, so nobody can push them out with bad ones.

Keys are what others hold (`Keys`). Where they are missing, `judge` says so by `KeysWanted`, and is asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.hop import Token
from sidecar.policy.jwt import (
    BadToken,
    Demands,
    UnknownKey,
    Unverified,
    check_bound,
    check_claims,
    check_signature,
    key_for,
    parse,
    scopes_of,
    token_id,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.schema_tokens import Issuer, Tokens
    from sidecar.hop import Headers
    from sidecar.policy.jwk import KeySet

MOST_KNOWN: Final = 512  # tokens of one listener; Envoy keeps 100
MOST_KNOWN_BYTES: Final = 4096  # of one that is kept: whoever has larger ones pays for each
_SCHEME: Final = b"bearer"
_FIELD: Final = b"authorization"


class Keys(Protocol):
    """Whoever has the key sets of issuers."""

    def current(self, issuer: Issuer) -> KeySet | None:
        """The set in force; None where none was ever had."""
        ...


class NoToken(Exception):
    """The request has no bearer token, and must have one."""


class KeysWanted(Exception):
    """Only a newer key set of this issuer can tell. `known` is whether there is one at all."""

    def __init__(self, issuer: Issuer, *, known: bool) -> None:
        super().__init__(issuer.name)
        self.issuer = issuer
        self.known = known


@dataclass(frozen=True, slots=True)
class Known:
    """A token that was found good."""

    token: Token
    issuer: Issuer
    keys: KeySet  # that its signature has held against
    until: float  # seconds since the epoch: its `exp`, with the leeway
    bound: str  # the fingerprint that it is bound to; empty where it is to none


class ListenerTokens:
    """The tokens of one listener."""

    def __init__(self, spec: Tokens, issuers: Mapping[str, Issuer], own_id: str, keys: Keys) -> None:
        self.spec = spec
        self._keys = keys
        self._by_iss: dict[str, tuple[Issuer, Demands]] = {}
        self._by_domain: dict[str, tuple[Issuer, Demands]] = {}
        for issuer in filter(None, map(issuers.get, spec.issuers)):  # one has gone, where only a drain keeps us
            found = (issuer, demands(issuer, spec, own_id))
            if issuer.trust_domain is not None:
                self._by_domain[issuer.trust_domain.name] = found
            else:
                self._by_iss[issuer.issuer] = found
        self._known: dict[bytes, Known] = {}

    def judge(self, headers: Headers, fingerprint: str, wall: float) -> Token | None:
        """The token of a request whose caller has shown a certificate of this fingerprint (hex, empty for none), at
        this moment; None where it has none and needs none. Raises NoToken, BadToken, KeysWanted.
        """
        raw = self.find(headers)
        if raw is None:
            return None
        return self.known(raw, fingerprint, wall) or self.verify(raw, fingerprint, wall)

    def find(self, headers: Headers) -> bytes | None:
        """The token as it was sent; None where there is none and none is needed. Raises NoToken, BadToken."""
        fields = [value for name, value in headers if name == _FIELD]
        if len(fields) == 1:
            scheme, _, raw = fields[0].partition(b" ")
            if scheme.lower() == _SCHEME:
                return raw.strip(b" ")
        elif any(value[: len(_SCHEME)].lower() == _SCHEME for value in fields):
            raise BadToken("malformed", "the request has several `Authorization` fields, and two readers may take two")
        if self.spec.required:
            raise NoToken
        return None

    def known(self, raw: bytes, fingerprint: str, wall: float) -> Token | None:
        """This token, where it was found good before and still is."""
        known = self._known.get(raw)
        if (
            known is not None
            and wall < known.until
            and known.keys is self._keys.current(known.issuer)
            and (not known.bound or known.bound == fingerprint)
        ):
            return known.token
        return None

    def verify(self, raw: bytes, fingerprint: str, wall: float) -> Token:
        """This token, as if it had never been seen. Raises BadToken, KeysWanted."""
        unverified = parse(raw)
        issuer, wanted = self._issuer(unverified)
        keys = self._keys.current(issuer)
        if keys is None:
            raise KeysWanted(issuer, known=False)
        try:
            check_signature(unverified, key_for(unverified, keys, wanted))
            expires = check_claims(unverified, wanted, wall)
            bound = check_bound(unverified.claims, fingerprint, required=self.spec.bound)
            token = Token(
                issuer.name, unverified.claims.get("sub", ""), unverified.claims, scopes_of(unverified.claims),
                expires, token_id(raw), inf if self.spec.streams == "stay" else expires + wanted.leeway,
            )  # fmt: skip
        except UnknownKey:
            raise KeysWanted(issuer, known=True) from None
        except BadToken as bad:
            bad.issuer = issuer.name
            raise
        if len(raw) <= MOST_KNOWN_BYTES:
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[raw] = Known(token, issuer, keys, expires + wanted.leeway, fingerprint if bound else "")
        return token

    def _issuer(self, token: Unverified) -> tuple[Issuer, Demands]:
        """Whose it says it is: by `iss`, or as a JWT-SVID by the trust domain in `sub`. Raises BadToken."""
        said = token.claims.get("iss")
        found = self._by_iss.get(said) if isinstance(said, str) else None
        subject = token.claims.get("sub")
        if found is None and self._by_domain and isinstance(subject, str):
            found = self._by_domain.get(subject.removeprefix("spiffe://").partition("/")[0])
        if found is None:
            raise BadToken("issuer", f"the token is of none of these: {', '.join(self.spec.issuers)}")
        return found


def demands(issuer: Issuer, spec: Tokens, own_id: str) -> Demands:
    """What a listener of the service with this SPIFFE ID asks of the tokens of one issuer."""
    return Demands(
        issuer.name,
        frozenset(spec.audience or issuer.audience or (own_id,)),
        issuer=issuer.issuer,
        trust_domain=issuer.trust_domain.name if issuer.trust_domain is not None else "",
        algorithms=frozenset(issuer.algorithms),
        type=issuer.type,
        leeway=issuer.leeway,
    )
