"""Keys of JWT-SVIDs by the schedule, and the CA's tokens: for whom, recorded, refused, believed by sidecars."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ca.checkpoints import verify_log
from ca.config import CaSettings
from ca.create import create_ca
from ca.errors import DamagedCa, IssuerUnusable, SlotTaken
from ca.jwt_keys import JWT_KEY_TTL, JwtKeys
from ca.roots import key_file, load_bundle
from ca.slots import Activate, Prepare, Retire
from ca.store.base import JwtIssuance, JwtSlot, Revocation
from ca.store.sqlite import SqliteStore
from certs.bundle import BundleSet
from certs.errors import KeyUnavailable
from certs.jwt import InvalidJwt, Jwt
from certs.jwt_svid import validate_jwt_svid
from certs.keys import make_key, save_key
from tests.ca.desk import PASS, Desk, at_the_desk
from tests.ca.office import DAY, DEMO, NOW


@pytest.fixture
def keys(tmp_path: Path) -> Any:
    create_ca(tmp_path / "ca", CaSettings(DEMO, kdf_rounds=10), PASS, NOW)
    store = SqliteStore(tmp_path / "ca" / "ca.sqlite3")
    yield JwtKeys(tmp_path / "ca", store, PASS)
    store.close()


def states(keys: JwtKeys) -> list[str]:
    return [key.state for key in keys.store.jwt_keys()]


def test_a_new_ca_has_one_and_it_is_in_the_first_bundle(keys: JwtKeys) -> None:
    (key,) = keys.store.jwt_keys()
    bundle = load_bundle(keys.store, DEMO)
    assert (key.state, key.ends_at, bundle.sequence) == ("active", NOW + JWT_KEY_TTL, 1)
    assert [one.kid for one in bundle.jwt_keys] == [key.kid]
    assert keys.signer(NOW).kid == key.kid
    assert keys.round(NOW) == ()


def test_a_key_is_known_to_all_before_it_signs_and_until_its_last_token_is_long_over(keys: JwtKeys) -> None:
    first = keys.store.jwt_keys()[0].kid
    (prepared,) = keys.round(NOW + 15 * DAY)
    assert (prepared, states(keys)) == (Prepare(), ["active", "prepared"])
    second = keys.store.jwt_keys()[1].kid
    bundle = load_bundle(keys.store, DEMO)
    assert ([one.kid for one in bundle.jwt_keys], bundle.sequence) == ([first, second], 2)
    assert keys.signer(NOW + 24 * DAY).kid == first
    assert keys.round(NOW + 25 * DAY) == (Activate(second),)
    assert keys.signer(NOW + 25 * DAY).kid == second
    assert states(keys) == ["retiring", "active"]
    assert [one.kid for one in load_bundle(keys.store, DEMO).jwt_keys] == [first, second]
    assert Retire(first) in keys.round(NOW + 30 * DAY)
    assert [one.kid for one in load_bundle(keys.store, DEMO).jwt_keys] == [second, keys.store.jwt_keys()[2].kid]
    assert not key_file(keys.directory, first).exists()
    assert verify_log(keys.store, DEMO).findings == []


def test_a_ca_that_was_off_for_years_makes_up_for_it(keys: JwtKeys) -> None:
    keys.round(NOW + 800 * DAY)
    assert states(keys) == ["retired", "active"]
    assert keys.signer(NOW + 800 * DAY).ends_at == NOW + 830 * DAY


def test_a_stolen_key_is_worth_nothing_at_once(keys: JwtKeys) -> None:
    keys.round(NOW + 15 * DAY)
    old = [key.kid for key in keys.store.jwt_keys()]
    kid, revoked = keys.renew(NOW + 16 * DAY, revoke=True)
    assert kid not in old
    assert revoked == (old[0],)
    assert states(keys) == ["revoked", "revoked", "active"]
    assert [one.kid for one in load_bundle(keys.store, DEMO).jwt_keys] == [kid]
    assert not any(key_file(keys.directory, each).exists() for each in old)
    again, none = keys.renew(NOW + 16 * DAY, revoke=False)
    assert (none, states(keys)[-2:]) == ((), ["retiring", "active"])
    assert again != kid


def test_what_cannot_sign_says_so(keys: JwtKeys) -> None:
    with pytest.raises(IssuerUnusable, match="mesh ca serve"):
        keys.signer(NOW + 31 * DAY)
    with pytest.raises(KeyUnavailable):
        JwtKeys(keys.directory, keys.store, b"another passphrase").signer(NOW)
    kid = keys.store.jwt_keys()[0].kid
    save_key(key_file(keys.directory, kid), make_key("p256"), PASS, 10)
    with pytest.raises(DamagedCa, match="is not the key"):
        JwtKeys(keys.directory, keys.store, PASS).signer(NOW)


def test_the_store_holds_the_table_of_states(keys: JwtKeys) -> None:
    store, (key,) = keys.store, keys.store.jwt_keys()
    with pytest.raises(SlotTaken):
        store.add_jwt_key(dataclasses.replace(key, kid="other"))
    with pytest.raises(DamagedCa, match="cannot become prepared"):
        store.set_jwt_key_state(key.kid, "prepared", NOW)
    with pytest.raises(DamagedCa, match="unknown"):
        store.activate_jwt_key("nobody's", NOW)
    assert states(keys) == ["active"], "a move that is refused changes nothing"
    assert JwtSlot(*dataclasses.astuple(key)) == key


def test_a_table_that_was_changed_behind_the_logs_back_is_found(keys: JwtKeys) -> None:
    keys.store._db.execute("UPDATE jwt_keys SET state = 'retiring'")  # type: ignore[attr-defined]
    keys.store._db.execute("INSERT INTO clusters VALUES ('evil', '{}', 0)")  # type: ignore[attr-defined]
    findings = verify_log(keys.store, DEMO).findings
    assert any("is retiring in its table and active in the log" in one for one in findings)
    assert any("cluster evil" in one for one in findings)


def test_no_token_is_recorded_for_a_revoked_identity_however_close_the_two_came(keys: JwtKeys) -> None:
    issuance = JwtIssuance("spiffe://demo.mesh/ns/default/sa/orders", "orders-1", ("a",), "k", NOW, NOW + 300, "a1")
    assert keys.store.record_jwt(issuance)
    keys.store.revoke(Revocation("serial", "a1", "unspecified", NOW, NOW + 1))
    assert not keys.store.record_jwt(issuance)
    assert keys.store.record_jwt(dataclasses.replace(issuance, serial="a2"))
    keys.store.revoke(Revocation("spiffe_id", issuance.spiffe_id, "unspecified", NOW))
    assert not keys.store.record_jwt(dataclasses.replace(issuance, serial="a2"))
    kinds = [line.facts["kind"] for line in keys.store.lines()]
    assert kinds.count("jwt_issued") == 2


# ---- over the wire -------------------------------------------------------------------------------------------------


@at_the_desk
async def test_a_token_for_whoever_shows_a_certificate(desk: Desk) -> None:
    svid = await desk.svid(desk.entry())
    answer = await desk.post("/v1/jwt", {"audience": ["b", "a"]}, svid)
    assert answer.status == 200, answer.body
    token = answer.json()["token"]
    bundles = BundleSet((load_bundle(desk.server.store.store, DEMO),))
    found = validate_jwt_svid(token, "a", bundles, desk.clock.now)
    assert (found.spiffe_id, found.audience) == (svid.spiffe_id, ("a", "b"))
    assert found.expires_at - found.issued_at == 300
    assert Jwt.parse(token).header["alg"] == "ES256"
    (line,) = [line.facts for line in desk.server.store.store.lines() if line.facts["kind"] == "jwt_issued"]
    assert (line["audience"], line["asked_with"]) == (["a", "b"], svid.serial)
    with pytest.raises(InvalidJwt, match="expired"):
        validate_jwt_svid(token, "a", bundles, desk.clock.now + 300)


@at_the_desk
async def test_a_request_without_a_good_audience_is_refused(desk: Desk) -> None:
    svid = await desk.svid(desk.entry())
    documents: list[Any] = [{}, {"audience": []}, {"audience": "a"}, {"audience": [1]}, {"audience": ["x" * 600]}]
    for document in documents:
        answer = await desk.post("/v1/jwt", document, svid)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_jwt"), document


@at_the_desk
async def test_without_a_certificate_or_without_an_entry_there_is_no_token(desk: Desk) -> None:
    assert (await desk.post("/v1/jwt", {"audience": ["a"]})).status == 401
    entry = desk.entry()
    svid = await desk.svid(entry)
    desk.server.store.store.revoke(Revocation("spiffe_id", svid.spiffe_id.text, "key-compromise", desk.clock.now))
    await desk.server.follow_store_once()
    assert (await desk.post("/v1/jwt", {"audience": ["a"]}, svid)).status == 403
    desk.server.store.store.unrevoke("spiffe_id", svid.spiffe_id.text, desk.clock.now)
    await desk.server.follow_store_once()
    assert (await desk.post("/v1/jwt", {"audience": ["a"]}, svid)).status == 200
    desk.server.store.store.remove_entry(entry.id, desk.clock.now)
    assert (await desk.post("/v1/jwt", {"audience": ["a"]}, svid)).status == 403


@at_the_desk
async def test_a_key_that_takes_over_is_in_the_bundle_of_every_watcher_first(desk: Desk) -> None:
    store, clock = desk.server.store.store, desk.clock
    clock.now += 15 * DAY
    desk.server.schedule.round(clock.now)
    await desk.server.keep_schedule_once()
    bundle = desk.server.bundles.current.of(DEMO)
    assert bundle is not None
    assert [key.kid for key in bundle.jwt_keys] == [key.kid for key in store.jwt_keys()]
    assert [key.state for key in store.jwt_keys()] == ["active", "prepared"]
