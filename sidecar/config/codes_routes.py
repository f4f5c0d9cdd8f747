"""What stands behind the codes of `mesh check` that are about routes and faults; `codes` has all the others."""

from __future__ import annotations

from typing import Final

_MESH: Final = (
    "services:\n"
    "  web:\n"
    "    outbound:\n"
    "      - {to: orders, listen: '127.0.0.1:9001', routes: [%s]}\n"
    "      - {to: orders-v2}\n"
    "    forward_proxy: 127.0.0.1:9000\n"
    "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n"
    "  orders-v2: {inbound: [{app: '127.0.0.1:8081'}], allow: [{from: web}]}\n"
)
_INBOUND: Final = (
    "services:\n"
    "  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n"
    "  cart: {}\n"
    "  orders:\n"
    "    inbound: [{app: '127.0.0.1:8080', routes: [%s]}]\n"
    "    allow: [{from: web}]\n"
)
_TO: Final = "split: [{to: orders-v2, weight: 1}]"

# code, title, why, fix, a config that shows it, and that config mended
ROUTES: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH110", "a route that is never reached",
        "The first route whose every condition holds is taken. An earlier one takes all that this one could.",
        "Put the narrower route first.",
        _MESH % f"{{{_TO}}}, {{path: /beta/**, {_TO}}}",
        _MESH % f"{{path: /beta/**, {_TO}}}, {{method: GET, {_TO}}}",
    ),
    (
        "MESH111", "a route of an upstream for another caller",
        "On the way out the caller is always this service. What is meant for others waits for nobody.",
        "Remove `from`. To treat callers differently, write the route at the inbound listener of the called service.",
        _MESH % f"{{path: /a, from: cart, {_TO}}}",
        _MESH % f"{{path: /a, from: web, {_TO}}}",
    ),
    (
        "MESH112", "statuses that are never tried again",
        "The route lists statuses after which a request is sent again, and lets nothing be sent again.",
        "Remove `statuses`, or let `resends` be 1 or more.",
        _MESH % "{path: /a, retries: {resends: 0, statuses: [503]}}",
        _MESH % "{path: /a, retries: {resends: 1, statuses: [503]}}",
    ),
    (
        "MESH113", "a header that is taken away and set",
        "What is set stands in the place of all fields of its name, so taking them away before changes nothing.",
        "Remove the name from `remove`.",
        _MESH % "{request_headers: {remove: [x-team], set: {x-team: shop}}}",
        _MESH % "{request_headers: {set: {x-team: shop}}}",
    ),
    (
        "MESH114", "a fault that never acts",
        "A fault needs what happens and how often: `delay` with `delay_share`, `status` with `abort_share`. Without a "
        "share nobody meets it, and whoever waits for its effect learns nothing.",
        "Give both, or remove the fault.",
        _INBOUND % "{path: /**, fault: {status: 503}}",
        _INBOUND % "{path: /**, max_body: 1MiB}",
    ),
    (
        "MESH115", "a fault that is in force",
        "Requests are held or refused on purpose. That is what was asked for, and what nobody should forget.",
        "Remove `fault` when the trial is over.",
        _INBOUND % "{path: /**, fault: {status: 503, abort_share: 0.05}}",
        _INBOUND % "{path: /**, max_body: 1MiB}",
    ),
    (
        "MESH116", "a fault for callers who never get so far",
        "Routes act after authorization, and no rule lets this caller in: it is refused before the fault could meet "
        "it.",
        "Name callers that a rule allows.",
        _INBOUND % "{path: /**, fault: {delay: 1s, delay_share: 0.1, from: cart}}",
        _INBOUND % "{path: /**, max_body: 1MiB}",
    ),
)
