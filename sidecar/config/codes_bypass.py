"""What stands behind the codes about ways past the sidecar (`sidecar.config.bypassed`). See `codes`."""

from __future__ import annotations

from typing import Final

_APP: Final = "inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]"
_WEB: Final = "  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n"

BYPASS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH130", "a way past the sidecar allowed where there is none",
        "`unsafe_allow_bypass` is for an application that listens beyond loopback. This service has no application on "
        "TCP, so it does nothing today, and opens a door on the day that somebody adds one.",
        "Remove it.",
        f"services:\n  orders: {{{_APP}}}\n"
        "  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}], unsafe_allow_bypass: true}\n",
        f"services:\n  orders: {{{_APP}}}\n{_WEB}",
    ),
)  # fmt: skip
