"""A knock at a port from outside: does whoever is there talk without TLS, and who says they are there with it?

Four connections for each port. Three speak plaintext as a client would (and wait first, for servers that greet): HTTP,
PostgreSQL's question for TLS, Redis' inline PING. Any byte in answer that is no TLS record is plaintext. The fourth is
a TLS handshake without a certificate of ours, which shows the other side's.
"""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

CONNECT, GREETING, ANSWER = 2.0, 0.3, 1.5  # seconds
AT_ONCE = 16
PLAIN: Final[tuple[tuple[str, bytes], ...]] = (
    ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    ("PostgreSQL", bytes.fromhex("0000000804d2162f")),
    ("Redis", b"PING\r\n"),
)
_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")  # alert, handshake (RFC 8446 section 5.1)


def dial(targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Knock at each `{host, port}`; returns them with `answer` and what was seen. Blocks, a few seconds at most."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_knock, targets))


def _knock(target: dict[str, Any]) -> dict[str, Any]:
    """`answer` is plaintext, tls, silent, closed, refused or unreachable; `spoke` the first bytes, as text."""
    where = (str(target["host"]), int(target["port"]))
    answers = []
    for name, request in PLAIN:
        answer, seen = _speak(where, request)
        if answer == "plaintext":
            return {**target, "answer": answer, "spoke": seen[:40].decode("latin-1"), "asked": name}
        answers.append(answer)
        if answer in ("refused", "unreachable"):
            return {**target, "answer": answer}
    certificate = _handshake(where)
    if certificate:
        return {**target, "answer": "tls", "certificate": certificate.hex()}
    return {**target, "answer": next((each for each in ("tls", "silent") if each in answers), "closed")}


def _speak(where: tuple[str, int], request: bytes) -> tuple[str, bytes]:
    try:
        with socket.create_connection(where, CONNECT) as connection:
            greeting = _read(connection, GREETING)
            if greeting is None:
                connection.sendall(request)
                greeting = _read(connection, ANSWER)
    except ConnectionRefusedError:
        return "refused", b""
    except (ConnectionResetError, BrokenPipeError):
        return "closed", b""
    except OSError:
        return "unreachable", b""
    if not greeting:
        return "closed" if greeting == b"" else "silent", b""
    return ("tls" if greeting.startswith(_TLS_RECORDS) else "plaintext"), greeting


def _read(connection: socket.socket, seconds: float) -> bytes | None:
    """Some bytes, none at the end, None where there are none in this time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(256)
    except TimeoutError:
        return None


def _handshake(where: tuple[str, int]) -> bytes | None:
    """The certificate that is shown to a stranger (DER); nobody is believed here, it is only looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(where, CONNECT) as plain, context.wrap_socket(plain) as stream:
            return stream.getpeercert(binary_form=True)
    except OSError:  # ssl.SSLError is one
        return None
