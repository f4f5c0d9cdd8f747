"""The denylist on its way to a sidecar: believed, in force, kept, acknowledged; or refused, and the old one stays."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from certs.denylist import Denylist
from sidecar.identity.state import StateFolder
from tests.kit.fake_ca import ISSUER, TRUST_DOMAIN, WEB, FakeCa
from tests.kit.identities import DAY, NOW, a_bundle, a_root, an_issuer
from tests.sidecar.identity.life import Life

ORDERS = TRUST_DOMAIN.id("ns", "default", "sa", "orders")
LIST = Denylist(TRUST_DOMAIN, 7, NOW, frozenset({"a1"}), frozenset({ORDERS}))
Story = Callable[[FakeCa, Path], Awaitable[None]]
Run = Callable[[Story], None]


def test_one_that_comes_is_in_force_then_kept_then_acknowledged(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        life = Life(ca, folder)
        svid = await life.identity()
        assert life.denylists.current == LIST
        assert ca.denylist_acks == [(svid.serial, 7)]
        status = life.now
        assert (status.denylist_sequence, status.denylist_at, status.denylist_entries) == (7, NOW, 2)
        assert status.denylist_heard_at >= NOW
        kept = StateFolder(folder, ca.enrolment()).load_denylist()
        assert ca.denylist is not None
        assert kept == ca.denylist["denylist"]
        acked: list[int] = []
        life.denylists.subscribe(lambda _: acked.append(len(ca.denylist_acks)))
        await ca.deny(replace(LIST, sequence=8))
        await trio.sleep(1)
        assert acked[-1] == 1, "in force first, acknowledged second"
        assert ca.denylist_acks == [(svid.serial, 7), (svid.serial, 8)]

    with_ca(story)


BAD: dict[str, tuple[Callable[[FakeCa], Awaitable[None]], str]] = {
    "a lower sequence": (lambda ca: ca.deny(replace(LIST, sequence=6, at=NOW + 9)), "lower_sequence"),
    "an older copy": (lambda ca: ca.deny(replace(LIST, at=NOW - 9)), "older"),
    "a foreign signer": (lambda ca: ca.deny(replace(LIST, sequence=9), an_issuer(a_root())), "unknown_root"),
    "no statement": (lambda ca: ca.send_denylist(9, {"payload": "e30="}), "malformed"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_that_cannot_be_believed_changes_nothing_and_is_counted(
    with_ca: Run, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    send, reason = BAD[case]

    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        life = Life(ca, folder)
        await life.identity()
        before = StateFolder(folder, ca.enrolment()).load_denylist()
        await send(ca)
        await trio.sleep(1)
        assert life.denylists.current == LIST
        assert (life.now.denylist_refused, life.now.denylist_sequence) == (1, 7)
        assert f"[{reason}]" in life.now.denylist_error
        assert len(ca.denylist_acks) == 1, "what is refused is not acknowledged"
        assert life.now.ca_connected, "and the watch goes on"
        assert StateFolder(folder, ca.enrolment()).load_denylist() == before
        await ca.deny(replace(LIST, sequence=10))
        await trio.sleep(1)
        assert (life.now.denylist_sequence, life.now.denylist_error) == (10, "")

    with caplog.at_level(logging.ERROR, "mesh.identity"):
        with_ca(story)
    assert any("denylist 7 stays in force" in record.getMessage() for record in caplog.records)


def test_a_ca_that_has_lost_its_memory_is_told_what_to_do(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        life = Life(ca, folder)
        await life.identity()
        await ca.deny(replace(LIST, sequence=3, at=NOW + 60))
        await ca.publish(replace(ca.bundle, sequence=ca.bundle.sequence - 1, roots=a_bundle(a_root()).roots))
        await trio.sleep(1)
        assert "mesh ca restore" in life.now.denylist_error
        assert "mesh ca restore" in life.now.bundle_error
        assert life.now.bundle_sequence == 1, "a root that has left does not come back by an older bundle"

    with_ca(story)


def test_what_an_earlier_life_kept_is_in_force_before_the_ca_is_asked(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        first = Life(ca, folder)
        await first.identity()
        first.scope.cancel()
        ca.up = False
        ca.denylist = None
        second = Life(ca, folder)
        await trio.sleep(3)
        assert second.denylists.current == LIST
        assert second.now.denylist_heard_at == 0.0, "from the disk is not from the CA"
        await trio.sleep(1)

    with_ca(story)


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"payload": "e30=", "signature": "", "signer": []}'])
def test_a_damaged_file_is_told_and_keeps_nobody_down(with_ca: Run, damage: str) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        first = Life(ca, folder)
        await first.identity()
        first.scope.cancel()
        (kept := folder / "web-1.denylist.json").write_text(damage)
        kept.chmod(0o600)
        await ca.deny(LIST)
        second = Life(ca, folder)
        await second.identity()
        assert second.denylists.current == LIST
        assert second.now.denylist_refused == 1

    with_ca(story)


def test_a_kept_list_that_somebody_changed_is_not_believed(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        first = Life(ca, folder)
        await first.identity()
        first.scope.cancel()
        state = StateFolder(folder, ca.enrolment())
        forged = replace(LIST, spiffe_ids=frozenset()).sign(an_issuer(a_root()).key, ISSUER.chain).to_json()
        state.save_denylist(forged)
        ca.up = False
        second = Life(ca, folder)
        await trio.sleep(3)
        assert second.denylists.number == 0
        assert "bad_signature" in second.now.denylist_error

    with_ca(story)


def test_one_that_is_an_hour_old_alarms_once(with_ca: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        life = Life(ca, folder)
        await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(3500)
        assert not alarms()
        await trio.sleep(7200)
        assert len(alarms()) == 1
        assert life.denylists.current == LIST, "its age closes nothing by itself"
        ca.up = True
        await ca.deny(replace(LIST, at=life.clock.wall()))
        await trio.sleep(300)
        assert "the denylist is young again" in caplog.text

    def alarms() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "min old" in record.getMessage()]

    with caplog.at_level(logging.INFO, "mesh.identity"):
        with_ca(story)


# ---- our own certificate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["serial", "issuer"])
def test_a_revoked_certificate_is_replaced_at_once_by_the_proof(with_ca: Run, by: str) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        first = await life.identity()
        await trio.sleep(60)
        ca.seen.clear()
        began = trio.current_time()
        if by == "serial":
            denied, signer = replace(LIST, serials=frozenset({first.serial})), None
        else:
            ca.issued_by = signer = an_issuer(ca.root, days=3650)
            denied = replace(LIST, issuers=frozenset({f"{ISSUER.certificate.serial_number:x}"}))
            ca.issuer = signer
        await ca.deny(denied, signer)
        await life.svids.wait_past(1)
        assert trio.current_time() - began < 1
        assert "/v1/renew" not in ca.paths(), "a denied certificate proves nothing"
        assert "/v1/enrol" in ca.paths()
        await trio.sleep(1)
        assert life.now.revoked == ""
        assert life.svids.current.serial != first.serial

    with_ca(story)


def test_never_twice_within_ten_seconds_even_so(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        first = await life.identity()
        await ca.deny(replace(LIST, serials=frozenset({first.serial})))
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(10, abs=0.5)

    with_ca(story)


def test_a_revoked_identity_says_so_and_does_not_storm_the_ca(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        await trio.sleep(60)
        await ca.deny(replace(LIST, spiffe_ids=frozenset({WEB})))
        ca.seen.clear()
        await trio.sleep(60)
        assert life.now.revoked == "spiffe_id"
        assert not [path for path in ca.paths() if path == "/v1/enrol"], "nothing is issued to it, so it does not ask"
        await ca.deny(replace(LIST, sequence=8, spiffe_ids=frozenset()))
        await trio.sleep(1)
        assert life.now.revoked == ""

    with_ca(story)


def test_a_clock_that_jumped_refuses_what_it_cannot_judge_and_believes_it_again_later(with_ca: Run) -> None:
    """The signer is not valid yet for a clock that is two days back; nothing is lost by that but time."""

    async def story(ca: FakeCa, folder: Path) -> None:
        await ca.deny(LIST)
        life = Life(ca, folder)
        await life.identity()
        life.clock.jump(-2 * DAY)
        await ca.deny(replace(LIST, sequence=8))
        await trio.sleep(1)
        assert (life.now.denylist_sequence, life.now.denylist_refused) == (7, 1)
        assert "check the clock" in life.now.denylist_error
        life.clock.jump(2 * DAY)
        await ca.deny(replace(LIST, sequence=8, at=NOW + 9))
        await trio.sleep(1)
        assert (life.now.denylist_sequence, life.now.denylist_error) == (8, "")

    with_ca(story)
