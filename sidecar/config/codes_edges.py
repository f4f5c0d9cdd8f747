"""What stands behind the codes about doors into the mesh. See `codes`."""

from __future__ import annotations

from typing import Final

_ORDERS: Final = "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: door}]}\n"
_DOOR: Final = "services:\n  door:\n    outbound: [{to: orders, listen: '%s'%s}]\n" + _ORDERS
_OWN: Final = "    inbound: [{name: own, port: 17444, app: '127.0.0.1:9000'}]\n    allow: [{from: orders}]\n"

EDGES: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH140", "a door that nobody reaches",
        "`edge: true` lets strangers in at `listen`; where that is absent, or on loopback, there are none.",
        "Name an address that they reach, or remove `edge`.",
        _DOOR % ("127.0.0.1:9080", ", edge: true"), _DOOR % ("127.0.0.1:9080", ""),
    ),
    (
        "MESH141", "a door that is a service as well",
        "Whoever reaches the door speaks as this service. A rule that was meant for the service lets strangers in too.",
        "Give the door a service of its own, and a line of its own under `allow`.",
        _DOOR.replace("  orders:", _OWN + "  orders:", 1) % ("0.0.0.0:9080", ", edge: true"),
        _DOOR % ("0.0.0.0:9080", ", edge: true"),
    ),
)  # fmt: skip
