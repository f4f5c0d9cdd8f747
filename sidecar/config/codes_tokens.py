"""What stands behind the codes about bearer tokens; the others are in `codes`, where all come together."""

from __future__ import annotations

from typing import Final

_ISSUERS: Final = "issuers:\n  login: {%s}\n"
_LOGIN: Final = "issuer: 'https://login.example.org', audience: 'https://orders.example.org'"
_SERVICES: Final = (
    "services:\n  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n"
    "  orders:\n    inbound: [{app: '127.0.0.1:8080'%s}]\n    allow: [{from: web}]\n"
)


def _example(issuer: str = _LOGIN, tokens: str = "from: login") -> str:
    return (_ISSUERS % issuer if issuer else "") + _SERVICES % (f", tokens: {{{tokens}}}" if tokens else "")


_SCOPED: Final = _SERVICES.replace("allow: [{from: web}]", "allow: [{from: web, scopes: [read]}]")
# code, title, why, what to do, wrong, right
TOKENS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH150", "an issuer that no listener asks for",
        "Nothing is verified by it: whoever wrote it may believe that callers must bring its tokens.",
        "Name it in `tokens: {from: …}` of a listener, or remove it.",
        _example(tokens=""), _example(),
    ),
    (
        "MESH151", "tokens that are for nobody in particular",
        "A token says whom it is for. Where no audience is said it must name our SPIFFE ID, which issuers outside the "
        "mesh do not know, so that every token is refused; and none may be taken that was meant for another service.",
        "Write `audience` with what stands in `aud` of its tokens, at the issuer or at the listener.",
        _example("issuer: 'https://login.example.org'"), _example(),
    ),
    (
        "MESH152", "a key set that is fetched too rarely",
        "Keys are withdrawn when they have leaked. Until the set is fetched anew, whoever has such a key makes tokens "
        "that are taken here.",
        "Leave `refresh` out (10m), or say at most 1d.",
        _example(f"{_LOGIN}, refresh: 7d"), _example(f"{_LOGIN}, refresh: 1h"),
    ),
    (
        "MESH153", "roots that nothing is verified by",
        "`ca_file` says by which roots the certificate of `url` is judged. A file, or the trust bundle, has none.",
        "Remove it, or name a `url`.",
        _example(f"{_LOGIN}, file: keys.json, ca_file: roots.pem"), _example(f"{_LOGIN}, file: keys.json"),
    ),
    (
        "MESH154", "tokens that are never bound, and must be",
        "A JWT-SVID is bound to no certificate, so a listener with `bound: true` refuses each.",
        "Remove `bound`, or ask for tokens of an issuer that binds them (RFC 8705).",
        _example("trust_domain: demo.mesh", "from: login, bound: true"),
        _example("trust_domain: demo.mesh", "from: login"),
    ),
    (
        "MESH155", "a rule about tokens where none is verified",
        "`scopes:` and conditions on claims look at a token that the listener has verified. Where no listener of the "
        "rule has `tokens`, there never is one: an allow rule lets nobody in.",
        "Give the listener `tokens: {from: …}`, or remove what asks for one.",
        _SCOPED % "", _ISSUERS % _LOGIN + _SCOPED % ", tokens: {from: login}",
    ),
)
