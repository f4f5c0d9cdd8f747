"""Keeps the record of edges: adds to it once a minute, writes it, and does so once more at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from sidecar.runtime.worker import Worker

KEEP_SECONDS = 60.0


async def keep(worker: Worker) -> None:
    """Add and write, until cancelled."""
    if worker.edges.problem:
        worker.log.warning(worker.edges.problem)
    while True:
        await trio.sleep(KEEP_SECONDS)
        worker.edges.take(worker.recorder.table.rows())
        data = worker.edges.unwritten()
        if data is not None:
            await trio.to_thread.run_sync(write, worker, data)


def write(worker: Worker, data: bytes) -> None:
    """Write, or say why not."""
    try:
        worker.edges.write(data)
    except OSError as error:
        worker.log.warning("the record of edges cannot be written", path=str(worker.edges.path), problem=str(error))


def finish(worker: Worker) -> None:
    """The last word. Blocks: call in a thread."""
    worker.edges.take(worker.recorder.table.rows())
    data = worker.edges.unwritten()
    if data is not None:
        write(worker, data)


def show(worker: Worker) -> dict[str, Any]:
    """What is known now, signed where there is a certificate to sign it with."""
    worker.edges.take(worker.recorder.table.rows())
    identity = worker.service.identity
    said = {"service": worker.service.name, "spiffe_id": identity.text, **worker.edges.to_json()}
    now = worker.clock.wall()
    bundle = worker.bundles.current.of(identity.trust_domain) if worker.bundles.number else None
    if bundle is None or not worker.svids.number or worker.svids.current.not_after <= now:
        return said
    from certs.told_edges import sign_edges

    return sign_edges(said, worker.svids.current, bundle, now)
