"""What stands behind the codes about transparent interception. See `codes`."""

from __future__ import annotations

from typing import Final

_ORDERS: Final = (
    "  orders: {address: 10.77.0.2, inbound: [{port: 8080, app: '127.0.0.1:8080'}], redirect: {}, "
    "allow: [{from: web}]}\n"
)


def _web(*said: str, redirect: str = "{}") -> str:
    """A config in which `web`, which is redirected, says this."""
    lines = "".join(f"    {line}\n" for line in said)
    return f"services:\n  web:\n    address: 10.77.0.1\n    redirect: {redirect}\n{lines}{_ORDERS}"


_DB: Final = "  - {to: db, unmeshed: passthrough, protocol: tcp, endpoints: '%s'}"

REDIRECT: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH120", "an address that two upstreams hold",
        "A captured connection shows nothing but the address that it was made to. Where two upstreams hold it, "
        "whichever is taken may be the wrong one and would be asked for the wrong identity; so the connection is "
        "refused.",
        "Let one upstream hold the address. For one that is called in two ways, give the second `listen` and reach it "
        "there, or declare it once.",
        _web("outbound:", "  - {to: orders}", _DB % "10.77.0.2:8080"),
        _web("outbound:", "  - {to: orders}", _DB % "10.77.0.3:5432"),
    ),
    (
        "MESH121", "addresses of an upstream whose callers are not captured",
        "Nothing brings connections of this service to its sidecar, so nobody ever asks whom an address means.",
        "Remove `addresses`, or add `redirect: {}` to the service and install its rules.",
        "services:\n  web:\n    outbound: [{to: orders, listen: '127.0.0.1:9001', addresses: '10.9.0.1:80'}]\n"
        + _ORDERS,
        "services:\n  web:\n    outbound: [{to: orders, listen: '127.0.0.1:9001'}]\n" + _ORDERS,
    ),
    (
        "MESH122", "an upstream that no captured connection can mean",
        "Its endpoints are on this machine's loopback, and what is sent there never leaves the application's reach: "
        "rules of redirection leave loopback alone.",
        "Name in `addresses` where the application connects to, or give it a local address with `listen`.",
        _web("outbound:", _DB % "127.0.0.1:5432"),
        _web("outbound:", "  - {to: db, unmeshed: passthrough, protocol: tcp, endpoints: '127.0.0.1:5432', "
             "addresses: '10.9.0.1:5432'}"),
    ),
    (
        "MESH123", "a passthrough that adds nothing",
        "Another entry lets the same connections pass already; removing one of the two would close less than it seems "
        "to.",
        "Remove the one that is not meant.",
        _web(redirect="{passthrough: [10.0.0.0/8, '10.9.0.7:5432']}"), _web(redirect="{passthrough: 10.0.0.0/8}"),
    ),
    (
        "MESH124", "a passthrough to everywhere",
        "Whatever no upstream holds leaves in plaintext, a slip in an address of the mesh too: the rule that what is "
        "not declared is refused holds for nobody any more.",
        "Name the networks that are meant. `mesh migrate status` shows where the application connects to.",
        _web(redirect="{passthrough: 0.0.0.0/0}"), _web(redirect="{passthrough: 198.51.100.0/24}"),
    ),
    (
        "MESH125", "an upstream in a cluster without the service's own address",
        "Its endpoints are pods, and applications connect to the service's own address (ClusterIP), which is none of "
        "them: such a connection would be refused as one that nobody holds.",
        "Add `addresses` with the service's DNS name and its port. For a headless service, whose name stands for its "
        "pods, the warning may stand.",
        _web("outbound:", "  - {to: stock, identity: stock, "
             "endpoints_from: {kubernetes: {service: stock, port: http}}}"),
        _web("outbound:", "  - {to: stock, identity: stock, addresses: 'stock.default.svc:80', "
             "endpoints_from: {kubernetes: {service: stock, port: http}}}"),
    ),
    (
        "MESH126", "an address to bind where nothing is bound",
        "Under `redirect` an inbound listener is found by the port that its caller connected to, on whichever address "
        "of the machine.",
        "Remove `bind`.",
        _web("inbound: [{port: 8080, app: '127.0.0.1:8080', bind: 10.77.0.1}]", "allow: [{from: orders}]"),
        _web("inbound: [{port: 8080, app: '127.0.0.1:8080'}]", "allow: [{from: orders}]"),
    ),
    (
        "MESH127", "a command that is not captured",
        "The rules let whatever the sidecar's user sends pass, or the sidecar would call itself; a command that it "
        "starts under `run` is of the same user, so its connections go past the mesh.",
        "Start the application by itself, as another user, which is how pods and compose projects do it.",
        _web("run: ./web", "outbound: [{to: orders}]"), _web("outbound: [{to: orders}]"),
    ),
)  # fmt: skip
