"""What stands behind the codes about endpoints that are learned from elsewhere. See `codes`."""

from __future__ import annotations

from typing import Final

# code, title, why, what to do, wrong, right
DISCOVERY: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH099", "a file of endpoints that is not there",
        "Until the file exists the upstream has no endpoints, and whoever calls it gets a 503. That is as it should be "
        "where something else will write it later, and a slip of the pen anywhere else.",
        "Compare `endpoints_from.file` with where the file is: it is seen from the folder of the file that names it. "
        "Write `[]` into it if there are no endpoints yet.",
        """
        services:
          web: {outbound: [{to: orders, listen: '127.0.0.1:9001', endpoints_from: {file: /nonexistent/orders.yaml}}]}
          orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}
        """,
        """
        services:
          web: {outbound: [{to: orders, listen: '127.0.0.1:9001', endpoints_from: {srv: _mesh._tcp.orders.test}}]}
          orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}
        """,
    ),
)  # fmt: skip
