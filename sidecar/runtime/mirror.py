"""A handshake with ourselves, over our own listener: what callers are really shown (pain 10 of the field).

That the CA has issued a certificate, and that we hold it, proves nothing: proxies have served old leaves, or trusted
old roots, for days after a rotation that had "worked". So we connect to each inbound listener by loopback, as a peer of
our own identity would, and look at the chain that comes back. The connection goes through the very socket, gate and
contexts that peers meet. It is known by its source address, which we bind beforehand, and is neither counted nor
recorded, nor does it take anybody's place.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from certs.errors import MeshError
from certs.svid import X509Svid
from sidecar.errors import HopError
from sidecar.net.contexts import make_context
from sidecar.net.port import Expired
from sidecar.net.preamble import is_sender, proxy_header
from sidecar.net.tls_stream import TlsStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509

    from sidecar.config.schema_inbound import Inbound
    from sidecar.net.mtls import Gate
    from sidecar.net.reactor import Reactor
    from sidecar.net.wires import SocketWire

PATIENCE = 5.0  # seconds for connection and handshake
# The PROXY protocol, version 2, command LOCAL: "this connection is the sender's own" (section 2.2).
_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

Source = tuple[str, int]


class CannotLook(MeshError):
    """The handshake with ourselves did not come about, so nothing is known."""

    name = "cannot_look"


@dataclass(frozen=True, slots=True)
class Shown:
    """What one listener showed."""

    chain: tuple[x509.Certificate, ...]
    refused: str  # why it would not have us, who show the same certificate; empty where it would


class Mirror:
    """Both ends of such handshakes: `look` dials, and the proxy hands over to `serve` what `is_ours`."""

    def __init__(self) -> None:
        self._ours: dict[Source, str | None] = {}  # by the dialling end; None until the serving end has its verdict
        self._asked: dict[Source, Inbound] = {}  # which listener it looks at
        self.capture: int | None = None  # the port where all listeners are reached that bind none of their own

    @property
    def looking(self) -> bool:
        """Whether any connection may be ours at this moment."""
        return bool(self._ours)

    def is_ours(self, source: Source) -> bool:
        """Whether we made the connection that comes from there."""
        return source in self._ours

    @contextmanager
    def expecting(self, source: Source) -> Iterator[None]:
        """Meanwhile a connection from there is one of ours: no caller's, and not to be counted."""
        self._ours[source] = ""
        try:
            yield
        finally:
            self._ours.pop(source, None)

    def asked(self, source: Source) -> Inbound | None:
        """The listener that our connection from there means; None where it is only to be seen where it arrives."""
        return self._asked.get(source)

    async def serve(self, reactor: Reactor, gate: Gate, wire: SocketWire, spec: Inbound) -> None:
        """Be the listener."""
        source = wire.peer_address()
        refused = "it ended the connection"
        try:
            reactor.deadline(reactor.now + PATIENCE)
            if spec.proxy_protocol is not None:
                await proxy_header(wire, spec.proxy_protocol, ipaddress.ip_address(source[0]), PATIENCE)
            secure, _ = await gate.accept(reactor, wire, http=spec.protocol != "tcp", within=PATIENCE)
            refused = ""
            self._settle(source, refused)
            secure.close()
        except (HopError, Expired) as error:
            refused = str(error)
        finally:
            self._settle(source, refused)
            wire.close()

    def _settle(self, source: Source, refused: str) -> None:
        if source in self._ours and self._ours[source] is None:
            self._ours[source] = refused

    async def look(self, spec: Inbound, svid: X509Svid) -> Shown:
        """What this listener shows to somebody with our identity. Raises CannotLook. The chain is not judged here."""
        host, port = (_loopback(spec.bind), spec.port) if self.capture is None else ("127.0.0.1", self.capture)
        sock = trio.socket.socket(_family(host), socket.SOCK_STREAM)
        source: Source | None = None
        try:
            with trio.fail_after(PATIENCE):
                await sock.bind((host, 0))
                source = sock.getsockname()[:2]
                self._ours[source], self._asked[source] = None, spec
                await sock.connect((host, port))
                return await self._shake_hands(trio.SocketStream(sock), spec, svid, source)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            raise CannotLook(f"listener {spec.name}: {str(error) or 'it did not answer in time'}") from error
        finally:
            sock.close()
            if source is not None:
                self._ours.pop(source, None)
                self._asked.pop(source, None)

    async def _shake_hands(
        self, transport: trio.SocketStream, spec: Inbound, svid: X509Svid, source: Source
    ) -> Shown:
        if spec.proxy_protocol is not None and is_sender(spec.proxy_protocol, ipaddress.ip_address(source[0])):
            await transport.send_all(_LOCAL)
        stream = TlsStream(transport, make_context(svid, (), server=False, verify="none"), server=False)
        await stream.do_handshake()
        chain = stream.peer_chain()
        try:
            await stream.receive_some()  # its end: by then the other side has judged us
        except trio.BrokenResourceError:
            pass
        refused = self._ours.get(source)
        return Shown(tuple(chain), "it gave no verdict" if refused is None else refused)


def _family(bind: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(bind).version == 6 else socket.AF_INET


def _loopback(bind: str) -> str:
    """Where we reach what listens on this address."""
    address = ipaddress.ip_address(bind)
    if not address.is_unspecified:
        return bind
    return "::1" if address.version == 6 else "127.0.0.1"
