"""Short runs of load in which things happen at random points: rotation, reload, drain, restart. Seeded, so repeatable.

What is counted (decisions, "Zero-downtime claims"). A request of the nonce client ends as one of

    ok        the whole, right answer
    refused   an honest refusal that this client may repeat: either nobody accepted its connection, or a sidecar
              answered 503, and either the application never saw the request (checked in the log of app's sidecar, by
              name) or its method is idempotent
    lost      anything else that is no answer: a connection that ended in its place, another status, or a refused POST
              that the application may have seen
    torn, crossed   see tests/kit/nonce.py
    cancelled       the client gave up on purpose (HTTP/2 only): nobody knows how far it had come, so the books of names
                    are compared without it, and those of numbers with it

There is one instance of each service, so a restart refuses honestly for as long as it takes; nothing may be lost in any
run. After each run the books are compared by name and number: the client's outcomes, both access logs, both audits
(`permits: each`), and the metrics of each process that is alive, which begin at nought with the process.
"""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.admin.client import NoSidecar
from tests.kit.fleet import Fleet, Metrics, Sidecar, settled, spiffe
from tests.kit.free_ports import Ports
from tests.kit.meshes import pair_yaml
from tests.kit.nonce import NonceLoad, Tally
from tests.kit.processes import eventually

TTL = 20.0  # seconds that certificates live, so that they also renew by themselves
RATE = 100.0
KINDS = {"rotate": 3, "reload": 3, "drain": 1, "restart": 1}  # how likely each is
IDEMPOTENT = "GET"
_FAILED = re.compile(r"(?P<nonce>\S+) at [0-9.]+: (?:status (?P<status>[0-9]+): (?P<head>.*)|(?P<error>.*))", re.DOTALL)
_CONNECT_REFUSED = "ConnectionRefusedError"


@dataclass(frozen=True)
class Event:
    """Something that happens to a sidecar, so many seconds after the load has begun."""

    at: float
    kind: str
    target: str


def plan(seed: int, seconds: float) -> list[Event]:
    """One to three events of a run."""
    dice = random.Random(seed)
    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=dice.randint(1, 3))
    return sorted(
        (Event(dice.uniform(0.1, seconds), kind, dice.choice(("web", "app"))) for kind in kinds), key=lambda it: it.at
    )


@dataclass
class Result:
    """What one run came to."""

    seed: int
    events: list[Event]
    tally: Tally
    ok: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)  # nonce → why
    lost: dict[str, str] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)  # of web's sidecar, for what it refused

    def summary(self) -> str:
        """One line."""
        events = ", ".join(f"{event.kind} {event.target} at {event.at:.2f}" for event in self.events)
        return (
            f"seed {self.seed}: {self.tally.sent} sent, {len(self.ok)} ok, {len(self.refused)} refused, "
            f"{len(self.tally.cancelled)} cancelled, "
            f"{len(self.lost)} lost, {len(self.tally.crossed)} crossed, {len(self.tally.torn)} torn; "
            f"flags {dict(self.flags)}; {events}"
        )

    def assert_nothing_lost(self) -> None:
        """Not one request crossed, torn or lost."""
        assert not self.tally.crossed, (self.summary(), self.tally.crossed[:5])
        assert not self.tally.torn, (self.summary(), self.tally.torn[:5])
        assert not self.lost, (self.summary(), list(self.lost.items())[:5])


