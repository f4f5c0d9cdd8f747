"""The application of a soak: `python soak_app.py PORT` echoes, and spends as little time on it as it can.

GET /echo/NONCE answers `<NONCE>`, padded; a POST there answers with its body; both say in x-nonce what came with them,
just as tests/kit/echo_app.py does. Nothing else is known, and nothing is checked: the sidecar in front has done that.
"""

from __future__ import annotations

import select
import socket
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nx-nonce: %b\r\ncontent-length: %d\r\n\r\n%b"


def value(head: bytes, name: bytes) -> bytes:
    """Of a header, by its name in small letters with colon and blank, as the soak's callers write it."""
    at = head.find(b"\r\n" + name)
    return head[at + 2 + len(name) :].partition(b"\r\n")[0] if at >= 0 else b""


def answers(data: bytes) -> tuple[list[bytes], bytes]:
    """The answers to all whole requests in here, and what is left."""
    found = []
    while True:
        head, whole, rest = data.partition(b"\r\n\r\n")
        length = int(value(head, b"content-length: ") or 0)
        if not whole or len(rest) < length:
            return found, data
        path = head.split(b" ", 2)[1]
        body = rest[:length] if length else b"<%b>" % path.removeprefix(b"/echo/").ljust(30)
        found.append(ANSWER % (value(head, b"x-nonce: "), len(body), body))
        data = rest[length:]


def main(port: int) -> None:
    """Serve until killed."""
    door = socket.create_server(("127.0.0.1", port), backlog=1024)
    door.setblocking(False)
    epoll = select.epoll()
    epoll.register(door.fileno(), select.EPOLLIN)
    known: dict[int, tuple[socket.socket, bytes]] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == door.fileno():
                sock, _ = door.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                known[sock.fileno()] = (sock, b"")
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            sock, before = known[fd]
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                epoll.unregister(fd)
                del known[fd]
                sock.close()
                continue
            found, left = answers(before + data)
            known[fd] = (sock, left)
            if found:
                sock.sendall(b"".join(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
