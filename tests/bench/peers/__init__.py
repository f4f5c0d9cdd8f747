"""The contestants, a file each: their configuration for a row, and the commands that start them.

All verify the client's certificate against the CA's root, and where they can its SPIFFE ID; TLS 1.3 only, no session
resumption, one worker, no access log (but in the row that is about it), upstream connections kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.bench.peers.caddy import caddy
from tests.bench.peers.envoy import envoy
from tests.bench.peers.haproxy import haproxy
from tests.bench.peers.nginx import nginx
from tests.bench.peers.without import without
from tests.bench.scene import Scene

Commands = Sequence[Sequence[str]]
PEERS: dict[str, Callable[[Scene], Commands | None]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
    "caddy": caddy,
    "without": without,
}
