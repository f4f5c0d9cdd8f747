"""An application that keeps its contract or breaks it, as the id in the path says: `python contract_app.py PORT`."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDER = {"id": 1, "customer": {"name": "Ann", "iban": "secret"}, "margin": "secret"}
ANSWERS = {
    "/orders/1": (200, "application/json", json.dumps(ORDER)),
    "/orders/2": (200, "application/json", '{"id": "secret"}'),
    "/orders/3": (200, "text/html", "<p>secret</p>"),
    "/orders/4": (200, "application/json", '{"id": 4, "more": "' + "secret" * 200_000 + '"}'),
    "/orders/5": (500, "text/plain", "secret"),
    "/old": (200, "application/json", json.dumps(ORDER)), "/late": (200, "application/json", json.dumps(ORDER)),
}  # fmt: skip


class App(BaseHTTPRequestHandler):
    """Answers by the path, whatever the method."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, kind, text = ANSWERS.get(self.path.partition("?")[0], (404, "text/plain", "secret"))
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.path = "/orders/1"
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
