"""Keys of issuers over time: the last good set stays, on disk too; for an unknown key it is fetched, not too often."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from certs.bundle import BundleSet, JwtKey, TrustBundle
from certs.keys import public_bytes
from certs.source import Source
from certs.spiffe import TrustDomain
from sidecar.answer import keys as module
from sidecar.answer.key_fetch import CannotFetch
from sidecar.answer.keys import EXTRA, EXTRA_SECONDS, KeyDesk
from sidecar.config.schema_tokens import Issuer
from sidecar.policy.jwk import KeySet
from sidecar.telemetry.metrics import Metrics
from tests.kit.tokens import Signer, key_set
from tests.kit.trio_time import in_trio
from tests.sidecar.answer.test_quota_desk import Hands, Kept

LOGIN = Issuer("login", issuer="https://login.example.org")
A, B = KeySet.parse(key_set(Signer(kid="a"))), KeySet.parse(key_set(Signer(kid="b")))


class World:
    """A desk, and an issuer whose answers a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hands, self.said = folder, Hands(), io.StringIO()
        self.bundles: Source[BundleSet] = Source("bundles")
        self.metrics = Metrics("test")
        self.answer: KeySet | str | Exception = A
        self.fetches = 0
        self.nudges = 0
        self.desk = KeyDesk(
            folder, self.bundles, clock=self.hands, log=Kept(self.said), metrics=self.metrics, dice=lambda: 0.5
        )
        self.desk.nudge = self._nudged

    def _nudged(self) -> None:
        self.nudges += 1

    async def fetch(self, issuer: Issuer) -> KeySet:
        self.fetches += 1
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, str):
            raise CannotFetch(self.answer)
        return self.answer

    async def until_fetched(self, number: int) -> None:
        while self.fetches < number or self.desk.underway(LOGIN) is not None:
            await trio.sleep(0.005)

    def state(self, issuer: Issuer = LOGIN) -> dict[str, Any]:
        (found,) = [each for each in self.desk.to_json() if each["issuer"] == issuer.name]
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(module, "fetch", world.fetch)
    return world


@asynccontextmanager
async def running(world: World, *issuers: Issuer) -> AsyncIterator[KeyDesk]:
    world.desk.use(issuers or (LOGIN,))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.desk.run)
        yield world.desk
        nursery.cancel_scope.cancel()


@in_trio
async def test_the_last_good_set_stays_and_says_that_it_is_old(world: World) -> None:
    async with running(world) as desk:
        await world.until_fetched(1)
        assert desk.current(LOGIN) is A
        assert desk.fresh(LOGIN)
        assert world.state()["alarm"] == ""
        world.answer = "it is away"
        world.hands.time += 11.0
        assert desk.want(LOGIN) is not None
        await world.until_fetched(2)
        assert desk.current(LOGIN) is A
        assert not desk.fresh(LOGIN)
        assert (world.state()["alarm"], world.state()["problem"]) == ("failing", "it is away")
        world.hands.time += 3 * LOGIN.refresh
        assert world.state()["alarm"] == "old"
        assert 'mesh_token_keys_age_seconds{issuer="login"} 1811' in world.metrics.render().decode()
        world.answer = B
        assert desk.want(LOGIN) is not None
        await world.until_fetched(3)
        assert desk.current(LOGIN) is B
        assert world.state()["alarm"] == ""
    said = world.said.getvalue()
    assert said.count("cannot be had") == 1
    assert "to be had again" in said


@in_trio
async def test_a_set_that_says_the_same_is_the_same(world: World) -> None:
    async with running(world) as desk:
        await world.until_fetched(1)
        world.answer = KeySet.parse(A.document)
        assert desk.want(LOGIN) is not None
        await world.until_fetched(2)
        assert desk.current(LOGIN) is A


@in_trio
async def test_who_invents_keys_does_not_flood_the_issuer(world: World) -> None:
    async with running(world) as desk:
        await world.until_fetched(1)
        for number in range(EXTRA):
            signal = desk.want(LOGIN)
            assert signal is not None
            assert desk.want(LOGIN) is signal
            await world.until_fetched(2 + number)
            assert signal.happened
        assert [desk.want(LOGIN) for _ in range(100)] == [None] * 100
        world.hands.time += EXTRA_SECONDS
        assert desk.want(LOGIN) is not None
        await world.until_fetched(2 + EXTRA)
        assert desk.want(LOGIN) is None
        world.hands.time += 1000 * EXTRA_SECONDS
        for number in range(EXTRA):
            assert desk.want(LOGIN) is not None
            await world.until_fetched(3 + EXTRA + number)
        assert desk.want(LOGIN) is None
    assert world.fetches == 2 + 2 * EXTRA
    assert world.nudges >= world.fetches


