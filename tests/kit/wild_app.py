"""An application that keeps its contract or breaks it, as a header tells it: `python wild_app.py PORT`.

`X-Break` names one of BREAKAGES. Whatever breaks the contract has the word `secret` in it, so that a leak is seen.
"""

from __future__ import annotations

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PET = {"id": 1, "name": "Tom", "tags": ["a"], "owner": {"name": "Ann", "mail": "ann@example.org"}}
WRONG: dict[str, object] = {
    "type": {**PET, "id": "secret"}, "missing": {"name": "secret"}, "null": {**PET, "name": None, "x": "secret"},
    "unknown": {**PET, "secret": 1}, "nested": {**PET, "owner": {"name": "Ann", "mail": "a@b.c", "secret": 1}},
    "item": {**PET, "tags": [{"secret": 1}]}, "enum": {**PET, "kind": "secret"}, "top": ["secret"],
    "password": {**PET, "password": "secret"}, "number": {**PET, "weight": -1, "name": "secret"},
}  # fmt: skip
RAW: dict[str, tuple[int, str, bytes]] = {
    "html": (200, "text/html", b"<p>secret</p>"), "no-json": (200, "application/json", b"secret"),
    "twice": (200, "application/json", b'{"id":1,"id":2,"name":"secret"}'),
    "nan": (200, "application/json", b'{"id":1,"name":"secret","weight":NaN}'),
    "surrogate": (200, "application/json", b'{"id":1,"name":"secret\\ud800"}'),
    "latin": (200, "application/json; charset=iso-8859-1", b'{"id":1,"name":"secret"}'),
    "large": (200, "application/json", b'{"id":1,"name":"' + b"secret" * 200_000 + b'"}'),
    "status": (202, "application/json", b'{"secret":1}'), "teapot": (418, "text/plain", b"secret"),
    "part": (206, "application/json", b'{"id":1,"name":"secret"}'),
    "redirect": (302, "application/json", b'{"secret":1}'), "empty": (200, "application/json", b""),
    "error": (404, "application/json", b'{"secret":1}'), "events": (200, "text/event-stream", b"data: secret\n\n"),
}  # fmt: skip
BREAKAGES = (*WRONG, *RAW, "gzip")


class App(BaseHTTPRequestHandler):
    """Answers as the header says; without it, as the contract says."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Read the body, if there is one, and answer."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wild = self.headers.get("X-Break", "")
        if wild in RAW:
            self._say(*RAW[wild])
        elif wild == "gzip":
            self._say(200, "application/json", gzip.compress(json.dumps(PET).encode()), "gzip")
        elif self.command == "DELETE" and not wild:
            self.send_response(204)
            self.end_headers()
        else:
            listed = self.command == "GET" and self.path.partition("?")[0] == "/pets"
            value = WRONG[wild] if wild else [PET] if listed else PET
            status = 201 if self.command == "POST" and not wild else 200
            self._say(status, "application/json", json.dumps(value).encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server looks for these names

    def _say(self, status: int, kind: str, body: bytes, coding: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if coding:
            self.send_header("Content-Encoding", coding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """One that takes many connections at once."""

    request_queue_size = 128


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
