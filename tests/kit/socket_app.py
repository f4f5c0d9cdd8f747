"""An application that speaks WebSocket: it echoes, and does as it is told."""

from __future__ import annotations

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection


def answer(socket: ServerConnection) -> None:
    """Echo; `close CODE REASON` closes with that code; `greet` was said before anybody asked."""
    if socket.request is not None and socket.request.path == "/greet":
        socket.send("the server speaks first")
    try:
        for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                socket.close(int(code), reason)
                return
            socket.send(message)
    except ConnectionClosed:
        pass
