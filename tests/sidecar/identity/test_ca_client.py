"""The CA must prove itself before it hears anything; then its answers are taken on no faith."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from trio.testing import memory_stream_pair

from certs.csr import make_csr
from certs.keys import new_key
from certs.spiffe import SpiffeId
from sidecar.identity.ca_client import Trust, connect
from sidecar.identity.errors import BadAnswer, CaBusy, CaRefused, CaUnreachable, CaUntrusted
from sidecar.net.clock import TestClock
from sidecar.net.http_server import Response
from sidecar.net.tls_stream import TlsStream
from tests.kit.fake_ca import ISSUER, ROOT, TRUST_DOMAIN, WEB, FakeCa
from tests.kit.identities import DAY, NOW, a_bundle, a_root, an_issuer, an_svid
from tests.kit.trio_time import in_virtual_time

ADDRESS = "ca.test:17012"
PINNED = Trust(TRUST_DOMAIN, pins=a_bundle(ROOT).root_hashes())
KNOWN = Trust(TRUST_DOMAIN, bundle=a_bundle(ROOT))
BOTH_WAYS = pytest.mark.parametrize("trust", [PINNED, KNOWN], ids=["pinned", "bundle"])


def with_ca(story: Callable[[FakeCa], Awaitable[None]], **options: Any) -> None:
    @in_virtual_time
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await story(FakeCa(nursery, **options))
            nursery.cancel_scope.cancel()

    run()


async def untrusted(ca: FakeCa, trust: Trust, clock: TestClock | None = None) -> CaUntrusted:
    """The refusal, and the proof that nothing but the time was asked for, by nobody."""
    with pytest.raises(CaUntrusted) as caught:
        await connect(ADDRESS, trust, None, clock or TestClock(NOW), ca.dial)
    assert set(ca.paths()) <= {"/v1/time"}
    assert all(seen.peer is None and seen.body == b"" for seen in ca.seen)
    return caught.value


@BOTH_WAYS
def test_a_ca_that_proves_itself_is_talked_to(trust: Trust) -> None:
    async def story(ca: FakeCa) -> None:
        ca.clock.jump(-7)
        async with await connect(ADDRESS, trust, None, TestClock(NOW), ca.dial) as session:
            assert await session.time() == pytest.approx(NOW - 7, abs=1)
            assert await session.skew(TestClock(NOW)) == pytest.approx(7, abs=1)
            assert await session.bundle() == ca.bundle

    with_ca(story)


@BOTH_WAYS
def test_another_identity_is_refused(trust: Trust) -> None:
    async def story(ca: FakeCa) -> None:
        error = await untrusted(ca, trust)
        assert error.reason == "wrong_identity"
        assert "spiffe://demo.mesh/ns/default/sa/web" in str(error)
        assert ca.seen == []

    with_ca(story, identity=WEB.text)


@BOTH_WAYS
def test_another_root_is_refused_though_it_has_the_same_name(trust: Trust) -> None:
    other = a_root()

    async def story(ca: FakeCa) -> None:
        assert (await untrusted(ca, trust)).reason in ("not_pinned", "unknown_ca")
        assert ca.seen == []

    with_ca(story, root=other, issuer=an_issuer(other))


def test_a_pinned_root_beside_a_chain_that_is_not_its_own_vouches_for_nothing() -> None:
    """An attacker may show our root, which is public, after a chain of his own."""
    other = a_root()

    async def story(ca: FakeCa) -> None:
        ca.root = ROOT
        assert (await untrusted(ca, PINNED)).reason == "unknown_root"

    with_ca(story, issuer=an_issuer(other))


def test_another_trust_domain_is_refused() -> None:
    other = a_root("evil.mesh")

    async def story(ca: FakeCa) -> None:
        pins = (*PINNED.pins, *a_bundle(other).root_hashes())
        assert (await untrusted(ca, Trust(TRUST_DOMAIN, pins=pins))).reason == "wrong_trust_domain"

    with_ca(story, root=other, issuer=an_issuer(other), identity="spiffe://evil.mesh/mesh/ca")


@BOTH_WAYS
@pytest.mark.parametrize(("days", "words"), [(2, "2 d ahead of"), (-2, "2 d behind")])
def test_a_clock_that_is_days_off_is_named_and_measured(trust: Trust, days: int, words: str) -> None:
    async def story(ca: FakeCa) -> None:
        error = await untrusted(ca, trust, TestClock(NOW + days * DAY))
        assert error.reason == "clock"
        assert error.skew == pytest.approx(days * DAY, abs=2)
        assert f"this machine's clock is {words} the CA's; set it" in str(error)

    with_ca(story, own_life=(NOW - 60, NOW + DAY))


@BOTH_WAYS
def test_a_ca_that_is_itself_out_of_date_is_not_blamed_on_our_clock(trust: Trust) -> None:
    async def story(ca: FakeCa) -> None:
        error = await untrusted(ca, trust)
        assert error.reason == "expired"
        assert "the CA must renew" in str(error)

    with_ca(story, own_life=(NOW - DAY / 2, NOW - DAY / 4))


def test_a_stranger_is_never_asked_for_the_time() -> None:
    """An expired stranger must not be able to talk us into believing that our clock is wrong."""
    other = a_root()

    async def story(ca: FakeCa) -> None:
        error = await untrusted(ca, PINNED)
        assert error.skew is None
        assert ca.seen == []

    with_ca(story, root=other, issuer=an_issuer(other), own_life=(NOW - 2 * DAY, NOW - DAY))


def test_who_answers_the_question_about_the_time_must_prove_itself_too() -> None:
    """The CA is out of date, and somebody else gets between before we ask: his clock is not listened to."""
    other = a_root()

    @in_virtual_time
    async def story() -> None:
        async with trio.open_nursery() as nursery:
            ca = FakeCa(nursery, own_life=(NOW - DAY / 2, NOW - DAY / 4))
            stranger = FakeCa(nursery, root=other, issuer=an_issuer(other))
            stranger.clock.jump(5 * DAY)
            dials = [ca.dial, stranger.dial]
            with pytest.raises(CaUntrusted) as caught:
                await connect(ADDRESS, PINNED, None, TestClock(NOW), lambda address: dials.pop(0)(address))
            assert (caught.value.reason, caught.value.skew) == ("expired", None)
            assert stranger.seen == []
            nursery.cancel_scope.cancel()

    story()


@in_virtual_time
async def test_a_certificate_that_cannot_be_read_proves_nothing() -> None:
    svid = an_svid(ISSUER, "spiffe://demo.mesh/mesh/ca")
    der = svid.leaf.public_bytes(Encoding.DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04", 1)  # X.509 v5
    context = SSL.Context(SSL.TLS_METHOD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyOpenSSL would rather have a certificate that cryptography can read
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    context.use_privatekey(svid.key)
    async with trio.open_nursery() as nursery:

        async def dial(_: str) -> trio.abc.Stream:
            mine, theirs = memory_stream_pair()
            nursery.start_soon(TlsStream(theirs, context, server=True).do_handshake)
            return mine

        with pytest.raises(CaUntrusted, match="cannot be read") as caught:
            await connect(ADDRESS, PINNED, None, TestClock(NOW), dial)
    assert caught.value.reason == "malformed"


def test_nobody_there() -> None:
    async def story(ca: FakeCa) -> None:
        with pytest.raises(CaUnreachable, match=r"cannot reach the CA at ca\.test:17012: connection refused"):
            await connect(ADDRESS, PINNED, None, TestClock(NOW), ca.dial)

    with_ca(story, up=False)


def test_somebody_who_says_nothing() -> None:
    async def story(ca: FakeCa) -> None:
        with pytest.raises(CaUnreachable, match="took too long"):
            await connect(ADDRESS, PINNED, None, TestClock(NOW), ca.dial)
        assert trio.current_time() == pytest.approx(5)

    with_ca(story, hang=True)


@in_virtual_time
async def test_a_connect_that_hangs() -> None:
    async def dial(_: str) -> Any:
        await trio.sleep_forever()

    with pytest.raises(CaUnreachable, match="no answer in time"):
        await connect(ADDRESS, PINNED, None, TestClock(NOW), dial)
    assert trio.current_time() == pytest.approx(2)


@in_virtual_time
async def test_somebody_who_does_not_speak_tls() -> None:
    async def dial(_: str) -> Any:
        mine, theirs = memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return mine

    with pytest.raises(CaUntrusted) as caught:
        await connect(ADDRESS, PINNED, None, TestClock(NOW), dial)
    assert caught.value.reason == "plaintext"


async def renewing(ca: FakeCa, expected: SpiffeId = WEB) -> Any:
    key = new_key()
    mine = an_svid(ISSUER, "web")
    async with await connect(ADDRESS, KNOWN, mine, TestClock(NOW), ca.dial) as session:
        return await session.renew(make_csr(key), key, expected)


def test_a_renewal_brings_a_certificate_for_our_key_and_the_bundle() -> None:
    async def story(ca: FakeCa) -> None:
        issued = await renewing(ca)
        assert issued.svid.spiffe_id == WEB
        assert issued.bundle == ca.bundle
        assert [seen.peer for seen in ca.seen] == [WEB]

    with_ca(story)


def test_a_busy_ca_names_the_time_to_come_back() -> None:
    async def story(ca: FakeCa) -> None:
        for header, expected in [(b"17", 17), (b"0", 1), (b"junk", 1), (b"999999", 3600), (None, 1)]:
            headers = () if header is None else ((b"retry-after", header),)
            ca.answers["/v1/renew"] = lambda _, h=headers: Response.error(429, "too_many_issuances", "later", h)
            with pytest.raises(CaBusy) as caught:
                await renewing(ca)
            assert caught.value.retry_after == expected

    with_ca(story)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500, 503])
def test_a_refusal_is_told_with_the_cas_words(status: int) -> None:
    async def story(ca: FakeCa) -> None:
        ca.answers["/v1/renew"] = lambda _: Response.error(status, "revoked", "ask your operator")
        with pytest.raises(CaRefused, match=f"{status} revoked: ask your operator") as caught:
            await renewing(ca)
        assert (caught.value.status, caught.value.error) == (status, "revoked")

    with_ca(story)


def bad(change: dict[str, Any]) -> Callable[[FakeCa], Response]:
    return lambda ca: Response.of_json(200, ca.answer_of(an_svid(ISSUER, "web")) | change)


BAD_ANSWERS: list[tuple[Callable[[FakeCa], Response], str]] = [
    (lambda _: Response(200, body=b"<html>"), "not JSON"),
    (lambda _: Response(500, body=b"<html>"), "no reason given"),
    (lambda _: Response.of_json(200, {}), "lacks"),
    (bad({"now": "noon"}), "names no time"),
    (bad({"now": 1e300}), "names no time"),
    (bad({"now": float("inf")}), "names no time"),
    (bad({"now": -1}), "names no time"),
    (bad({"bundle": {"keys": 1}}), "trust bundle"),
    (bad({"svid": "junk"}), "does not hold"),
    (bad({}), "another key"),
]


@pytest.mark.parametrize(("answer", "because"), BAD_ANSWERS)
def test_an_answer_that_breaks_the_api_is_refused(answer: Callable[[FakeCa], Response], because: str) -> None:
    async def story(ca: FakeCa) -> None:
        ca.answers["/v1/renew"] = lambda _: answer(ca)
        with pytest.raises((BadAnswer, CaRefused), match=because):
            await renewing(ca)

    with_ca(story)


def test_a_certificate_for_somebody_else_is_refused() -> None:
    async def story(ca: FakeCa) -> None:
        with pytest.raises(BadAnswer, match=r"the CA issued .*/sa/web; we are .*/sa/orders"):
            await renewing(ca, SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/orders"))

    with_ca(story)


def test_a_certificate_that_the_bundle_beside_it_does_not_carry_is_refused() -> None:
    elsewhere = an_issuer(a_root())

    async def story(ca: FakeCa) -> None:
        ca.issued_by = elsewhere
        with pytest.raises(BadAnswer, match="does not hold"):
            await renewing(ca)

    with_ca(story)


def test_a_ca_that_stops_in_the_middle_is_unreachable() -> None:
    async def story(ca: FakeCa) -> None:
        async with await connect(ADDRESS, KNOWN, None, TestClock(NOW), ca.dial) as session:
            ca.break_connections()
            with pytest.raises(CaUnreachable):
                await session.time()

    with_ca(story)


def test_a_certificate_of_ours_that_the_ca_refuses_in_the_handshake_is_a_refusal() -> None:
    async def story(ca: FakeCa) -> None:
        ended = an_svid(ISSUER, "web", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
        async with await connect(ADDRESS, KNOWN, ended, TestClock(NOW), ca.dial) as session:
            with pytest.raises(CaRefused, match="certificate has expired") as caught:
                await session.time()
            assert caught.value.status == 401

    with_ca(story)
