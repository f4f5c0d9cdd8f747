"""A server of HTTP or HTTPS in a thread of the test, that answers as a test wants and keeps what it was asked."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import trustme


@dataclass(frozen=True)
class Asked:
    """A request, whole."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names; of several lines the last
    body: bytes

    @property
    def form(self) -> dict[str, list[str]]:
        """The fields of a form."""
        return parse_qs(self.body.decode(), keep_blank_values=True, strict_parsing=True)


@dataclass(frozen=True)
class Says:
    """An answer. `after` seconds; `raw` bytes are sent instead of anything else, and the connection is closed."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    after: float = 0.0
    raw: bytes | None = None


class WebServer:
    """One server, from the `with` to its end."""

    def __init__(
        self, reply: Callable[[Asked], Says], *, port: int = 0, tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        self.reply = reply
        self.asked: list[Asked] = []
        self.connections = 0
        self._tls = tls
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._ended = threading.Event()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def use(self, tls: ssl.SSLContext) -> None:
        """Show another certificate from the next connection on."""
        self._tls = tls

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: 40 ms until the second leaves

            def setup(self) -> None:
                outer.connections += 1
                if outer._tls is not None:
                    self.request.settimeout(10.0)
                    self.request = outer._tls.wrap_socket(self.request, server_side=True)
                super().setup()

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                outer.asked.append(asked)
                says = outer.reply(asked)
                until = time.monotonic() + says.after
                while time.monotonic() < until and not outer._ended.wait(0.02):
                    pass
                if says.raw is not None:
                    self.wfile.write(says.raw)
                    self.close_connection = True
                    return
                self.send_response(says.status)
                for name, value in (says.headers | {"Content-Length": str(len(says.body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(says.body)

            do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    pass  # whoever asked has left

        class Quiet(Handler):
            def finish(self) -> None:
                try:
                    super().finish()
                    if isinstance(self.request, ssl.SSLSocket):
                        self.request.close()
                except OSError:
                    pass

        self_type: type[BaseHTTPRequestHandler] = Quiet
        return self_type


class Authority:
    """A CA of the tests' own, with its roots in a file."""

    def __init__(self, folder: Path, name: str = "roots") -> None:
        self._ca = trustme.CA()
        self.roots = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.roots)

    def server(self, *names: str, alpn: tuple[str, ...] = ("http/1.1",), **more: Any) -> ssl.SSLContext:
        """A server's context with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, **more).configure_cert(context)
        context.set_alpn_protocols(list(alpn))
        return context

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self._ca.cert_pem.bytes()