@in_trio
async def test_a_failure_is_tried_again_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    world.answer = RuntimeError("whatever it is")
    async with running(world) as desk:
        await world.until_fetched(3)
        assert desk.current(LOGIN) is None
        assert world.state()["alarm"] == "none"
        world.answer = A
        while desk.current(LOGIN) is None:
            await trio.sleep(0.005)
    assert "RuntimeError: whatever it is" in world.said.getvalue()


@in_trio
async def test_the_next_life_begins_with_the_kept_set(world: World, tmp_path: Path) -> None:
    async with running(world):
        await world.until_fetched(1)
        while not (tmp_path / "keys.login.json").exists():
            await trio.sleep(0.005)
    world.desk = next_life = KeyDesk(
        tmp_path, world.bundles, clock=world.hands, log=Kept(world.said), metrics=Metrics("x"), dice=lambda: 0.5
    )
    world.answer = "it is away"
    async with running(world):
        await world.until_fetched(2)
        found = next_life.current(LOGIN)
        assert found is not None
        assert found.document == A.document
        assert not next_life.fresh(LOGIN)
    assert (tmp_path / "keys.login.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", [b"", b"{}", b"[]", b"\xff", b'{"issuer": null}', b"OTHER", b"NO KEYS"])
def test_a_kept_set_that_is_damaged_or_of_another_is_not_believed(world: World, tmp_path: Path, change: bytes) -> None:
    @in_trio
    async def told() -> None:
        kept = {"issuer": [LOGIN.issuer, LOGIN.url], "heard_at": 1.0, "set": json.loads(A.document)}
        if change == b"OTHER":
            kept["issuer"] = [LOGIN.issuer, "https://evil.example/keys"]
        if change == b"NO KEYS":
            kept["set"] = {"keys": []}
        path = tmp_path / "keys.login.json"
        path.touch(0o600)
        path.write_bytes(json.dumps(kept).encode() if change in (b"OTHER", b"NO KEYS") else change)
        world.answer = "it is away"
        async with running(world) as desk:
            await world.until_fetched(1)
            assert desk.current(LOGIN) is None

    told()


@in_trio
async def test_a_reload_keeps_the_keys_of_who_stays_and_drops_the_others(world: World) -> None:
    other = Issuer("other", issuer="https://other.example.org")
    async with running(world, LOGIN, other) as desk:
        await world.until_fetched(2)
        moved = Issuer("login", issuer=LOGIN.issuer, url="https://elsewhere.example.org/keys")
        world.answer = "it is away"
        desk.use((moved,))
        assert desk.current(LOGIN) is None
        assert desk.current(other) is None
        assert desk.want(other) is None
        while world.fetches < 3:
            await trio.sleep(0.005)
        assert desk.current(moved) is None  # what was kept came from another place


@in_trio
async def test_a_file_is_followed_and_no_request_waits_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    filed = Issuer("filed", issuer="urn:x", file="keys.json")
    async with running(world, filed) as desk:
        while desk.current(filed) is not A:
            await trio.sleep(0.005)
        world.answer = B
        while desk.current(filed) is not B:
            await trio.sleep(0.005)
    assert not list(world.folder.glob("keys.*"))


def test_the_keys_of_jwt_svids_are_those_of_the_bundle(world: World) -> None:
    domain = TrustDomain("demo.mesh")
    issuer = Issuer("mesh", trust_domain=domain)
    world.desk.use((issuer,))
    assert world.desk.current(issuer) is None
    world.bundles.publish(BundleSet())
    assert world.desk.current(issuer) is None
    assert world.state(issuer)["alarm"] == "none"
    for kid in ("a", "b"):
        key = JwtKey(kid, public_bytes(Signer().key.public_key()))
        world.bundles.publish(BundleSet((TrustBundle(domain, (), jwt_keys=(key,)),)))
        found = world.desk.current(issuer)
        assert found is not None
        assert found.find(kid, "ES256")
        assert world.desk.current(issuer) is found
    assert world.desk.want(issuer) is None
    assert world.desk.fresh(issuer)
