"""What stands behind the code about other trust domains. See `codes`."""

from __future__ import annotations

from typing import Final

_NAMED: Final = (
    "MESH083", "a name of another trust domain",
    "A rule alone lets nobody in: a certificate of another trust domain is verified by that domain's own roots, and "
    "the sidecars have them only where the CA federates with it. Until then each of its identities is refused in the "
    "handshake. This file cannot say whether that is done.",
    "Run `mesh ca federation add NAME --url https://…` with its SPIFFE bundle endpoint, or `--file` with its bundle; "
    "`mesh ca federation list` shows what is there, and `mesh check --ca-dir DIR` leaves this out for whom it finds "
    "there. Where our own trust domain was meant, a short name is enough.",
    """
    services:
      web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}
      orders:
        inbound: [{app: '127.0.0.1:8080'}]
        allow: [{from: [web, 'spiffe://partner.example/ns/default/sa/billing']}]
    """,
    """
    services:
      web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}
      orders:
        inbound: [{app: '127.0.0.1:8080'}]
        allow: [{from: [web]}]
    """,
)  # fmt: skip

FOREIGN: Final = (_NAMED,)
