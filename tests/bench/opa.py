"""What asking OPA costs a request: `python -m tests.bench.opa`.

Two real sidecars, an application, and OPA's REST API before a real Rego engine (`regopy`) in a process of its own.
Eight clients ask on connections that are kept, for `SECONDS` each: without OPA, with it, with its answers kept, and
with as many different questions as there are requests; and without OPA on the general way, which it makes necessary.
Printed are requests a second, the median and the 99th percentile, and what the sidecar says of its questions alone
(`mesh_ask_seconds`). The engine of the tests answers one question at a time under Python's lock, so the numbers say
what the sidecar adds to it, not how fast OPA is.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.integration.test_opa import POLICY, TEXT
from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports
from tests.kit.opa_server import OpaServer
from tests.kit.programs import echo_app

SECONDS, CLIENTS = 4.0, 8
WAYS = {"without OPA": "", "without OPA, no express": "", "each asked about": "", "answers kept": ", cache: {ttl: 5s}",
        "answers kept, all different": ", cache: {ttl: 5s}"}  # fmt: skip


def _opa(line: Connection) -> None:
    with OpaServer(POLICY) as server:
        line.send(server.port)
        line.recv()


@contextmanager
def rego() -> Iterator[int]:
    """A Rego engine in a process of its own; its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_opa, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("enough")
        process.join(5)


def load(port: int, seconds: float, *, different: bool) -> list[tuple[float, bool]]:
    """Seconds of each request, of all clients, and whether it was let in."""
    until, spent = time.monotonic() + seconds, []

    def client(who: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port)
        number = 0
        while (began := time.monotonic()) < until:
            number += 1
            path = f"/orders/{who}-{number}" if different else f"/orders/{who}"
            line.request("GET", path, headers={"Host": "orders", "X-Team": "shop"})
            answer = line.getresponse()
            answer.read()
            spent.append((time.monotonic() - began, answer.status == 200))

    threads = [threading.Thread(target=client, args=(who,)) for who in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(spent)


def run(folder: Path, name: str, opa: int) -> str:
    """One line of the table."""
    ports = Ports()
    text = TEXT.format(domain=TRUST_DOMAIN, p=ports, opa=opa, more=WAYS[name])
    os.environ["MESH_HTTP1_READER"] = "h11" if "no express" in name else "plain"
    if name.startswith("without OPA"):
        text = "\n".join(line for line in text.splitlines() if not line.strip().startswith("opa:"))
    with Fleet(folder, text) as mesh, echo_app(folder, ports.app):
        mesh.start_all()
        load(ports.web, 1.0, different=False)
        answers = load(ports.web, SECONDS, different="different" in name)
        metrics = mesh["orders"].metrics()
        asked = metrics.total("mesh_ask_seconds_count")
        mean = metrics.total("mesh_ask_seconds_sum") / asked if asked else 0.0
    spent = [seconds for seconds, _ in answers]
    refused = sum(not good for _, good in answers)
    p50, p99 = (spent[int(len(spent) * share)] * 1e3 for share in (0.5, 0.99))
    questions = f"{asked:.0f} questions, {mean * 1e3:.2f} ms each" if asked else "no question"
    rate = f"{len(spent) / SECONDS:6.0f}/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms"
    return f"  {name:28} {rate}  {questions}, {refused} refused"


def main() -> None:
    """Print a line for each way."""
    with rego() as opa:
        for name in WAYS:
            with tempfile.TemporaryDirectory(prefix="mesh-opa-") as folder:
                print(run(Path(folder), name, opa), flush=True)


if __name__ == "__main__":
    main()
