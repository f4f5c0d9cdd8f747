"""What `mesh check` finds of upstreams and their endpoints; `codes` has the rest, and says what belongs to a code."""

from __future__ import annotations

from typing import Final

_TWO: Final = "endpoints: ['10.0.0.7:17443', '10.0.0.8:17443']"


def _orders(*said: str, service: str = "", rule: str = "{from: web}") -> str:
    """A config in which `web` says this of its upstream `orders`, which is in the file."""
    return (
        f"services:\n  web:\n{service}    outbound:\n      - {{{', '.join(('to: orders', *said))}}}\n"
        f"    forward_proxy: 127.0.0.1:9000\n"
        f"  orders: {{inbound: [{{app: '127.0.0.1:8080'}}], allow: [{rule}]}}\n"
    )


UPSTREAMS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH007", "an endpoint that is ourselves",
        "The endpoint is where our own application reaches this sidecar: a request to the upstream would come in again "
        "as one to send on, and go round until something breaks. Or it is where peers reach it, who would meet our "
        "identity, and not the upstream's.",
        "Name the address at which the upstream itself listens.",
        "services: {web: {outbound: [{to: api, listen: '127.0.0.1:9001', unmeshed: passthrough, "
        "endpoints: '127.0.0.1:9001'}]}}\n",
        "services: {web: {outbound: [{to: api, listen: '127.0.0.1:9001', unmeshed: passthrough, "
        "endpoints: '192.0.2.1:80'}]}}\n",
    ),
    (
        "MESH008", "an upstream that contradicts itself",
        "Two settings of an upstream cannot both hold: something to stick by and a balancer that takes no notice of "
        "it, an endpoint that stands there twice, a health check of no kind or of two, HTTP where only TCP is spoken.",
        "Follow the hint at the place.",
        _orders(_TWO, "affinity: cookie session", "balance: round_robin"), _orders(_TWO, "affinity: cookie session"),
    ),
    (
        "MESH090", "weights that change nothing",
        "Round robin gives every endpoint the same, and where all weights are equal, or there is one endpoint, nothing "
        "else does otherwise. Whoever wrote the weight believes that traffic is shared by it.",
        "Say `balance: weighted`, give endpoints different weights, or remove them.",
        _orders("endpoints: [{address: '10.0.0.7:17443', weight: 3}, '10.0.0.8:17443']", "balance: round_robin"),
        _orders("endpoints: [{address: '10.0.0.7:17443', weight: 3}, '10.0.0.8:17443']", "balance: weighted"),
    ),
    (
        "MESH091", "zones that are never compared",
        "Our own zone is preferred where an endpoint of it is listed. Without a zone of ours, or with one that no "
        "endpoint has, requests cross zones as if nobody had said anything.",
        "Give the service a `zone`, spelled as that of its endpoints.",
        _orders("endpoints: [{address: '10.0.0.7:17443', zone: eu-1a}, {address: '10.0.0.8:17443', zone: eu-1b}]",
                service="    zone: eu-1\n"),
        _orders("endpoints: [{address: '10.0.0.7:17443', zone: eu-1a}, {address: '10.0.0.8:17443', zone: eu-1b}]",
                service="    zone: eu-1a\n"),
    ),
    (
        "MESH092", "a choice among one",
        "The upstream has a single endpoint by its address, so nothing is ever chosen.",
        "List the others, or remove the setting. A DNS name may stand for many: of that nothing is said.",
        _orders("balance: round_robin"), _orders(_TWO, "balance: round_robin"),
    ),
    (
        "MESH093", "a health check that never ends before the next",
        "An endpoint is never checked twice at once, so `every` does not hold where `within` is as long; and what is "
        "said of answers to HTTP holds for no other check.",
        "Make `within` shorter than `every`; remove `expect` where nothing is asked by HTTP.",
        _orders("health: {http: /healthz, every: 1s, within: 5s}"), _orders("health: {http: /healthz, within: 5s}"),
    ),
    (
        "MESH094", "a health check that the target refuses",
        "A check is a request like any other, and the target's own rules do not allow it. The 403 of its sidecar says "
        "nothing of the application behind it, so nobody is ever taken out and nobody let in by these checks.",
        "Add the rule that the finding proposes to the target; or check with `tcp: true`, which asks for nothing.",
        _orders("health: {http: /healthz}", rule="{from: web, path: /orders}"),
        _orders("health: {http: /healthz}", rule="{from: web, path: [/orders, /healthz]}"),
    ),
)  # fmt: skip
