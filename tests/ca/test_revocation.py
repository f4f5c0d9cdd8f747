"""Revocation at the CA: what is denied, to whom it is told, what is refused from then on, and the CRL."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.entries import DEFAULT_TTL
from ca.errors import BadRequest, Revoked
from ca.revocation import draw_up, find_lifted, find_target, make_crl
from ca.roots import active_slot, load_issuer, renew_issuer
from ca.store.base import Issuance, Revocation, Store
from ca.store.sqlite import SqliteStore
from certs.csr import make_csr
from certs.denylist import Denylist
from certs.keys import new_key
from certs.source import Source
from certs.svid import X509Svid
from sidecar.cli.root import run_command
from sidecar.net.http_client import Answer, Duplex
from tests.ca.desk import CSR, PASS, Desk, at_the_desk
from tests.ca.office import DAY, DEMO, NOW, Office, open_office
from tests.ca.test_server import Lines, until
from tests.ca.test_store import LINE
from tests.kit.tools import need

ORDERS = DEMO.id("ns", "default", "sa", "orders")


@pytest.fixture
def store() -> SqliteStore:
    opened = SqliteStore(None)
    opened.record([
        replace(LINE, serial="a1", spiffe_id=ORDERS.text, issued_at=NOW, not_after=NOW + DAY),
        replace(LINE, serial="a2", spiffe_id=ORDERS.text, issued_at=NOW, not_after=NOW + 2 * DAY),
        replace(LINE, serial="b1", spiffe_id=DEMO.id("web").text, issued_at=NOW, not_after=NOW + DAY),
        replace(LINE, serial="old", spiffe_id=ORDERS.text, issued_at=NOW, not_after=NOW - 1),
    ])  # fmt: skip
    return opened


def one(target: str, kind: Any = "serial", **changes: Any) -> Revocation:
    return replace(Revocation(kind, target, "hold", NOW, None if kind == "spiffe_id" else NOW + DAY), **changes)


# ---- the store ---------------------------------------------------------------------------------------------------


def test_revoke_and_lift_each_once_and_each_a_new_sequence(store: SqliteStore) -> None:
    story = [store.denylist_sequence()]
    assert store.revoke(one("a1"))
    story.append(store.denylist_sequence())
    assert not store.revoke(one("a1", reason="superseded"))
    assert store.revocation("serial", "a1") == one("a1")
    assert store.revocation("spiffe_id", "a1") is None
    assert store.revocations(NOW) == (one("a1"),)
    assert store.revocations(NOW + DAY) == ()  # it has ended anyway
    story.append(store.denylist_sequence())
    assert store.unrevoke("serial", "a1", NOW + 1)
    assert not store.unrevoke("serial", "a1", NOW + 1)
    story.append(store.denylist_sequence())
    assert story == [1, 2, 2, 3]
    assert store.revocations(NOW) == ()


def test_nothing_is_recorded_for_the_revoked_and_the_others_are_not_held_up(store: SqliteStore) -> None:
    store.revoke(one(ORDERS.text, "spiffe_id"))
    store.revoke(one("b1"))
    web = DEMO.id("web").text
    batch = [
        replace(LINE, serial="c1", spiffe_id=ORDERS.text),
        replace(LINE, serial="c2", spiffe_id=web, proof="renewal", proof_detail="b1"),
        replace(LINE, serial="c3", spiffe_id=web, proof="renewal", proof_detail="b9"),
        replace(LINE, serial="c4", spiffe_id=web, proof="enrolment_key", proof_detail="b1"),
    ]
    assert store.record(batch) == {"c1", "c2"}
    assert [serial for serial in ("c1", "c2", "c3", "c4") if store.issuance(serial)] == ["c3", "c4"]


def test_crl_numbers_only_grow_even_when_the_clock_goes_back(store: SqliteStore) -> None:
    numbers = [store.next_crl_number(now) for now in (NOW, NOW, NOW - 1000, NOW + 5)]
    assert numbers == [NOW, NOW + 1, NOW + 2, NOW + 5]


# ---- what an operator means --------------------------------------------------------------------------------------


def test_targets(store: SqliteStore) -> None:
    office = open_office()
    entry = office.entry("shop/web")
    store.add_entry(entry)
    table = [
        ("a1", one("a1")), ("A1", one("a1")), ("0x00a1", one("a1")), ("00:A1", one("a1")),
        (ORDERS.text, one(ORDERS.text, "spiffe_id")), ("orders", one(ORDERS.text, "spiffe_id")),
        (entry.id, one(entry.spiffe_id.text, "spiffe_id")), ("shop/web", one(entry.spiffe_id.text, "spiffe_id")),
    ]  # fmt: skip
    for text, expected in table:
        assert find_target(store, DEMO, text, NOW, "hold") == expected, text
    for text, says in [
        ("nobody", "no entry and was never issued"), ("ff", "no entry and was never issued"), ("old", "no entry and"),
        ("spiffe://other.mesh/x", "another trust domain"), ("spiffe://demo.mesh/mesh/ca", "renew-issuer"),
        ("spiffe://demo.mesh", "cannot be revoked by name"), ("no good!", "neither a serial"), ("", "neither a serial"),
    ]:  # fmt: skip
        with pytest.raises(BadRequest, match=says):
            find_target(store, DEMO, text, NOW, "hold")
    with pytest.raises(BadRequest, match="has ended already"):
        find_target(store, DEMO, "a1", NOW + DAY, "hold")
    store.revoke(one("a1"))
    store.revoke(one(ORDERS.text, "spiffe_id"))
    assert find_lifted(store, DEMO, "A1").target == "a1"
    assert find_lifted(store, DEMO, "orders").kind == "spiffe_id"
    for text in ("b1", "web", "no good!"):
        with pytest.raises(BadRequest, match="is not revoked"):
            find_lifted(store, DEMO, text)


# ---- the denylist and the CRL ------------------------------------------------------------------------------------


def test_the_denylist_is_what_the_store_says_and_a_receiver_believes_it() -> None:
    office = open_office()
    office.store.record([replace(LINE, serial="a1", issued_at=NOW, not_after=NOW + DAY)])
    for revocation in (one("a1"), one("dead", until=NOW - 1), one(ORDERS.text, "spiffe_id")):
        office.store.revoke(revocation)
    signed = draw_up(office.store, DEMO, office.issuer, NOW)
    assert signed.denylist == Denylist(DEMO, 4, NOW, frozenset({"a1"}), frozenset({ORDERS}))
    assert Denylist.open(signed.document, DEMO, office.bundles.current, NOW, None) == signed.denylist


def test_a_crl_that_openssl_believes(tmp_path: Path) -> None:
    office = open_office()

    async def issue() -> list[X509Svid]:
        return [await svid_of(office, name) for name in ("orders", "orders-two", "web")]

    orders, two, web = trio.run(issue)
    office.store.revoke(one(orders.serial, reason="key-compromise"))
    office.store.revoke(one(two.spiffe_id.text, "spiffe_id"))
    crl = x509.load_der_x509_crl(make_crl(office.store, office.issuer, NOW + 5))
    assert crl.is_signature_valid(office.issuer.certificate.public_key())  # type: ignore[arg-type]
    assert crl.issuer == office.issuer.certificate.subject
    assert crl.last_update_utc.timestamp() == NOW + 5
    assert crl.next_update_utc is not None
    found = {f"{entry.serial_number:x}": entry for entry in crl}
    assert set(found) == {orders.serial, two.serial}
    reason = found[orders.serial].extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    numbers = [x509.load_der_x509_crl(make_crl(office.store, office.issuer, NOW + 5)) for _ in range(2)]
    assert [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number - NOW for one in numbers] == [6, 7]
    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    (tmp_path / "root.pem").write_bytes(office.issuer.root.public_bytes(Encoding.PEM))
    for svid, says in ((web, "OK"), (orders, "revoked"), (two, "revoked")):
        (tmp_path / "leaf.pem").write_bytes(svid.chain[0].public_bytes(Encoding.PEM))
        (tmp_path / "issuer.pem").write_bytes(svid.chain[1].public_bytes(Encoding.PEM))
        done = subprocess.run(
            [need("openssl"), "verify", "-attime", f"{NOW + 10:.0f}", "-crl_check", "-CRLfile", "crl.pem", "-CAfile",
             "root.pem", "-untrusted", "issuer.pem", "leaf.pem"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert says in done.stdout + done.stderr


async def svid_of(office: Office, name: str) -> X509Svid:
    key, entry = new_key(), office.entry(name)
    csr = make_csr(key)
    issued = await office.authority.enrol(csr, office.answer(entry.id, office.key(entry), csr))
    return X509Svid.parse(issued.chain_pem, key)


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_a_revoked_identity_gets_nothing_and_its_token_is_not_spent() -> None:
    office = open_office(denylists=(denylists := Source("denylist")))

    async def story() -> None:
        entry = office.entry()
        issued = await office.issue(entry)
        office.store.revoke(one(entry.spiffe_id.text, "spiffe_id"))
        denylists.publish(draw_up(office.store, DEMO, office.issuer, NOW))
        token = office.token(entry)
        for attempt in (
            office.authority.enrol(office.csr, token),
            office.authority.enrol(office.csr, office.answer(entry.id, office.key(entry))),
            office.authority.renew(office.csr, office.chain(issued)),
        ):
            with pytest.raises(Revoked, match="unrevoke"):
                await attempt
        office.store.unrevoke("spiffe_id", entry.spiffe_id.text, NOW)
        denylists.publish(draw_up(office.store, DEMO, office.issuer, NOW))
        await office.authority.enrol(office.csr, token)

    trio.run(story)


def test_a_revoked_certificate_renews_nothing_and_its_sidecar_enrols_anew() -> None:
    office = open_office(denylists=(denylists := Source("denylist")))

    async def story() -> None:
        entry = office.entry()
        stolen = await office.issue(entry)
        office.store.revoke(one(f"{stolen.leaf.serial_number:x}"))
        denylists.publish(draw_up(office.store, DEMO, office.issuer, NOW))
        with pytest.raises(Revoked, match="enrol again"):
            await office.authority.renew(office.csr, office.chain(stolen))
        fresh = await office.issue(entry)
        await office.authority.renew(office.csr, office.chain(fresh))

    trio.run(story)


def test_a_revocation_that_comes_between_the_look_and_the_record_still_wins() -> None:
    """The published list is a moment old; the store decides, in the transaction that would issue."""
    office = open_office()

    async def story() -> None:
        entry = office.entry()
        first = await office.issue(entry)
        lines = office.store.issued_count()
        office.store.revoke(one(f"{first.leaf.serial_number:x}"))
        with pytest.raises(Revoked, match="while its certificate was being made"):
            await office.authority.renew(office.csr, office.chain(first))
        office.store.revoke(one(entry.spiffe_id.text, "spiffe_id"))
        with pytest.raises(Revoked):
            await office.issue(entry)
        assert office.store.issued_count() == lines

    trio.run(story)


# ---- over the wire -----------------------------------------------------------------------------------------------


@at_the_desk(bundle_poll=0.05)
async def test_a_watch_tells_the_denylist_at_once_and_each_change_and_ends_for_the_denied(desk: Desk) -> None:
    mine, other = await desk.svid(desk.entry("web")), await desk.svid(desk.entry("orders"))
    store = desk.server.store.store
    async with desk.connect(mine) as first, desk.connect(other) as second:
        duplexes = [await client.duplex("POST", "/v1/watch") for client in (first, second)]
        assert all(isinstance(duplex, Duplex) for duplex in duplexes)
        lines, others = (Lines(duplex) for duplex in duplexes if isinstance(duplex, Duplex))
        seen = await lines.another("denylist")
        known = Denylist.open(seen["denylist"], DEMO, desk.server.bundles.current, desk.clock.now, None)
        assert (seen["sequence"], known) == (1, Denylist(DEMO, 1, desk.clock.now))
        await until(lambda: sum(ack.topic == "watch" and ack.sequence == 1 for ack in store.acks()) == 2)
        store.revoke(one(other.serial, revoked_at=desk.clock.now, until=other.not_after))
        with trio.fail_after(5):
            seen = await lines.another("denylist")
            known = Denylist.open(seen["denylist"], DEMO, desk.server.bundles.current, desk.clock.now, known)
            assert known.denies_chain(other.spiffe_id, other.chain) == "serial"
            assert known.denies_chain(mine.spiffe_id, mine.chain) is None
            assert isinstance(duplexes[0], Duplex)
            await duplexes[0].send(b'{"ack":"denylist","sequence":2}\n')
            told = [line async for line in all_of(others)]
        assert [line["sequence"] for line in told if line["topic"] == "denylist"] == [1, 2]  # told, then ended
        await until(lambda: any((ack.topic, ack.sequence) == ("denylist", 2) for ack in store.acks()))
    for path in ("/v1/renew", "/v1/watch"):
        answer = await desk.post(path, {"csr": CSR}, other) if path == "/v1/renew" else await watched(desk, other)
        assert (answer.status, answer.json()["error"]) == (403, "revoked")
        assert "enrol again" in answer.json()["detail"]
    assert (await desk.post("/v1/renew", {"csr": CSR}, mine)).status == 200
    await until(lambda: all(ack.sequence == 0 for ack in store.acks() if ack.topic == "watch"))


async def all_of(lines: Lines) -> Any:
    while (line := await lines.next()) is not None:
        yield line


async def watched(desk: Desk, svid: X509Svid) -> Answer:
    async with desk.connect(svid) as client:
        answer = await client.duplex("POST", "/v1/watch")
        assert isinstance(answer, Answer)
        return answer


@at_the_desk(bundle_poll=0.05)
async def test_a_reconnect_brings_the_denylist_again_and_a_restart_forgets_nothing(desk: Desk) -> None:
    svid = await desk.svid(desk.entry("web"))
    desk.server.store.store.revoke(one(ORDERS.text, "spiffe_id"))
    await desk.server.follow_store_once()
    for _ in range(2):
        async with desk.connect(svid) as client:
            duplex = await client.duplex("POST", "/v1/watch")
            assert isinstance(duplex, Duplex)
            seen = await Lines(duplex).another("denylist")
            assert seen["sequence"] == 2


@at_the_desk
async def test_it_is_signed_anew_with_time_and_by_the_next_issuing_ca(desk: Desk) -> None:
    server = desk.server
    first = server.denylists.current
    desk.clock.now += 599
    await server.follow_store_once()
    assert server.denylists.current is first
    desk.clock.now += 1
    await server.follow_store_once()
    second = server.denylists.current
    assert (second.denylist.sequence, second.denylist.at) == (first.denylist.sequence, first.denylist.at + 600)
    renew_issuer(server.config.directory, server.store.store, DEMO, PASS, desk.clock.now)
    await server.follow_store_once()
    third = server.denylists.current
    assert third.signer == server.issuer.serial != second.signer
    known = Denylist.open(third.document, DEMO, server.bundles.current, desk.clock.now, second.denylist)
    assert known == third.denylist


@at_the_desk
async def test_each_issuing_ca_signs_a_crl_of_its_own(desk: Desk) -> None:
    old = await desk.svid(desk.entry("web"))
    store, first = desk.server.store.store, desk.server.issuer
    store.revoke(one(old.serial, revoked_at=desk.clock.now, until=old.not_after))
    renew_issuer(desk.server.config.directory, store, DEMO, PASS, desk.clock.now)
    await desk.server.follow_store_once()
    answer = await desk.get("/v1/crl")
    assert answer.header(b"content-type") == b"application/pkix-crl"
    crl = x509.load_der_x509_crl(answer.body)
    assert (crl.issuer, len(crl)) == (desk.server.issuer.certificate.subject, 0)
    assert (await desk.get("/v1/crl")).body == answer.body  # one CRL serves everybody for a while
    crl = x509.load_der_x509_crl((await desk.get(f"/v1/crl?issuer={first.serial}")).body)
    assert crl.issuer == first.certificate.subject
    assert [f"{entry.serial_number:x}" for entry in crl] == [old.serial]
    for unknown in ("ff", "", f"{desk.server.issuer.root.serial_number:x}"):
        assert (await desk.get(f"/v1/crl?issuer={unknown}x")).status == 404


# ---- the command -------------------------------------------------------------------------------------------------


class Command:
    """`mesh certs …` on a CA's directory."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capture = capture

    def run(self, *words: str) -> tuple[int, str, str]:
        code = run_command(["certs", words[0], *words[1:], "--ca-dir", str(self.directory)])
        said = self.capture.readouterr()
        return code, said.out, said.err

    def json(self, *words: str) -> Any:
        code, out, err = self.run(*words, "-o", "json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    from ca.config import CaSettings
    from ca.create import create_ca

    create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, NOW)
    return Command(tmp_path / "ca", capsys)


