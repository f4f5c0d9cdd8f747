"""The windows onto a sidecar that stand before its listeners do: admin socket, Workload API, health and metrics."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from sidecar.admin.api import serve_admin
from sidecar.admin.health import serve_health
from sidecar.runtime.inspect import Inspector
from sidecar.runtime.listening import CannotListen

if TYPE_CHECKING:
    from sidecar.admin.pod_health import PodHealth
    from sidecar.config.terms import Address
    from sidecar.runtime.worker import Worker


async def open_windows(worker: Worker, nursery: trio.Nursery, run_dir: Path, pod: PodHealth | None) -> None:
    """Open them all; what is done through them is on the record. Raises CannotListen, SocketTaken, UnsafeRunFolder."""
    service, log, recording = worker.service, worker.log, worker.recording
    await nursery.start(
        partial(serve_admin, Inspector(worker), run_dir, service.name, log, acted=recording.admin)
    )
    if (api := service.workload_api) is not None:
        from sidecar.admin.workload_socket import serve_workload_api

        await nursery.start(
            partial(
                serve_workload_api, api, worker.svids, worker.bundles, worker.denylists, worker.fetch_jwt, worker.clock,
                log, acted=recording.workload_api,
            )
        )
    address = service.health.listen
    if pod is not None or address is not None:
        listeners = await _listen_for_health(address, pod)
        await nursery.start(serve_health, worker.recorder.metrics, worker.not_ready, listeners, log, pod)


async def _listen_for_health(address: Address | None, pod: PodHealth | None) -> list[trio.SocketListener]:
    try:
        if pod is not None:
            return await pod.listen()
        assert address is not None
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        where = address if pod is None else f"port {pod.port} of the pod"
        raise CannotListen(f"cannot listen on {where} for health and metrics: {error.strerror or error}") from None
