"""What a contract of a hundred operations costs a real sidecar: `python -m tests.bench.contracts_mesh`.

For a listener without a contract, with one that judges, and with one that also cuts answers to a grant: resident memory
before the first request, processor time of the provider's sidecar for a request with an answer of 1 KiB, and requests a
second on eight connections (the machine's, with client, application and both sidecars on it).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports
from tests.kit.memory_use import rss
from tests.kit.processes import Process, listens

SECONDS, CONNECTIONS, OPERATIONS = 2.0, 8, 100
LINE = {"id": 1, "sku": "abc-12345", "quantity": 3, "note": "please wrap this one as a gift, with a card", "price": 3.5}
BODY = json.dumps({"id": 7, "lines": [LINE] * 9}).encode()
REQUEST = b"GET /r%d/7 HTTP/1.1\r\nHost: orders\r\n\r\n"
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: orders, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  orders:
    inbound: [{{port: {p.orders_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}"{contract}}}]
    {may}
    health: {{listen: "127.0.0.1:{p.orders_health}"}}
"""
CONTRACT = ", contract: {openapi: contract.yaml, mode: enforce}"
ALLOW = "allow: [{from: web}]"
KINDS = {
    "without a contract": ("", ALLOW), "judged": (CONTRACT, ALLOW),
    "judged and cut": (CONTRACT, "grants: {web: {operations: [get0], fields: [id, 'lines[].id', 'lines[].price']}}"),
}  # fmt: skip


def document() -> str:
    """A contract of a hundred operations, each with schemas of its own."""
    line = {
        "type": "object", "required": ["id", "sku"], "additionalProperties": False,
        "properties": {
            "id": {"type": "integer", "minimum": 1}, "sku": {"type": "string", "pattern": "^[a-z0-9-]+$"},
            "quantity": {"type": "integer"}, "note": {"type": "string", "maxLength": 200}, "price": {"type": "number"},
        },
    }  # fmt: skip
    lines = {"type": "array", "maxItems": 100, "items": line}
    order = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}, "lines": lines}}
    content = {"content": {"application/json": {"schema": order}}}
    paths = {}
    for number in range(OPERATIONS // 2):
        parameters = [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}]
        answers = {"200": {"description": "one", **content}}
        paths[f"/r{number}/{{id}}"] = {
            "parameters": parameters, "get": {"operationId": f"get{number}", "responses": answers},
            "put": {"operationId": f"put{number}", "requestBody": content, "responses": answers},
        }  # fmt: skip
    return json.dumps({"openapi": "3.1.0", "info": {"title": "bench", "version": "1"}, "paths": paths})


class App(asyncio.Protocol):
    """Answers every request without a body with the same."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """A request, whole."""
        assert isinstance(self.transport, asyncio.Transport)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        self.transport.write((head + BODY) * data.count(b"\r\n\r\n"))


async def serve(port: int) -> None:
    """The application."""
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port)
    await server.serve_forever()


async def load(port: int, seconds: float) -> int:
    """Ask for so long; how many answers came."""
    end = monotonic() + seconds

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while monotonic() < end:
            writer.write(REQUEST % 0)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            count += 1
        writer.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))


def spent(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, contract: str, may: str) -> None:
    """Print one row."""
    ports = Ports()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "contract.yaml").write_text(document())
        text = TEXT.format(domain=TRUST_DOMAIN, p=ports, contract=contract, may=may)
        with Fleet(folder, text) as mesh:
            app = Process("app", [sys.executable, "-m", __spec__.name, str(ports.app)], folder / "app.log")
            try:
                app.until("listening", lambda: listens(ports.app))
                mesh.start_all()
                pid = mesh["orders"].process.pid
                idle = rss(pid) / (1 << 20)
                asyncio.run(load(ports.web, 0.5))
                began = spent(pid)
                count = asyncio.run(load(ports.web, SECONDS))
                each = (spent(pid) - began) / count * 1e6
                print(f"{name:<20} {idle:6.1f} MiB idle  {each:6.0f} µs a request  {count / SECONDS:6.0f} requests/s")
            finally:
                app.stop()


def main() -> None:
    """Print the rows."""
    for name, (contract, may) in KINDS.items():
        measure(name, contract, may)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        main()
