"""What gRPC tests share: a mesh with a gRPC server behind it, and a channel of grpcio's in front."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.kit.meshes import DEFAULT_ALLOW, Pair
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# One connection per channel, whatever other channels the process has, and no proxy of our environment's.
OPTIONS = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


class Calls:
    """The methods of `kit.Echo` on one channel, over bytes."""

    def __init__(self, port: int, **options: Any) -> None:
        more = [("grpc." + name, value) for name, value in options.items()]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[*OPTIONS, *more])
        self.echo = self.channel.unary_unary("/kit.Echo/Echo")
        self.squeeze = self.channel.unary_unary("/kit.Echo/Squeeze")
        self.collect = self.channel.stream_unary("/kit.Echo/Collect")
        self._spread = self.channel.unary_stream("/kit.Echo/Spread")
        self.talk = self.channel.stream_stream("/kit.Echo/Talk")
        self._fail = self.channel.unary_unary("/kit.Echo/Fail")
        self.wait = self.channel.unary_unary("/kit.Echo/Wait")
        self.listen = self.channel.stream_stream("/kit.Echo/Listen")
        self._seen = self.channel.unary_unary("/kit.Echo/Seen")

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def spread(self, timeout: float | None = 30, **wish: Any) -> Any:
        """Server streaming, of `count` messages of `size` bytes."""
        return self._spread(json.dumps(wish).encode(), timeout=timeout)

    def fail(self, code: int, details: str) -> grpc.RpcError:
        """The error that such a wish comes to."""
        return failure(lambda: self._fail(json.dumps({"code": code, "details": details}).encode(), timeout=30))

    def seen(self, name: str) -> dict[str, Any]:
        """What the server has seen of a call; empty where nothing."""
        return dict(json.loads(self._seen(b"", timeout=30)).get(name, {}))

    def wait_for(self, name: str, key: str) -> dict[str, Any]:
        """The same, once it has this key."""
        eventually(f"{name} has {key}", lambda: key in self.seen(name))
        return self.seen(name)


def failure(call: Any) -> Any:
    """The RpcError that a call ends in."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"the call went well: {answer!r}")


@contextmanager
def grpc_pair(
    folder: Path, *, allow: str = DEFAULT_ALLOW, defaults: str = "", routes: str = "", upstream: str = "",
    script: str = "grpc_server.py",
) -> Iterator[Pair]:
    """web → app, with a gRPC server behind app."""
    pair = Pair(folder, allow=allow, defaults=defaults, routes=routes, upstream=upstream)
    with pair, echo_app(folder, pair.ports.app, script):
        pair.start_all()
        yield pair
