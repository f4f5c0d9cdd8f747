"""TLS as a trio stream, over any other trio stream: for the slow paths (the CA, its clients, tests).

OpenSSL reads and writes two memory BIOs. `_pump` runs one OpenSSL call, carries what OpenSSL wrote to the transport,
and when OpenSSL wants more, feeds it from the transport and calls again. Rules that keep two tasks (one sending, one
receiving) out of each other's way:

* only the receiving side, or the handshake, ever reads the transport. There is no renegotiation for `send_all`;
* whatever OpenSSL wrote leaves in order: bytes are taken from the BIO only by whoever holds the send lock, and a sender
  encrypts under it. A receiver that finds it taken goes on, for the holder sends until the BIO is empty; a receiver
  that waited for a sender, or sent a sender's bytes, could deadlock two full pipes;
* the handshake runs once, under a lock; whoever comes first runs it.

The end of the transport without the peer's close_notify is an error (`truncated`), never an end of data: an attacker
who can cut a wire must not be able to shorten what was said (RFC 8446 section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio
from cryptography import x509
from OpenSSL import SSL

from sidecar.net.tls_errors import TlsError, tls_error

READ_BYTES = 64 * 1024
WRITE_BYTES = 256 * 1024  # plaintext encrypted at one go
CLOSE_SECONDS = 2.0  # how long a close waits for a peer that does not read before close_notify is given up

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What the handshake agreed on."""

    version: str  # "TLSv1.3"
    cipher: str
    group: str  # "X25519MLKEM768"
    alpn: bytes


class TlsStream(trio.abc.Stream):
    """One TLS connection. Raises TlsError (a MeshError and a trio.BrokenResourceError) for whatever TLS finds wrong."""

    def __init__(
        self, transport: trio.abc.Stream, context: SSL.Context, *, server: bool, server_name: str = ""
    ) -> None:
        self.transport = transport
        self._connection = SSL.Connection(context, None)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
            if server_name:
                self._connection.set_tlsext_host_name(server_name.encode("ascii"))
        self._established = False
        self._broken: TlsError | None = None
        self._closed = False
        self._receiving = False
        self._sending = False
        self._handshake_lock = trio.Lock()
        self._send_lock = trio.Lock()

    async def do_handshake(self) -> None:
        """Agree on keys and judge the peer's chain. Safe to call again. Raises TlsError."""
        async with self._handshake_lock:
            self._check_usable()
            if not self._established:
                try:
                    await self._pump(self._connection.do_handshake)
                except _Ended:
                    raise TlsError("closed", "the peer ended TLS in the middle of the handshake") from None
                self._established = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, with a handshake first where none was made. Raises TlsError, trio's stream errors."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this TLS stream")
        self._sending = True
        try:
            await self._ready()
            view = memoryview(data).cast("B")
            for start in range(0, len(view), WRITE_BYTES):
                await self._send_piece(view[start : start + WRITE_BYTES])
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport might take more."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this TLS stream")
        self._sending = True
        try:
            self._check_usable()
            await self.transport.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or none after the peer's close_notify. Raises TlsError, trio's stream errors."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this TLS stream")
        self._receiving = True
        try:
            await self._ready()
            return await self._pump(lambda: self._connection.recv(max_bytes or READ_BYTES))
        except _Ended:
            return b""
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        """Tell the peer that we are done (close_notify), then close the transport."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        established = self._established and self._broken is None
        self._closed = True
        try:
            if established:
                with trio.move_on_after(CLOSE_SECONDS):
                    await self._say_goodbye()
        finally:
            await self.transport.aclose()

    def peer_chain(self) -> tuple[x509.Certificate, ...]:
        """The certificates that the peer sent, leaf first; empty where it sent none. Raises TlsError (`malformed`)."""
        try:
            chain = self._connection.get_peer_cert_chain(as_cryptography=True) or []
            leaf = self._connection.get_peer_certificate(as_cryptography=True)
        except (ValueError, x509.InvalidVersion) as error:  # OpenSSL reads some certificates that cryptography will not
            raise TlsError("malformed", f"the peer shows a certificate that cannot be read: {error}") from error
        if leaf is not None and (not chain or chain[0] != leaf):
            chain.insert(0, leaf)  # OpenSSL leaves the leaf out of this list where the peer is a client
        return tuple(chain)

    def facts(self) -> TlsFacts:
        """What the handshake agreed on; call it after the handshake."""
        connection = self._connection
        return TlsFacts(
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            group=connection.get_group_name() or "",
            alpn=connection.get_alpn_proto_negotiated(),
        )

    async def _ready(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_usable()
        if not self._established:
            await self.do_handshake()

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this TLS stream was closed")
        if self._broken is not None:
            raise TlsError(self._broken.reason, self._broken.detail, self._broken.alert)

    def _call(self, operation: Callable[[], T]) -> T:
        """One OpenSSL call, its errors translated. WantReadError passes through."""
        try:
            return operation()
        except SSL.WantReadError:
            raise
        except SSL.ZeroReturnError:
            raise _Ended from None
        except SSL.Error as error:
            self._broken = tls_error(error, self._connection)
            raise self._broken from error

    async def _pump(self, operation: Callable[[], T]) -> T:
        """Run `operation` until it needs nothing more from the transport, and send what it has to say."""
        while True:
            try:
                result = self._call(operation)
            except SSL.WantReadError:
                await self._flush()
                await self._feed()
            except TlsError:
                await self._flush_alert()
                raise
            else:
                await self._flush()
                return result

    async def _feed(self) -> None:
        data = bytes(await self.transport.receive_some(READ_BYTES))
        if self._closed:
            raise trio.ClosedResourceError("this TLS stream was closed")
        if data:
            self._connection.bio_write(data)
        else:
            self._connection.bio_shutdown()

    async def _send_piece(self, piece: memoryview) -> None:
        async with self._send_lock:
            self._check_usable()
            self._call(lambda: self._connection.sendall(piece))
            await self._transmit()

    async def _flush(self) -> None:
        """Carry what OpenSSL wrote while receiving or shaking hands, unless a sender is at it and will."""
        if not self._send_lock.locked():
            self._send_lock.acquire_nowait()
            try:
                await self._transmit()
            finally:
                self._send_lock.release()

    async def _transmit(self) -> None:
        """Send until OpenSSL has nothing left; the send lock is held."""
        while data := self._written():
            try:
                await self.transport.send_all(data)
            except trio.BrokenResourceError as error:
                if not self._established:
                    return  # the peer may have said why before it left
                self._broken = TlsError("closed", "the peer closed the connection")
                raise self._broken from error
            except trio.Cancelled:
                self._broken = TlsError("cancelled", "sending was cancelled in the middle of a TLS record")
                raise

    async def _flush_alert(self) -> None:
        """Send our alert, so that the peer learns why. It may be gone already, and that is no news."""
        with trio.move_on_after(CLOSE_SECONDS):
            try:
                async with self._send_lock:
                    if data := self._written():
                        await self.transport.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass

    def _written(self) -> bytes:
        try:
            return self._connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""

    async def _say_goodbye(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error:
            return
        await self._flush_alert()


class _Ended(Exception):
    """The peer's close_notify."""
