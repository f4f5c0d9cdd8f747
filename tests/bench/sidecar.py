"""Our contestant: a sidecar's inbound hop with all defaults on, its certificates from the bench's own CA."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from certs.bundle import BundleSet, TrustBundle
from certs.keys import load_key
from certs.source import Source
from certs.spiffe import TrustDomain
from certs.svid import X509Svid, parse_chain
from sidecar.config.load import load_text
from sidecar.net.clock import SystemClock
from sidecar.net.mtls import MtlsGate
from sidecar.net.reactor import Reactor
from sidecar.runtime.build import Proxy
from sidecar.telemetry.log import Log
from sidecar.telemetry.setup import make_recorder, new_instance

CONFIG = """
trust_domain: demo.mesh
services:
  web: {{}}
  orders:
    inbound: [{{name: http, port: {port}, app: "127.0.0.1:{app}"}}]
    allow: [{{name: web-reads, from: web, method: GET, path: "/items/{{id}}"}}]
"""


async def main(folder: Path, port: int, app: int) -> None:
    service = load_text(CONFIG.format(port=port, app=app), "bench.yaml").services["orders"]
    clock, instance = SystemClock(), new_instance()
    recorder = make_recorder(service, instance=instance, state_dir=folder, log=Log(), clock=clock)
    reactor = Reactor(clock)
    svids: Source[X509Svid] = Source("SVID")
    bundles: Source[BundleSet] = Source("bundle")
    svids.publish(X509Svid.parse((folder / "chain.pem").read_bytes(), load_key(folder / "key.pem", None)))
    roots = parse_chain((folder / "root.pem").read_bytes())
    bundles.publish(BundleSet((TrustBundle(TrustDomain.parse("demo.mesh"), tuple(roots)),)))
    gate = MtlsGate(svids, bundles)
    proxy = Proxy(service, reactor=reactor, gate=gate, recorder=recorder, instance=instance)
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        nursery.start_soon(recorder.run)
        proxy.listen()
        await trio.sleep_forever()


trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
