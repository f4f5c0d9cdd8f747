"""On which ports a service of a compose file listens, in which protocol, and which of them it published."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Protocol = Literal["http", "tcp", "auto"]
PROTOCOLS: Final = ("http", "tcp", "auto")
MAX_RANGE = 64  # ports of one entry; each becomes a listener of its own

# What official images listen on, by the last part of their name. They need no label.
IMAGES: Final[dict[str, tuple[int, Protocol]]] = {
    "postgres": (5432, "tcp"), "postgis": (5432, "tcp"), "timescaledb": (5432, "tcp"), "mysql": (3306, "tcp"),
    "mariadb": (3306, "tcp"), "redis": (6379, "tcp"), "valkey": (6379, "tcp"), "memcached": (11211, "tcp"),
    "mongo": (27017, "tcp"), "rabbitmq": (5672, "tcp"), "nats": (4222, "tcp"), "kafka": (9092, "tcp"),
    "cassandra": (9042, "tcp"), "zookeeper": (2181, "tcp"), "cockroach": (26257, "tcp"),
    "nginx": (80, "http"), "httpd": (80, "http"), "caddy": (80, "http"), "traefik": (80, "http"),
    "prometheus": (9090, "http"), "grafana": (3000, "http"), "elasticsearch": (9200, "http"),
    "opensearch": (9200, "http"), "minio": (9000, "http"), "vault": (8200, "http"), "consul": (8500, "http"),
    "registry": (5000, "http"), "mailhog": (1025, "tcp"), "influxdb": (8086, "http"),
}  # fmt: skip

# Ports that speak no HTTP, whatever listens there: Linkerd's list of opaque ports (semantics S9), and the images'.
_IMAGES_TCP = (number for number, spoken in IMAGES.values() if spoken == "tcp")
TCP_PORTS: Final = frozenset((25, 587, 4444, 9300, 1433, 1521, *_IMAGES_TCP))

# What a URL's scheme says of a port that is not written, and of the protocol.
SCHEMES: Final[dict[str, tuple[int | None, Protocol]]] = {
    "http": (80, "http"), "ws": (80, "http"), "grpc": (None, "http"), "https": (443, "tcp"), "wss": (443, "tcp"),
    "postgres": (5432, "tcp"), "postgresql": (5432, "tcp"), "mysql": (3306, "tcp"), "mariadb": (3306, "tcp"),
    "redis": (6379, "tcp"), "rediss": (6379, "tcp"), "amqp": (5672, "tcp"), "amqps": (5671, "tcp"),
    "mongodb": (27017, "tcp"), "nats": (4222, "tcp"), "kafka": (9092, "tcp"), "memcached": (11211, "tcp"),
    "tcp": (None, "tcp"), "smtp": (25, "tcp"),
}  # fmt: skip

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a service, and what told us of it."""

    number: int
    protocol: Protocol
    told_by: str

    @property
    def listener(self) -> str:
        """The name of its inbound listener."""
        return f"port-{self.number}"


@dataclass(frozen=True, slots=True)
class Published:
    """A port that the service published on the host. `host` and `host_port` as written, empty where nothing was."""

    number: int
    host: str
    host_port: str
    app_protocol: str = ""


class UnreadablePort(ValueError):
    """What stands there is no port; the message says why, `hint` what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def port_numbers(text: str) -> range:
    """`8080` or `8080-8083`. Raises UnreadablePort."""
    match = _PORT.match(text.strip())
    if match is None:
        what = "is set from outside" if "$" in text else "is no port"
        raise UnreadablePort(f"{text!r} {what}", 'say it by the label sidecar.mesh/port: "8080"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last < 65536 or last - first >= MAX_RANGE:
        raise UnreadablePort(f"{text!r} is not a port, or a range of at most {MAX_RANGE}")
    return range(first, last + 1)


def published(entry: object) -> list[Published]:
    """One entry of `ports:`, short or long. Raises UnreadablePort; UDP is one of the things that it is raised for."""
    if isinstance(entry, dict):
        return _long(entry)
    text, _, transport = str(entry).partition("/")
    _only_tcp(transport or "tcp", str(entry))
    parts = _split(text)
    inside = port_numbers(parts[-1])
    host_ports = parts[-2] if len(parts) > 1 else ""
    host = ":".join(parts[:-2]).strip("[]")
    outside = [*_outside(host_ports, len(inside))]
    return [Published(number, host, outside[index]) for index, number in enumerate(inside)]


def _long(entry: dict[str, object]) -> list[Published]:
    if "target" not in entry:
        raise UnreadablePort("a port in long form has a `target:`")
    _only_tcp(str(entry.get("protocol") or "tcp"), str(entry["target"]))
    inside = port_numbers(str(entry["target"]))
    outside = [*_outside(str(entry.get("published") or ""), len(inside))]
    host, app = str(entry.get("host_ip") or ""), str(entry.get("app_protocol") or "")
    return [Published(number, host, outside[index], app) for index, number in enumerate(inside)]


def _outside(text: str, count: int) -> list[str]:
    if count == 1 or not text:
        return [text] * count
    numbers = port_numbers(text)
    if len(numbers) != count:
        raise UnreadablePort(f"{text!r} has {len(numbers)} ports for {count} inside", "give both as many")
    return [str(number) for number in numbers]


def _only_tcp(transport: str, entry: str) -> None:
    if transport != "tcp":
        raise UnreadablePort(
            f"{entry} is {transport.upper()}, which no sidecar carries",
            'take it out, or leave the whole service out of the mesh by the label sidecar.mesh/inject: "false"',
        )


def _split(text: str) -> list[str]:
    """Parts between colons, but for those inside `${NAME:-default}` and `[::1]`."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(letter, 0)
        if letter == ":" and depth <= 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [*parts, current]


def image_name(image: str) -> str:
    """The last part of an image's name, without tag and digest: `postgres` of `docker.io/library/postgres:16`."""
    plain = re.sub(r"\$\{[^}:-]*:?-?([^}]*)\}", r"\1", image).partition("@")[0]  # what it is unless somebody says else
    return plain.rsplit("/", 1)[-1].partition(":")[0].lower()


def known(image: str) -> Port | None:
    """What a well-known image listens on."""
    found = IMAGES.get(image_name(image))
    return Port(found[0], found[1], f"image {image_name(image)}") if found is not None else None
