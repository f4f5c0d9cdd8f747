"""Three hosts on one switch: a shop that gets redirect rules, and two neighbours; every program says who it is.

Applications listen on 0.0.0.0 and [::]; the sidecar is a program that says for where a connection was meant.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sidecar.deploy.names import PROXY_UID
from tests.kit import capture
from tests.kit.netns import Host, Network
from tests.kit.processes import Process, eventually
from tests.kit.programs import REPOSITORY
from tests.kit.tools import need

BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
SHOP, WEB, FAR = "10.77.0.11", "10.77.0.21", "10.77.0.31"
SHOP6, WEB6, FAR6 = "fd77::11", "fd77::21", "fd77::31"
SECOND = "10.77.0.12"  # another address of shop's
PROGRAM = str(REPOSITORY / "tests" / "kit" / "capture.py")


@dataclass
class Town:
    """A shop with rules, and two neighbours without."""

    shop: Host
    web: Host
    far: Host
    log: Path  # a folder for what programs say

    def mesh(self, *words: str, fails: bool = False) -> str:
        """What `mesh redirect …` prints in the shop."""
        command = self.shop.command([sys.executable, "-m", "sidecar.cli", "redirect", *words])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dial_as(self, uid: int, address: str, port: int) -> str:
        """What somebody in the shop gets who runs as this user."""
        who = [need("setpriv"), f"--reuid={uid}", "--clear-groups"]
        return self.shop.run(*who, "/usr/bin/python3", "-I", "-", *("dial", address, str(port)), text=SOURCE).strip()


SOURCE = Path(PROGRAM).read_text()  # by standard input: another user may not be allowed to read our folders


@contextmanager
def a_town(folder: Path) -> Iterator[Town]:
    """The hosts, and what runs on them."""
    for program in ("setpriv", *(f"{name}-restore" for name in BACKENDS[1:])):
        need(program)
    with Network() as network:
        town = Town(network.host(SHOP), network.host(WEB), network.host(FAR), folder)
        for host, address in ((town.shop, SHOP6), (town.web, WEB6), (town.far, FAR6)):
            host.run(need("ip"), "address", "add", f"{address}/64", "dev", "eth0", "nodad")
        town.shop.run(need("ip"), "address", "add", f"{SECOND}/24", "dev", "eth0")
        serving = {
            "shop": (town.shop, "app:8080 app:9100 app:53 health:17090 in:17006 out:17001"),
            "web": (town.web, "app:8080 app:25 app:53"),
            "far": (town.far, "app:8080"),
        }
        running = [
            Process(name, host.command([sys.executable, "-I", PROGRAM, "serve", *what.split()]), folder / name)
            for name, (host, what) in serving.items()
        ]
        for process in running:
            eventually(f"{process.name} serves", lambda process=process: "ready" in process.text())
        yield town
        for process in running:
            process.stop()


def from_host(host: Host, address: str, port: int) -> str:
    """What somebody on this host gets."""
    return host.within(capture.dial, address, port)


def look(town: Town, uid: int = PROXY_UID, port: int = 8080, *more: str) -> dict[str, object]:
    """What the bypass check of a sidecar that runs as this user finds in the shop."""
    command = [sys.executable, "-m", "tests.kit.bypass_look", str(uid), str(port), *more]
    done = subprocess.run(town.shop.command(command), capture_output=True, text=True, timeout=30, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found