def issued(store: Store, serial: str, ends: float) -> Issuance:
    line = replace(LINE, serial=serial, spiffe_id=ORDERS.text, issued_at=NOW, not_after=ends)
    store.record([line])
    return line


def test_revoke_list_and_unrevoke(command: Command) -> None:
    store = SqliteStore(command.directory / "ca.sqlite3")
    issued(store, "a1", NOW + 100 * 365 * DAY)
    assert command.run("revoke", "--list")[1] == "nothing is revoked\n"
    assert command.run("revoke", "a1", "--reason", "key-compromise")[:2] == (0, "a1 is revoked (key-compromise)\n")
    assert command.run("revoke", "A1")[1] == "a1 is already revoked (key-compromise)\n"
    found = command.json("revoke", "orders")
    assert (found["revoked"], found["by"], found["reason"], found["sequence"]) == (ORDERS.text, "spiffe_id", "hold", 3)
    assert {row["target"] for row in command.json("revoke", "--list")["revoked"]} == {"a1", ORDERS.text}
    assert "key-compromise" in command.run("revoke", "--list")[1]
    assert command.run("unrevoke", "orders")[1] == f"{ORDERS.text} is no longer revoked\n"
    assert command.json("unrevoke", "a1")["sequence"] == 5
    assert store.revocations(NOW) == ()
    store.close()


