"""What an operator can say of bearer tokens: who issues them, and which a listener asks of its callers.

See docs/tokens.md.
"""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from certs.spiffe import TrustDomain
from sidecar.config.terms import Delay, FilePath, Label, Seconds, described

HttpsText = Annotated[str, "https"]
Audience = Annotated[str, "audience"]
# What may sign a token; a test holds this together with sidecar.policy.jwk.ALGORITHMS. Never HMAC, never `none`.
Algorithm = Literal[
    "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519"
]
ALL: tuple[Algorithm, ...] = (
    "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issuer:
    """Somebody who issues tokens: exactly one of `issuer` and `trust_domain`; see docs/tokens.md."""

    name: str = described("The key under `issuers`.", hidden=True)
    issuer: Audience = described(
        "What stands in `iss` of its tokens, letter by letter. Without `url` and `file` it is an `https://` URL, below "
        "which `/.well-known/openid-configuration` says where the keys are.",
        "",
    )
    trust_domain: TrustDomain | None = described(
        "Its tokens are JWT-SVIDs of this trust domain, ours or a federated one; their keys are in the trust bundle "
        "that the sidecar has already.",
        None,
    )
    url: HttpsText = described("Where its key set is, an `https://` URL; a query in it is sent.", "")
    file: FilePath = described("Or a file with its key set, followed as it changes.", "")
    ca_file: FilePath = described(
        "Roots, in PEM, by which the certificate of that URL is judged; empty for the system's.", ""
    )
    audience: tuple[Audience, ...] = described(
        "Whom its tokens must be for (`aud`), where a listener does not say: any one of these.",
        (),
        filled="the service's own SPIFFE ID",
        some=True,
    )
    algorithms: tuple[Algorithm, ...] = described("By what its tokens may be signed.", ALL, some=True)
    type: Literal["any", "at+jwt"] = described(
        "Which `typ` its tokens must have: `any` is none, `JWT` or `at+jwt`; `at+jwt` is that alone (RFC 9068), so "
        "that no other token of this issuer passes for an access token.",
        "any",
    )
    leeway: Delay = described("How far its clock and ours may be apart, at most 5m.", 60.0)
    refresh: Seconds = described("How often its key set is fetched; a key that it does not know sooner.", 600.0)
    within: Seconds = described("How long fetching may take.", 5.0)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Which bearer tokens a listener asks of its callers; see docs/tokens.md. They come in `Authorization: Bearer`, and
    nowhere else. One that is there must be good, or the request is refused with 401.
    """

    issuers: tuple[Label, ...] = described("Whose: names under `issuers`.", yaml="from", some=True)
    audience: tuple[Audience, ...] = described(
        "Whom they must be for (`aud`): any one of these.",
        (),
        filled="the issuer's `audience`, or else the service's own SPIFFE ID",
        some=True,
    )
    required: bool = described("Whether each request must have one; otherwise it is refused with 401.", True)
    bound: bool = described(
        "Whether each must be bound to the certificate of the caller (RFC 8705, `cnf`). One that is bound to a "
        "certificate is held to that on every listener.",
        False,
    )
    forward: bool = described(
        "Whether the token goes on to the application. Otherwise it ends here: whoever reads the application's memory "
        "or logs cannot use it again.",
        False,
    )
    streams: Literal["end", "stay"] = described(
        "What becomes of a WebSocket, a gRPC call or another answer without a length when the token that it was let in "
        "by ends: it ends too, or stays.",
        "end",
    )
