"""`python -P -m sidecar.demo.app ROLE`: the application behind a demo sidecar. It knows nothing of TLS or identities.

Plain HTTP/1.1 on loopback with keep-alive. orders and payments serve; web only calls, in a steady rhythm, and keeps
calling whatever the answers are: refusals and restarts are part of the show.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sidecar.demo.config import DEFAULT_BASE, DemoPorts

REQUESTS_PER_SECOND = 20
POST_EACH = 4  # every fourth request of web places an order, which makes orders call payments
JSON = {"content-type": "application/json"}
Answer = tuple[int, dict[str, Any]]


class Client:
    """One kept-alive connection to a listener of our own sidecar."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        self._lock = threading.Lock()

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """One exchange; a broken connection is answered with status 0 and made anew next time."""
        data = None if body is None else json.dumps(body)
        with self._lock:
            try:
                self._connection.request(method, path, data, JSON if data else {})
                response = self._connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                return 0, {"error": str(error)}
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, {"error": "not JSON"}


class Handler(BaseHTTPRequestHandler):
    """Gives a request to the role's function and its answer back."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one segment: in two, Nagle's algorithm and a delayed ACK cost 40 ms
    answer: Callable[[str, str, Any], Answer]

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, document = type(self).answer(self.command, self.path, body)
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _serve  # noqa: N815 (the names that http.server calls)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in http.server)
        """Say nothing: the sidecar keeps the log."""


class Server(ThreadingHTTPServer):
    """Loopback only; a thread for each connection, none of which outlives us."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that left in the middle is not worth a traceback."""


def orders(ports: DemoPorts) -> Callable[[str, str, Any], Answer]:
    """Keep orders; charge each new one."""
    payments = Client(ports.orders_to_payments)
    numbers = itertools.count(1)
    placed: dict[str, Any] = {}

    def answer(method: str, path: str, body: Any) -> Answer:
        if method == "POST" and path == "/orders":
            number = str(next(numbers))
            status, charge = payments.call("POST", "/charges", {"order": number, "cents": 1999})
            item = (body or {}).get("item")
            placed[number] = {"order": number, "item": item, "charged": status == 201, "charge": charge}
            placed.pop(str(int(number) - 1000), None)
            return (201, placed[number]) if status == 201 else (502, placed[number])
        number = path.removeprefix("/orders/")
        if number in placed:
            return 200, placed[number]
        return 200, {"order": number, "item": "from the archive"}

    return answer


def payments(ports: DemoPorts) -> Callable[[str, str, Any], Answer]:
    """Take every charge."""
    numbers = itertools.count(1)

    def answer(method: str, path: str, body: Any) -> Answer:
        if method == "POST":
            return 201, {"charge": next(numbers), **(body or {})}
        return 200, {"charge": path.removeprefix("/charges/"), "state": "settled"}

    return answer


def serve(answer: Callable[[str, str, Any], Answer], port: int) -> None:
    """Serve on loopback until a signal comes."""
    handler = type("RoleHandler", (Handler,), {"answer": staticmethod(answer)})
    server = Server(("127.0.0.1", port), handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    with server:
        server.serve_forever(poll_interval=0.05)


def web(ports: DemoPorts) -> None:
    """Be the customers: read and place orders in a steady rhythm, and once a second try what is not allowed."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _wait_until_open(
        stop, ports.orders_app, ports.payments_app
    )  # `mesh run` starts those once their sidecars are ready
    shop, forbidden = Client(ports.web_to_orders), Client(ports.web_to_payments)
    next_turn = time.monotonic()
    for turn in itertools.count():
        if turn % POST_EACH == 0:
            shop.call("POST", "/orders", {"item": f"book {turn}"})
        else:
            shop.call("GET", f"/orders/{turn}")
        if turn % REQUESTS_PER_SECOND == 0:
            forbidden.call("GET", "/charges/1")  # 403: payments' sidecar knows that this is web, and web is not allowed
        next_turn = max(next_turn + 1 / REQUESTS_PER_SECOND, time.monotonic() - 1)
        if stop.wait(max(0.0, next_turn - time.monotonic())):
            return


def _wait_until_open(stop: threading.Event, *ports: int) -> None:
    """Wait up to ten seconds for somebody to listen on each of these: customers come when the shop is open."""
    deadline = time.monotonic() + 10
    for port in ports:
        while time.monotonic() < deadline and not stop.is_set():
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                stop.wait(0.02)


def main() -> int:
    """Play the role that is named on the command line."""
    parser = argparse.ArgumentParser(prog="sidecar.demo.app", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("role", choices=["web", "orders", "payments"])
    parser.add_argument("--port-base", type=int, default=DEFAULT_BASE)
    options = parser.parse_args()
    ports = DemoPorts(options.port_base)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us; we wait for SIGTERM
    if options.role == "web":
        web(ports)
    elif options.role == "orders":
        serve(orders(ports), ports.orders_app)
    else:
        serve(payments(ports), ports.payments_app)
    return 0


if __name__ == "__main__":
    sys.exit(main())