def test_mistakes_of_the_command_have_their_codes(command: Command, tmp_path: Path) -> None:
    for words, says in [
        (("revoke", "nobody"), "no entry and was never issued"),
        (("revoke",), "Name a serial"),
        (("unrevoke", "orders"), "is not revoked"),
        (("revoke", "spiffe://demo.mesh/mesh/ca"), "renew-issuer"),
    ]:
        code, out, err = command.run(*words)
        assert (code, out) == (2, "")
        assert says in err
    command.directory = tmp_path / "nowhere"
    code, _, err = command.run("revoke", "orders")
    assert code == 2
    assert "--ca-dir" in err


def test_watch_names_who_has_applied_it_and_who_has_not(command: Command) -> None:
    import time

    from ca.store.base import Ack

    store, now = SqliteStore(command.directory / "ca.sqlite3"), time.time()
    for serial in ("a1", "b1", "c1", "d1"):
        issued(store, serial, now + DEFAULT_TTL if serial != "d1" else now - 1)
    acks = [
        Ack("spiffe://demo.mesh/quick", "a1", "watch", 1, now),
        Ack("spiffe://demo.mesh/quick", "a1", "denylist", 9, now),
        Ack("spiffe://demo.mesh/away", "b1", "watch", 0, now),
        Ack("spiffe://demo.mesh/ended", "d1", "watch", 1, now),
    ]
    store.acknowledge(acks)
    code, out, _ = command.run("revoke", "orders", "--watch", "--timeout", "300ms")
    assert code == 0
    assert "s  spiffe://demo.mesh/quick" in out
    assert "spiffe://demo.mesh/away is not connected" in out
    assert "ended" not in out
    store.acknowledge([Ack("spiffe://demo.mesh/deaf", "c1", "watch", 1, now)])
    assert command.run("revoke", "b1")[0] == 0
    assert "away" not in command.run("revoke", "a1", "--watch", "--timeout", "300ms")[1], "it is worth nothing itself"
    assert command.run("unrevoke", "a1")[0] == 0
    code, out, _ = command.run("revoke", "a1", "--watch", "--timeout", "300ms")
    assert code == 1
    assert "spiffe://demo.mesh/deaf does not answer" in out
    store.close()


