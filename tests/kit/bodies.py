"""Bodies of any size through a door, made and checked piece by piece: this process stays small too."""

from __future__ import annotations

import hashlib
import json
import socket
import time

from tests.kit.fleet import Fleet

PIECE = bytes(range(256)) * 1024  # 256 KiB; the echo application sends the same pattern
PATIENCE = 60.0


def pids(fleet: Fleet) -> dict[str, int]:
    """The process of each sidecar that runs."""
    return {name: sidecar.process.pid for name, sidecar in fleet.sidecars.items() if sidecar._process is not None}


def upload(port: int, size: int, *, path: str = "/sink") -> float:
    """Send so many bytes; the application's own count and SHA-256 must be ours. Returns seconds."""
    began, digest = time.monotonic(), hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nhost: app\r\ncontent-length: {size}\r\n\r\n".encode())
        left = size
        while left:
            piece = PIECE[: min(left, len(PIECE))]
            sock.sendall(piece)
            digest.update(piece)
            left -= len(piece)
        head, body = _answer(sock)
    assert head.startswith(b"HTTP/1.1 200 "), head
    seen = json.loads(body)
    assert seen["length"] == size
    assert seen["sha256"] == digest.hexdigest()
    return time.monotonic() - began


def download(port: int, size: int) -> float:
    """Fetch so many bytes; each must be the right one. Returns seconds."""
    began, expected, found = time.monotonic(), hashlib.sha256(), hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(f"GET /bytes/{size} HTTP/1.1\r\nhost: app\r\n\r\n".encode())
        reader = sock.makefile("rb", buffering=len(PIECE))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        assert head.startswith(b"HTTP/1.1 200 "), head
        left = size
        while left:
            piece = reader.read(min(left, len(PIECE)))
            assert piece, f"{left} bytes are missing"
            found.update(piece)
            expected.update(PIECE[: len(piece)])
            left -= len(piece)
    assert found.digest() == expected.digest()
    return time.monotonic() - began


def _answer(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += _some(sock)
    return head, body


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    assert data, "the connection ended early"
    return data
