"""Proofs: a join token is spent once and leaves a key behind; the key serves from then on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from certs.enrolment import Enrolment, EnrolmentKey, JoinToken
from certs.keys import KEY_KINDS, make_key
from sidecar.config.terms import KeyKind
from sidecar.identity.ca_client import Issued, Trust, connect
from sidecar.identity.enrol import enrol
from sidecar.identity.errors import CaRefused, CaUnreachable
from sidecar.identity.state import StateFolder
from sidecar.net.clock import TestClock
from sidecar.net.http_server import Response
from tests.kit.fake_ca import TRUST_DOMAIN, WEB, FakeCa, on_the_spot
from tests.kit.identities import NOW, a_bundle

OTHER_TOKEN = "another-token-of-the-tests"


async def enrolled(ca: FakeCa, enrolment: Enrolment, folder: Path) -> Issued:
    trust = Trust(TRUST_DOMAIN, pins=enrolment.root_sha256)
    async with await connect(enrolment.ca_address, trust, None, TestClock(NOW), ca.dial) as session:
        return await enrol(session, enrolment, StateFolder(folder, enrolment), on_the_spot)


Story = Callable[[FakeCa, Path], Awaitable[None]]


def test_a_token_is_exchanged_for_a_key_at_its_one_use(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        issued = await enrolled(ca, ca.enrolment(), folder)
        assert issued.svid.spiffe_id == WEB
        assert issued.bundle == a_bundle(ca.root)
        kept = StateFolder(folder, ca.enrolment()).load_key()
        assert kept is not None
        assert kept.confirmed
        assert ca.keys == {kept.key.public_bytes}
        assert ca.paths() == ["/v1/enrol"]

    with_ca(story)


def test_later_lives_use_the_key_and_never_the_token(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        first = await enrolled(ca, ca.enrolment(), folder)
        ca.seen.clear()
        second = await enrolled(ca, ca.enrolment(), folder)
        assert ca.paths() == ["/v1/challenge", "/v1/enrol"]
        assert b"join_token" not in ca.seen[-1].body
        assert first.svid.serial != second.svid.serial
        assert first.svid.key.public_key() != second.svid.key.public_key()

    with_ca(story)


def test_the_kinds_of_keys_are_those_that_the_configuration_names() -> None:
    assert get_args(KeyKind) == KEY_KINDS


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_the_key_is_of_the_kind_that_was_asked_for(with_ca: Callable[[Story], None], kind: str) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        wanted, enrolment = type(make_key(kind)), ca.enrolment()
        trust = Trust(TRUST_DOMAIN, pins=enrolment.root_sha256)
        async with await connect(enrolment.ca_address, trust, None, TestClock(NOW), ca.dial) as session:
            for _ in range(2):  # by the token, then by the key that it was exchanged for
                state = StateFolder(folder, enrolment)
                issued = await enrol(session, enrolment, state, on_the_spot, kind)
                assert type(issued.svid.key) is wanted

    with_ca(story)


def test_the_key_of_a_certificate_never_touches_the_disk(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        issued = await enrolled(ca, ca.enrolment(), folder)
        StateFolder(folder, ca.enrolment()).save_bundle(issued.bundle)
        secret = issued.svid.key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
        written = b"".join(file.read_bytes() for file in folder.iterdir())
        assert b"PRIVATE" not in written
        assert secret not in written
        assert secret.hex().encode() not in written
        assert {file.name for file in folder.iterdir()} == {"web-1.enrolment-key.json", "web-1.bundle.json"}

    with_ca(story)


def test_a_lost_answer_costs_nothing_for_the_key_was_on_disk_first(
    with_ca: Callable[[Story], None]
) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        ca.after = lambda path: ca.break_connections() if path == "/v1/enrol" else None
        with pytest.raises(CaUnreachable):
            await enrolled(ca, ca.enrolment(), folder)
        assert ca.tokens == {"join-token-of-the-tests": True}
        ca.after = lambda _: None
        ca.connections.clear()
        assert (await enrolled(ca, ca.enrolment(), folder)).svid.spiffe_id == WEB
        assert ca.paths()[-3:] == ["/v1/enrol", "/v1/challenge", "/v1/enrol"]

    with_ca(story)


def test_a_token_that_somebody_else_has_spent_buys_nothing_and_that_is_what_is_said(
    with_ca: Callable[[Story], None]
) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await enrolled(ca, ca.enrolment(), folder / "thief")
        with pytest.raises(CaRefused, match="409 token_used"):
            await enrolled(ca, ca.enrolment(), folder / "owner")

    with_ca(story)


def test_an_unknown_token_is_refused_and_tried_again_as_it_is(
    with_ca: Callable[[Story], None]
) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        enrolment = ca.enrolment(JoinToken(OTHER_TOKEN))
        with pytest.raises(CaRefused, match="401"):
            await enrolled(ca, enrolment, folder)
        ca.tokens[OTHER_TOKEN] = False
        await enrolled(ca, enrolment, folder)

    with_ca(story)


def test_a_new_token_starts_over_with_a_new_key(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        await enrolled(ca, ca.enrolment(), folder)
        revoked = set(ca.keys)
        ca.keys.clear()
        with pytest.raises(CaRefused, match="401"):
            await enrolled(ca, ca.enrolment(), folder)
        ca.tokens[OTHER_TOKEN] = False
        await enrolled(ca, ca.enrolment(JoinToken(OTHER_TOKEN)), folder)
        assert len(ca.keys) == 1
        assert ca.keys.isdisjoint(revoked)

    with_ca(story)


def test_a_key_that_came_in_the_file_needs_no_state(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        key = EnrolmentKey.generate()
        ca.keys.add(key.public_bytes)
        for _ in range(2):
            await enrolled(ca, ca.enrolment(key), folder)
        assert ca.paths() == ["/v1/challenge", "/v1/enrol"] * 2
        assert list(folder.iterdir()) == []
        with pytest.raises(CaRefused, match="401"):
            await enrolled(ca, ca.enrolment(EnrolmentKey.generate()), folder)

    with_ca(story)


def test_a_key_for_another_entry_is_refused(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        key = EnrolmentKey.generate()
        ca.keys.add(key.public_bytes)
        ca.answers["/v1/challenge"] = lambda _: Response.error(404, "unknown_entry", "ask your operator")
        with pytest.raises(CaRefused, match="unknown_entry"):
            await enrolled(ca, replace(ca.enrolment(key), entry="web-9"), folder)

    with_ca(story)


def test_without_a_place_for_the_key_the_token_is_not_spent(with_ca: Callable[[Story], None]) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        (folder / "state").write_text("a file where the folder should be")
        with pytest.raises(Exception, match=r"not a folder|File exists"):
            await enrolled(ca, ca.enrolment(), folder / "state")
        assert ca.tokens == {"join-token-of-the-tests": False}
        assert ca.seen == []

    with_ca(story)
