"""Strangers on the mesh port: a TLS client and a TLS server of plain pyOpenSSL that show whatever a test gives them.

They share no code with the sidecar's own TLS, so that what they saw is what anybody would see.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from certs.svid import X509Svid

PATIENCE = 10.0
REQUEST = b"GET /orders/7 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """What a caller saw of the sidecar's answer."""

    end: str  # alert, close_notify, eof, reset
    alert: str = ""  # OpenSSL's words for the alert, "certificate required" say
    answer: bytes = b""
    group: str = ""
    version: str = ""

    @property
    def status(self) -> int:
        """The HTTP status of the answer; 0 where there was none."""
        return int(self.answer.split(b" ", 2)[1]) if self.answer.startswith(b"HTTP/1.1 ") else 0

    @property
    def headers(self) -> dict[str, str]:
        """The header fields of the answer."""
        lines = self.answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def json(self) -> Any:
        """The body of the answer."""
        return json.loads(self.answer.partition(b"\r\n\r\n")[2])


def context_of(
    svid: X509Svid | None,
    roots: Sequence[x509.Certificate] = (),
    *,
    newest: int = SSL.TLS1_3_VERSION,
    ciphers: bytes = b"",
) -> SSL.Context:
    """A context that shows this identity and trusts these roots (anybody, where there are none)."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(newest)
    if ciphers:
        context.set_cipher_list(ciphers)
    if roots:
        from OpenSSL import crypto

        store = context.get_cert_store()
        assert store is not None
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *it: bool(it[-1]))
    if svid is not None:
        context.use_certificate(svid.leaf)
        context.use_privatekey(svid.key)
        for certificate in svid.chain[1:]:
            context.add_extra_chain_cert(certificate)
    return context


def call(
    port: int,
    svid: X509Svid | None,
    *,
    request: bytes = REQUEST,
    context: SSL.Context | None = None,
    pause: float = 0.0,
    keep: Callable[[SSL.Connection], None] | None = None,
) -> Seen:
    """Make a TLS call as this identity (None: as nobody), send the request, and read to the end.

    `pause` is how long this caller rests between sending and reading.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _seconds(PATIENCE))
    connection = SSL.Connection(context or context_of(svid), sock)
    connection.set_connect_state()
    pieces: list[bytes] = []
    facts: dict[str, Any] = {}
    try:
        try:
            connection.do_handshake()
            facts = {
                "group": connection.get_group_name() or "",
                "version": connection.get_protocol_version_name(),
            }
            connection.sendall(request)
            if pause:
                time.sleep(pause)
            while True:
                pieces.append(connection.recv(65536))
        finally:
            if keep is not None:
                keep(connection)
    except SSL.ZeroReturnError:
        return Seen("close_notify", answer=b"".join(pieces), **facts)
    except SSL.SysCallError as error:
        return Seen("reset" if error.args[0] in (104, 32) else "eof", answer=b"".join(pieces), **facts)
    except SSL.Error as error:
        return Seen(*_why(error), answer=b"".join(pieces), **facts)
    finally:
        sock.close()


def plain(port: int, data: bytes, *, finish: bool = False) -> bytes | None:
    """Send bytes without TLS and read to the end; None where the connection was reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        try:
            sock.sendall(data)
            if finish:
                sock.shutdown(socket.SHUT_WR)
            pieces = []
            while piece := sock.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            return None
        return b"".join(pieces)


def _why(error: SSL.Error) -> tuple[str, str]:
    reasons = [str(entry[-1]) for entry in error.args[0]] if error.args else []
    for reason in reasons:
        _, found, alert = reason.partition("alert ")
        if found:
            return "alert", alert
    return ("eof" if any("eof" in reason for reason in reasons) else "error"), "; ".join(reasons)


def _seconds(value: float) -> bytes:
    import struct

    return struct.pack("ll", int(value), 0)


Serve = Callable[[SSL.Connection], None]


def answer_ok(connection: SSL.Connection) -> None:
    """Read one request and answer it."""
    while b"\r\n\r\n" not in connection.recv(65536):
        pass
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    connection.shutdown()


@dataclass
class Stranger:
    """A server on a port of the mesh that is no sidecar of ours. A context manager; it counts what comes."""

    port: int
    context: SSL.Context | None  # None: plain TCP
    serve: Callable[[Any], None] = answer_ok
    drain: bool = False  # after a failed handshake let the alert arrive: send FIN, and read to the end
    connections: int = 0
    handshakes: int = 0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Stranger:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _seconds(PATIENCE))
            try:
                if self.context is None:
                    self.serve(sock)
                    continue
                connection = SSL.Connection(self.context, sock)
                connection.set_accept_state()
                connection.do_handshake()
                self.handshakes += 1
                self.serve(connection)
            except SSL.Error as error:
                self.failures.append(" ".join(_why(error)))
                if self.drain:
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):
                            pass
            except OSError as error:
                self.failures.append(str(error))
            finally:
                sock.close()
