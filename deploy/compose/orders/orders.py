"""Orders: counts visits in Redis, keeps orders in PostgreSQL, and knows nothing of the mesh around it."""

import http.server
import os
import socket
import struct
import urllib.parse

REDIS = urllib.parse.urlsplit(os.environ["REDIS_URL"])
DATABASE = urllib.parse.urlsplit(os.environ["DATABASE_URL"])


def visits() -> int:
    with socket.create_connection((REDIS.hostname, REDIS.port), 5) as redis:
        redis.sendall(b"INCR visits\r\n")
        return int(redis.makefile("rb").readline()[1:])


def query(sql: str) -> str:
    """The first value of the first row; PostgreSQL's protocol 3.0, as far as that needs."""
    with socket.create_connection((DATABASE.hostname, DATABASE.port), 5) as wire, wire.makefile("rb") as stream:
        name = DATABASE.path.strip("/")
        start = struct.pack("!i", 196608) + f"user\0{DATABASE.username}\0database\0{name}\0\0".encode()
        wire.sendall(struct.pack("!i", len(start) + 4) + start)
        asked, value = False, ""
        while True:
            kind, length = struct.unpack("!ci", stream.read(5))
            body = stream.read(length - 4)
            if kind == b"E":
                raise OSError(body.decode(errors="replace"))
            if kind == b"D":
                size = struct.unpack("!i", body[2:6])[0]
                value = body[6 : 6 + size].decode()
            if kind == b"Z" and asked:
                return value
            if kind == b"Z":
                text = sql.encode() + b"\0"
                wire.sendall(b"Q" + struct.pack("!i", len(text) + 4) + text)
                asked = True


class Orders(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            count, seen = query("select count(*) from orders"), visits()
            self._answer(200, f"{count} orders, asked {seen} times")
        except OSError as error:
            self._answer(503, f"{type(error).__name__}: {error}")

    def do_POST(self) -> None:
        try:
            self._answer(201, "order " + query("insert into orders default values returning id"))
        except OSError as error:
            self._answer(503, f"{type(error).__name__}: {error}")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode() + b"\n"
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Orders).serve_forever()
