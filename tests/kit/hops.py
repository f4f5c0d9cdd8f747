"""`a_hop()`: a finished, permitted GET from web to orders, in which a test changes what it is about."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from certs.spiffe import TrustDomain, workload_id
from sidecar.hop import Hop, TlsInfo

DEMO = TrustDomain.parse("demo.mesh")
WEB = workload_id(DEMO, "default", "web")
ORDERS = workload_id(DEMO, "default", "orders")
MALLORY = workload_id(DEMO, "default", "mallory")
A_TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "0a1b2c", 1_800_000_000.0)


def a_hop(path: str = "/orders/17", **changes: Any) -> Hop:
    """A hop of 20 ms that began at monotonic 100 and went well, with `changes` set on it."""
    hop = Hop(
        direction="inbound",
        listener="http",
        port=17443,
        protocol="http",
        peer=WEB,
        destination=ORDERS,
        source=ip_address("192.0.2.7"),
        source_port=40000,
        method="GET",
        host="orders",
        target=path,
        segments=tuple(path.partition("?")[0].split("/")[1:]),
        version="1.1",
        started=100.0,
        first_byte=100.010,
        ended=100.020,
        received_bytes=3,
        sent_bytes=50,
        status=200,
        attempts=1,
        endpoint="127.0.0.1:8080",
        tls=A_TLS,
        rule="web-reads",
        route="/orders/{id}",
    )
    for name, value in changes.items():
        setattr(hop, name, value)
    return hop


def a_tcp_hop(**changes: Any) -> Hop:
    """The same on a raw TCP listener."""
    nothing = {"method": "", "host": "", "target": "", "segments": (), "version": "", "status": 0, "route": "/**"}
    return a_hop(**{"protocol": "tcp", "listener": "db", **nothing, **changes})
