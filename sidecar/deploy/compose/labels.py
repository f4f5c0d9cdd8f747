"""What a user may say to us in a compose file: labels of a service that begin with `sidecar.mesh/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

from sidecar.config.mistakes import meant
from sidecar.deploy.compose.document import lines_of
from sidecar.deploy.compose.ports import PROTOCOLS, Port, Protocol, UnreadablePort, port_numbers
from sidecar.deploy.names import PREFIX

# What each label says, for docs/compose.md and the help.
LABELS: Final[Mapping[str, str]] = {
    "inject": '`"false"` leaves the service as it is, outside the mesh.',
    "port": '`"8080"`, or `"8080/http, 9000/tcp"`: where it listens; `"none"` where it takes no connections.',
    "protocol": "`http`, `tcp` or `auto`, for ports that do not say it themselves.",
    "callers": "`web, jobs`: who may call it, besides those that the file shows to do so.",
    "outside": "`api.example.com:443, 10.0.0.0/8:5432`: where it may connect outside the mesh, in the clear to us.",
    "publish": "The host's address that its published ports get, `127.0.0.1` by default; or `off` for none.",
}


@dataclass(slots=True)
class Told:
    """What the labels of one service say."""

    inject: bool = True
    ports: tuple[Port, ...] | None = None
    protocol: Protocol | None = None
    callers: tuple[str, ...] = ()
    hosts: tuple[tuple[str, int], ...] = ()
    networks: tuple[str, ...] = ()
    publish: str = ""
    problems: list[tuple[str, str, str]] = field(default_factory=list)  # label, what is wrong, what to write


def read_labels(service: Mapping[str, Any]) -> Told:
    """The labels of this service that are for us; what is wrong with them stands in `problems`."""
    told = Told()
    for label, value in lines_of(service.get("labels")):
        prefix, slash, name = label.partition("/")
        if prefix != PREFIX or not slash:
            continue
        reader = _READERS.get(name)
        if reader is None:
            told.problems.append((label, f"there is no label {label}", meant(name, list(LABELS))))
            continue
        try:
            reader(told, value.strip())
        except UnreadablePort as error:
            told.problems.append((label, str(error), error.hint or LABELS[name]))
        except ValueError:
            told.problems.append((label, f"{value!r} cannot be read", LABELS[name]))
    return told


def _inject(told: Told, value: str) -> None:
    if value.lower() not in ("true", "false"):
        raise ValueError
    told.inject = value.lower() == "true"


def _ports(told: Told, value: str) -> None:
    if value == "none":
        told.ports = ()
        return
    found = []
    for each in _words(value):
        numbers, _, spoken = each.partition("/")
        if spoken and spoken not in PROTOCOLS:
            raise UnreadablePort(f"{spoken!r} is no protocol", meant(spoken, PROTOCOLS))
        found += [Port(number, spoken or "http", "label" if spoken else "") for number in port_numbers(numbers)]  # type: ignore[arg-type]
    if not found:
        raise ValueError
    told.ports = tuple(found)


def _protocol(told: Told, value: str) -> None:
    if value not in PROTOCOLS:
        raise UnreadablePort(f"{value!r} is no protocol", meant(value, PROTOCOLS))
    told.protocol = value  # type: ignore[assignment]


def _callers(told: Told, value: str) -> None:
    told.callers = tuple(_words(value))


def _outside(told: Told, value: str) -> None:
    hosts, networks = [], []
    for each in _words(value):
        host, _, port = each.rpartition(":") if ":" in each.rpartition("/")[2] else (each, "", "")
        if "/" in each:
            ip_network(host, strict=False)
            networks.append(each)
        else:
            hosts.append((host, port_numbers(port)[0]))
    told.hosts, told.networks = tuple(hosts), tuple(networks)


def _publish(told: Told, value: str) -> None:
    if value != "off":
        ip_address(value)
    told.publish = value


def _words(value: str) -> list[str]:
    return [each.strip() for each in value.split(",") if each.strip()]


_READERS: Final[Mapping[str, Callable[[Told, str], None]]] = {
    "inject": _inject, "port": _ports, "protocol": _protocol, "callers": _callers, "outside": _outside,
    "publish": _publish,
}  # fmt: skip
