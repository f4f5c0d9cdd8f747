"""TLS toward a third party (`outbound[].tls`): judged by name and certificate, as on the web, and by pins.

Our certificate of the mesh never appears in it, and its roots are never those of the mesh. TLS 1.2 with AEAD suites at
least (RFC 9325). OpenSSL builds and checks the path, the name is checked here afterwards, and so are the pins. A
context is made of files, and made anew when they change: connections keep the one they began with.
"""

from __future__ import annotations

import base64
import ssl
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from certs.errors import MeshError
from certs.store import read_key
from sidecar.errors import HandshakeFailed
from sidecar.net.contexts import make_context
from sidecar.net.https import SYSTEM_ROOTS
from sidecar.net.mtls import ALPN_H2, ALPN_HTTP
from sidecar.net.port import Expired, WireBroken
from sidecar.net.tls import TlsBroken, TlsWire
from sidecar.net.web_names import is_for
from sidecar.net.wires import SocketWire

if TYPE_CHECKING:
    from cryptography import x509

    from sidecar.config.schema_egress import OutboundTls
    from sidecar.hop import TlsInfo
    from sidecar.net.port import Port, Wire

LOOK_SECONDS: Final = 2.0  # between two looks at the files
SYSTEM: Final = ("", "system")
_Facts = tuple[tuple[str, int, int, int], ...]


class WebTls:
    """The client's side of TLS toward one host. `host` is its name where `spec` has none."""

    def __init__(self, spec: OutboundTls, host: str) -> None:
        self._spec = spec
        self._name = spec.name or host
        self._contexts: dict[tuple[bytes, ...], SSL.Context] = {}
        self._seen: _Facts = ()
        self._looked = -LOOK_SECONDS

    async def connect(
        self, port: Port, wire: Wire, *, http: bool, h2: bool, within: float
    ) -> tuple[Wire, TlsInfo]:
        """Shake hands. Raises HandshakeFailed; the wire is closed then."""
        assert isinstance(wire, SocketWire)
        try:
            context = self._context(port.now, ALPN_H2 if h2 else ALPN_HTTP if http else ())
        except HandshakeFailed:
            wire.close()
            raise
        secure = TlsWire(wire, context, server=False, server_name="" if _is_address(self._name) else self._name)
        try:
            port.deadline(port.now + within)
            try:
                await secure.handshake()
            except TlsBroken as error:
                raise HandshakeFailed(error.detail, error.reason) from None
            except Expired:
                raise HandshakeFailed(f"no handshake within {within:g} s", "handshake_timeout") from None
            except WireBroken as error:
                raise HandshakeFailed(f"the host left during the handshake: {error}", "reset") from None
            return secure, self._judge(secure, h2=h2)
        except BaseException:
            secure.close()
            raise

    def _judge(self, secure: TlsWire, *, h2: bool) -> TlsInfo:
        try:
            chain = secure.peer_chain()
            if not chain:
                raise HandshakeFailed("the host showed no certificate", "no_certificate")
            good, pinned = is_for(chain[0], self._name), not self._spec.pins or self._has_pin(chain)
            facts = secure.facts(chain[0])
        except ValueError as error:
            raise HandshakeFailed(f"its certificate cannot be read: {error}", "malformed") from None
        if not good:
            raise HandshakeFailed(f"its certificate is not for {self._name}", "wrong_name")
        if not pinned:
            raise HandshakeFailed("no key of its chain is one of the pins (tls.pins)", "pin")
        if h2 and facts.alpn != "h2":
            raise HandshakeFailed("the host does not speak HTTP/2, which is needed here", "alpn")
        return facts

    def _has_pin(self, chain: list[x509.Certificate]) -> bool:
        """RFC 7469 section 2.4: SHA-256 of the SubjectPublicKeyInfo, anywhere in the path that was found."""
        keys = (each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in chain)
        return any(f"sha256/{base64.b64encode(sha256(key).digest()).decode()}" in self._spec.pins for key in keys)

    # ---- contexts --------------------------------------------------------------------------------------------------

    def _context(self, now: float, alpn: tuple[bytes, ...]) -> SSL.Context:
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            seen = self._facts()
            if seen != self._seen:
                self._contexts.clear()
                self._seen = seen
        found = self._contexts.get(alpn)
        if found is None:
            try:
                found = self._contexts[alpn] = self._make(alpn)
            except (SSL.Error, OSError, ValueError, MeshError) as error:
                self._looked = -LOOK_SECONDS
                what = str(error) if isinstance(error, OSError | MeshError) else "they are no PEM that OpenSSL can read"
                raise HandshakeFailed(f"the files of its TLS cannot be used: {what}", "files") from None
        return found

    def _files(self) -> list[str]:
        roots = "" if self._spec.roots in SYSTEM else self._spec.roots
        return [path for path in (roots, self._spec.certificate, self._spec.key) if path]

    def _facts(self) -> _Facts:
        """By which a change of the files is known."""
        found = []
        for path in self._files():
            try:
                stat = Path(path).stat()
                found.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append((path, 0, 0, 0))
        return tuple(found)

    def _make(self, alpn: tuple[bytes, ...]) -> SSL.Context:
        context = make_context(None, (), server=False, verify="require", alpn=alpn, tls12=True)
        context.load_verify_locations(_system_roots() if self._spec.roots in SYSTEM else self._spec.roots)
        if self._spec.certificate:
            read_key(Path(self._spec.key))  # nobody else may read it
            context.use_certificate_chain_file(self._spec.certificate)
            context.use_privatekey_file(self._spec.key)
            context.check_privatekey()
        return context


def _system_roots() -> str:
    """Raises OSError."""
    for path in (ssl.get_default_verify_paths().cafile or "", *SYSTEM_ROOTS):
        if path and Path(path).is_file():
            return path
    raise OSError("this machine has no file of roots; name one in tls.roots")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
