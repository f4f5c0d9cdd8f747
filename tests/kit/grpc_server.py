"""A gRPC server as its users write one, on grpcio: `python grpc_server.py PORT`.

Health and reflection are the packages' own; `kit.Echo` has a method of each kind, over plain bytes. Requests that steer
are JSON. What a call says in metadata `x-…` and `…-bin` comes back, in front and in trailers. SIGUSR1 makes `kit.Echo`
NOT_SERVING, SIGUSR2 SERVING again.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Seen:
    """Calls that were waited on, by the id in their request: when they began and ended, on the machine's clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, dict[str, Any]] = {}

    def begin(self, name: str, context: grpc.ServicerContext) -> threading.Event:
        """A call has come; the event is set when it ends, in whatever way."""
        over = threading.Event()
        left = context.time_remaining()
        note: dict[str, Any] = {"began": time.monotonic(), "left": left, "metadata": _own(context)}

        def ended() -> None:
            note["ended"] = time.monotonic()
            over.set()

        with self._lock:
            self._calls[name] = note
        context.add_callback(ended)
        return over

    def text(self) -> bytes:
        """All of it, as JSON."""
        with self._lock:
            return json.dumps(self._calls).encode()


SEEN = Seen()


def _own(context: grpc.ServicerContext) -> list[tuple[str, str]]:
    return [(key, value.hex() if isinstance(value, bytes) else value) for key, value in context.invocation_metadata()]


def _mirror(context: grpc.ServicerContext) -> None:
    """Send the caller's own metadata back."""
    own = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-") or k.endswith("-bin")]
    own = [(key, value) for key, value in own if not key.startswith("x-forwarded")]
    if own:
        context.send_initial_metadata(own)
        context.set_trailing_metadata([("trailing-" + key, value) for key, value in own])


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Unary: the same bytes."""
    _mirror(context)
    return request


def squeeze(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Unary: the same bytes, compressed."""
    context.set_compression(grpc.Compression.Gzip)
    return request


def collect(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    """Client streaming: what has come, as JSON."""
    digest, count, total = hashlib.sha256(), 0, 0
    for message in requests:
        digest.update(message)
        count, total = count + 1, total + len(message)
    return json.dumps({"count": count, "bytes": total, "sha256": digest.hexdigest()}).encode()


def spread(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Server streaming: `count` messages of `size` bytes, `pause` seconds apart; then, with `code`, an error."""
    wish = json.loads(request)
    over = SEEN.begin(wish.get("id", "spread"), context)
    for number in range(wish["count"]):
        yield number.to_bytes(4, "big") + bytes(wish["size"] - 4)
        if wish.get("pause") and over.wait(wish["pause"]):
            return
    if "code" in wish:
        _fail(wish, context)


def talk(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Bidirectional: each message at once."""
    _mirror(context)
    yield from requests


def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Unary: an error of this `code` with these `details`, without any answer before it."""
    _fail(json.loads(request), context)
    return b""


def _fail(wish: dict[str, Any], context: grpc.ServicerContext) -> None:
    context.set_trailing_metadata([("grpc-status-details-bin", b"\x00\xff details"), ("x-reason", "told")])
    code = next(code for code in grpc.StatusCode if code.value[0] == wish["code"])
    context.abort(code, wish["details"])


def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Unary: no answer, until the caller gives up. The request is a name for `seen`."""
    SEEN.begin(request.decode(), context).wait(60)
    return b"late"


def listen(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Bidirectional: the first request is a name; one message back, and then silence until the caller gives up."""
    over = SEEN.begin(next(requests).decode(), context)
    yield b"listening"
    over.wait(60)


def seen(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Unary: the calls to `wait`, `listen` and `spread`."""
    return SEEN.text()


HANDLERS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Squeeze": grpc.unary_unary_rpc_method_handler(squeeze),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Spread": grpc.unary_stream_rpc_method_handler(spread),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Listen": grpc.stream_stream_rpc_method_handler(listen),
    "Seen": grpc.unary_unary_rpc_method_handler(seen),
}


def main(port: int) -> None:
    """Serve until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(64), options=UNLIMITED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kit.Echo", HANDLERS),))
    state = health.HealthServicer()
    serving = health_pb2.HealthCheckResponse.SERVING
    state.set("kit.Echo", serving)
    signal.signal(signal.SIGUSR1, lambda *_: state.set("kit.Echo", health_pb2.HealthCheckResponse.NOT_SERVING))
    signal.signal(signal.SIGUSR2, lambda *_: state.set("kit.Echo", serving))
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = ("kit.Echo", health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]))
