"""What `mesh check` finds of OPA and of upstreams outside the mesh; `codes` has the rest."""

from __future__ import annotations

from typing import Final


def _opa(said: str, listener: str = "{app: '127.0.0.1:8080'}") -> str:
    return (
        "services:\n  web: {outbound: [{to: orders, port: http, listen: '127.0.0.1:9001'}]}\n"
        f"  orders:\n    inbound: [{listener}]\n    allow: [{{from: web}}]\n    opa: {{{said}}}\n"
    )


def _partner(said: str, listen: str = "127.0.0.1:9001") -> str:
    return (
        "services:\n  web:\n    outbound:\n"
        f"      - {{to: partner, host: api.partner.com, listen: '{listen}', unmeshed: passthrough,\n"
        f"         endpoints: 'api.partner.com:443'{said}}}\n"
    )


_LOCAL: Final = "url: 'http://127.0.0.1:8181'"
_TOKEN: Final = "token: {url: 'https://id.partner.com/token', client_id: us, secret: {file: /run/secrets/partner}}"  # noqa: S105
_PIN: Final = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
_SPARE: Final = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="

EGRESS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH174", "OPA asked in the clear",
        "A yes of OPA lets a request in. Whoever stands between it and the sidecar could say it, and reads who asks "
        "for what.",
        "Let OPA stand on loopback beside the sidecar, or write `https://`, with `roots` where its certificate is of a "
        "CA of your own.",
        _opa("url: 'http://opa.internal:8181'"), _opa("url: 'https://opa.internal:8181'"),
    ),
    (
        "MESH175", "an OPA that may be silenced",
        "With `silent: unsafe_permit` a request passes whenever OPA does not answer in time. An attacker who can keep "
        "it busy has switched the policy off.",
        "Write `silent: deny`, the default; for a trial, `mode: shadow` shows what OPA would have refused.",
        _opa(f"{_LOCAL}, silent: unsafe_permit"), _opa(_LOCAL),
    ),
    (
        "MESH176", "hops that OPA is not asked about",
        "OPA is asked about requests of HTTP. Raw TCP is judged by the rules alone, and a service without listeners "
        "gets no request at all.",
        "Declare the listener `protocol: http`, or be sure that its rules say all there is to say.",
        _opa(_LOCAL, "{name: http, app: '127.0.0.1:8080'}, {app: '127.0.0.1:5432', protocol: tcp}"), _opa(_LOCAL),
    ),
    (
        "MESH177", "answers of OPA that are kept for long",
        "For as long as an answer is kept a change of policy has no effect on who has asked before: a no as little as "
        "a yes.",
        "Write a `ttl` of a minute at most; a second already spares OPA nearly all questions of a busy caller.",
        _opa(f"{_LOCAL}, cache: {{ttl: 10m}}"), _opa(f"{_LOCAL}, cache: {{ttl: 1s}}"),
    ),
    (
        "MESH178", "a door for strangers with a token of ours",
        "Who comes in by an `edge` has proved nothing, and the sidecar would put its own token on what he sends.",
        "Give the door a service of its own that has no token, or remove `edge`.",
        _partner(f", edge: true, tls: {{}},\n         {_TOKEN}", "0.0.0.0:9001"),
        _partner(f", tls: {{}},\n         {_TOKEN}"),
    ),
    (
        "MESH179", "plain HTTP to port 443",
        "On that port TLS is expected: every request would fail, or be read by whoever stands on the way.",
        "Add `tls: {}`, and the sidecar speaks HTTPS there.",
        _partner(""), _partner(", tls: {}"),
    ),
    (
        "MESH180", "private networks let in whole",
        "Names of a host outside are refused where they lead to loopback, private or link-local addresses: whoever has "
        "the name in hand could reach what only this machine can. A network that holds everything switches that off.",
        "Name the networks in which the host really is.",
        _partner(", tls: {}, private: 0.0.0.0/0"), _partner(", tls: {}, private: 10.20.0.0/16"),
    ),
    (
        "MESH181", "a single pin",
        "Keys are replaced, sometimes within hours. With one pin the upstream is then out of reach until this file is "
        "changed everywhere.",
        "Add the pin of a spare key, or that of the CA above it.",
        _partner(f", tls: {{pins: {_PIN}}}"), _partner(f", tls: {{pins: [{_PIN}, {_SPARE}]}}"),
    ),
)  # fmt: skip
