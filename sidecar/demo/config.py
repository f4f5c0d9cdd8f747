"""The demo's ports, and its `mesh.yaml` as text: what a newcomer reads first, so it is written out with its reasons."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from sidecar.config import ports

DEFAULT_BASE = 17000
TRUST_DOMAIN = "demo.mesh"


@dataclass(frozen=True, slots=True)
class DemoPorts:
    """Every port of the demo, counted from one base (`mesh up --port-base`). All of them on 127.0.0.1."""

    base: int = DEFAULT_BASE

    @property
    def ca(self) -> int:
        """HTTPS of the CA."""
        return self.base + ports.CA - DEFAULT_BASE

    @property
    def orders_inbound(self) -> int:
        """Where peers reach orders: mTLS."""
        return self.base + ports.INBOUND - DEFAULT_BASE

    @property
    def payments_inbound(self) -> int:
        """Where peers reach payments: mTLS."""
        return self.orders_inbound + 1

    @property
    def orders_app(self) -> int:
        """The orders application, plain HTTP on loopback."""
        return self.base + 201

    @property
    def payments_app(self) -> int:
        """The payments application."""
        return self.base + 301

    @property
    def web_to_orders(self) -> int:
        """Where web finds orders: a plain HTTP listener of web's own sidecar."""
        return self.base + 101

    @property
    def web_to_payments(self) -> int:
        """Where web would find payments, were it allowed to."""
        return self.base + 102

    @property
    def orders_to_payments(self) -> int:
        """Where orders finds payments."""
        return self.base + 202

    def health(self, number: int) -> int:
        """Probes and metrics of the service with this number."""
        return self.base + ports.HEALTH - DEFAULT_BASE + number


def demo_yaml(base: int = DEFAULT_BASE) -> str:
    """The demo's whole config as YAML."""
    p = DemoPorts(base)

    def command(role: str) -> str:
        return json.dumps([sys.executable, "-P", "-m", "sidecar.demo.app", role, "--port-base", str(base)])

    return f"""\
# The demo of `mesh up`. A copy of it is a start for your own: mesh up --show-config > mesh.yaml
trust_domain: {TRUST_DOMAIN}
ca:
  address: 127.0.0.1:{p.ca}
defaults:
  timeouts: {{drain: 2s}}

services:
  web:                                   # calls, and is called by nobody: it needs no inbound listener
    run: {command("web")}
    outbound:
      - {{to: orders, listen: "127.0.0.1:{p.web_to_orders}"}}      # web speaks plain HTTP here;
      - {{to: payments, listen: "127.0.0.1:{p.web_to_payments}"}}    # the sidecar makes it mTLS to one SPIFFE ID
    health: {{listen: "127.0.0.1:{p.health(0)}"}}

  orders:
    run: {command("orders")}
    inbound:
      - {{name: http, port: {p.orders_inbound}, bind: 127.0.0.1, app: "127.0.0.1:{p.orders_app}"}}
    outbound:
      - {{to: payments, listen: "127.0.0.1:{p.orders_to_payments}"}}
    allow:                               # whom no rule allows is refused
      - {{name: shop-reads, from: web, method: GET, path: "/orders/{{id}}"}}
      - {{name: shop-orders, from: web, method: POST, path: /orders}}
    health: {{listen: "127.0.0.1:{p.health(1)}"}}

  payments:
    run: {command("payments")}
    inbound:
      - {{name: http, port: {p.payments_inbound}, bind: 127.0.0.1, app: "127.0.0.1:{p.payments_app}"}}
    allow:                               # orders may; web may not, though it tries each second
      - {{name: orders-charge, from: orders, method: POST, path: /charges}}
      - {{name: orders-read, from: orders, method: GET, path: "/charges/{{id}}"}}
    health: {{listen: "127.0.0.1:{p.health(2)}"}}
"""
