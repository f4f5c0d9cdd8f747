"""An application with one mistake for each of OWASP's ten, for attacks that must work without the mesh:
`python gullible_app.py PORT`.

    /customers/ID/orders     anybody's orders, whoever asks                                   (API1)
    /me                      whoever the bearer token says, its signature unread              (API2)
    /login                   as many tries as one likes: 401, but for the one right password  (API2)
    /orders/N                all that is known of an order; PATCH sets whatever it is sent;
                             DELETE for everybody                                             (API3, API5)
    /reports/N, /sign-up     as often as one likes                                            (API4, API6)
    /latest/meta-data/...    what a cloud's metadata service has                              (API7)
    /public/..%2fadmin       is /admin, after decoding                                        (API8)
    /v1/orders/N             what the version before gave away                                (API9)
    /prices                  a price; of whoever answers                                      (API10)
"""

from __future__ import annotations

import base64
import json
import posixpath
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

ORDER = {"total": 12, "status": "open", "customer": {"name": "Ann", "iban": "DE02 1203 0000 0000 2020 51"}, "margin": 3}
PASSWORD = b"password=right"


class App(BaseHTTPRequestHandler):
    """Believes everything."""

    protocol_version = "HTTP/1.1"

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = posixpath.normpath(unquote(urlsplit(self.path).path))
        match path.split("/")[1:]:
            case ["login"]:
                self._say(200 if body == PASSWORD else 401, {})
            case ["me"]:
                self._say(200, {"user": self._user()})
            case ["customers", customer, "orders"]:
                self._say(200, {"customer": customer, "orders": [17, 18]})
            case ["orders", number] | ["v1", "orders", number]:
                self._say(204 if method == "DELETE" else 200, {"id": int(number)} | ORDER | _json(body))
            case ["admin"]:
                self._say(200, {"secret": "the page of the administrators"})
            case ["latest", "meta-data", *_]:
                self._say(200, {"secret": "a key of the cloud"})
            case _:
                self._say(200, {"path": path})

    def _user(self) -> Any:
        part = (self.headers.get("Authorization") or "").partition(".")[2].partition(".")[0]
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("sub") if part else None

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        body = b"" if status == 204 else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _json(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)) if body else {}


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
