"""Where a row plays: a folder, ports, the certificates that a real CA has issued, and the back end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from certs.enrolment import Enrolment
from certs.keys import key_to_pem
from certs.svid import X509Svid
from sidecar.identity.answers import Issued
from sidecar.identity.ca_client import Trust, connect
from sidecar.identity.enrol import enrol
from sidecar.identity.state import StateFolder
from sidecar.net.clock import SystemClock
from tests.bench.rows import Row
from tests.kit.fleet import Fleet
from tests.kit.free_ports import Ports

SERVER, CLIENT = "orders", "web"


@dataclass
class Scene:
    """What every contestant of a row is told."""

    row: Row
    folder: Path
    backend: int
    ports: Ports = field(default_factory=Ports)

    def file(self, name: str) -> Path:
        """A file of this row."""
        return self.folder / name

    def entry(self, name: str) -> int:
        """Where the load calls this contestant."""
        return self.inbound(name) if self.row.hops == 1 else int(getattr(self.ports, f"{name}_out"))

    def inbound(self, name: str) -> int:
        """Where this contestant listens with mTLS."""
        return int(getattr(self.ports, f"{name}_in"))

    @property
    def root(self) -> Path:
        """The trust bundle's root as PEM."""
        return self.file("root.pem")

    def chain(self, who: str) -> Path:
        """A certificate chain, leaf first, as PEM."""
        return self.file(f"{who}.chain.pem")

    def key(self, who: str) -> Path:
        """Its key."""
        return self.file(f"{who}.key.pem")

    def both(self, who: str) -> Path:
        """Chain and key in one file, as haproxy wants them."""
        return self.file(f"{who}.both.pem")

    def client_tls(self) -> tuple[str, ...]:
        """The load's options for mTLS: none where it calls in plaintext."""
        if self.row.hops == 2:
            return ()
        shown = ("--certificate", str(self.chain(CLIENT)), "--key", str(self.key(CLIENT)), "--root", str(self.root))
        alpn = "h2" if self.row.work.streams else "http/1.1"
        return (*shown, "--alpn", alpn if self.row.shape == "http" else "none")

    def fetch_certificates(self, fleet: Fleet) -> None:
        """Enrol with the fleet's CA for the server's and the client's identity, as a sidecar does."""
        for who in (SERVER, CLIENT):
            issued = trio.run(_enrol, fleet, who, self.folder / f"enrolled-{who}")
            self._write(who, issued.svid)
            self.root.write_bytes(b"".join(root.public_bytes(Encoding.PEM) for root in issued.bundle.roots))

    def _write(self, who: str, svid: X509Svid) -> None:
        key = key_to_pem(svid.key, None)
        for path, data in (
            (self.chain(who), svid.chain_pem()), (self.key(who), key), (self.both(who), svid.chain_pem() + key)
        ):  # fmt: skip
            path.touch(mode=0o600)
            path.write_bytes(data)


async def _enrol(fleet: Fleet, who: str, state: Path) -> Issued:
    enrolment = Enrolment.load(fleet.enrolment(who))
    trust = Trust(enrolment.trust_domain, pins=enrolment.root_sha256)
    async with await connect(fleet.ca_address, trust, None, SystemClock()) as session:
        return await enrol(session, enrolment, StateFolder(state, enrolment))