class Storm(Fleet):
    """web and app, for many runs."""

    def __init__(self, folder: Path) -> None:
        self.ports = Ports()
        text = pair_yaml(self.ports, folder, defaults="{timeouts: {drain: 3s}, audit: {permits: each}}")
        super().__init__(folder, text, ttl=TTL)
        self.reloads = 0

    @property
    def both(self) -> tuple[Sidecar, Sidecar]:
        """The caller's sidecar, and the called one's."""
        return self["web"], self["app"]

    def run(
        self, seed: int, seconds: float = 2.0, rate: float = RATE, load_by: Callable[..., NonceLoad] = NonceLoad
    ) -> Result:
        """One run: load, events, and the books."""
        before = {sidecar.name: _Mark.of(sidecar) for sidecar in self.both}
        events = plan(seed, seconds)
        with load_by(self.ports.door, rate=rate, seed=seed) as load:
            began = time.monotonic()
            for event in events:
                time.sleep(max(0.0, began + event.at - time.monotonic()))
                self._happen(event)
            time.sleep(max(0.3, began + seconds - time.monotonic()))
            tally = load.stop()
        settled(self.both)
        result = Result(seed, events, tally)
        balance(self, result, before)
        return result

    def _happen(self, event: Event) -> None:
        sidecar = self[event.target]
        if event.kind == "rotate":  # it may have to wait until 10 s have passed since the last one
            threading.Thread(target=_rotate, args=(sidecar,), daemon=True).start()
        elif event.kind == "reload":
            self.change_config()
            sidecar.process.signal(signal.SIGHUP)
        elif event.kind == "drain":
            assert sidecar.admin("POST", "/drain")[0] == 202
            assert sidecar.process.wait() == 0, sidecar.process.tail()
            sidecar.start()
        else:
            assert sidecar.stop() == 0, sidecar.process.tail()
            sidecar.start()

    def change_config(self) -> None:
        """Rename a rule, as an editor saves a file."""
        self.reloads += 1
        text = self.file.read_text()
        changed = re.sub(r"name: web-may[-0-9]*", f"name: web-may-{self.reloads}", text)
        assert changed != text
        fresh = self.file.with_suffix(".new")
        fresh.write_text(changed)
        fresh.rename(self.file)


def _rotate(sidecar: Sidecar) -> None:
    with suppress(NoSidecar):  # it ended before its turn came
        sidecar.admin("POST", "/certs/rotate")


# ---- the books -------------------------------------------------------------------------------------------------------


@dataclass
class _Mark:
    """Where a sidecar's records stood before a run."""

    instance: str
    metrics: Metrics
    access: int
    audit: int

    @classmethod
    def of(cls, sidecar: Sidecar) -> _Mark:
        return cls(
            sidecar.status()["instance"],
            sidecar.metrics(),
            _size(Path(sidecar.config.access_log.path)),
            _size(sidecar.state / "audit.jsonl"),
        )


def balance(storm: Storm, result: Result, before: dict[str, _Mark]) -> None:
    """Judge each request, and compare all books of this run. Fails where they differ by one."""
    web, app = storm.both
    tally = result.tally
    failed = {found["nonce"]: found for found in map(_FAILED.match, tally.failed) if found is not None}
    assert len(failed) == len(tally.failed)
    bad = {entry.split()[0].rstrip(":") for entry in (*tally.crossed, *tally.torn)}
    unknown = set(tally.cancelled)
    result.ok = set(tally.nonces) - set(failed) - bad - unknown
    assert len(result.ok) == tally.ok
    answered = dict.fromkeys(result.ok, 200) | {n: int(it["status"]) for n, it in failed.items() if it["status"]}
    # client = web's access log, by name and status; what never was a request of web's is in nobody's book
    heard = _lines_of(web, tally, before, "outbound", len(answered))
    seen = {_nonce(line): line for line in heard}
    assert len(seen) == len(heard), "web's sidecar has logged a request twice"
    # app's access log: what the application has answered is what the client has
    served = _lines_of(app, tally, before, "inbound", len(result.ok))
    by_app: dict[str, list[dict[str, Any]]] = {}
    for line in served:
        by_app.setdefault(_nonce(line), []).append(line)
    for nonce, found in failed.items():
        _judge(result, nonce, found, by_app.get(nonce, []))
    result.flags.update(seen[nonce]["flags"] for nonce in failed if nonce in seen)
    if bad or result.lost:
        return  # the run has failed; books that cannot balance would only hide why
    assert {nonce: line["status"] for nonce, line in seen.items() if nonce not in unknown} == answered
    good = Counter(_nonce(line) for line in served if line["status"] == 200 and line["flags"] == "-")
    for nonce in unknown:
        del good[nonce]
    assert good == Counter(result.ok), "what the application answered is not what the client has"
    for sidecar, direction, lines in ((web, "outbound", heard), (app, "inbound", served)):
        _balance_metrics(sidecar, direction, lines, before[sidecar.name])
        least = sum(_nonce(line) not in unknown for line in lines)
        _balance_audit(sidecar, direction, range(least, len(lines) + 1), before[sidecar.name])


