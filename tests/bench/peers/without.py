"""Ourselves without what is decided about traffic: the same sidecars, ports of their own, and no `Destination` used.

The honest baseline for what those decisions cost is an outbound hop that has one endpoint and looks no further, as the
hop to the application has: no choice, no breaker, no budget, no ceiling, no retries, no limits. There is no setting for
that, since nobody should run it; so it is `mesh run` with one function of `sidecar.runtime.generation` replaced.
"""

from __future__ import annotations

import sys

from ca.bootstrap import enrolment_file
from certs.spiffe import TrustDomain, workload_id
from tests.bench import mesh
from tests.bench.scene import CLIENT, SERVER, Scene

START = """\
import sys
from sidecar.runtime import generation
generation._rules = lambda spec, requests: None
from sidecar.cli import main
sys.argv[0] = "mesh"
sys.exit(main())
"""


def without(scene: Scene) -> list[list[str]] | None:
    """The server's sidecar, and the client's for two hops."""
    scene.file("without.yaml").write_text(mesh.text(scene, "without"))
    scene.file("without.py").write_text(START)
    return [_command(scene, name) for name in ((SERVER,) if scene.row.hops == 1 else (SERVER, CLIENT))]


def _command(scene: Scene, name: str) -> list[str]:
    identity = workload_id(TrustDomain.parse("demo.mesh"), "default", name)
    return [
        sys.executable, "-P", str(scene.file("without.py")), "run", "--file", str(scene.file("without.yaml")),
        "--service", name, "--enrolment", str(enrolment_file(scene.file("ca"), identity)),
        "--state", str(scene.file(f"without-{name}")), "--run-dir", str(scene.file("without-run")),
    ]  # fmt: skip
