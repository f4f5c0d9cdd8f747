"""The sidecar's own identity code against the real CA: first contact, restart, watch, renewal, refusal."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from ca.enrolling import grant_key, grant_token
from ca.roots import slot_of
from ca.signers import make_root
from certs.bundle import BundleSet
from certs.enrolment import Enrolment
from certs.keys import new_key
from certs.source import Source
from certs.svid import X509Svid
from sidecar.identity import ca_client, enrol
from sidecar.identity.errors import CaRefused, CaUntrusted
from sidecar.identity.rotator import IdentityConfig, keep_identity
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import SystemClock
from tests.ca.desk import Desk, at_the_desk
from tests.ca.office import DEMO


class Sidecar:
    """One life of one sidecar's identity."""

    def __init__(self) -> None:
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("bundle")
        self.status: Source[IdentityStatus] = Source("status")


@asynccontextmanager
async def a_sidecar(desk: Desk, enrolment: Enrolment) -> Any:
    side = Sidecar()
    config = IdentityConfig(enrolment, desk.folder / "sidecar")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            keep_identity, config, side.svids, side.bundles, SystemClock(), random.random, side.status
        )
        await side.svids.wait_past(0)
        yield side
        nursery.cancel_scope.cancel()


def a_token_file(desk: Desk, name: str = "orders") -> Enrolment:
    return grant_token(desk.server.store.store, desk.entry(name), f"127.0.0.1:{desk.port}", desk.clock.now)


async def heard_of_bundle(desk: Desk, sequence: int) -> None:
    while not any((ack.topic, ack.sequence) == ("bundle", sequence) for ack in desk.server.store.store.acks()):
        await trio.sleep(0.01)


@at_the_desk(bundle_poll=0.05)
async def test_a_token_starts_a_sidecar_which_follows_the_bundle_and_restarts_without_it(desk: Desk) -> None:
    enrolment, store = a_token_file(desk), desk.server.store.store
    async with a_sidecar(desk, enrolment) as side:
        assert side.svids.current.spiffe_id == enrolment.spiffe_id
        await heard_of_bundle(desk, 1)
        assert {ack.serial for ack in store.acks()} == {side.svids.current.serial}
        new_root = make_root(DEMO, new_key(), desk.clock.now, 86400.0)
        store.add_slot(slot_of(new_root, "root", desk.clock.now, "prepared"))
        while new_root not in side.bundles.current.roots():
            await trio.sleep(0.01)
        await heard_of_bundle(desk, 2)
    async with a_sidecar(desk, enrolment) as again:
        assert again.svids.current.spiffe_id == enrolment.spiffe_id
    assert [line.proof for line in store.issuances()] == ["enrolment_key", "join_token", "self"]


@at_the_desk
async def test_enrol_by_key_and_renew(desk: Desk) -> None:
    entry = desk.entry()
    file = grant_key(desk.server.store.store, entry, f"127.0.0.1:{desk.port}", desk.clock.now)
    trust = ca_client.Trust(file.trust_domain, pins=file.root_sha256)
    async with await ca_client.connect(file.ca_address, trust, None, SystemClock()) as session:
        issued = await enrol.enrol(session, file, None)  # type: ignore[arg-type]  # a key file needs no state
    trust = ca_client.Trust(file.trust_domain, issued.bundle)
    async with await ca_client.connect(file.ca_address, trust, issued.svid, SystemClock()) as session:
        renewed = await enrol.renew(session, file)
        assert renewed.svid.spiffe_id == entry.spiffe_id
        desk.server.store.store.remove_entry(entry.id, desk.clock.now)
        with pytest.raises(CaRefused) as refusal:
            await enrol.renew(session, file)
    assert refusal.value.status == 403


@at_the_desk
async def test_a_sidecar_that_was_told_of_another_root_does_not_talk_to_this_ca(desk: Desk) -> None:
    trust = ca_client.Trust(DEMO, pins=("00" * 32,))
    with pytest.raises(CaUntrusted):
        await ca_client.connect(f"127.0.0.1:{desk.port}", trust, None, SystemClock())
