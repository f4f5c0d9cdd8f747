"""TLS on the reactor: pyOpenSSL directly on the non-blocking socket, behind one adapter.

OpenSSL owns the socket here; there is no memory BIO and no copy in between. Two facts shape the code:

- A read gives at most one record (16 KiB) a call, and our buffer has room for one. So OpenSSL never holds back
  decrypted bytes that epoll would not tell us of, and a level-triggered event means that a read is worth trying.
- In TLS 1.3 a read may want to write (a key update) and the peer's verdict on a client certificate arrives *after*
  the client's handshake has ended: as an alert in place of the first byte of data. `AlertReceived` keeps that apart
  from an ordinary reset, because it means "you are not who I talk to", and nothing may be sent again (decision D18).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import SSL

from sidecar.hop import TlsInfo
from sidecar.net import openssl
from sidecar.net.port import WireBroken
from sidecar.net.tls_errors import tls_error
from sidecar.net.wires import NOTHING_YET, WANTS_TO_WRITE, EpollWire, _ours

if TYPE_CHECKING:
    from sidecar.net.wires import SocketWire


RECORD = 16 * 1024  # RFC 8446 section 5.1: the longest record
LARGE = 4 * 1024  # after a record of such a size another one may be here already


PeerKey = tuple[tuple[bytes, ...], str, str, str, bytes]


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

    __slots__ = ("_late", "connection", "established", "finished")

    def __init__(self, plain: SocketWire, context: SSL.Context, *, server: bool, server_name: str = "") -> None:
        reactor, sock = plain.reactor, plain.sock
        self.connection = SSL.Connection(context, sock)
        self.established = False
        self.finished = False  # our close_notify has been sent
        self._late: WireBroken | None = None  # what reads raise from now on
        if server:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()
            if server_name:
                self.connection.set_tlsext_host_name(server_name.encode("ascii"))
        super().__init__(reactor, sock, instead_of=plain)
        plain.closed = True  # the socket is ours now

    async def handshake(self) -> None:
        """Run the handshake. Raises TlsBroken."""
        connection = self.connection
        while True:
            try:
                if openssl.shake_hands(connection):
                    self.established = True
                    return
                await self._readable()
            except SSL.WantWriteError:
                await self._writable()
            except (SSL.Error, OSError) as error:
                raise self._broken(error) from None
            if self.closed:
                raise WireBroken("closed by ourselves")

    def _take(self, limit: int) -> int:
        """Read what is there into the shared buffer: one record, and where that was large, those that follow it."""
        if self.ended:
            if self._late is not None:
                raise self._late
            return 0
        buffer = self.reactor.buffer
        try:
            count = openssl.read(self.connection, buffer, limit)
        except SSL.WantReadError:
            return NOTHING_YET
        except SSL.ZeroReturnError:
            self.ended = True
            return 0
        except SSL.WantWriteError:
            return WANTS_TO_WRITE
        except (SSL.Error, OSError) as error:
            raise self._broken(error) from None
        more = count
        while more >= LARGE and limit - count >= RECORD:
            try:
                more = openssl.read_on(self.connection, buffer, count, limit)
            except SSL.ZeroReturnError:
                self.ended = True
                break
            except (SSL.Error, OSError) as error:
                self.ended, self._late = True, self._broken(error)  # what came before it counts
                break
            count += more
        return count

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it, waiting where the other side is slow."""
        connection = self.connection
        rest = data
        while rest:
            if self.closed:
                raise WireBroken("closed by ourselves")
            try:
                count = openssl.write(connection, rest)
            except SSL.WantWriteError:
                rest = _ours(rest, 0)
                await self._writable()
                continue
            except SSL.WantReadError:
                rest = _ours(rest, 0)
                await self._readable()
                continue
            except (SSL.Error, OSError) as error:
                raise self._late or self._broken(error) from None
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

    def cut(self, error: WireBroken) -> None:
        """End the connection from outside: the other side has its end at once, without close_notify, and whoever of
        ours uses it finds this error. Closing it is still theirs.
        """
        if self.closed:
            return
        self.ended, self._late = True, error
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for task in (self.reader, self.writer):
            if task is not None:
                task.wake()

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

    def peer_key(self) -> PeerKey:
        """What `peer_chain` and `facts` depend on beside our roots: the SHA-256 of each certificate of the path without
        its root, leaf first, and what was agreed on.
        """
        connection = self.connection
        return (
            openssl.chain_hashes(connection),
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            connection.get_group_name() or "",
            connection.get_alpn_proto_negotiated(),
        )

    def peer_chain(self) -> list[x509.Certificate]:
        """The path that OpenSSL found, from the other side's leaf to one of our roots; empty where it showed none.

        Raises ValueError or x509.InvalidVersion for one that OpenSSL accepts and `cryptography` cannot read.
        """
        return self.connection.get_verified_chain(as_cryptography=True) or []

    def facts(self, leaf: x509.Certificate) -> TlsInfo:
        """What the handshake agreed on."""
        _, version, cipher, group, alpn = self.peer_key()
        return TlsInfo(
            version=version,
            cipher=cipher,
            group=group,
            alpn=alpn.decode("ascii"),
            serial=f"{leaf.serial_number:x}",
            not_after=leaf.not_valid_after_utc.timestamp(),
            not_before=leaf.not_valid_before_utc.timestamp(),
        )
