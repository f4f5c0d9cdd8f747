"""A syslog receiver over TLS (RFC 5425): a process of its own, so that it can be killed in the middle of a message.

    python tests/kit/syslog_receiver.py PORT CERTIFICATE_AND_KEY OUT [LIMIT]

Prints `ready`; writes each whole message to OUT on a line of its own, and dies by SIGKILL after LIMIT bytes of a
connection were read.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import BinaryIO


def serve(port: int, pem: str, out: Path, limit: int) -> None:
    """Serve one connection after another, until somebody ends us."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        while True:
            raw, _ = listener.accept()
            try:
                with context.wrap_socket(raw, server_side=True) as connection, out.open("ab") as file:
                    receive(connection, file, limit)
            except OSError:
                continue


def receive(connection: ssl.SSLSocket, file: BinaryIO, limit: int) -> None:
    """Take messages until the other end ends."""
    data, total = b"", 0
    while piece := connection.recv(2000):
        data += piece
        total += len(piece)
        if limit and total >= limit:
            os.kill(os.getpid(), signal.SIGKILL)
        while b" " in data:
            length, _, rest = data.partition(b" ")
            size = int(length)
            if len(rest) < size:
                break
            file.write(rest[:size] + b"\n")
            file.flush()
            data = rest[size:]


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