def _judge(result: Result, nonce: str, found: re.Match[str], at_app: list[dict[str, Any]]) -> None:
    """An honest refusal, or a loss."""
    post = int(nonce.rpartition("-")[2], 16) % 2 == 1  # as NonceLoad numbers them
    what = found["error"] or f"{found['status']} {found['head']}"
    if _CONNECT_REFUSED in what:
        result.refused[nonce] = "nobody listens"
    elif found["status"] == "503" and (not post or not at_app):
        result.refused[nonce] = what
    else:
        result.lost[nonce] = f"{what} {'at the application' if at_app else ''}"


def _balance_metrics(sidecar: Sidecar, direction: str, lines: list[dict[str, Any]], before: _Mark) -> None:
    """The living process's counters are the lines that it has written."""
    now, instance = sidecar.metrics(), sidecar.status()["instance"]
    own = [line for line in lines if line["instance"] == instance]
    for flag in {line["flags"] for line in own} | {"-"}:
        labels = {"direction": direction, "source": spiffe("web"), "destination": spiffe("app"), "flag": flag}
        since = before.metrics.total("mesh_requests_total", **labels) if instance == before.instance else 0
        counted = now.total("mesh_requests_total", **labels) - since
        assert counted == sum(line["flags"] == flag for line in own), (sidecar.name, flag, counted)


def _balance_audit(sidecar: Sidecar, direction: str, due: range, before: _Mark) -> None:
    """A line in the audit for each in the access log: permits, refusals. What was cancelled before it was judged is
    neither.
    """

    def counts() -> tuple[int, int]:
        found = _tail(sidecar.state / "audit.jsonl", before.audit)
        own = [line for line in found if line["kind"] in ("permit", "refusal") and line["direction"] == direction]
        return sum(line.get("count", 1) for line in own if line["kind"] == "permit"), sum(
            line["kind"] == "refusal" for line in own
        )

    eventually(f"{due} lines in the audit of {sidecar.name}", lambda: sum(counts()) >= due.start, 10)
    assert sum(counts()) in due, (sidecar.name, counts(), due)


def _lines_of(
    sidecar: Sidecar, tally: Tally, before: dict[str, _Mark], direction: str, least: int
) -> list[dict[str, Any]]:
    """This run's lines of its access log; a thread writes them, so the last may be a moment late."""
    names, path, start = set(tally.nonces), Path(sidecar.config.access_log.path), before[sidecar.name].access

    def lines() -> list[dict[str, Any]]:
        return [line for line in _tail(path, start) if line["direction"] == direction and _nonce(line) in names]

    def known() -> int:
        return sum(_nonce(line) not in cancelled for line in lines())

    cancelled = set(tally.cancelled)
    eventually(f"{least} lines of {sidecar.name}", lambda: known() >= least, 10)
    time.sleep(0.05)  # for lines beyond those that must be there
    return lines()


def _nonce(line: dict[str, Any]) -> str:
    return str(line["uri"]).removeprefix("/echo/")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tail(path: Path, start: int) -> list[dict[str, Any]]:
    """The whole lines of a JSON log from this byte on."""
    import json

    with path.open("rb") as file:
        file.seek(start)
        return [json.loads(line) for line in file if line.endswith(b"\n")]
