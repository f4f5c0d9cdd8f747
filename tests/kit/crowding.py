"""Two callers of one service behind real sidecars: one asks in more and more connections, the other as always. What
each of them waits for, by the second; and the drawing of it in docs/throttling.svg:

    python -m tests.kit.crowding docs/throttling.svg
"""

from __future__ import annotations

import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports
from tests.kit.programs import echo_app

TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  greedy: {{outbound: [{{to: app, listen: "127.0.0.1:{p.greedy}"}}], health: {{listen: "127.0.0.1:{p.greedy_health}"}}}}
  other: {{outbound: [{{to: app, listen: "127.0.0.1:{p.other}"}}], health: {{listen: "127.0.0.1:{p.other_health}"}}}}
  app:
    inbound: [{{name: main, port: {p.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}"}}]
    allow: [{{name: both-may, from: [greedy, other]}}]
    rates: [{{{limit}}}]
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: "127.0.0.1:{p.app_health}"}}
"""
BREATH = 0.5  # seconds that the greedy one takes after each refusal: a loop that takes none measures this machine


class Crowd(Fleet):
    """`greedy` and `other`, which both call `app`."""

    def __init__(self, folder: Path, limit: str) -> None:
        self.ports = Ports()
        super().__init__(folder, TEXT.format(domain=TRUST_DOMAIN, p=self.ports, folder=folder, limit=limit))


@dataclass
class Waits:
    """What one caller has waited for: (when it asked, seconds until the answer, status)."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def between(self, begin: float, end: float, status: int = 200) -> list[float]:
        """The waits of the answers of this status, of what was asked in this time, in order."""
        return sorted(wait for at, wait, got in self.answers if begin <= at < end and got == status)

    def percentile(self, share: float, begin: float, end: float) -> float:
        """Seconds; 0.0 where nothing was answered."""
        waits = self.between(begin, end)
        return waits[min(len(waits) - 1, int(len(waits) * share))] if waits else 0.0


class Caller:
    """One connection of a caller, which asks again when it has its answer, or `every` so many seconds."""

    def __init__(self, port: int, waits: Waits, zero: float, every: float = 0.0) -> None:
        self._port, self._waits, self._zero, self._every = port, waits, zero, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._over.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._waits.broken.append(repr(error))
                connection.close()
                continue
            took = time.monotonic() - began
            self._waits.answers.append((began - self._zero, took, answer.status))
            self._over.wait(max(self._every - took, 0.0 if answer.status == 200 else BREATH))
        connection.close()

    def end(self) -> None:
        """Ask no more."""
        self._over.set()

    def join(self) -> None:
        """Wait for the last answer."""
        self._thread.join(20)


def crowd(mesh: Crowd, steps: Sequence[tuple[int, float]]) -> tuple[Waits, Waits]:
    """Let the greedy one have so many connections for so many seconds, step by step; what it and the other waited."""
    greedy, other, zero = Waits(), Waits(), time.monotonic()
    callers = [Caller(mesh.ports.other, other, zero, every=0.05)]
    for connections, seconds in steps:
        while len(callers) - 1 < connections:
            callers.append(Caller(mesh.ports.greedy, greedy, zero))
        time.sleep(seconds)
    for caller in callers:
        caller.end()
    for caller in callers:
        caller.join()
    return greedy, other


# ---- the drawing -----------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, PANEL, GAP, TOP, TALL = 720, 210, 44, 300, 56, 66, 100
LIMIT = "name: turns, limit: 40/s, burst: 20, per: caller, over: delay, delay: 2s, strikes: 200, block: 10s"
STEPS = [(count, 1.0) for count in range(2, 122, 3)] + [(120, 6.0)]


def draw(greedy: Waits, other: Waits, seconds: int) -> str:
    """Three lines over time in two panels: the greedy one's median and its refusals, and the other's p99."""
    from tests.bench.plot import STYLE

    spans = [(float(at), at + 2.0) for at in range(0, seconds - 1, 2)]
    medians = [1000 * greedy.percentile(0.5, *span) for span in spans]
    nineties = [1000 * other.percentile(0.99, *span) for span in spans]
    counts = [(len(greedy.between(*span, status=429)), len(greedy.between(*span))) for span in spans]
    refused = [100 * no / max(1, no + yes) for no, yes in counts]
    style = STYLE + (
        "\n  .one, .two, .no { fill: none; stroke-width: 1.6 } .one { stroke: #b5488f } .two { stroke: #2f6fde }"
        " .no { stroke: #7a7f87; stroke-dasharray: 4 3 }"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{style}</style>",
        '<text class="title" x="12" y="24">One caller asks in more and more connections: 2, and 120 in the end</text>',
        '<text x="12" y="44">over: delay, 40/s per caller, delay: 2s, strikes: 200, block: 10s; two real sidecars'
        " and a third for the other caller</text>",
        *_panel("its median, ms (dashed: share refused, %)", LEFT, 2500.0, seconds, [("one", medians)]),
        *_lines(LEFT, 100.0, [("no", refused)]),
        *_panel("p99 of the other caller, ms", LEFT + PANEL + GAP, 2500.0, seconds, [("two", nineties)]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(what: str, left: int, ceiling: float, seconds: int, lines: list[tuple[str, list[float]]]) -> list[str]:
    lower = TOP + TALL
    return [
        f'<text x="{left}" y="{TOP - 6}">{what}</text>',
        f'<polyline class="axis" fill="none" points="{left},{TOP} {left},{lower} {left + PANEL},{lower}"/>',
        f'<text x="{left - 6}" y="{TOP + 8}" text-anchor="end">{ceiling:g}</text>',
        f'<text x="{left - 6}" y="{lower}" text-anchor="end">0</text>',
        f'<text x="{left + PANEL}" y="{lower + 14}" text-anchor="end">{seconds} s</text>',
        *_lines(left, ceiling, lines),
    ]


def _lines(left: int, ceiling: float, lines: list[tuple[str, list[float]]]) -> list[str]:
    found = []
    for name, values in lines:
        step = PANEL / len(values)
        points = " ".join(
            f"{left + (number + 0.5) * step:.1f},{TOP + TALL * (1.0 - min(1.0, value / ceiling)):.1f}"
            for number, value in enumerate(values)
        )
        found.append(f'<polyline class="{name}" points="{points}"/>')
    return found


def main() -> None:
    """Play it, and draw it into the file that is named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mesh = Crowd(folder, LIMIT)
        with echo_app(folder, mesh.ports.app), mesh:
            mesh.start_all()
            greedy, other = crowd(mesh, STEPS)
            mesh.assert_well()
    seconds = int(sum(each for _, each in STEPS))
    Path(sys.argv[1]).write_text(draw(greedy, other, seconds))
    for at in range(0, seconds, 6):
        span = (float(at), at + 6.0)
        print(
            f"{at:3d} s: greedy p50 {greedy.percentile(0.5, *span) * 1e3:6.0f} ms, refused "
            f"{len(greedy.between(*span, status=429)):4d}; other p50 {other.percentile(0.5, *span) * 1e3:4.1f} ms, "
            f"p99 {other.percentile(0.99, *span) * 1e3:4.1f} ms"
        )


if __name__ == "__main__":
    main()
