"""The mesh that most integration tests need: `web` calls `app`, each behind a sidecar of its own.

    client → web's sidecar (`door`, or its forward proxy) → mTLS → app's sidecar → application
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ca.entries import DEFAULT_TTL
from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports

DEFAULT_ALLOW = "[{name: web-may, from: web}]"


def pair_yaml(
    ports: Ports,
    folder: Path,
    *,
    protocol: str = "http",
    allow: str = DEFAULT_ALLOW,
    defaults: str = "",
    routes: str = "",
    app: str = "",
    upstream: str = "",
    issuers: str = "",
    tokens: str = "",
) -> str:
    """The mesh.yaml of such a pair: names of ports are ca, door, proxy, app_in, app, web_health, app_health."""
    return f"""\
trust_domain: {TRUST_DOMAIN}
ca: {{address: "127.0.0.1:{ports.ca}"}}
{"defaults: " + defaults if defaults else ""}
{"issuers: " + issuers if issuers else ""}
services:
  web:
    forward_proxy: 127.0.0.1:{ports.proxy}
    outbound:
      - {{to: app, listen: "127.0.0.1:{ports.door}"{upstream}}}
    access_log: {{mode: all, path: {folder}/web.access}}
    health: {{listen: "127.0.0.1:{ports.web_health}"}}
  app:
    inbound:
      - name: main
        port: {ports.app_in}
        bind: 127.0.0.1
        app: {app or f"127.0.0.1:{ports.app}"}
        protocol: {protocol}
        {"routes: " + routes if routes else ""}
        {"tokens: " + tokens if tokens else ""}
    allow: {allow}
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: "127.0.0.1:{ports.app_health}"}}
"""


class Pair(Fleet):
    """A Fleet of `web` and `app`."""

    def __init__(
        self,
        folder: Path,
        *,
        ports: Ports | None = None,
        protocol: str = "http",
        allow: str = DEFAULT_ALLOW,
        defaults: str = "",
        routes: str = "",
        app: str = "",
        upstream: str = "",
        issuers: str = "",
        tokens: str = "",
        ttl: float | Mapping[str, float] = DEFAULT_TTL,
    ) -> None:
        self.ports = ports or Ports()
        text = pair_yaml(
            self.ports, folder, protocol=protocol, allow=allow, defaults=defaults, routes=routes, app=app,
            upstream=upstream, issuers=issuers, tokens=tokens,
        )  # fmt: skip
        super().__init__(folder, text, ttl=ttl)
        self.url = f"http://127.0.0.1:{self.ports.door}"
        self.proxy = f"http://127.0.0.1:{self.ports.proxy}"
