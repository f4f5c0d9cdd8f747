"""The watch brings bundles and time, acknowledges what was published, and comes back whenever it breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from certs.bundle import TrustBundle
from sidecar.identity.errors import BadAnswer, CaError, CaUnreachable
from sidecar.identity.state import StateFolder
from sidecar.identity.watch import MAX_LINE_BYTES, Watch
from sidecar.net.clock import TestClock
from sidecar.net.http_client import Duplex, HttpClient
from sidecar.net.http_server import Response
from tests.kit.fake_ca import ROOT, TRUST_DOMAIN, FakeCa
from tests.kit.identities import DAY, NOW, a_bundle, a_root
from tests.kit.trio_time import in_virtual_time
from tests.sidecar.identity.life import Life

NEXT = a_root(name="next")
Story = Callable[[FakeCa, Path], Awaitable[None]]
Run = Callable[[Story], None]


def test_a_bundle_through_the_watch_is_a_new_generation_kept_and_acknowledged(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        svid = await life.identity()
        assert ca.acks == [(svid.serial, 1)]
        assert life.bundles.number == 1, "the bundle that the watch begins with is the one we have: no new generation"
        acked_at_publication: list[int] = []
        life.bundles.subscribe(lambda _: acked_at_publication.append(len(ca.acks)))
        enrolment = ca.enrolment()
        both = a_bundle(ROOT, NEXT, sequence=2)
        await ca.publish(both)
        await trio.sleep(1)
        assert life.bundles.number == 2
        assert life.bundles.current.of(TRUST_DOMAIN) == both
        assert life.now.bundle_sequence == 2
        assert StateFolder(folder, enrolment).load_bundle() == both
        assert ca.acks == [(svid.serial, 1), (svid.serial, 2)]
        assert acked_at_publication[-1] == 1, "published first, acknowledged second"

    with_ca(story)


def test_a_new_certificate_opens_a_new_watch_and_the_old_one_ends(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        first = await life.identity()
        await life.svids.wait_past(1)
        await trio.sleep(1)
        second = life.svids.current
        assert [serial for serial, _ in ca.acks] == [first.serial, second.serial]
        assert len(ca.watchers) == 1
        assert life.now.ca_connected

    with_ca(story)


def test_a_broken_watch_comes_back_with_back_off(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, dice=0.999999)
        await life.identity()
        await trio.sleep(100)
        ca.up = False
        ca.dials.clear()
        broke = trio.current_time()
        ca.break_connections()
        await trio.sleep(70)
        assert not life.now.ca_connected
        assert "cannot reach the CA" in life.now.watch_error
        assert [at - broke for at in ca.dials] == pytest.approx([0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5], rel=0.01)
        assert life.now.consecutive_failures == 0, "the certificate is not due: a broken watch is not its failure"
        ca.up = True
        await trio.sleep(65)
        assert life.now.ca_connected
        assert life.now.watch_error == ""
        ca.dials.clear()
        ca.break_connections()
        await trio.sleep(0.6)
        assert len(ca.dials) == 1, "one that had stood begins again at half a second"

    with_ca(story)


def test_a_silent_watch_is_taken_for_dead(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.beating = False
        ca.seen.clear()
        await trio.sleep(95)
        assert ca.paths() == ["/v1/watch"]
        assert life.now.ca_connected

    with_ca(story)


def test_a_refused_watch_is_told_and_costs_no_certificate(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/watch"] = lambda _: Response.error(403, "forbidden", "not you")
        life = Life(ca, folder)
        await life.identity()
        await trio.sleep(60)
        assert "403 forbidden" in life.now.watch_error
        assert not life.now.ca_connected
        await life.svids.wait_past(1)
        assert life.now.consecutive_failures == 0

    with_ca(story)


def test_without_a_valid_certificate_there_is_no_watch(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(2 * DAY)
        assert "no valid certificate" in life.now.watch_error

    with_ca(story)


def test_a_bundle_with_a_lower_sequence_is_not_used(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder)
        await life.identity()
        both = a_bundle(ROOT, NEXT, sequence=5)
        await ca.publish(both)
        await trio.sleep(1)
        assert not life.rotator._held.publish_bundle(a_bundle(NEXT, sequence=4))
        assert life.bundles.current.of(TRUST_DOMAIN) == both

    with_ca(story)


ORDER = b'{"topic":"renew","sequence":9,"within":60.0}\n'


@pytest.mark.parametrize(("dice", "after"), [(0.0, 100.0), (0.5, 130.0), (0.9, 154.0)])
def test_an_order_to_renew_is_followed_at_a_random_moment_and_once(with_ca: Run, dice: float, after: float) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, dice=dice)
        first = await life.identity()
        await trio.sleep(100)
        [channel] = ca.watchers
        await channel.send(ORDER)
        await channel.send(ORDER)
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(after, abs=0.1)
        assert ca.other_acks[:1] == [(first.serial, "renew", 9)]
        await trio.sleep(1000)
        assert life.svids.number == 2, "a new certificate forgets what was asked of the old one"

    with_ca(story)


def test_an_order_just_after_a_renewal_waits_for_ten_seconds(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, dice=0.0)
        await life.identity()
        [channel] = ca.watchers
        await channel.send(ORDER)
        await life.svids.wait_past(1)
        assert life.obtained[1] - life.obtained[0] == pytest.approx(10, abs=0.1)

    with_ca(story)


def test_an_order_that_meets_a_ca_that_is_gone_is_tried_until_it_is_back(with_ca: Run) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder, dice=0.5)
        await life.identity()
        await trio.sleep(100)
        [channel] = ca.watchers
        await channel.send(ORDER)
        await trio.sleep(25)
        ca.answers["/v1/renew"] = lambda _: Response.error(503, "store_unavailable", "later")
        await trio.sleep(60)
        assert life.svids.number == 1
        assert life.now.consecutive_failures > 0
        ca.answers.clear()
        await life.svids.wait_past(1)

    with_ca(story)


# ---- what a watch may say ------------------------------------------------------------------------------------------


async def followed(*said: bytes, close: bool = True) -> tuple[CaError, list[TrustBundle], list[float], bytes]:
    """How a watch ends that says this; the bundles and skews taken in; what was sent back."""
    mine, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    duplex = await HttpClient(mine).duplex("POST", "/v1/watch")
    assert isinstance(duplex, Duplex)
    for piece in said:
        await theirs.send_all(b"%x\r\n%s\r\n" % (len(piece), piece))
    if close:
        await theirs.send_all(b"0\r\n\r\n")
    bundles: list[TrustBundle] = []
    skews: list[float] = []

    async def on_bundle(bundle: TrustBundle) -> bool:
        bundles.append(bundle)
        return True

    watch = Watch(duplex, TRUST_DOMAIN, TestClock(NOW), on_bundle, skews.append)
    with pytest.raises(CaError) as caught:
        await watch.follow(lambda: None)
    return caught.value, bundles, skews, bytes(await theirs.receive_some())


BUNDLE = b'{"topic":"bundle","sequence":4,"bundle":%s}\n' % a_bundle(ROOT, sequence=4).to_jwks()
TIME = b'{"topic":"time","sequence":1,"now":%d}\n' % (NOW - 5)


@in_virtual_time
async def test_messages_may_be_cut_anywhere() -> None:
    both = BUNDLE + TIME
    for cut in (1, len(BUNDLE) - 1, len(BUNDLE), len(BUNDLE) + 1):
        error, bundles, skews, sent = await followed(both[:cut], both[cut:])
        assert isinstance(error, CaUnreachable)
        assert [bundle.sequence for bundle in bundles] == [4]
        assert skews == pytest.approx([5], abs=0.1)
        assert b'{"ack": "bundle", "sequence": 4}' in sent


@in_virtual_time
async def test_topics_of_a_later_version_and_empty_lines_are_skipped() -> None:
    error, bundles, skews, _ = await followed(b'\n{"topic":"denylist","sequence":1}\n{}\n' + TIME)
    assert isinstance(error, CaUnreachable)
    assert (bundles, len(skews)) == ([], 1)


BAD: list[tuple[bytes, str]] = [
    (b"junk\n", "not JSON"),
    (b"[]\n", "not a JSON object"),
    (b'{"topic":"bundle","sequence":1}\n', "cannot be read"),
    (b'{"topic":"bundle","sequence":1,"bundle":{"keys":[{"use":"x509-svid","kty":"EC"}]}}\n', "cannot be read"),
    (b'{"topic":"time","now":"noon"}\n', "names no time"),
    (b'{"topic":"time","now":true}\n', "names no time"),
    (b'{"topic":"time","now":1' + b"0" * 400 + b"}\n", "names no time"),
    (b'{"topic":"time","now":NaN}\n', "names no time"),
    (b'{"topic":"renew","sequence":1}\n', "no time in which to renew"),
    (b'{"topic":"renew","sequence":1,"within":-1}\n', "no time in which to renew"),
    (b'{"topic":"renew","sequence":1,"within":1e9}\n', "no time in which to renew"),
    (b'{"topic":"renew","sequence":1,"within":NaN}\n', "no time in which to renew"),
    (b"x" * (MAX_LINE_BYTES + 70_000), "longer than"),
]


@pytest.mark.parametrize(("said", "because"), BAD)
def test_a_message_that_cannot_be_read_ends_the_watch_and_changes_nothing(said: bytes, because: str) -> None:
    @in_virtual_time
    async def story() -> None:
        error, bundles, skews, _ = await followed(said, close=False)
        assert isinstance(error, BadAnswer)
        assert because in str(error)
        assert (bundles, skews) == ([], [])

    story()


@in_virtual_time
async def test_an_acknowledgement_that_nobody_takes_ends_the_watch() -> None:
    error: Any = None
    mine, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + BUNDLE)
    duplex = await HttpClient(mine).duplex("POST", "/v1/watch")
    assert isinstance(duplex, Duplex)

    async def never(_: bytes) -> None:
        await trio.sleep_forever()

    async def on_bundle(_: TrustBundle) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    duplex.send = never  # type: ignore[method-assign]
    with pytest.raises(CaUnreachable) as caught:
        await Watch(duplex, TRUST_DOMAIN, TestClock(NOW), on_bundle, lambda _: None).follow(lambda: None)
    error = caught.value
    assert "would not take our answer" in str(error)
