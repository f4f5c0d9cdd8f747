"""Two callers and three copies of a shop, each on a host of its own, with a sidecar each; and a load that counts.

    with Street(folder) as street:
        street.open()                                  # the good application everywhere, all endpoints available
        with street.calls() as calls:                  # both callers ask; half of it POST without Idempotency-Key
            time.sleep(1)
            since = calls.mark()
            street.shops[0].host.part()
            …
        story = calls.story()
        story.assert_sound()                           # nothing crossed, and no POST done twice
        assert story.share_ok() == 1.0

What counts as proof: each request has a nonce, applications write down whatever they do, and the two books are
compared. A POST is done at most once; one that was answered well, exactly once.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from certs.keys import key_to_pem
from sidecar.admin import client
from tests.kit import far_away, street_app
from tests.kit.fleet import MESH
from tests.kit.identities import Authority, a_root, an_issuer, an_svid
from tests.kit.netns import Host, Network
from tests.kit.nonce import NonceLoad
from tests.kit.processes import PATIENCE, Process, eventually, listens

DOOR, INBOUND, FAR, APP = 15001, 15006, 15007, 8080
SLOW_MS = 50.0  # of an endpoint next door
PACE = 40.0  # requests a second of one caller
WEB = """\
    outbound: [{{to: shop, listen: "127.0.0.1:{door}", endpoints: [{endpoints}], identity: "{shop}"}}]"""
SHOP = """\
    inbound: [{{name: main, port: {inbound}, bind: 0.0.0.0, app: "127.0.0.1:{app}"}}]
    allow: [{{name: web-may, from: web}}]"""
CONFIG = """\
trust_domain: demo.mesh
services:
  {service}:
    identity_source: {{files: {{cert: {folder}/chain.pem, key: {folder}/key.pem, bundle: {folder}/root.pem}}}}
{side}
    timeouts: {{response_head: 3s, drain: 1s}}
    access_log: {{mode: all, path: {folder}/access.log}}
    health: {{listen: off}}
