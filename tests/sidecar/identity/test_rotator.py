"""An identity is obtained, renewed in time, kept to its last second, and never given up on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from certs.enrolment import EnrolmentKey
from sidecar.net.http_server import Response
from tests.kit.fake_ca import WEB, FakeCa
from tests.kit.identities import DAY, HOUR, NOW
from tests.sidecar.identity.life import Life

MINUTE = 60.0
Story = Callable[[FakeCa, Path], Awaitable[None]]
Run = Callable[[Story], None]


def test_an_identity_arrives_with_its_bundle_and_a_plan(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        bundles_at_svid: list[int] = []
        life.svids.subscribe(lambda _: bundles_at_svid.append(life.bundles.number))
        svid = await life.identity()
        assert svid.spiffe_id == WEB
        assert bundles_at_svid == [1]
        assert life.bundles.current.of(WEB.trust_domain) == ca.bundle
        status = life.now
        assert (status.spiffe_id, status.serial, status.not_after) == (WEB.text, svid.serial, svid.not_after)
        assert status.next_renewal_at == pytest.approx(NOW + DAY / 2, abs=2)
        assert (status.consecutive_failures, status.last_error, status.watch_error) == (0, "", "")
        assert status.clock_skew_seconds == pytest.approx(0, abs=0.1)
        assert (status.bundle_sequence, status.ca_connected) == (1, True)

    with_ca(story)


# ---- the CA is away ----------------------------------------------------------------------------------------------


def test_a_ca_that_is_down_at_the_start_is_tried_with_growing_back_off(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.up = False
        life = Life(ca, folder, dice=0.999999)
        await trio.sleep(HOUR)
        gaps = [later - earlier for earlier, later in pairwise(ca.dials)]
        assert gaps[:10] == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 64, 128, 150], rel=0.001)
        assert gaps[10:] == pytest.approx([150] * len(gaps[10:]), rel=0.001)
        status = life.now
        assert status.consecutive_failures == len(ca.dials)
        assert "cannot reach the CA at ca.test:17012: connection refused" in status.last_error
        assert status.next_renewal_at > life.clock.wall()
        assert not status.ca_connected
        ca.up = True
        await life.identity()
        assert trio.current_time() < HOUR + 151
        assert (life.now.consecutive_failures, life.now.last_error) == (0, "")

    with_ca(story)


@pytest.mark.parametrize("dice", [0.05, 0.25])
def test_the_jitter_is_full(with_ca: Run, dice: float) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.up = False
        Life(ca, folder, dice=dice)
        with trio.move_on_after(40):
            while len(ca.dials) < 12:
                await trio.sleep(0.01)
        waits = [later - earlier for earlier, later in pairwise(ca.dials)]
        assert waits[:6] == pytest.approx([dice * ceiling for ceiling in (0.5, 1, 2, 4, 8, 16)], abs=0.001)

    with_ca(story)


def test_a_ca_that_goes_away_later_leaves_us_the_certificate_to_its_last_second(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, dice=0.9)
        svid = await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(svid.not_after - 1 - life.clock.wall())
        assert life.svids.current is svid
        assert life.svids.number == 1
        status = life.now
        assert status.consecutive_failures > 100
        assert (status.not_after, status.serial) == (svid.not_after, svid.serial)
        assert status.next_renewal_at <= svid.not_after
        await trio.sleep(2)
        end = svid.not_after - NOW
        assert any(abs(at - end) < 0.5 for at in life.failures()), "one try falls on the end itself, none skips over it"
        assert life.svids.current is svid

    with_ca(story)


def test_a_ca_that_comes_back_after_the_end_is_enrolled_with_by_key(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(3 * DAY)
        assert life.now.not_after < life.clock.wall()
        ca.up = True
        ca.seen.clear()
        await life.svids.wait_past(1)
        assert "/v1/renew" not in ca.paths()
        assert "/v1/challenge" in ca.paths()
        assert trio.current_time() < 3 * DAY + 151
        await trio.sleep(1)
        assert life.now.ca_connected, "a new certificate brings the watch back at once"

    with_ca(story)


def test_an_outage_within_the_certificates_life_goes_unnoticed(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        svid = await life.identity()
        await trio.sleep(DAY / 3)
        ca.up = False
        ca.break_connections()
        await trio.sleep(DAY / 3)
        assert life.svids.current is svid
        ca.up = True
        ca.seen.clear()
        await life.svids.wait_past(1)
        assert "/v1/renew" in ca.paths()
        assert "/v1/enrol" not in ca.paths()
        assert life.clock.wall() < svid.not_after

    with_ca(story)


def test_a_ca_that_accepts_and_never_answers_is_like_one_that_is_down(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.hang = True
        life = Life(ca, folder)
        await trio.sleep(10 * MINUTE)
        assert life.now.consecutive_failures > 3
        assert "took too long" in life.now.last_error
        ca.hang = False
        await life.identity()

    with_ca(story)


# ---- renewal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dice", "share"), [(0.0, 0.45), (0.5, 0.5), (0.999999, 0.55)])
@pytest.mark.parametrize("ttl", [HOUR, DAY, 7 * DAY])
def test_renewal_is_at_half_life_give_or_take_a_tenth(with_ca: Run, dice: float, share: float, ttl: float) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.ttl = ttl
        life = Life(ca, folder, dice=dice)
        first = await life.identity()
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(ttl * share, abs=1)
        assert life.svids.current.key is not first.key
        assert [seen.peer for seen in ca.seen if seen.path == "/v1/renew"] == [WEB]
        assert life.failures() == []

    with_ca(story)


def test_a_renewal_that_is_refused_falls_back_to_the_key_in_the_same_try(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.answers["/v1/renew"] = lambda _: Response.error(403, "revoked", "this serial")
        ca.seen.clear()
        await life.svids.wait_past(1)
        asked = [path for path in ca.paths() if path not in ("/v1/time", "/v1/watch")]
        assert asked == ["/v1/renew", "/v1/challenge", "/v1/enrol"]
        assert life.failures() == []

    with_ca(story)


def test_a_certificate_that_the_ca_no_longer_takes_in_a_handshake_is_replaced_by_the_key(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        key = EnrolmentKey.generate()
        ca.keys.add(key.public_bytes)
        life = Life(ca, folder, enrolment=ca.enrolment(key))
        await life.identity()
        ca.clock.jump(2 * DAY)  # by the CA's clock our certificate has ended
        ca.break_connections()
        life.rotator.renew_soon()
        await life.svids.wait_past(1)
        assert life.now.clock_skew_seconds == pytest.approx(-2 * DAY, abs=1)

    with_ca(story)


@pytest.mark.parametrize("status", [500, 503])
def test_a_ca_that_fails_is_a_failure_and_no_reason_to_show_the_key(with_ca: Run, status: int) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.answers["/v1/renew"] = lambda _: Response.error(status, "store_unavailable", "the CA failed")
        ca.seen.clear()
        await trio.sleep(DAY * 0.6)
        assert life.svids.number == 1
        assert "/v1/enrol" not in ca.paths()
        assert life.now.consecutive_failures > 5
        assert "store_unavailable" in life.now.last_error

    with_ca(story)


def test_an_order_to_renew_ends_the_back_off_and_is_good_for_one_try(with_ca: Run) -> None:
    """Once the CA is mended, nobody has to wait for the rest of a long pause."""

    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.answers["/v1/renew"] = lambda _: Response.error(503, "store_unavailable", "the disk is full")
        await trio.sleep(DAY * 0.6)  # pauses are as long as they get
        failures = life.now.consecutive_failures
        life.rotator.renew_soon()
        await trio.sleep(1)
        assert life.now.consecutive_failures == failures + 1
        await trio.sleep(1)
        assert life.now.consecutive_failures == failures + 1
        del ca.answers["/v1/renew"]
        before = trio.current_time()
        life.rotator.renew_soon()
        await life.svids.wait_past(1)
        assert trio.current_time() - before < 1
        assert life.now.consecutive_failures == 0

    with_ca(story)


def test_a_busy_ca_is_obeyed_and_nothing_is_counted(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        def busy(_: object) -> Response | None:
            calls.append(trio.current_time())
            late = Response.error(429, "too_many_issuances", "later", ((b"retry-after", b"17"),))
            return late if len(calls) <= 3 else None

        calls: list[float] = []
        ca.answers["/v1/enrol"] = busy
        life = Life(ca, folder, dice=0.5)
        await trio.sleep(1)
        assert "come back in 17 s" in life.now.last_error
        await life.identity()
        gaps = [later - earlier for earlier, later in pairwise(calls)]
        assert all(17 <= gap <= 17 * 1.1 + 0.01 for gap in gaps)
        assert len(gaps) == 3
        assert life.failures() == []
        assert life.now.last_error == ""

    with_ca(story)


def test_a_busy_ca_at_renewal_does_not_make_us_show_the_key(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.answers["/v1/renew"] = lambda _: Response.error(429, "busy", "", ((b"retry-after", b"60"),))
        ca.seen.clear()
        await trio.sleep(DAY * 0.55)
        assert "/v1/enrol" not in ca.paths()
        assert life.now.consecutive_failures == 0
        assert "busy" in life.now.last_error
        del ca.answers["/v1/renew"]
        await life.svids.wait_past(1)

    with_ca(story)


def test_a_busy_ca_is_obeyed_even_past_the_end_of_the_certificate(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.ttl = 100.0
        life = Life(ca, folder, dice=0.0)
        await life.identity()
        ca.answers["/v1/renew"] = lambda _: Response.error(429, "busy", "", ((b"retry-after", b"1000"),))
        await trio.sleep(46)
        ca.seen.clear()
        await trio.sleep(998)
        assert not {"/v1/renew", "/v1/enrol", "/v1/challenge"} & set(ca.paths())
        await life.svids.wait_past(1)
        assert life.obtained[-1] == pytest.approx(1045, abs=1)

    with_ca(story)


def test_a_renewal_can_be_asked_for_but_never_two_within_ten_seconds(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        await trio.sleep(3)
        life.rotator.renew_soon()
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(10, abs=0.1)
        await trio.sleep(100)
        life.rotator.renew_soon()
        await life.svids.wait_past(2)
        assert life.obtained[2] - life.obtained[1] == pytest.approx(100, abs=0.1)
        await trio.sleep(HOUR)
        assert life.svids.number == 3

    with_ca(story)


# ---- whom we talk to, and what stays -----------------------------------------------------------------------------


def test_somebody_else_at_the_cas_address_hears_nothing_and_is_tried_again(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.identity = WEB.text
        life = Life(ca, folder)
        await trio.sleep(5 * MINUTE)
        assert ca.seen == []
        assert "the CA is spiffe://demo.mesh/mesh/ca" in life.now.last_error
        ca.identity = "spiffe://demo.mesh/mesh/ca"
        await life.identity()

    with_ca(story)


def test_a_second_life_enrols_with_the_key_that_the_token_was_exchanged_for(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        first = Life(ca, folder)
        await first.identity()
        first.scope.cancel()
        await trio.sleep(1)
        ca.seen.clear()
        second = Life(ca, folder)
        await second.identity()
        asked = [path for path in ca.paths() if path not in ("/v1/time", "/v1/watch")]
        assert asked == ["/v1/challenge", "/v1/enrol"]
        assert ca.tokens == {"join-token-of-the-tests": True}

    with_ca(story)


def test_a_root_that_left_the_kept_bundle_stays_out_though_it_is_pinned(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        enrolment = ca.enrolment()
        first = Life(ca, folder, enrolment=enrolment)
        await first.identity()
        await ca.publish(replace(ca.bundle, roots=(), sequence=2))  # trust nothing
        await trio.sleep(1)
        assert first.now.bundle_sequence == 2
        first.scope.cancel()
        await trio.sleep(1)
        ca.seen.clear()
        second = Life(ca, folder, enrolment=enrolment)
        await trio.sleep(5 * MINUTE)
        assert second.svids.number == 0
        assert ca.seen == []
        assert second.now.consecutive_failures > 3

    with_ca(story)


def test_a_surprise_is_a_failure_like_any_other(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        dial, surprises = ca.dial, [ValueError("surprise"), RuntimeError("another")]

        async def surprising(address: str) -> trio.abc.Stream:
            if surprises:
                raise surprises.pop()
            return await dial(address)

        ca.dial = surprising  # type: ignore[method-assign]
        life = Life(ca, folder)
        await trio.sleep(0.1)
        assert "a fault of this sidecar" in life.now.last_error
        await life.identity()
        assert life.now.consecutive_failures == 0

    with_ca(story)


def test_damaged_state_is_named_and_tried_again(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        bundle = folder / "web-1.bundle.json"
        bundle.write_text("{")
        bundle.chmod(0o600)
        life = Life(ca, folder)
        await trio.sleep(5)
        assert "web-1.bundle.json is damaged; remove it" in life.now.last_error
        bundle.unlink()
        await life.identity()

    with_ca(story)


def test_a_disk_that_cannot_keep_the_bundle_does_not_cost_us_the_identity(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        key = EnrolmentKey.generate()
        ca.keys.add(key.public_bytes)

        async def full(work: Callable[[], object]) -> object:
            if getattr(work, "__name__", "").startswith("load_"):
                return work()
            raise OSError(28, "No space left on device")

        life = Life(ca, folder, enrolment=ca.enrolment(key), disk=full)
        await life.identity()
        assert life.now.consecutive_failures == 0
        assert ca.acks == [], "what is not kept is not acknowledged"
        assert "No space left" in life.now.watch_error

    with_ca(story)
