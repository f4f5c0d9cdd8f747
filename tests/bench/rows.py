"""The rows of the bench as data: what work is done, which figure counts, and which bars stand over it (issues 4, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["cpu_us", "cpu_us_per_mb", "kib_per_connection", "p50_ms", "p99_ms"]
HTTP_PEERS = ("nginx", "haproxy", "envoy", "caddy")
P99_TOLERANCE = 1.15  # of the peer's p99: what two runs of one and the same program differ by here
UNITS: dict[str, str] = {
    "cpu_us": "CPU µs/request",
    "cpu_us_per_mb": "CPU µs/MB",
    "kib_per_connection": "KiB/connection",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
}


@dataclass(frozen=True)
class Bar:
    """Ours must be at most `limit` times the peer's."""

    peer: str
    limit: float
    metric: Metric = "cpu_us"

    def __str__(self) -> str:
        return f"≤ {self.limit:g} × {self.peer}" + (f" ({UNITS[self.metric]})" if self.metric[0] == "p" else "")


@dataclass(frozen=True)
class Work:
    """What the load asks for. `length` is that of every answer's body, `check` how its contents are checked."""

    path: str = "/items/"
    length: int = 1024
    check: Literal["id", "lines", "none"] = "id"
    body: int = 0  # bytes of a POST's body; 0: GET
    mode: Literal["keep", "fresh", "rate", "hold"] = "keep"
    connections: int = 64
    rate: int = 0  # requests per second of the open loop
    streams: int = 0  # of HTTP/2 at once on each connection; 0: HTTP/1
    grpc: bool = False  # a call of gRPC, on a back end that speaks HTTP/2


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    metric: Metric
    bars: tuple[Bar, ...]
    aims: tuple[Bar, ...] = ()
    work: Work = Work()
    shape: Literal["http", "tcp"] = "http"
    hops: Literal[1, 2] = 1
    log: bool = False
    limits: bool = False  # three levels of rate limits and a quota in ours
    only_outbound: bool = False  # of two hops, the caller's alone counts
    peers: tuple[str, ...] = HTTP_PEERS
    rounds: int = 5
    seconds: float = 5.0
    note: str = ""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The figures of this row that have bars."""
        return tuple(dict.fromkeys((self.metric, *(bar.metric for bar in self.bars))))


def _cpu(*bars: tuple[str, float]) -> tuple[Bar, ...]:
    return tuple(Bar(peer, limit) for peer, limit in bars)


def _per_mb(*bars: tuple[str, float]) -> tuple[Bar, ...]:
    return tuple(Bar(peer, limit, "cpu_us_per_mb") for peer, limit in bars)


ROWS: tuple[Row, ...] = (
    Row(
        "inbound",
        "HTTP/1.1 keep-alive, inbound mTLS hop, 64 connections, 1 KiB",
        "cpu_us",
        _cpu(("envoy", 1.0)),
        _cpu(("envoy", 0.85), ("nginx", 1.5)),
    ),
    Row(
        "two-hops",
        "The same over two hops, outbound and inbound",
        "cpu_us",
        _cpu(("envoy", 0.8)),
        _cpu(("envoy", 0.65)),
        hops=2,
        peers=("nginx", "haproxy", "envoy"),
    ),
    Row(
        "access-log",
        "The inbound hop with a full JSON access log in all",
        "cpu_us",
        _cpu(("envoy", 1.2)),
        _cpu(("envoy", 1.0)),
        log=True,
    ),
    Row(
        "post-chunked",
        "POST with a 4 KiB body, chunked answer of 16 KiB, inbound hop",
        "cpu_us",
        _cpu(("envoy", 1.3)),
        _cpu(("envoy", 1.0)),
        Work("/chunked/", 16384, body=4096),
    ),
    Row(
        "bulk",
        "100 MB answers, 4 connections, inbound hop",
        "cpu_us_per_mb",
        _per_mb(("haproxy", 1.0), ("nginx", 1.6)),
        _per_mb(("nginx", 1.0)),
        Work("/bulk/", 100 << 20, "lines", connections=4),
    ),
    Row(
        "tcp",
        "Raw TCP through mTLS, 4 connections",
        "cpu_us_per_mb",
        _per_mb(("haproxy", 1.0)),
        _per_mb(("envoy", 1.0)),
        Work("/bulk/", 100 << 20, "lines", connections=4),
        shape="tcp",
        peers=("nginx", "haproxy", "envoy"),
    ),
    Row(
        "handshake",
        "Full mTLS handshake: a new connection and one request, X25519, no resumption, 32 at once",
        "cpu_us",
        _cpu(("nginx", 1.0)),
        _cpu(("envoy", 1.4)),
        Work(mode="fresh", connections=32),
        note="our limit of handshakes per second is raised for this row, so that it does not pace the load",
    ),
    Row(
        "idle",
        "1,000 idle mTLS connections after one request each: memory of one (PSS)",
        "kib_per_connection",
        (Bar("envoy", 1.6, "kib_per_connection"),),
        (Bar("envoy", 1.0, "kib_per_connection"),),
        Work(mode="hold", connections=1000),
        rounds=3,
        note="our limit of connections per identity is raised for this row",
    ),
    Row(
        "latency",
        "p50 and p99 at 500 requests/s over two hops, open loop",
        "p50_ms",
        (Bar("envoy", 1.0, "p50_ms"), Bar("envoy", P99_TOLERANCE, "p99_ms")),
        (Bar("nginx", 1.0, "p50_ms"), Bar("nginx", P99_TOLERANCE, "p99_ms")),
        Work(mode="rate", connections=16, rate=500),
        hops=2,
        peers=("nginx", "haproxy", "envoy"),
        rounds=7,
        seconds=30.0,
    ),
    Row(
        "h2",
        "HTTP/2, inbound mTLS hop, 8 connections of 16 streams, varied paths, 6 more fields, 1 KiB",
        "cpu_us",
        _cpu(("envoy", 6.0)),
        work=Work(connections=8, streams=16),
        peers=("envoy",),
    ),
    Row(
        "grpc",
        "gRPC, unary calls of 64 bytes over two hops, 8 connections of 16 streams",
        "cpu_us",
        _cpu(("envoy", 6.0)),
        work=Work("/echo.Echo/Call", 64, "none", body=64, connections=8, streams=16, grpc=True),
        hops=2,
        peers=("envoy",),
    ),
    Row(
        "h2-bulk",
        "100 MB answers over HTTP/2, inbound hop, 4 connections of one stream",
        "cpu_us_per_mb",
        _per_mb(("envoy", 2.0)),
        work=Work("/bulk/", 100 << 20, "lines", connections=4, streams=1),
        peers=("envoy",),
    ),
    Row(
        "cost-defaults",
        "What deciding about traffic costs by default: two hops, beside the same that decide nothing",
        "cpu_us",
        _cpu(("without", 1.10)),
        hops=2,
        peers=("without",),
        rounds=9,
        seconds=3.0,
        note="`without` is ourselves with one endpoint that is not watched: no choice, breaker, budget or retries",
    ),
    Row(
        "cost-outbound",
        "The outbound of those hops alone",
        "cpu_us",
        (),
        _cpu(("without", 1.10)),
        hops=2,
        only_outbound=True,
        peers=("without",),
        rounds=9,
        seconds=3.0,
    ),
    Row(
        "cost-limits",
        "The two hops with three levels of rate limits and a quota, beside those that decide nothing",
        "cpu_us",
        _cpu(("without", 1.25)),
        hops=2,
        limits=True,
        peers=("without",),
        rounds=9,
        seconds=3.0,
    ),
    Row(
        "cost-limits-inbound",
        "The inbound of those hops alone",
        "cpu_us",
        (),
        _cpu(("without", 1.25)),
        limits=True,
        peers=("without",),
        rounds=9,
        seconds=3.0,
    ),
)
