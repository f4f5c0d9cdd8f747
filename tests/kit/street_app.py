"""An application that writes down whatever it executes, and closes connections as badly as its mood is.

    python street_app.py PORT LEDGER [MOOD [NUMBER]]

    /echo/NONCE is answered as by tests.kit.echo_app; a line "NONCE METHOD" goes into LEDGER before that, once for each
    time that it was done.

Moods, of which all but `good` befall a connection after NUMBER (3) answers:

    good      it keeps connections for ever
    quiet     it closes right after an answer, without having said `Connection: close`
    unread    it closes when the next request has arrived, without reading a byte of it: the kernel makes that a reset
    read      it reads the next request, does nothing and closes
    torn      it does what it is asked, sends half of the answer, and resets

A thread for each connection and blocking calls on purpose: what happens when is then in the order of the lines.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
import threading

LINGER_NONE = struct.pack("ii", 1, 0)  # close is a reset
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n")
_NONCE = re.compile(rb"(?i)\r\nx-nonce: *([^\r]*)\r\n")


class Gone(Exception):
    """The other side has closed."""


class Conversation:
    """One connection."""

    def __init__(self, connection: socket.socket, ledger: int, mood: str, number: int) -> None:
        self._connection = connection
        self._ledger = ledger
        self._mood = mood
        self._number = number
        self._have = b""

    def run(self) -> None:
        """Serve until somebody has had enough."""
        answered = 0
        with self._connection:
            try:
                while self._serve(due=self._mood != "good" and answered >= self._number):
                    answered += 1
                    if self._mood == "quiet" and answered >= self._number:
                        return
            except (Gone, ConnectionError):
                return

    def _serve(self, *, due: bool) -> bool:
        if due and self._mood == "unread":
            self._connection.recv(1, socket.MSG_PEEK)
            return False
        method, path, nonce, body = self._request()
        if due and self._mood == "read":
            return False
        os.write(self._ledger, nonce + b" " + method + b"\n")
        shown = body if method != b"GET" else b"<%-30s>" % path
        head = b"HTTP/1.1 200 OK\r\nx-method: %b\r\nx-path: %b\r\nx-nonce: %b\r\ncontent-length: %d\r\n\r\n"
        answer = head % (method, path, nonce, len(shown)) + shown
        if due and self._mood == "torn":
            self._connection.sendall(answer[: -len(shown) // 2])
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            return False
        self._connection.sendall(answer)
        return True

    def _request(self) -> tuple[bytes, bytes, bytes, bytes]:
        while (end := self._have.find(b"\r\n\r\n")) < 0:
            self._more()
        head = self._have[: end + 2]
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        length, nonce = _LENGTH.search(head), _NONCE.search(head)
        whole = end + 4 + (int(length[1]) if length else 0)
        while len(self._have) < whole:
            self._more()
        body, self._have = self._have[end + 4 : whole], self._have[whole:]
        return method, target.rpartition(b"/")[2], nonce[1] if nonce else b"", body

    def _more(self) -> None:
        data = self._connection.recv(1 << 16)
        if not data:
            raise Gone
        self._have += data


def main(port: int, ledger: str, mood: str = "good", number: int = 3) -> None:
    book = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conversation = Conversation(connection, book, mood, number)
            threading.Thread(target=conversation.run, daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *sys.argv[3:4], *(int(each) for each in sys.argv[4:5]))
