"""Hosts of a test's own: network namespaces on one switch, with loss, resets, partitions and narrow links on demand.

    with Network() as network:
        shop, web = network.host("10.77.0.11"), network.host("10.77.0.21")
        process = Process("web", shop.command(["nc", "-l", "80"]), log)
        shop.filter("input ip saddr 10.77.0.21 drop")     # nftables
        shop.narrow("1mbit")                               # tc tbf
        shop.heal()

Theory of operation. A namespace without a name lives as long as a process in it, so each is held by a `sleep` that ends
when the test's process does, however that ends: nothing is left behind, and no name or address can meet another test's.
The switch (a bridge) has a namespace of its own too; nothing here touches the machine's own network. Unix sockets are
reached across namespaces, so admin sockets need nothing; for TCP a thread goes inside (`Host.within`): a namespace is a
property of a thread.

Faults are rules in a host's own table, on what it receives (`input`) and sends (`output`).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sidecar.cli.lifeline import guarded
from tests.kit.processes import eventually
from tests.kit.tools import need

CLONE_NEWNET = 0x40000000  # linux/sched.h
BURST = "16kb"  # that a narrow link lets through at once
QUEUE = "200ms"  # that a packet waits before a narrow link at most; then it is lost
Result = TypeVar("Result")


def need_namespaces() -> None:
    """Skip, loudly, where no network namespace can be made; under MESH_REQUIRE_TOOLS=1 fail, but for want of rights."""
    for program in ("unshare", "nsenter", "ip", "tc", "nft"):
        need(program)
    done = subprocess.run(
        [need("unshare"), "--net", need("ip"), "link", "add", "probe", "type", "bridge"],
        capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    if done.returncode:
        why = f"no network namespaces here (root or CAP_SYS_ADMIN and CAP_NET_ADMIN): {done.stderr.strip()}"
        if os.environ.get("MESH_REQUIRE_TOOLS") == "1" and os.getuid() == 0:
            pytest.fail(why)
        pytest.skip(why)


class Host:
    """One network namespace, on the switch of its network, with loopback and one address."""

    def __init__(self, address: str) -> None:
        self.address = address
        command = [need("unshare"), "--net", "--", "sleep", "infinity"]
        self._own = Path("/proc/self/ns/net").readlink()
        self._holder = subprocess.Popen(guarded(command), stdin=subprocess.DEVNULL, start_new_session=True)
        self._path = Path(f"/proc/{self._holder.pid}/ns/net")
        eventually("a network namespace", self._made)

    def _made(self) -> bool:
        return self._path.readlink() != self._own

    @property
    def pid(self) -> int:
        """The process that holds the namespace."""
        return self._holder.pid

    def command(self, command: Sequence[str]) -> list[str]:
        """This command, to be run inside."""
        return [need("nsenter"), f"--net={self._path}", "--", *command]

    def run(self, *command: str, text: str | None = None) -> str:
        """Run something inside and wait for it. Raises AssertionError where it fails."""
        done = subprocess.run(self.command(command), input=text, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}\n{text or ''}"
        return done.stdout

    def within(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function in a thread that is inside; returns what it returns, raises what it raises."""
        results: list[Result] = []
        failures: list[BaseException] = []

        def play() -> None:
            try:
                self.enter()
                results.append(function(*arguments))
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=play)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def enter(self) -> None:
        """Take the calling thread inside, for good: sockets that it makes from now on are there."""
        self.enter_at(self._path)

    @staticmethod
    def enter_at(path: Path) -> None:
        """The same, into the namespace that this file stands for."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    # ---- faults ----------------------------------------------------------------------------------------------------

    def filter(self, *rules: str) -> None:
        """Rules of nftables, each behind the name of its chain: `input …` or `output …`. Loopback is left alone."""
        lines = ["add table inet faults"]
        for chain in ("input", "output"):
            lines.append(f"add chain inet faults {chain} {{ type filter hook {chain} priority 0; policy accept; }}")
            lines.append(f"add rule inet faults {chain} {'iif' if chain == 'input' else 'oif'} lo accept")
        lines += [f"add rule inet faults {rule}" for rule in rules]
        self.run(need("nft"), "-f", "-", text="\n".join(lines) + "\n")

    def redirect(self, port: int, to: int) -> None:
        """Connections from outside to this port arrive at another one, from now on."""
        lines = (
            "add table ip far", "add chain ip far arriving { type nat hook prerouting priority -100; policy accept; }",
            f"add rule ip far arriving iif != lo tcp dport {port} redirect to :{to}",
        )  # fmt: skip
        self.run(need("nft"), "-f", "-", text="\n".join(lines) + "\n")

    def lose(self, per_cent: int) -> None:
        """Lose this share of what comes and of what goes."""
        self.filter(*(f"{chain} numgen random mod 100 < {per_cent} drop" for chain in ("input", "output")))

    def part(self, other: Host | None = None) -> None:
        """Nothing comes and nothing goes any more: from and to this host, or from and to all."""
        source, target = (f"ip saddr {other.address}", f"ip daddr {other.address}") if other else ("", "")
        self.filter(f"input {source} drop", f"output {target} drop")

    def narrow(self, rate: str) -> None:
        """What it sends goes at this rate (`tc tbf`)."""
        device = ("dev", "eth0", "root", "tbf")
        self.run(need("tc"), "qdisc", "replace", *device, "rate", rate, "burst", BURST, "latency", QUEUE)

    def heal(self) -> None:
        """All of it is over."""
        self.run(need("nft"), "flush", "ruleset")
        subprocess.run(self.command([need("tc"), "qdisc", "del", "dev", "eth0", "root"]), capture_output=True)

    def close(self) -> None:
        """The end of the namespace, once the processes in it have ended too."""
        self._holder.kill()
        self._holder.wait()


class Network:
    """A switch and the hosts on it. Use it as a context manager."""

    def __init__(self) -> None:
        need_namespaces()
        self.switch = Host("")
        self.hosts: list[Host] = []
        self.switch.run(need("ip"), "link", "add", "switch", "type", "bridge")
        self.switch.run(need("ip"), "link", "set", "switch", "up")

    def host(self, address: str) -> Host:
        """Another host, with this address of a network of 256."""
        host, ip = Host(address), need("ip")
        self.hosts.append(host)
        plug = f"port{len(self.hosts)}"
        self.switch.run(
            ip, "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)
        )
        self.switch.run(ip, "link", "set", plug, "master", "switch", "up")
        host.run(ip, "link", "set", "lo", "up")
        host.run(ip, "address", "add", f"{address}/24", "dev", "eth0")
        host.run(ip, "link", "set", "eth0", "up")
        return host

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for host in (*self.hosts, self.switch):
            host.close()
