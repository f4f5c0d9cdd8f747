"""A CA on disk: whole or not at all, ours alone, encrypted, never overwritten; and `prepare`, which `mesh up` calls."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ca.bootstrap import enrolment_file, prepare
from ca.config import CaSettings, load_settings
from ca.create import create_ca
from ca.entries import NewEntry, parse_identity
from ca.errors import CaExists, DamagedCa, InvalidEntry, NoCa
from ca.health import judge, warnings
from ca.roots import active, active_slot, load_bundle, load_issuer, load_slot, renew_issuer, slot_of
from ca.store.base import Store
from ca.store.sqlite import SqliteStore
from certs.bundle import BundleSet, TrustBundle
from certs.enrolment import Enrolment, EnrolmentKey
from certs.errors import KeyUnavailable
from certs.keys import new_key
from certs.svid import X509Svid
from tests.ca.office import DAY, DEMO, NOW, an_issuer

PASS = b"correct horse battery staple"
SETTINGS = CaSettings(DEMO)
ORDERS = NewEntry(parse_identity("orders", DEMO), ("orders",))
WEB = NewEntry(parse_identity("shop/web", DEMO))
ADDRESS = "127.0.0.1:17012"


def opened(directory: Path) -> SqliteStore:
    return SqliteStore(directory / "ca.sqlite3")


def everything(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_all_of_it_is_ours_alone_and_keys_are_encrypted(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "ca"
    prepare(directory, DEMO, PASS, [ORDERS], ADDRESS)
    for path in [directory, *directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    keys = list((directory / "keys").iterdir())
    assert len(keys) == 3  # root, issuing CA, tokens
    for path in keys:
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        load_pem_private_key(path.read_bytes(), PASS)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["ca"]  # nothing is left beside it


def test_a_wrong_passphrase_is_said_clearly(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca", SETTINGS, PASS, NOW)
    store = opened(tmp_path / "ca")
    with pytest.raises(KeyUnavailable, match="wrong passphrase"):
        load_issuer(tmp_path / "ca", store, b"wrong")
    assert load_issuer(tmp_path / "ca", store, PASS).not_after == NOW + 30 * DAY
    store.close()


def test_an_existing_ca_or_anything_else_is_never_overwritten(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    create_ca(directory, SETTINGS, PASS, NOW)
    before = everything(directory)
    with pytest.raises(CaExists, match="never overwritten"):
        create_ca(directory, SETTINGS, PASS, NOW)
    assert everything(directory) == before
    full, file, link = tmp_path / "full", tmp_path / "file", tmp_path / "link"
    full.mkdir()
    (full / "notes").write_text("mine")
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for taken in (full, file, link):
        with pytest.raises(CaExists):
            create_ca(taken, SETTINGS, PASS, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca", "file", "full", "link"]


def test_whoever_comes_first_keeps_the_place(tmp_path: Path) -> None:
    directory = tmp_path / "ca"

    def race(*_: object) -> None:
        create_ca(directory, SETTINGS, b"the winner's", NOW)

    with pytest.raises(CaExists, match="meanwhile"):
        create_ca(directory, SETTINGS, PASS, NOW, furnish=race)
    store = opened(directory)
    load_issuer(directory, store, b"the winner's")
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise InvalidEntry("no")

    with pytest.raises(InvalidEntry):
        create_ca(tmp_path / "ca", SETTINGS, PASS, NOW, furnish=fail)
    with pytest.raises(KeyUnavailable):
        create_ca(tmp_path / "ca", SETTINGS, b"", NOW)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_becomes_a_ca(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o755)
    create_ca(tmp_path / "ca", SETTINGS, PASS, NOW)
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


def test_no_ca_and_damaged_ones(tmp_path: Path) -> None:
    with pytest.raises(NoCa, match="mesh ca init"):
        load_settings(tmp_path)
    create_ca(tmp_path / "ca", SETTINGS, PASS, NOW)
    (tmp_path / "ca" / "ca.json").chmod(0o644)
    with pytest.raises(DamagedCa, match="chmod 600"):
        load_settings(tmp_path / "ca")
    store = opened(tmp_path / "ca")
    paths = [tmp_path / "ca" / "keys" / f"{slot.sha256[:32]}.pem" for slot in store.slots()]
    paths[1].write_bytes(paths[0].read_bytes())
    with pytest.raises(DamagedCa, match="not the key of its certificate"):
        load_issuer(tmp_path / "ca", store, PASS)
    paths[1].unlink()
    with pytest.raises(KeyUnavailable):
        load_issuer(tmp_path / "ca", store, PASS)
    store.close()


def test_an_issuer_of_another_root_is_not_used(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca", SETTINGS, PASS, NOW)
    store = opened(tmp_path / "ca")
    stranger = an_issuer()
    for root, why in ((active(store, "root").sha256, "not issued by the root"), ("", "not issued by a root of this")):
        slot = slot_of(stranger.certificate, "issuer", NOW, "prepared", root=root)
        with pytest.raises(DamagedCa, match=why):
            load_slot(tmp_path / "ca", store.slots(), slot, PASS)
    store.close()


def test_a_new_issuing_ca_takes_over_under_the_same_root(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    create_ca(directory, SETTINGS, PASS, NOW)
    store = opened(directory)
    old, bundle = load_issuer(directory, store, PASS), load_bundle(store, DEMO)
    with pytest.raises(KeyUnavailable):
        renew_issuer(directory, store, DEMO, b"wrong", NOW)
    new = renew_issuer(directory, store, DEMO, PASS, NOW + 25 * DAY)
    assert new.root == old.root
    assert new.not_after == NOW + 55 * DAY
    assert load_issuer(directory, store, PASS).certificate == new.certificate == active_slot(store, "issuer")
    assert load_bundle(store, DEMO) == bundle
    assert [slot.state for slot in store.slots()] == ["active", "retiring", "active"]
    store.close()


# ---- prepare -----------------------------------------------------------------------------------------------------


def test_prepare_hands_out_files_that_hold(tmp_path: Path) -> None:
    entries = [NewEntry(parse_identity(name, DEMO)) for name in ("web", "orders", "payments", "shop/web")]
    prepare(tmp_path / "ca", DEMO, PASS, entries, ADDRESS)
    store = opened(tmp_path / "ca")
    roots = load_bundle(store, DEMO).root_hashes()
    names = ["orders.json", "payments.json", "shop~web.json", "web.json"]
    assert sorted(path.name for path in (tmp_path / "ca" / "enrolment").iterdir()) == names
    for entry in store.entries():
        file = Enrolment.load(enrolment_file(tmp_path / "ca", entry.spiffe_id))
        assert (file.entry, file.spiffe_id, file.ca_address) == (entry.id, entry.spiffe_id, ADDRESS)
        assert file.root_sha256 == roots
        assert isinstance(file.proof, EnrolmentKey)
        assert store.keys(entry.id)[0].public_bytes == file.proof.public_bytes
    store.close()


def test_prepare_completes_what_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    prepare(directory, DEMO, PASS, [ORDERS], ADDRESS, NOW)
    first = Enrolment.load(enrolment_file(directory, ORDERS.spiffe_id))
    prepare(directory, DEMO, PASS, [ORDERS, WEB], ADDRESS, NOW)
    assert Enrolment.load(enrolment_file(directory, ORDERS.spiffe_id)) == first
    prepare(directory, DEMO, PASS, [ORDERS], "127.0.0.1:17013", NOW)
    moved = Enrolment.load(enrolment_file(directory, ORDERS.spiffe_id))
    assert moved == replace(first, ca_address="127.0.0.1:17013")
    assert load_settings(directory).address == "127.0.0.1:17013"
    enrolment_file(directory, WEB.spiffe_id).write_text("damaged")
    prepare(directory, DEMO, PASS, [replace(ORDERS, ttl=3600.0), WEB], ADDRESS, NOW)
    assert Enrolment.load(enrolment_file(directory, WEB.spiffe_id)).spiffe_id == WEB.spiffe_id
    assert Enrolment.load(enrolment_file(directory, ORDERS.spiffe_id)).entry != first.entry
    store = opened(directory)
    assert {(entry.spiffe_id, entry.ttl) for entry in store.entries()} == {
        (ORDERS.spiffe_id, 3600.0),
        (WEB.spiffe_id, 86400.0),
    }
    before = active_slot(store, "issuer")
    prepare(directory, DEMO, PASS, [ORDERS], ADDRESS, NOW + 29 * DAY)
    assert active_slot(store, "issuer") != before
    store.close()


def test_prepare_refuses_before_it_touches_anything(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    with pytest.raises(InvalidEntry):
        prepare(directory, DEMO, PASS, [ORDERS, replace(WEB, ttl=1.0)], ADDRESS)
    with pytest.raises(InvalidEntry, match="entry already"):
        prepare(directory, DEMO, PASS, [ORDERS, ORDERS], ADDRESS)
    assert list(tmp_path.iterdir()) == []
    prepare(directory, DEMO, PASS, [ORDERS], ADDRESS)
    with pytest.raises(KeyUnavailable):
        prepare(directory, DEMO, b"wrong", [WEB], ADDRESS)
    other = DEMO.__class__.parse("other.mesh")
    with pytest.raises(DamagedCa, match="holds the CA of"):
        prepare(directory, other, PASS, [], ADDRESS)


# ---- health ------------------------------------------------------------------------------------------------------


WARNINGS = [
    (0.0, []),
    (24.9 * DAY, []),
    (25.1 * DAY, ["ISSUING CA EXPIRES"]),
    (29.5 * DAY, ["ISSUING CA EXPIRES", "cut short"]),
    (30.5 * DAY, ["ISSUING CA HAS EXPIRED"]),
    (3600 * DAY, ["ISSUING CA HAS EXPIRED", "ROOT EXPIRES"]),
]


@pytest.mark.parametrize(("at", "says"), WARNINGS)
def test_warnings_come_before_the_end(at: float, says: list[str]) -> None:
    issuer = an_issuer()
    found = warnings(issuer.certificate, issuer.root, NOW + at)
    assert len(found) == len(says)
    for warning, words in zip(found, says, strict=True):
        assert words in warning


def an_own_svid(store: Store | None = None) -> tuple[X509Svid, BundleSet, object]:
    import trio

    from tests.ca.office import open_office

    office = open_office()
    svid = trio.run(office.authority.issue_own, new_key())
    return svid, office.bundles.current, office.issuer


def test_ready_means_that_our_own_chain_holds_and_the_store_takes_writes() -> None:
    svid, bundles, issuer = an_own_svid()
    empty = BundleSet((TrustBundle(DEMO, ()),))
    table: list[tuple[dict[str, object], str | None]] = [
        ({}, None),
        ({"now": NOW + DAY + 1}, "expired"),
        ({"now": NOW + 31 * DAY}, "issuing CA's certificate is expired"),
        ({"now": NOW - 2 * DAY}, "not valid for another"),
        ({"svid": None}, "no certificate of its own"),
        ({"store_error": "the disk is full"}, "disk is full"),
        ({"bundles": empty}, "own chain does not hold"),
    ]
    for changes, says in table:
        facts = {"issuer": issuer, "svid": svid, "bundles": bundles, "now": NOW, **changes}
        health = judge(**facts, trust_domain="demo.mesh")  # type: ignore[arg-type]
        assert health.ready is (says is None)
        assert says is None or says in "; ".join(health.reasons)
        assert health.as_json()["ready"] is health.ready
    told = judge(issuer, svid, bundles, NOW, trust_domain="x", schedule_problem="no key").warnings  # type: ignore[arg-type]
    assert "NO ISSUING CA CAN FOLLOW" in told[0]
