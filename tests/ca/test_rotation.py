"""The rotation of a root, lived through on disk with sidecars that only the log and their acknowledgements tell of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ca.backup import back_up, restore
from ca.checkpoints import checkpoint_if_due, verify_log
from ca.config import CaSettings, ServeConfig
from ca.create import create_ca
from ca.enrolling import grant_key, register
from ca.enrolment_files import stale
from ca.entries import Entry, NewEntry, parse_identity
from ca.errors import ImportRefused, IssuerUnusable, RotationMoved, RotationRefused
from ca.external import accept_for_rotation, import_issuer, make_request
from ca.live import live_leaves
from ca.rehearsal import pairs, rehearse, shadow
from ca.roots import active, certificate_of, key_file, load_bundle, load_issuer
from ca.rotating import RootRotation
from ca.rotation import PHASES, Leaf, Rotation, Skip, next_phase, turned_back, waited_for
from ca.schedule import Schedule
from ca.server import open_server
from ca.store.base import Ack, Issuance, Revocation
from ca.store.sqlite import SqliteStore
from certs.enrolment import Enrolment
from certs.errors import KeyUnavailable
from certs.keys import KEY_KINDS, load_key, make_key
from tests.ca.office import ADDRESS, DAY, DEMO, NOW, HandClock
from tests.kit.identities import Authority, a_root, an_issuer

PASS = b"correct horse battery staple"
HOUR = 3600.0
TURN = Rotation("announced", "old", "new", NOW, NOW)


# ---- the table -------------------------------------------------------------------------------------------------------


def leaf(name: str, root: str, bundle: int) -> Leaf:
    return Leaf(f"spiffe://demo.mesh/ns/default/sa/{name}", f"5e{name}", root, NOW + DAY, bundle)


AHEAD, BEHIND = leaf("a", "new", 4), leaf("b", "old", 3)
WAITS = [
    ("announced", [], "switched"),
    ("announced", [AHEAD, BEHIND], None),
    ("announced", [AHEAD, leaf("b", "old", 4)], "switched"),
    ("switched", [AHEAD, leaf("b", "old", 4)], None),
    ("switched", [AHEAD, leaf("b", "new", 3)], "withdrawn"),
    ("withdrawn", [AHEAD, leaf("b", "new", 3)], None),
    ("withdrawn", [AHEAD], "done"),
    ("done", [BEHIND], None),
]


@pytest.mark.parametrize(("phase", "leaves", "expected"), WAITS)
def test_what_each_phase_waits_for(phase: str, leaves: list[Leaf], expected: str | None) -> None:
    rotation = replace(TURN, phase=phase)  # type: ignore[arg-type]
    assert next_phase(rotation, waited_for(rotation, leaves, 4)) == expected


@pytest.mark.parametrize("target", [BEHIND.spiffe_id, BEHIND.serial])
def test_a_laggard_is_skipped_by_name_and_stays_named(target: str) -> None:
    rotation = replace(TURN, skipped=(Skip(target, "scrapped"),))
    (laggard,) = waited_for(rotation, [AHEAD, BEHIND], 4)
    assert (laggard.leaf, laggard.skipped) == (BEHIND, "scrapped")
    assert next_phase(rotation, [laggard]) == "switched"


def test_turning_back_changes_the_places_of_the_roots_once() -> None:
    expected = {"announced": "withdrawn", "switched": "switched", "withdrawn": None, "done": None}
    for phase in PHASES:
        back = turned_back(TURN.at(phase, NOW), NOW + 1)
        assert (back and back.phase) == expected[phase]
        if back is not None:
            assert (back.outgoing, back.incoming, back.aborted) == ("new", "old", True)
            assert turned_back(back, NOW + 2) is None


def test_a_line_of_the_log_says_all_of_it() -> None:
    rotation = replace(TURN, skipped=(Skip("a", "b"),), aborted=True, issuer_pem="x", line=7)
    assert Rotation.of_facts({"n": 7, "at": NOW, **rotation.facts()}) == rotation


# ---- on disk ---------------------------------------------------------------------------------------------------------


class Mesh:
    """A CA on disk, and sidecars that exist in its store alone."""

    def __init__(self, folder: Path, kind: str = KEY_KINDS[0]) -> None:
        self.directory = folder / "ca"
        create_ca(self.directory, CaSettings(DEMO, ADDRESS, key_kind=kind, kdf_rounds=1000), PASS, NOW)
        self.open()
        self.now = NOW + HOUR
        self.serials: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        self._count = 0

    def open(self) -> None:
        self.store = SqliteStore(self.directory / "ca.sqlite3")
        self.rotation = RootRotation(self.directory, self.store, DEMO, PASS)

    def issue(self, name: str, proof: str = "enrolment_key", detail: str = "") -> str:
        if name not in self.entries:
            self.entries[name] = register(self.store, DEMO, NewEntry(parse_identity(name, DEMO)), self.now)
        self._count += 1
        serial, issuer = f"{self._count:x}", certificate_of(active(self.store, "issuer"))
        identity = self.entries[name].spiffe_id.text
        self.store.record(
            [
                Issuance(
                    serial, self.entries[name].id, identity, (), self.now - 60, self.now + DAY, self.now, proof, detail,
                    f"{issuer.serial_number:x}", f"{self._count:064x}",
                )
            ]
        )  # fmt: skip
        self.serials[name] = serial
        return serial

    def renew(self, name: str, *, heard: bool = True) -> None:
        self.issue(name, "renewal", self.serials[name])
        if heard:
            self.ack(name)

    def ack(self, name: str, topic: str = "bundle", sequence: int | None = None) -> None:
        number = self.store.bundle_sequence() if sequence is None else sequence
        identity = self.entries[name].spiffe_id.text
        self.store.acknowledge([Ack(identity, self.serials[name], topic, number, self.now)])

    def round(self) -> bool:
        self.now += 1
        return self.rotation.round(self.now)

    @property
    def phase(self) -> str:
        found = self.store.rotation()
        return "" if found is None else found.phase

    def states(self) -> str:
        return " ".join(f"{slot.kind}:{slot.state}" for slot in self.store.slots())

    def laggards(self) -> list[str]:
        found = self.store.rotation()
        assert found is not None
        return [one.leaf.serial for one in self.rotation.laggards(found, self.now) if not one.skipped]


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    mesh = Mesh(tmp_path)
    for name in ("web", "app"):
        mesh.issue(name)
        mesh.ack(name)
    return mesh


def test_a_whole_rotation_waits_for_each_sidecar_in_each_phase(mesh: Mesh) -> None:
    old = active(mesh.store, "root")
    before = mesh.store.bundle_sequence()
    mesh.rotation.begin(mesh.now)
    assert (mesh.phase, mesh.store.bundle_sequence()) == ("announced", before + 1)
    assert mesh.states() == "root:active issuer:active root:prepared"
    assert len(load_bundle(mesh.store, DEMO).roots) == 2
    mesh.ack("web")
    assert not mesh.round()
    assert mesh.laggards() == [mesh.serials["app"]]
    assert mesh.rotation.order(mesh.now).issuers == frozenset()
    mesh.ack("app")
    assert mesh.round()
    assert mesh.phase == "switched"
    assert mesh.states() == "root:retiring issuer:retiring root:active issuer:active"
    assert not mesh.round()
    order = mesh.rotation.order(mesh.now)
    assert order.sequence > 0
    assert order.issuers == {f"{certificate_of(mesh.store.slots()[1]).serial_number:x}"}
    mesh.renew("web")
    mesh.renew("app", heard=False)  # the answer may have been lost: both are live
    assert not mesh.round()
    assert len(mesh.laggards()) == 1
    mesh.ack("app", "watch", 1)
    assert mesh.round()
    assert mesh.phase == "withdrawn"
    assert mesh.states() == "root:retired issuer:retired root:active issuer:active"
    assert load_bundle(mesh.store, DEMO).roots == (certificate_of(active(mesh.store, "root")),)
    assert not key_file(mesh.directory, old.sha256).exists()
    assert not mesh.round()
    assert len(mesh.laggards()) == 2
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    assert (mesh.phase, mesh.round()) == ("done", False)
    assert load_issuer(mesh.directory, mesh.store, PASS).root == certificate_of(active(mesh.store, "root"))
    assert verify_log(mesh.store, DEMO).findings == []


def test_nobody_live_and_it_is_done_at_once(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    mesh.rotation.begin(mesh.now)
    assert [mesh.round() for _ in range(4)] == [True, True, True, False]
    assert mesh.phase == "done"
    mesh.rotation.begin(mesh.now)  # and another one
    assert [mesh.round() for _ in range(4)] == [True, True, True, False]
    assert mesh.states().split().count("root:retired") == 2


def test_back_before_anybody_signed_with_it(mesh: Mesh) -> None:
    root = active(mesh.store, "root")
    mesh.rotation.begin(mesh.now)
    new = mesh.store.slots()[-1]
    mesh.rotation.abort(mesh.now)
    assert mesh.phase == "withdrawn"
    assert mesh.states() == "root:active issuer:active root:retired"
    assert not key_file(mesh.directory, new.sha256).exists()
    assert len(mesh.laggards()) == 2  # they have to hear of that bundle too
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    assert mesh.phase == "done"
    assert active(mesh.store, "root") == root


def test_back_while_half_of_them_hold_new_certificates(mesh: Mesh) -> None:
    before = active(mesh.store, "root").sha256, active(mesh.store, "issuer").sha256
    mesh.rotation.begin(mesh.now)
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    mesh.renew("web")
    mesh.rotation.abort(mesh.now)
    assert mesh.phase == "switched"
    assert (active(mesh.store, "root").sha256, active(mesh.store, "issuer").sha256) == before
    assert len(load_bundle(mesh.store, DEMO).roots) == 2  # web's certificate holds still
    assert not mesh.round()
    assert mesh.laggards() == [mesh.serials["web"]]
    mesh.renew("web")
    assert mesh.round()
    assert mesh.phase == "withdrawn"
    with pytest.raises(RotationRefused, match="no way back"):
        mesh.rotation.abort(mesh.now)
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    assert mesh.states() == "root:active issuer:active root:retired issuer:retired"
    assert verify_log(mesh.store, DEMO).findings == []


def test_there_is_no_way_back_from_the_last_phase(mesh: Mesh) -> None:
    with pytest.raises(RotationRefused, match="no rotation"):
        mesh.rotation.abort(mesh.now)
    mesh.rotation.begin(mesh.now, skips=[Skip(entry.spiffe_id.text, "gone") for entry in mesh.entries.values()])
    assert mesh.round()
    assert mesh.round()
    with pytest.raises(RotationRefused, match="has left the bundle"):
        mesh.rotation.abort(mesh.now)


def test_a_rotation_is_begun_once_and_with_the_right_passphrase(mesh: Mesh) -> None:
    with pytest.raises(KeyUnavailable):
        RootRotation(mesh.directory, mesh.store, DEMO, b"wrong").begin(mesh.now)
    assert mesh.store.rotation() is None
    begun = mesh.rotation.begin(mesh.now)
    with pytest.raises(RotationRefused, match="under way already"):
        mesh.rotation.begin(mesh.now)
    mesh.rotation.skip([Skip(mesh.serials["web"], "scrapped")], mesh.now)
    with pytest.raises(RotationMoved):
        mesh.store.advance_rotation(begun, begun.at("switched", mesh.now))
    assert mesh.laggards() == [mesh.serials["app"]]


def test_who_is_live(mesh: Mesh) -> None:
    first = mesh.serials["web"]
    mesh.renew("web", heard=False)
    assert [leaf.serial for leaf in live_leaves(mesh.store, mesh.now) if "web" in leaf.spiffe_id] == [first, "3"]
    mesh.renew("web")  # the third was heard of, so the second, and the first before it, are given up
    assert [leaf.serial for leaf in live_leaves(mesh.store, mesh.now) if "web" in leaf.spiffe_id] == ["4"]
    mesh.issue("web")  # a replica, or the same after a restart: nobody can tell
    assert len([leaf for leaf in live_leaves(mesh.store, mesh.now) if "web" in leaf.spiffe_id]) == 2
    mesh.store.revoke(Revocation("serial", "5", "stolen", mesh.now, mesh.now + DAY))
    mesh.store.revoke(Revocation("spiffe_id", mesh.entries["app"].spiffe_id.text, "gone", mesh.now))
    assert [leaf.serial for leaf in live_leaves(mesh.store, mesh.now)] == ["4"]
    assert live_leaves(mesh.store, mesh.now + 2 * DAY) == ()


def test_the_schedule_goes_on_beside_a_rotation_that_waits_for_weeks(mesh: Mesh) -> None:
    schedule = Schedule(mesh.directory, mesh.store, DEMO, PASS)
    mesh.rotation.begin(mesh.now)
    for day in range(1, 90):
        schedule.round(NOW + day * DAY)
        mesh.now = NOW + day * DAY
        mesh.issue("web")  # never acknowledges anything
        assert not mesh.round()
        assert load_issuer(mesh.directory, mesh.store, PASS).not_after > mesh.now + DAY
    schedule.round(mesh.now)
    mesh.rotation.skip([Skip(mesh.entries["web"].spiffe_id.text, "never answers")], mesh.now)
    assert mesh.round()
    assert active(mesh.store, "issuer").root == active(mesh.store, "root").sha256
    assert mesh.round()
    for day in range(90, 180):
        schedule.round(NOW + day * DAY)
        assert load_issuer(mesh.directory, mesh.store, PASS).not_after > NOW + (day + 1) * DAY
    assert verify_log(mesh.store, DEMO).findings == []


def test_enrolment_files_in_the_folder_follow_and_others_are_named(mesh: Mesh) -> None:
    grant_key(mesh.store, mesh.entries["web"], ADDRESS, mesh.now).save(mesh.directory / "enrolment" / "web.json")
    grant_key(mesh.store, mesh.entries["app"], ADDRESS, mesh.now)  # carried away

    def pins() -> set[str]:
        return set(Enrolment.load(mesh.directory / "enrolment" / "web.json").root_sha256)

    mesh.now += 1
    old = pins()
    mesh.rotation.begin(mesh.now)
    assert pins() == set(load_bundle(mesh.store, DEMO).root_hashes()) > old
    assert [one.spiffe_id for one in stale(mesh.directory, mesh.store)] == [mesh.entries["app"].spiffe_id]
    mesh.rotation.skip([Skip(entry.spiffe_id.text, "x") for entry in mesh.entries.values()], mesh.now)
    while mesh.round():
        pass
    assert pins() == {active(mesh.store, "root").sha256}
    mesh.rotation.begin(mesh.now)
    mesh.rotation.abort(mesh.now)
    assert pins() == {active(mesh.store, "root").sha256}


def test_signed_heads_of_before_hold_after_the_old_root_is_gone(mesh: Mesh) -> None:
    checkpoint_if_due(mesh.store, DEMO, load_issuer(mesh.directory, mesh.store, PASS), mesh.now)
    mesh.rotation.begin(mesh.now, skips=[Skip(entry.spiffe_id.text, "x") for entry in mesh.entries.values()])
    while mesh.round():
        pass
    checkpoint_if_due(mesh.store, DEMO, load_issuer(mesh.directory, mesh.store, PASS), mesh.now)
    report = verify_log(mesh.store, DEMO)
    assert (report.findings, report.checkpoints) == ([], 2)


def test_a_restored_ca_goes_on_where_its_copy_was(mesh: Mesh, tmp_path: Path) -> None:
    mesh.rotation.begin(mesh.now)
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    back_up(mesh.directory, tmp_path / "copy.tar", mesh.now)
    restore(tmp_path / "copy.tar", tmp_path / "again", mesh.now)
    mesh.directory = tmp_path / "again"
    mesh.open()
    assert mesh.phase == "switched"
    for name in mesh.entries:
        mesh.renew(name)
    assert mesh.round()
    assert mesh.phase == "withdrawn"


def test_to_a_root_of_somebody_elses_pki_and_back(mesh: Mesh) -> None:
    ours = active(mesh.store, "root").sha256
    make_request(mesh.directory, DEMO, PASS)
    [request] = (mesh.directory / "keys").glob("request-*.pem")
    theirs = a_root("demo.mesh", now=NOW, name="their own root", days=3650)
    issuer = an_issuer(theirs, now=NOW, key=load_key(request, PASS))
    imported, _ = accept_for_rotation(
        mesh.directory, mesh.store, DEMO, PASS, issuer.chain, theirs.certificate, mesh.now
    )
    mesh.rotation.begin(mesh.now, imported=imported)
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    signing = load_issuer(mesh.directory, mesh.store, PASS)
    assert (signing.certificate, signing.root) == (issuer.certificate, theirs.certificate)
    assert not active(mesh.store, "root").has_key
    mesh.rotation.abort(mesh.now)
    assert active(mesh.store, "root").sha256 == ours
    assert mesh.round()  # nobody holds one of theirs
    for name in mesh.entries:
        mesh.ack(name)
    assert mesh.round()
    assert mesh.phase == "done"


def test_no_way_back_where_the_old_root_signs_no_more(mesh: Mesh) -> None:
    mesh.rotation.begin(mesh.now, skips=[Skip(entry.spiffe_id.text, "x") for entry in mesh.entries.values()])
    mesh.ack("web")
    sequence = mesh.store.bundle_sequence()
    mesh.rotation.skip([], mesh.now)
    assert mesh.round()
    for path in (mesh.directory / "keys").glob("*.pem"):
        if path.name != key_file(mesh.directory, active(mesh.store, "issuer").sha256).name:
            path.unlink()  # the old root's key was taken away, and that of its issuing CA
    with pytest.raises((IssuerUnusable, KeyUnavailable)):
        mesh.rotation.abort(mesh.now)
    assert (mesh.phase, mesh.store.bundle_sequence()) == ("switched", sequence)


def test_a_root_that_has_ended_is_replaced_before_anything_is_served(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    create_ca(directory, CaSettings(DEMO, ADDRESS, kdf_rounds=1000), PASS, NOW, root_ttl=40 * DAY, issuer_ttl=30 * DAY)
    late = NOW + 41 * DAY
    store = SqliteStore(directory / "ca.sqlite3")
    RootRotation(directory, store, DEMO, PASS).begin(late)
    store.close()
    server = open_server(ServeConfig(directory, port=0), PASS, HandClock(late))
    try:
        assert trio.run(server.authority.issue_own, make_key()).not_after > late
        found = server.store.store.rotation()
        assert found is not None
        assert found.phase == "done"
        assert len(server.bundles.current.roots()) == 1
    finally:
        server.store.store.close()


def test_an_issuing_ca_is_imported_under_the_active_root_alone(mesh: Mesh) -> None:
    mesh.rotation.begin(mesh.now)
    new = certificate_of(mesh.store.slots()[-1])
    root = Authority(DEMO, new, load_key(key_file(mesh.directory, mesh.store.slots()[-1].sha256), PASS), new)
    make_request(mesh.directory, DEMO, PASS)
    [request] = (mesh.directory / "keys").glob("request-*.pem")
    issuer = an_issuer(root, now=NOW, key=load_key(request, PASS))
    with pytest.raises(ImportRefused, match="this root is prepared"):
        import_issuer(mesh.directory, mesh.store, DEMO, PASS, issuer.chain, new, mesh.now)


@pytest.mark.parametrize("kind", [kind for kind in KEY_KINDS if kind != "rsa3072"])
def test_the_rehearsal_tries_every_pair_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    mesh = Mesh(tmp_path, kind)
    head = mesh.store.head()
    keys = sorted((mesh.directory / "keys").iterdir())
    old = load_issuer(mesh.directory, mesh.store, PASS)
    trials = rehearse(DEMO, old, shadow(DEMO, kind, mesh.now, 3650 * DAY), mesh.now)
    assert [trial.as_json() for trial in trials if not trial.ok] == []
    assert len(trials) == len(list(pairs())) == 16
    assert sum(not trial.expected for trial in trials) == 4
    assert mesh.store.head() == head
    assert sorted((mesh.directory / "keys").iterdir()) == keys


def test_a_rehearsal_finds_a_root_that_nobody_would_accept(mesh: Mesh) -> None:
    old = load_issuer(mesh.directory, mesh.store, PASS)
    bad, other = (shadow(DEMO, "p256", mesh.now, 30 * DAY) for _ in range(2))
    bad = replace(bad, root=other.root)  # an issuing CA that its root never signed
    failed = [trial for trial in rehearse(DEMO, old, bad, mesh.now) if not trial.ok]
    assert failed
    assert all("new" in (trial.client.leaf, trial.server.leaf) for trial in failed)
