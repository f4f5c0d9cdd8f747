"""One sidecar's identity against the real CA over real sockets, through an outage at the start and one later."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import pytest
import trio

from ca.bootstrap import enrolment_file, prepare
from ca.config import ServeConfig
from ca.entries import NewEntry
from ca.server import open_server
from certs.bundle import BundleSet
from certs.enrolment import Enrolment
from certs.source import Source
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.identity.rotator import IdentityConfig, keep_identity
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import SystemClock
from tests.kit.fake_ca import TRUST_DOMAIN, WEB

PASSPHRASE = b"correct horse battery staple"
TTL = 20.0  # scaled: renewal comes after 10 s


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def serve(directory: Path, port: int, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    server = open_server(ServeConfig(directory, "127.0.0.1", port), PASSPHRASE)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            task_status.started(nursery.cancel_scope)
    finally:
        server.store.store.close()


@pytest.mark.integration
def test_an_identity_survives_a_ca_that_comes_late_goes_away_and_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        directory, port = tmp_path / "ca", a_free_port()
        prepare(directory, TRUST_DOMAIN, PASSPHRASE, [NewEntry(WEB, ttl=TTL)], f"127.0.0.1:{port}")
        config = IdentityConfig(Enrolment.load(enrolment_file(directory, WEB)), tmp_path / "state")
        svids: Source[X509Svid] = Source("SVID")
        bundles: Source[BundleSet] = Source("bundle")
        status: Source[IdentityStatus] = Source("status")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_identity, config, svids, bundles, SystemClock(), random.random, status)
            await until(status, lambda now: now.consecutive_failures >= 2)
            assert "cannot reach the CA" in status.current.last_error

            ca: trio.CancelScope = await nursery.start(serve, directory, port)
            await svids.wait_past(0)
            first = svids.current
            assert verify_chain(first.chain, bundles.current, time.time()) == WEB
            await until(status, lambda now: now.ca_connected)
            assert status.current.clock_skew_seconds == pytest.approx(0, abs=1)

            ca.cancel()
            await until(status, lambda now: now.watch_error != "")
            assert svids.current is first

            await nursery.start(serve, directory, port)
            await until(status, lambda now: now.ca_connected)
            await svids.wait_past(1)
            second = svids.current
            assert (second.spiffe_id, second.serial != first.serial) == (WEB, True)
            assert time.time() < first.not_after
            await until(status, lambda now: now.ca_connected and now.serial == second.serial)
            nursery.cancel_scope.cancel()

    async def until(status: Source[IdentityStatus], holds: object) -> None:
        assert callable(holds)
        while not (status.number and holds(status.current)):
            await status.wait_past(status.number)

    async def limited() -> None:
        with trio.fail_after(40):
            await story()

    trio.run(limited)
