"""Whether the application answers outsiders past its sidecar (decision D28), looked at every five seconds.

Theory of operation. Who listens where stands in /proc/net, for everybody to read. Only the ports count that the
configuration names as the application's; one that is bound to loopback alone is no way past us. One that is bound to
more is, unless redirect rules stand before it. Rules can only be read with CAP_NET_ADMIN, and a file that says "I have
installed them" can be old or forged, so we look at what they do: a connection of our own to the application's port at
an address of ours beyond loopback. With the rules in force *our user's* connections there are led to the sidecar's
inbound side, or refused where nobody listens on that. Where the other end of it is, /proc/net/tcp tells: if it is the
application itself, or nobody can tell any more, there are no rules for us.

What this proves: the rules for what we send ourselves are in force, for our uid, for this port, for each IP version by
which the port is reachable. They come into force in one transaction with those for what comes from outside (with
iptables: after the filter, and with NAT's other half), so that the one speaks for the other. What it does not prove:
that nobody with NET_ADMIN has since changed one half and not the other. And a firewall elsewhere is not seen: a port
that is safe behind one counts as open. Only a dial from outside proves that nobody comes in: `mesh redirect verify`.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from sidecar.deploy.names import PROXY_UID
from sidecar.net.proc_net import PROC_NET, Row, every, listening, own_addresses
from sidecar.runtime.routing import addresses_of
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.config.schema import Service
    from sidecar.net.clock import Clock
    from sidecar.runtime.mirror import Mirror
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

EVERY_SECONDS: Final = 5.0  # a look at who listens
DIAL_SECONDS: Final = 60.0  # a dial, where nothing has changed since the last one, which found nothing
PATIENCE: Final = 1.0  # seconds for a connection that never leaves this machine

Word = Literal["unknown", "none", "guarded", "allowed", "open", "unmeasured"]


@dataclass(frozen=True, slots=True)
class Bypass:
    """The latest look. `none` listens beyond loopback; or one does, and is `guarded` by rules, `allowed`, or `open`."""

    word: Word = "unknown"
    ports: tuple[int, ...] = ()  # of the application, bound beyond loopback: those that are open, else all of them
    problem: str = ""
    at: float = 0.0  # seconds since the epoch

    @property
    def refuses(self) -> bool:
        """Whether we are not ready for it."""
        return self.word in ("open", "unmeasured")

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        at = rfc3339(self.at) if self.at else None
        return {"result": self.word, "ports": list(self.ports), "problem": self.problem, "at": at}


def app_ports(service: Service) -> frozenset[int]:
    """The TCP ports of the application that the configuration names."""
    apps = (app for spec in service.inbound for app in (spec.app, *addresses_of(spec)))
    return frozenset(app.port for app in apps if not app.unix)


def exposed(rows: Iterable[Row], service: Service) -> tuple[Row, ...]:
    """The sockets of the application that are bound beyond loopback; a listener of ours that shares a port is none."""
    ports = app_ports(service)
    ours = {(spec.bind, spec.port) for spec in service.inbound} if not redirected(service) else set()
    return tuple(
        row for row in rows if row.port in ports and row.beyond and (str(row.address), row.port) not in ours
    )


def redirected(service: Service) -> bool:
    """Whether connections are captured, so that inbound listeners bind no port of their own."""
    return getattr(service, "redirect", None) is not None


def reachable_at(row: Row, own: Iterable[str]) -> list[str]:
    """The addresses of ours by which others would reach this socket."""
    if not row.address.is_unspecified:
        return [str(row.address)]
    v4 = [each for each in own if ":" not in each]
    if isinstance(row.address, IPv4Address):
        return v4[:1]
    return [*v4[:1], *[each for each in own if ":" in each][:1]]  # [::] takes IPv4 too, unless it was told not to


class BypassCheck:
    """Looks again and again."""

    def __init__(
        self, service: Callable[[], Service], mirror: Mirror, log: Log, metrics: Metrics, clock: Clock
    ) -> None:
        self.latest = Bypass()
        self._service = service
        self._mirror = mirror
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._judged: tuple[object, ...] = ()  # what the last dials were about
        self._dial_at = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(EVERY_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        service = self._service()
        if not app_ports(service):
            return self._take("none")
        if not (PROC_NET / "tcp").exists():
            return self._take("unmeasured", (), f"{PROC_NET} cannot be read, so nobody can tell who listens where")
        rows = exposed(listening(), service)
        if not rows:
            return self._take("none")
        ports = tuple(sorted({row.port for row in rows}))
        if service.unsafe_allow_bypass:
            return self._take("allowed", ports)
        own, now = own_addresses(), self._clock.monotonic()
        if self._judged == (rows, own) and now < self._dial_at:
            return None
        self._judged, self._dial_at = (rows, own), now + DIAL_SECONDS
        found = [row for row in rows if await self._answers(row, own)]
        if not found:
            return self._take("guarded", ports)
        self._dial_at = now  # rules may come at any moment, and we are not ready until they do
        return self._take("open", tuple(sorted({row.port for row in found})), _problem(found[0], service))

    async def _answers(self, row: Row, own: list[str]) -> bool:
        """Whether a dial of ours gets to this very socket, by any of its addresses."""
        for address in reachable_at(row, own):
            if await self._reaches(address, row.port):
                return True
        return False

    async def _reaches(self, address: str, port: int) -> bool:
        """Whether a dial of ours is not seen to end anywhere else. Doubt counts: rules of ours refuse, or lead away."""
        host, _, device = address.partition("%")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        scope = (0, socket.if_nametoindex(device)) if device else ()
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            await sock.bind((host, 0, *scope))
            source = sock.getsockname()[:2]
            with self._mirror.expecting(source), trio.fail_after(PATIENCE):
                await sock.connect((host, port, *scope))
                rows = await trio.to_thread.run_sync(every)
        except trio.TooSlowError:
            return not device  # a full backlog, perhaps; what is redirected on its way to fe80::… never gets to ::1
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL)
        finally:
            sock.close()
        here = ip_address(host)
        ends = [(row.address, row.port) for row in rows if (row.peer, row.peer_port) == (here, source[1])]
        return not ends or (here, port) in ends  # none: whoever it was has reset it already

    def _take(self, word: Word, ports: tuple[int, ...] = (), problem: str = "") -> None:
        before, self.latest = self.latest, Bypass(word, ports, problem, self._clock.wall())
        if word not in ("open", "guarded"):
            self._judged = ()
        self._metrics.counter("mesh_bypass_ports").set(len(ports) if word in ("open", "allowed") else 0)
        if (before.word, before.ports) == (word, ports):
            return
        if self.latest.refuses:
            self._log.error("the application can be reached past this sidecar", ports=list(ports), problem=problem)
        elif word == "allowed":
            self._log.warning("unsafe_allow_bypass: neighbours reach the application past us", ports=list(ports))
        elif before.refuses:
            self._log.info("the application cannot be reached past this sidecar any more", ports=list(ports))


def _problem(row: Row, service: Service) -> str:
    """What is wrong, and the commands that mend it."""
    plain = redirected(service) or os.getuid() == PROXY_UID
    options = "" if plain else f" --inbound {row.port} --inbound-only --uid {os.getuid()}"
    host = f"[{row.address}]" if row.address.version == 6 else str(row.address)
    return (
        f"the application listens on {host}:{row.port}, where neighbours reach it past this sidecar. Let it listen on "
        f"127.0.0.1, or run `mesh redirect install{options}` in this network namespace; `unsafe_allow_bypass: true` "
        "goes on without"
    )
