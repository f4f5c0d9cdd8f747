"""Tokens from the CA: asked for with our certificate, kept to half of their life, never too many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.bundle import JwtKey
from certs.denylist import Denylist
from certs.jwt_svid import make_jwt_svid
from certs.keys import new_key
from certs.spiffe import SpiffeId
from sidecar.identity.errors import BadAnswer, CaRefused, CaUnreachable
from sidecar.identity.jwt_svids import TooManyTokens
from sidecar.net.http_server import Request, Response
from tests.kit.fake_ca import TRUST_DOMAIN, WEB, FakeCa
from tests.kit.identities import NOW
from tests.sidecar.identity.life import Life

KEY = new_key()
PUBLISHED = JwtKey("k1", KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def signing(ca: FakeCa, who: SpiffeId = WEB, audience: list[str] | None = None) -> Callable[[Request], Response]:
    ca.bundle = replace(ca.bundle, jwt_keys=(PUBLISHED,))

    def answer(request: Request) -> Response:
        assert request.peer[0] == WEB, "asked over mTLS"
        wanted = audience or request.json()["audience"]
        return Response.of_json(200, {"token": make_jwt_svid(who, wanted, "k1", KEY, ca.clock.wall(), 300.0)})

    return answer


def asked(ca: FakeCa) -> int:
    return ca.paths().count("/v1/jwt")


def test_a_token_is_kept_until_half_of_its_life(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        await life.identity()
        first = await life.rotator.fetch_jwt(("a",))
        assert (first.spiffe_id, first.audience) == (WEB, ("a",))
        await trio.sleep(149)
        assert await life.rotator.fetch_jwt(("a",)) == first
        await life.rotator.fetch_jwt(("b",))
        assert asked(ca) == 2
        await trio.sleep(2)
        assert await life.rotator.fetch_jwt(("a",)) != first
        assert asked(ca) == 3

    with_ca(story)


def test_all_who_ask_at_once_wait_for_one_answer(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        await life.identity()
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(life.rotator.fetch_jwt, ("a",))
        assert asked(ca) == 1

    with_ca(story)


def test_a_token_serves_on_while_the_ca_is_away_and_not_beyond_its_end(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        await life.identity()
        first = await life.rotator.fetch_jwt(("a",))
        ca.up = False
        ca.break_connections()
        await trio.sleep(290)
        assert await life.rotator.fetch_jwt(("a",)) == first
        await trio.sleep(6)
        with pytest.raises(CaUnreachable):
            await life.rotator.fetch_jwt(("a",))

    with_ca(story)


def test_a_token_goes_with_the_key_that_signed_it(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        await life.identity()
        first = await life.rotator.fetch_jwt(("a",))
        ca.answers["/v1/jwt"] = lambda _: Response.error(503, "busy", "later")
        assert await life.rotator.fetch_jwt(("a",)) == first
        await ca.publish(replace(ca.bundle, sequence=2, jwt_keys=()))
        await trio.sleep(1)
        with pytest.raises(CaRefused):
            await life.rotator.fetch_jwt(("a",))

    with_ca(story)


@pytest.mark.parametrize(
    "denied", [lambda serial: (frozenset({serial}), frozenset()), lambda _: (frozenset(), frozenset({WEB}))]
)
def test_a_token_goes_with_the_certificate_that_it_was_asked_for_with(with_ca: Any, denied: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        serial = (await life.identity()).serial
        await life.rotator.fetch_jwt(("a",))
        ca.answers["/v1/jwt"] = lambda _: Response.error(403, "revoked", "you are")
        await ca.deny(Denylist(TRUST_DOMAIN, 7, NOW, *denied(serial)))
        await trio.sleep(1)
        with pytest.raises(CaRefused):
            await life.rotator.fetch_jwt(("a",))
        ca.up = False
        ca.break_connections()
        with pytest.raises(CaUnreachable):
            await life.rotator.fetch_jwt(("a",))

    with_ca(story)


def test_a_no_of_the_ca_ends_all_kept_tokens(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        await life.identity()
        for audience in "ab":
            await life.rotator.fetch_jwt((audience,))
        await trio.sleep(151)
        ca.answers["/v1/jwt"] = lambda _: Response.error(403, "not_registered", "you are not")
        for audience in "ab":
            with pytest.raises(CaRefused):
                await life.rotator.fetch_jwt((audience,))

    with_ca(story)


def test_the_ca_is_not_troubled_with_every_whim(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = signing(ca)
        life = Life(ca, folder)
        await life.identity()
        for number in range(20):
            await life.rotator.fetch_jwt((str(number),))
        with pytest.raises(TooManyTokens):
            await life.rotator.fetch_jwt(("one more",))
        await life.rotator.fetch_jwt(("3",))
        await trio.sleep(1)
        await life.rotator.fetch_jwt(("one more",))
        assert asked(ca) == 21

    with_ca(story)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda ca: signing(ca, SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/api")), BadAnswer),
        (lambda ca: signing(ca, audience=["b"]), BadAnswer),
        (lambda ca: signing(ca, audience=["a", "b"]), BadAnswer),
        (lambda ca: lambda _: Response.of_json(200, {}), BadAnswer),
        (lambda ca: lambda _: Response.of_json(200, {"token": "no.to.ken"}), BadAnswer),
        (lambda ca: lambda _: Response.error(403, "revoked", "you are"), CaRefused),
    ],
)
def test_an_answer_that_is_not_for_us_is_not_passed_on(with_ca: Any, answer: Any, kind: type[Exception]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.answers["/v1/jwt"] = answer(ca)
        life = Life(ca, folder)
        await life.identity()
        with pytest.raises(kind):
            await life.rotator.fetch_jwt(("a",))

    with_ca(story)


def test_without_a_valid_certificate_there_is_no_token(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.up = False
        life = Life(ca, folder)
        with pytest.raises(CaUnreachable, match="no valid certificate"):
            await life.rotator.fetch_jwt(("a",))

    with_ca(story)
