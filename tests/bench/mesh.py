"""Our contestant: `mesh run` as an operator starts it, with an identity from a real CA, and every default on."""

from __future__ import annotations

from pathlib import Path

from tests.bench.rows import Row
from tests.bench.scene import CLIENT, SERVER, Scene
from tests.kit.fleet import Fleet

TEXT = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ca}"}}
services:
  {client}:
    outbound: [{{to: {server}, listen: "127.0.0.1:{entry}"}}]
    health: {{listen: "127.0.0.1:{client_health}"}}
  {server}:
    inbound: [{{name: main, port: {inbound}, bind: 127.0.0.1, app: "127.0.0.1:{backend}", protocol: {shape}}}]
    allow:
{rules}
    health: {{listen: "127.0.0.1:{server_health}"}}
{extra}
"""
RULES = {
    "http": """\
      - {name: web-reads, from: web, method: GET, path: ["/items/{id}", "/bulk/{id}"]}
      - {name: web-writes, from: web, method: POST, path: "/chunked/{id}"}""",
    "tcp": "      - {name: web-may, from: web}",
}


GRPC = """\
      - {name: web-calls, from: web, method: POST, path: "/echo.Echo/{method}"}"""


# Three levels and a quota, of which none refuses anybody here.
LIMITS = """\
    rates:
      - {name: all, limit: 900000000/s}
      - {name: each, limit: 900000000/s, per: caller}
      - {name: reads, limit: 900000000/s, per: endpoint, method: GET, path: "/items/{id}"}
    quotas:
      - {name: daily, limit: 900000000000/d}"""


def fleet(scene: Scene) -> Fleet:
    """A mesh of the client's and the server's sidecar for this row; nothing is started yet."""
    return Fleet(scene.folder, text(scene, "mesh"))


def text(scene: Scene, who: str) -> str:
    """The mesh.yaml of ours, or of ours `without`, on ports of its own."""
    ports = scene.ports
    return TEXT.format(
        ca=ports.ca, client=CLIENT, server=SERVER, backend=scene.backend, shape=scene.row.shape,
        inbound=scene.inbound(who), entry=getattr(ports, f"{who}_out"),
        rules=GRPC if scene.row.work.grpc else RULES[scene.row.shape],
        client_health=getattr(ports, f"{who}_out_health"), server_health=getattr(ports, f"{who}_health"),
        extra=_extra(scene.row, scene.folder) if who == "mesh" else "",
    )  # fmt: skip


def _extra(row: Row, folder: Path) -> str:
    if row.limits:
        return LIMITS
    if row.log:
        return f"    access_log: {{mode: all, path: {folder}/mesh.log}}"
    if row.work.mode == "fresh":
        return "    limits: {handshakes_per_second: 100000}"
    if row.work.mode == "hold":
        return "    limits: {connections_per_peer: 4000, handshakes_per_second: 100000}"
    return ""


def services(row: Row) -> tuple[str, ...]:
    """Whose sidecars take part."""
    return (SERVER,) if row.hops == 1 else (SERVER, CLIENT)