def test_the_denylist_of_a_ca_on_disk_is_signed_by_its_active_issuer(command: Command) -> None:
    store = SqliteStore(command.directory / "ca.sqlite3")
    issuer = load_issuer(command.directory, store, PASS)
    assert draw_up(store, DEMO, issuer, NOW).signer == f"{active_slot(store, 'issuer').serial_number:x}"
    store.close()


def test_a_stolen_issuing_ca_is_replaced_and_revoked_with_all_it_signed(tmp_path: Path) -> None:
    from ca.config import CaSettings, ServeConfig
    from ca.create import create_ca
    from ca.roots import key_file
    from ca.schedule import Schedule
    from ca.server import open_server
    from tests.ca.office import HandClock
    from tests.ca.test_cli import Shell

    shell = Shell(tmp_path)
    shell.directory.parent.mkdir()
    import time

    now = time.time()
    create_ca(shell.directory, CaSettings(DEMO), b"correct horse battery staple", now - 16 * DAY)
    store = SqliteStore(shell.directory / "ca.sqlite3")
    Schedule(shell.directory, store, DEMO, b"correct horse battery staple").round(now)  # one is prepared
    old = load_issuer(shell.directory, store, PASS)
    found = shell.json("renew-issuer", "--revoke", "--passphrase-file", shell.passphrase)
    assert old.serial in found["revoked"]
    assert [slot.state for slot in store.slots()] == ["active", "revoked", "revoked", "active"]
    for slot in store.slots():
        assert key_file(shell.directory, slot.sha256).exists() == (slot.state == "active")
    server = open_server(ServeConfig(shell.directory, port=0), PASS, HandClock(now + 1))
    denied = server.denylists.current.denylist
    assert old.serial in denied.issuers
    assert server.issuer.serial == found["issuer_serial"] not in denied.issuers
    assert denied.denies(ORDERS, "ff", [old.serial]) == "issuer"
    assert server.authority.why_revoked(ORDERS, "ff", [old.serial]) is not None
    server.store.store.close()
    store.close()
