"""A Kubernetes API server's EndpointSlices (and other lists), over real TLS: pages, watch, bookmarks, and bad days.

    with FakeApi() as api:
        api.put("orders-1", pods=["10.0.0.1"], ports={"mesh": 15006})

It has threads of its own, so that whatever asks may be this process or another one.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

PATH = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
TOKEN = "the-sidecar's-own-token"


def a_slice(
    name: str,
    pods: Sequence[str | dict[str, Any]] = (),
    ports: Mapping[str, int] | None = None,
    *,
    family: str = "IPv4",
    service: str = "orders",
    version: int = 1,
) -> dict[str, Any]:
    """An EndpointSlice as an API server writes it; a pod is its address, or all that is said of it."""
    endpoints = [
        {"addresses": [pod], "conditions": {"ready": True, "serving": True, "terminating": False}}
        if isinstance(pod, str) else pod
        for pod in pods
    ]  # fmt: skip
    return {
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": str(version),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": key, "port": port, "protocol": "TCP"} for key, port in (ports or {}).items()],
    }  # fmt: skip


class FakeApi:
    """What it says may be changed at any time, from any thread."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.slices: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.events: list[tuple[int, bytes]] = []  # version and line
        self.forgotten = 0  # watches from before this version are gone
        self.token = TOKEN
        self.refuse: tuple[int, str] | None = None  # status and message, for everything
        self.list_answer: bytes | None = None  # instead of the list
        self.others: dict[str, tuple[str, list[dict[str, Any]]]] = {}  # other lists: path → kind, objects
        self.silent = False  # it takes connections and says nothing
        self.mute = False  # watches stay open, and nothing comes any more, not even an end
        self.asked: list[str] = []  # "list", "page", or "watch" and the version
        self.tokens: list[str] = []  # which came
        self.limits: list[int] = []  # which pages were asked for
        self.bad_days: list[tuple[str, int, str, dict[str, str]]] = []  # what, status, message, more; each once
        self.breaks = 0  # so many further pages end the connection, as a server that restarts
        self.closes = False  # every connection is closed after its answer
        self.largest_page = 0  # bytes of what was answered to a list
        self._pages: dict[int, list[bytes]] = {}  # by version: what a list was when it began
        self._changed = threading.Condition()
        self._generation = 0  # of the watches; those of earlier ones end
        self._half = False  # … in the middle of an event
        self._raw: list[bytes] = []  # bytes for whoever watches, as they are
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost").configure_cert(context)
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                api._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # `server_close` waits for them

            def finish_request(self, request: Any, client_address: Any) -> None:
                with context.wrap_socket(request, server_side=True) as secure:  # in the connection's own thread
                    Handler(secure, client_address, self)

            def shutdown_request(self, request: Any) -> None:
                request.close()

            def handle_error(self, *_: object) -> None:
                pass  # who leaves in the middle is what is tested

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def files(self, folder: Path) -> tuple[Path, Path]:
        """A service account's token and the certificates, as files."""
        token, ca = folder / "token", folder / "ca.crt"
        token.write_text(self.token + "\n")
        ca.write_bytes(self.authority.cert_pem.bytes())
        return token, ca

    def __enter__(self) -> FakeApi:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.silent = False
        self.end_watches()
        self._server.shutdown()
        self._server.server_close()

    # ---- what happens ----------------------------------------------------------------------------------------------

    def put(self, name: str, *args: Any, **more: Any) -> None:
        """A slice is there, or another one."""
        with self._changed:
            self.version += 1
            kind = "MODIFIED" if name in self.slices else "ADDED"
            self.slices[name] = a_slice(name, *args, **more, version=self.version)
            self._tell(kind, self.slices[name])

    def delete(self, name: str) -> None:
        """A slice is gone."""
        with self._changed:
            self.version += 1
            gone = self.slices.pop(name)
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", gone)

    def bookmark(self) -> None:
        """Something else has changed in the cluster."""
        with self._changed:
            self.version += 1
            self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def say(self, data: bytes) -> None:
        """These bytes to whoever watches."""
        with self._changed:
            self._raw.append(data)
            self._changed.notify_all()

    def end_watches(self, *, half: bool = False) -> None:
        """All watches end; in the middle of an event, without the end of the answer."""
        with self._changed:
            self._generation += 1
            self._half = half
            self._changed.notify_all()

    def forget(self) -> None:
        """What was until now is forgotten: 410 for those who ask from there."""
        with self._changed:
            self.version += 1
            self.forgotten = self.version
            self.events.clear()

    def rewind(self, version: int) -> None:
        """The store was restored from a back-up: versions after this one have never been."""
        with self._changed:
            self.version = version
            self.events = [(each, line) for each, line in self.events if each <= version]

    def _tell(self, kind: str, document: dict[str, Any]) -> None:
        whole = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **document}
        line = json.dumps({"type": kind, "object": whole}).encode() + b"\n"
        self.events.append((self.version, line))
        self._changed.notify_all()

    # ---- serving ---------------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        watching = query.get("watch") == "true"
        what = "watch" if watching else "page" if "continue" in query else "list"
        with self._changed:  # who is seen to watch is ended by the next `end_watches`
            begun = (self._generation, len(self._raw))
            self.asked.append(f"watch {query['resourceVersion']}" if watching else what)
        self.tokens.append(handler.headers.get("authorization", "").removeprefix("Bearer "))
        with self._changed:
            while self.silent:
                self._changed.wait(0.1)
        bad = next((each for each in self.bad_days if each[0] == what), None)
        if what == "page" and self.breaks:
            self.breaks -= 1
            handler.close_connection = True
        elif bad is not None:
            self.bad_days.remove(bad)
            self._status(handler, bad[1], bad[2], bad[3])
        elif self.refuse is not None:
            self._status(handler, *self.refuse)
        elif handler.headers.get("authorization") != f"Bearer {self.token}":
            self._status(handler, 401, "Unauthorized")
        elif parts.path in self.others and not watching:
            self._list(handler, query, *self.others[parts.path])
        elif parts.path != PATH or query.get("labelSelector") != "kubernetes.io/service-name=orders":
            self._status(handler, 404, "the server could not find the requested resource")
        elif watching:
            seconds = float(query.get("timeoutSeconds", 0)) or float("inf")
            self._watch(handler, int(query["resourceVersion"]), *begun, time.monotonic() + seconds)
        else:
            self._list(handler, query, "EndpointSlice", self.slices.values())

    def _status(
        self, handler: BaseHTTPRequestHandler, code: int, message: str, more: Mapping[str, str] | None = None
    ) -> None:
        document = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body = json.dumps({**document, "code": code, "message": message}).encode()
        self._answer(handler, code, body, more)

    def _answer(
        self, handler: BaseHTTPRequestHandler, code: int, body: bytes, more: Mapping[str, str] | None = None
    ) -> None:
        handler.send_response(code)
        for name, value in (more or {}).items():
            handler.send_header(name, value)
        if self.closes:
            handler.send_header("connection", "close")
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _list(
        self, handler: BaseHTTPRequestHandler, query: Mapping[str, str], kind: str, objects: Iterable[dict[str, Any]]
    ) -> None:
        """A page of what was there when the list began; the token says which list, and from where."""
        limit = int(query.get("limit", 0)) or sys.maxsize
        self.limits.append(limit)
        version, start = self.version, 0
        if "continue" in query:
            token = json.loads(base64.urlsafe_b64decode(query["continue"]))
            version, start = token["rv"], token["start"]
            if version < self.forgotten or version not in self._pages:
                message = "The provided continue parameter is too old to display a consistent list result."
                self._status(handler, 410, message)
                return
        with self._changed:
            if not start:
                self._pages = {version: [json.dumps(each).encode() for each in objects]}
            items, meta = self._pages[version], {"resourceVersion": str(version)}
            if start + limit < len(items):
                token = {"v": "meta.k8s.io/v1", "rv": version, "start": start + limit}
                meta["continue"] = base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=") + "=="
            group = "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
            head = json.dumps({"kind": f"{kind}List", "apiVersion": group, "metadata": meta})
            body = head[:-1].encode() + b', "items": [' + b",".join(items[start : start + limit]) + b"]}"
            body = self.list_answer if self.list_answer is not None else body
            self.largest_page = max(self.largest_page, len(body))
        self._answer(handler, 200, body)

    def _watch(
        self, handler: BaseHTTPRequestHandler, version: int, generation: int, raw: int, until: float
    ) -> None:
        if version < self.forgotten:
            self._status(handler, 410, "too old resource version")
            return
        if version > self.version:  # as of the API server's watch cache
            self._status(handler, 504, f"Timeout: Too large resource version: {version}, current: {self.version}")
            return
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        while True:
            with self._changed:
                found = [(each, line) for each, line in self.events if each > version]
                quiet = not found and raw == len(self._raw)
                over = time.monotonic() >= until and not self.mute
                if (quiet or self.mute) and generation == self._generation and not over:
                    self._changed.wait(min(1.0, max(0.01, until - time.monotonic())))
                    continue
                ended, half = generation != self._generation or over, self._half
                found += [(version, data) for data in self._raw[raw:]]
                raw = len(self._raw)
            for each, line in found:
                version = each
                if not (ended and half):
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if ended:
                handler.wfile.write(b'20\r\n{"type":"MOD' if half else b"0\r\n\r\n")
                handler.close_connection = True
                return