"""


class House:
    """A host with a sidecar, and the application of a shop."""

    def __init__(self, folder: Path, host: Host, service: str, side: str, issuer: Authority) -> None:
        folder.mkdir()
        self.folder = folder
        self.host = host
        self.service = service
        svid = an_svid(issuer, service)
        (folder / "chain.pem").write_bytes(svid.chain_pem())
        (folder / "root.pem").write_bytes(issuer.root.public_bytes(Encoding.PEM))
        (folder / "key.pem").touch(mode=0o600)
        (folder / "key.pem").write_bytes(key_to_pem(svid.key, None))
        (folder / "mesh.yaml").write_text(CONFIG.format(service=service, folder=folder, side=side))
        self._sidecar: Process | None = None
        self._app: Process | None = None
        self._mood: tuple[str, ...] = ()

    # ---- processes -------------------------------------------------------------------------------------------------

    @property
    def sidecar(self) -> Process:
        """The sidecar's process, the latest."""
        assert self._sidecar is not None
        return self._sidecar

    @property
    def app(self) -> Process:
        """The application's process, the latest."""
        assert self._app is not None
        return self._app

    def start_sidecar(self) -> None:
        """Start it, again perhaps; it is ready when `wait_ready` returns."""
        at = self.folder
        command = [
            *MESH, "run", "-f", str(at / "mesh.yaml"), "--service", self.service, "--state", str(at / "state"),
            "--run-dir", str(at / "run"),
        ]  # fmt: skip
        self._sidecar = Process(self.service, self.host.command(command), at / "sidecar.log")

    def wait_ready(self) -> None:
        """Wait until the sidecar says so."""
        self.sidecar.until("ready", lambda: self._status() == "ready")

    def _status(self) -> str:
        try:
            return str(self.admin("/status")["state"])
        except client.NoSidecar:
            return "silent"

    def admin(self, path: str) -> dict[str, Any]:
        """What its admin socket answers."""
        return client.call(self.folder / "run" / f"{self.service}.sock", "GET", path, None, timeout=10.0)[1]

    def open(self, *mood: str) -> None:
        """Have an application in this mood; one that runs in it stays."""
        if self._app is not None and self._app.code is None and self._mood == mood:
            return
        self.shut()
        command = [sys.executable, "-P", str(street_app.__file__), str(APP), str(self.ledger), *mood]
        self._app, self._mood = Process("the application", self.host.command(command), self.folder / "app.log"), mood
        eventually("the application listens", lambda: self.host.within(listens, APP))

    def shut(self) -> None:
        """Kill the application, if there is one."""
        if self._app is not None:
            self._app.kill()

    @contextmanager
    def far_away(self, seconds: float) -> Iterator[None]:
        """Its sidecar's answers, and what it is asked, need so long on their way, for connections from now on; older
        ones are reset.
        """
        command = [sys.executable, "-P", str(far_away.__file__), str(FAR), str(INBOUND), str(seconds)]
        process = Process("the delay", self.host.command(command), self.folder / "delay.log")
        try:
            process.until("listening", lambda: self.host.within(listens, FAR))
            self.host.redirect(INBOUND, FAR)
            self.host.filter(f"input tcp dport {INBOUND} reject with tcp reset")  # redirected ones have the other port
            yield
        finally:
            self.host.heal()
            process.kill()

    def stop(self) -> None:
        """End both."""
        for process in (self._sidecar, self._app):
            if process is not None:
                process.signal(signal.SIGCONT)  # who is frozen cannot end
                process.stop(5.0)

    # ---- what it has seen ------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Path:
        """What its application has done."""
        return self.folder / "ledger"

    def done(self) -> list[str]:
        """The nonces of what its application has done."""
        return [line.split()[0] for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def states(self) -> dict[str, str]:
        """Of each endpoint, as a caller's balancer sees it."""
        rows = self.admin("/endpoints")["endpoints"]
        return {row["endpoint"].rpartition(":")[0]: row["state"] for row in rows}

    def resents(self) -> bool:
        """Whether this caller still remembers an endpoint as slow. Memories fade within a minute, too long to wait."""
        return any(row["latency_ms"] > SLOW_MS for row in self.admin("/endpoints")["endpoints"])


@dataclass(frozen=True)
class Asked:
    """One request, as its caller saw it."""

    nonce: str
    post: bool
    began: float  # monotonic
    took: float  # seconds
    status: int  # 0: no whole answer
    caller: str  # its address

    def __str__(self) -> str:
        return f"{'POST' if self.post else 'GET'} {self.status} after {self.took:.2f} s"


class CallerLoad(NonceLoad):
    """The load of one caller, from inside its host."""

    def __init__(self, house: House, pace: float, seed: int, large: float) -> None:
        super().__init__(DOOR, rate=pace, host="shop", seed=seed, large_share=large)
        self._house = house
        self.asked: list[Asked] = []

    def _in_thread(self) -> None:
        self._house.host.enter()
        super()._in_thread()

    async def _ask(self, nonce: str, body: bytes, post: bool) -> tuple[int, bytes, bytes]:
        began, status = time.monotonic(), 0
        try:
            answer = await super()._ask(nonce, body, post)
            status = answer[0]
            return answer
        finally:
            took = time.monotonic() - began
            self.asked.append(Asked(nonce, post, began, took, status, self._house.host.address))


@dataclass
class Story:
    """What callers have noticed, and what was done."""

    asked: list[Asked]
    done: Counter[str]  # how often, by nonce
    crossed: list[str]
    torn: list[str]

    def during(self, since: float, until: float = float("inf")) -> Story:
        """What began in this time."""
        return Story([each for each in self.asked if since <= each.began < until], self.done, self.crossed, self.torn)

    def of(self, house: House) -> Story:
        """What this caller asked."""
        mine = [each for each in self.asked if each.caller == house.host.address]
        return Story(mine, self.done, self.crossed, self.torn)

    @property
    def failed(self) -> list[Asked]:
        """What was not answered well."""
        return [each for each in self.asked if each.status != 200]

    @property
    def failures(self) -> str:
        """Those in words, some of them."""
        return f"{len(self.failed)} failed: " + ", ".join(str(each) for each in self.failed[:10])

    def share_ok(self) -> float:
        """How many were answered well."""
        assert self.asked, "nothing was asked"
        return 1.0 - len(self.failed) / len(self.asked)

    def slower(self, seconds: float) -> list[Asked]:
        """What took longer."""
        return [each for each in self.asked if each.took > seconds]

    def sound(self, *, torn: bool = False) -> Story:
        """The same, after a look at the books: no answer was another's or broken, no POST was done twice, and whatever
        was answered well was done.
        """
        assert self.asked, "nothing was asked"
        assert not self.crossed, self.crossed
        assert torn or not self.torn, self.torn
        twice = [each.nonce for each in self.asked if each.post and self.done[each.nonce] > 1]
        assert not twice, f"{len(twice)} POSTs were done twice: {twice[:5]}"
        undone = [each.nonce for each in self.asked if each.status == 200 and not self.done[each.nonce]]
        assert not undone, f"{len(undone)} were answered and never done: {undone[:5]}"
        return self

    def __str__(self) -> str:
        took = sorted(each.took for each in self.asked)
        statuses = Counter(each.status for each in self.asked)
        p99 = took[int(0.99 * len(took))] if took else 0.0
        return (
            f"{len(took)} requests, {dict(sorted(statuses.items()))}; p50 {took[len(took) // 2] * 1e3:.0f} ms, "
            f"p99 {p99 * 1e3:.0f} ms, slowest {took[-1] * 1e3:.0f} ms; over 1 s: {len(self.slower(1.0))}"
            if took
            else "nothing was asked"
        )


class Calls:
    """The loads of all callers, under way."""

    def __init__(self, loads: Sequence[CallerLoad], shops: Sequence[House]) -> None:
        self._loads = loads
        self._shops = shops

    def mark(self) -> float:
        """This moment, for `Story.during`."""
        return time.monotonic()

    def favourite(self, seconds: float = 0.7) -> House:
        """The shop that is asked most, after so long: whose loss is felt most."""
        before = [len(shop.done()) for shop in self._shops]
        time.sleep(seconds)
        asked = [len(shop.done()) - count for shop, count in zip(self._shops, before, strict=True)]
        return self._shops[asked.index(max(asked))]

    def stop(self) -> Story:
        """Wait for the answers to what is under way."""
        tallies = [load.stop() for load in self._loads]
        return Story(
            [each for load in self._loads for each in load.asked],
            Counter(nonce for shop in self._shops for nonce in shop.done()),
            [each for tally in tallies for each in tally.crossed],
            [each for tally in tallies for each in tally.torn],
        )


class Street:
    """The whole of it. Use it as a context manager; it is ready inside."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._folder = folder
        issuer = an_issuer(a_root())
        network = self._stack.enter_context(Network())
        addresses = [f"10.77.0.{number}" for number in (11, 12, 13)]
        side = SHOP.format(inbound=INBOUND, app=APP)
        self.shops = [
            House(folder / f"shop-{number}", network.host(address), "shop", side, issuer)
            for number, address in enumerate(addresses)
        ]
        endpoints = ", ".join(f'"{address}:{INBOUND}"' for address in addresses)
        shop = "spiffe://demo.mesh/ns/default/sa/shop"
        side = WEB.format(door=DOOR, endpoints=endpoints, shop=shop)
        self.callers = [
            House(folder / f"web-{number}", network.host(f"10.77.0.{21 + number}"), "web", side, issuer)
            for number in range(2)
        ]

    def __enter__(self) -> Street:
        houses = (*self.shops, *self.callers)
        for house in houses:
            self._stack.callback(house.stop)
            house.start_sidecar()
        for house in houses:
            house.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, *mood: str) -> None:
        """Everything is healed, everybody runs and has forgotten, the applications are in this mood, and all endpoints
        are available.
        """
        for house in (*self.shops, *self.callers):
            house.host.heal()
            if house in self.callers and house.sidecar.code is None and house.resents():
                house.sidecar.stop(5.0)
            if house.sidecar.code is not None:
                house.start_sidecar()
                house.wait_ready()
        for shop in self.shops:
            shop.open(*mood)
        with self.calls(20.0):
            self.until_well()

    @contextmanager
    def calls(self, pace: float = PACE, *, large: float = 0.0) -> Iterator[Calls]:
        """Both callers ask at this pace; of their POSTs this share is of 128 KiB and more, the others of up to 6."""
        with ExitStack() as stack:
            loads = [
                stack.enter_context(CallerLoad(house, pace, seed, large)) for seed, house in enumerate(self.callers)
            ]
            yield Calls(loads, self.shops)

    def is_well(self, callers: Sequence[House] | None = None) -> bool:
        """Whether these callers, or all, see every endpoint available."""
        return all(set(house.states().values()) == {"available"} for house in callers or self.callers)

    def until_well(self, seconds: float = PATIENCE) -> float:
        """Wait until all callers see every endpoint available; returns how long that took. Somebody has to ask."""
        began = time.monotonic()
        eventually("every endpoint is available", self.is_well, seconds)
        return time.monotonic() - began

    def assert_well(self) -> None:
        """Nothing inside any sidecar broke."""
        for house in (*self.shops, *self.callers):
            text = house.sidecar.text()
            assert "Traceback" not in text, text[-3000:]
            assert "failed inside the sidecar" not in text, text[-3000:]
