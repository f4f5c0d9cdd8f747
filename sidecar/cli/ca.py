"""`mesh ca`: the CA's own commands, mounted; `serve` is confined like every process that meets strangers."""

from __future__ import annotations

import logging
from pathlib import Path

from ca.cli import before_serving, ca
from sidecar.cli.console import list_whole

__all__ = ["ca"]


def confine(directory: Path, socket: Path | None = None) -> None:
    """Put the hygiene of the CA's process in force (best effort); it writes its directory alone, and its socket's.

    It reads, besides, the folders of the tokens that it shows to clusters.
    """
    from ca.attest.clusters import token_files
    from ca.cli_common import opened
    from sidecar.runtime import hygiene

    with opened(directory) as (_, store):
        tokens = token_files(store.clusters())
    folders = [directory, *([socket.parent] if socket is not None else [])]
    found = hygiene.apply(hygiene.Folders.around(read=tokens, folders=folders))
    log = logging.getLogger("mesh.ca")
    terms = ", ".join(f"{name} {value}" for name, value in found.in_force.items())
    log.log(logging.WARNING if found.note() else logging.INFO, "process hygiene: %s", terms)
    for why in found.lacking().values():
        log.warning("process hygiene not in force: %s", why)


if confine not in before_serving:
    before_serving.append(confine)
list_whole(ca)
