"""TLS on the reactor: pyOpenSSL directly on the non-blocking socket, behind one adapter.

OpenSSL owns the socket here; there is no memory BIO and no copy in between. Two facts shape the code:

- `recv_into` gives at most one record (16 KiB) a call, and our buffer is larger than a record. So OpenSSL never holds
  back decrypted bytes that epoll would not tell us of, and a level-triggered event means that a read is worth trying.
- In TLS 1.3 a read may want to write (a key update) and the peer's verdict on a client certificate arrives *after*
  the client's handshake has ended: as an alert in place of the first byte of data. `AlertReceived` keeps that apart
  from an ordinary reset, because it means "you are not who I talk to", and nothing may be sent again (decision D18).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import SSL

from sidecar.hop import TlsInfo
from sidecar.net.port import Wire, WireBroken
from sidecar.net.tls_errors import tls_error
from sidecar.net.wires import EpollWire

if TYPE_CHECKING:
    from sidecar.net.wires import SocketWire


class TlsBroken(WireBroken):
    """TLS found something wrong. `reason` is short and stable, see `sidecar.net.tls_errors`."""

    name = "tls_broken"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class AlertReceived(TlsBroken):
    """The other side refused us with a TLS alert."""

    name = "tls_alert"


class TlsWire(EpollWire):
    """A TLS connection on a socket. Takes the plain wire's socket over."""

    __slots__ = ("connection", "ended", "established", "finished")

    def __init__(self, plain: SocketWire, context: SSL.Context, *, server: bool, server_name: str = "") -> None:
        reactor, sock = plain.reactor, plain.sock
        reactor.unwatch(plain)
        plain.closed = True  # the socket is ours now
        self.connection = SSL.Connection(context, sock)
        self.established = False
        self.finished = False  # our close_notify has been sent
        self.ended = False  # theirs has been read; what follows it on the socket is no longer for us
        if server:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()
            if server_name:
                self.connection.set_tlsext_host_name(server_name.encode("ascii"))
        super().__init__(reactor, sock)

    async def handshake(self) -> None:
        """Run the handshake. Raises TlsBroken."""
        connection = self.connection
        while True:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                await self._readable()
            except SSL.WantWriteError:
                await self._writable()
            except (SSL.Error, OSError) as error:
                raise self._broken(error) from None
            else:
                self.established = True
                return
            if self.closed:
                raise WireBroken("closed by ourselves")

    async def read(self, beside: Wire | None = None) -> bytes:
        """The next bytes, or `b""` after the other side's close_notify."""
        assert beside is None or isinstance(beside, EpollWire)
        reactor = self.reactor
        connection = self.connection
        if self.ended:
            return b""
        while True:
            await self._readable(beside)
            if self.closed:
                raise WireBroken("closed by ourselves")
            try:
                count = connection.recv_into(reactor.buffer)
            except SSL.WantReadError:
                continue
            except SSL.ZeroReturnError:
                self.ended = True
                return b""
            except SSL.WantWriteError:
                await self._writable()
                continue
            except (SSL.Error, OSError) as error:
                raise self._broken(error) from None
            self.received += count
            return bytes(reactor.view[:count])

    async def write(self, data: bytes) -> None:
        """Send all of it, waiting where the other side is slow."""
        connection = self.connection
        rest: bytes | memoryview = data
        while rest:
            if self.closed:
                raise WireBroken("closed by ourselves")
            try:
                count = connection.send(rest)
            except SSL.WantWriteError:
                await self._writable()
                continue
            except SSL.WantReadError:
                await self._readable()
                continue
            except (SSL.Error, OSError) as error:
                raise self._broken(error) from None
            self.sent += count
            if count == len(rest):
                return
            rest = memoryview(rest)[count:]

    async def finish(self) -> None:
        """Send close_notify; reading goes on (RFC 8446 section 6.1: each direction ends by itself)."""
        while not self.closed and not self.finished:
            try:
                self.connection.shutdown()
            except SSL.WantWriteError:
                await self._writable()
            except (SSL.Error, OSError):
                return
            else:
                self.finished = True

    def close(self) -> None:
        """Send close_notify if there is room for it, and close."""
        if not self.closed:
            if self.established and not self.finished and not self.reset:
                try:
                    self.connection.shutdown()
                except (SSL.Error, OSError):
                    pass
            EpollWire.close(self)

    def _broken(self, error: Exception) -> WireBroken:
        if isinstance(error, SSL.SysCallError) and error.args[0] > 0:
            return WireBroken(os.strerror(error.args[0]))
        if not isinstance(error, SSL.Error):
            return WireBroken(getattr(error, "strerror", None) or "reset")
        known = tls_error(error, self.connection)
        kind = AlertReceived if known.alert else TlsBroken
        return kind(known.reason, known.detail)

    # ---- what the handshake found -------------------------------------------------------------------------------

    def peer_chain(self) -> list[x509.Certificate]:
        """The path that OpenSSL found, from the other side's leaf to one of our roots; empty where it showed none.

        Raises ValueError or x509.InvalidVersion for one that OpenSSL accepts and `cryptography` cannot read.
        """
        return self.connection.get_verified_chain(as_cryptography=True) or []

    def facts(self, leaf: x509.Certificate) -> TlsInfo:
        """What the handshake agreed on."""
        connection = self.connection
        return TlsInfo(
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            group=connection.get_group_name() or "",
            serial=f"{leaf.serial_number:x}",
            not_after=leaf.not_valid_after_utc.timestamp(),
            not_before=leaf.not_valid_before_utc.timestamp(),
        )
