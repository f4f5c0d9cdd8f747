"""`mesh ca`: the CA's own commands, mounted; `serve` is confined like every process that meets strangers."""

from __future__ import annotations

import logging
from pathlib import Path

from ca.cli import before_serving, ca
from sidecar.cli.console import list_whole

__all__ = ["ca"]


def confine(directory: Path) -> None:
    """Put the hygiene of the CA's process in force (best effort); it reads and writes its directory alone."""
    from sidecar.runtime import hygiene

    found = hygiene.apply(hygiene.Folders.around(folders=[directory]))
    log = logging.getLogger("mesh.ca")
    terms = ", ".join(f"{name} {value}" for name, value in found.in_force.items())
    log.log(logging.WARNING if found.note() else logging.INFO, "process hygiene: %s", terms)
    for why in found.lacking().values():
        log.warning("process hygiene not in force: %s", why)


if confine not in before_serving:
    before_serving.append(confine)
list_whole(ca)
