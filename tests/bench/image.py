"""How large the image is, and how soon a sidecar in it is ready: `python -m tests.bench.image` (root, docker.io).

Each round starts a container as a test does (read-only, no capabilities, one core), with its identity in files, and
takes the time from the engine's `StartedAt`, when the process was started, to the sidecar's own line that it is ready.
docs/image.md has the figures of one machine, and the bar: 1.5 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from tests.kit.cells import CGROUPS
from tests.kit.containers import BASE, Docker
from tests.kit.files_identity import flags, identity_folder
from tests.kit.processes import eventually

BAR = 1.5  # seconds on one core (issue 8)
LEAST = ("--read-only", "--cap-drop", "ALL", "--network", "none", "--cpuset-cpus", "0", "--no-healthcheck")


def moment(text: str) -> float:
    """Seconds since the epoch of a time in RFC 3339, of which the nanoseconds are cut off."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6] or '0'}+00:00").timestamp()


def ready_after(docker: Docker, image: str, folder: Path) -> tuple[float, float]:
    """Seconds from the process's start to its word that it is ready, and of a core's time that it took."""
    docker("run", "-d", "--name", "timed", *LEAST, *flags(folder), image, "run", "--service", "web")
    try:
        eventually("ready", lambda: '"message":"ready"' in docker.logs("timed"))
        container = docker.inspect("timed")["Id"]
        used = next(CGROUPS.glob(f"cpuacct/{docker.groups.name}/{container}/cpuacct.usage"), None)
        core = float(used.read_text()) / 1e9 if used else float("nan")
        lines = [json.loads(line) for line in docker.logs("timed").splitlines()]
        told = next(line["time"] for line in lines if line["message"] == "ready")
        return moment(told) - moment(docker.state("timed")["StartedAt"]), core
    finally:
        docker("rm", "-f", "-v", "timed")


def main() -> int:
    """Measure and print; exit code 1 where the median misses the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.image", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        docker = Docker(Path(name) / "docker")
        try:
            image = docker.mesh_image()
            docker.base_image()
            whole, base = (docker.inspect(each)["Size"] / 2**20 for each in (image, BASE))
            folder = identity_folder(Path(name) / "etc")
            found = [ready_after(docker, image, folder) for _ in range(rounds)]
        finally:
            docker.close()
    times, cores = sorted(each[0] for each in found), [each[1] for each in found]
    median = statistics.median(times)
    print(f"size: {whole:.0f} MiB, of which ours {whole - base:.0f} MiB above the base of {base:.0f} MiB")
    print(f"ready after {median:.2f} s (median of {rounds}; {times[0]:.2f} to {times[-1]:.2f}); the bar is {BAR} s")
    print(f"which took {statistics.median(cores):.2f} s of a core: on a busy machine this is the figure to compare")
    return 1 if median > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
