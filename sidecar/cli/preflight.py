"""Before `mesh up` starts anything: is every port free? If not: which, who has it, who wants it, how to move."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain
from pathlib import Path

from sidecar.cli.console import Code, Failure, our_name
from sidecar.config.redirected import capture_ports
from sidecar.config.schema import MeshConfig, Service
from sidecar.config.terms import Address
from sidecar.demo.config import DEFAULT_BASE

BASE_STEP = 1000
EPHEMERAL = 32000  # from 32768 on Linux gives ports to outgoing connections (ip(7), ip_local_port_range)
HIGHEST_BASE = 64000  # the demo's highest port is its base + 445


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port that something is about to listen on."""

    host: str
    port: int
    what: str  # "orders, for its peers": who, and what for
    where: str  # the config's place: "mesh.yaml:12", or a key


def wanted_ports(config: MeshConfig, ca: Address) -> list[Wanted]:
    """Every listener of the CA, the sidecars and their applications, in the order of the file."""
    wanted = [Wanted(ca.host, ca.port, "the CA", "ca.address")]
    for service in config.services.values():
        wanted += _of_service(service)
    return wanted


def _of_service(service: Service) -> Iterator[Wanted]:
    for inbound in service.inbound:
        if service.redirect is None:
            host = inbound.bind or (service.address if _is_ip(service.address) else "")
            yield Wanted(host, inbound.port, f"{service.name}, for its peers ({inbound.name})", str(inbound.where))
        app = inbound.app
        if service.run and not app.unix:  # a socket's file stays behind, and says nothing of who listens
            yield Wanted(app.host, app.port, f"the application of {service.name} ({inbound.name})", str(inbound.where))
    if service.redirect is not None:
        for capture, _, what in capture_ports(service.redirect):
            yield Wanted(capture.host, capture.port, f"{service.name}, for {what}", str(service.where))
    for outbound in service.outbound:
        if outbound.listen is not None and not outbound.listen.unix:
            what = f"{service.name}, to reach {outbound.to}"
            yield Wanted(outbound.listen.host, outbound.listen.port, what, str(outbound.where))
    for address, what in ((service.forward_proxy, "its forward proxy"), (service.health.listen, "probes and metrics")):
        if address is not None:
            yield Wanted(address.host, address.port, f"{service.name}, for {what}", str(service.where))


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def why_not(host: str, port: int) -> OSError | None:
    """What binding this port would run into now; None where nothing."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no obstacle
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def check_ports(wanted: Sequence[Wanted], *, demo_base: int | None) -> None:
    """Raise Failure (exit 3) naming every port that is in the way, and how to move; `demo_base` is None for a file."""
    trouble = [(want, error) for want in wanted if (error := why_not(want.host, want.port)) is not None]
    if not trouble:
        return
    lines = [_sentence(want, error) for want, error in trouble]
    if demo_base is not None:
        free = _free_base(wanted, demo_base)
        lines += [f"Move the whole demo:  {our_name()} up --port-base {free}"]
        lines += [f"or:                   make demo ARGS='--port-base {free}'"]
    else:
        places = ", ".join(dict.fromkeys(want.where for want, _ in trouble if want.where))
        lines.append(f"Choose other ports in {places or 'the config'}, or stop what holds these.")
    raise Failure(lines[0], "\n".join(lines[1:]), Code.UNREACHABLE)


def _sentence(want: Wanted, error: OSError) -> str:
    place = f"{want.host or '*'}:{want.port}"
    who = f"{want.what}," if "," in want.what else want.what
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(want.port)
        return f"port {want.port} is taken{f' by {holder}' if holder else ''}; {who} wants {place}."
    if error.errno == errno.EACCES:
        return f"port {want.port} may not be bound by this user; {who} wants {place}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{want.host} is no address of this machine; {who} wants {place}."
    return f"{place} cannot be bound ({error.strerror or error}); {who} wants it."


def _free_base(wanted: Sequence[Wanted], base: int) -> int:
    """The next base, in thousands, with all of the demo's ports free; outgoing connections' own ports come last."""
    below = chain(range(27000, EPHEMERAL, BASE_STEP), range(DEFAULT_BASE, 27000, BASE_STEP))
    for candidate in chain(below, range(33000, HIGHEST_BASE, BASE_STEP)):
        if candidate != base and all(why_not(want.host, want.port - base + candidate) is None for want in wanted):
            return candidate
    return 27000


def holder_of(port: int) -> str:
    """`nginx, pid 812`: who listens on this TCP port, as far as /proc tells us; empty where it does not."""
    inodes = _listening_inodes(port)
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with suppress(OSError):
            if str(link.readlink()).removeprefix("socket:[").removesuffix("]") in inodes:
                process = link.parent.parent
                return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
    return ""


def _listening_inodes(port: int) -> set[str]:
    """Socket inodes in state LISTEN (0A) on this port: proc(5), /proc/net/tcp."""
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found
