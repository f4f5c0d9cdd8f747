"""Two more proofs: being a user of this machine on the CA's socket, and a certificate that has ended."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from ca.attest.proof import ExpiredProof, SocketProof, parse_proof
from ca.attest.socket_peer import SocketPeer, listen_on, peer_of
from ca.config import CaSettings, ServeConfig
from ca.create import create_ca
from ca.entries import Entry
from ca.errors import BadRequest, ProofRefused, Revoked
from ca.revocation import draw_up
from ca.server import serve
from ca.store.base import Revocation
from certs.csr import make_csr
from certs.enrolment import challenge_message
from certs.keys import new_key
from certs.signed import sign_bytes
from certs.source import Source
from certs.svid import X509Svid
from tests.ca.office import DAY, DEMO, NOW, Office, open_office

# ---- a caller on the socket ------------------------------------------------------------------------------------------


def connected(path: Path) -> tuple[socket.socket, socket.socket]:
    listening = listen_on(path)
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(path))
    listening.setblocking(True)
    found, _ = listening.accept()
    listening.close()
    return caller, found


def test_the_kernel_says_who_connected(tmp_path: Path) -> None:
    caller, found = connected(tmp_path / "ca.sock")
    with caller, found:
        peer = peer_of(found)
        assert (peer.uid, peer.gid) == (os.getuid(), os.getgid())
        assert peer.selectors[:2] == (f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}")
        if peer.program:  # where the kernel gives descriptors of processes: Linux 6.5
            assert Path(peer.program).samefile(sys.executable)


def test_a_program_that_is_gone_is_not_guessed(tmp_path: Path) -> None:
    """It connected and left; the number it had may be somebody else's by now."""
    listening = listen_on(tmp_path / "ca.sock")
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "ca.sock")], check=True)
    listening.setblocking(True)
    found, _ = listening.accept()
    with listening, found:
        assert peer_of(found) == SocketPeer(os.getuid(), os.getgid(), "")


def test_what_others_could_have_put_there_is_not_listened_on(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PermissionError, match="somebody else"):
        listen_on(shared / "ca.sock")
    with listen_on(tmp_path / "ca.sock") as living:
        living.listen()
        with pytest.raises(OSError, match="already"):
            listen_on(tmp_path / "ca.sock")
    listen_on(tmp_path / "ca.sock").close()  # what a dead one has left is replaced
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        listen_on(tmp_path / "file")


def test_a_socket_that_cannot_be_opened_ends_the_start_in_words(tmp_path: Path) -> None:
    """Not as a traceback: `mesh ca serve --socket` in a folder that is not there."""
    create_ca(tmp_path / "ca", CaSettings(DEMO, kdf_rounds=10), b"pass", time.time())
    config = ServeConfig(tmp_path / "ca", port=0, socket=tmp_path / "nowhere" / "ca.sock")
    with pytest.raises(FileNotFoundError):
        trio.run(serve, config, b"pass", lambda *_: None)


def with_selectors(office: Office, *selectors: str, expired_for: float = 0.0) -> Entry:
    entry = office.entry("orders")
    office.store.remove_entry(entry.id, NOW)
    made = dataclasses.replace(entry, id="orders-2", selectors=selectors, expired_for=expired_for)
    office.store.add_entry(made)
    return made


def test_a_user_of_this_machine_is_who_the_entry_says() -> None:
    async def story() -> None:
        office = open_office()
        with_selectors(office, "unix:uid:1000")
        peer = SocketPeer(1000, 100, "/usr/bin/orders")
        issued = await office.authority.enrol(office.csr, SocketProof(peer.selectors))
        assert issued.entry == "orders-2"
        assert office.store.issuances()[0].proof_detail == "unix:uid:1000 unix:gid:100 unix:path:/usr/bin/orders"
        with pytest.raises(ProofRefused, match="asks for unix:uid:1000 and saw unix:uid:1001"):
            await office.authority.enrol(office.csr, SocketProof(SocketPeer(1001, 100).selectors))
        with pytest.raises(ProofRefused, match="not on the CA's socket"):
            await office.authority.enrol(office.csr, SocketProof(()))

    trio.run(story)


def test_nobody_says_of_himself_who_he_is() -> None:
    said = {"type": "unix", "selectors": ["unix:uid:0"], "shown": ["unix:uid:0"]}
    assert parse_proof(said) == SocketProof(())
    assert parse_proof(said, ("unix:uid:7",)) == SocketProof(("unix:uid:7",))


@pytest.mark.parametrize(
    "document",
    [{"type": "kubernetes"}, {"type": "kubernetes", "token": "x" * 20_000}, {"type": "kubernetes", "token": 7},
     {"type": "unix", "entry": 7}, {"type": "expired_svid", "entry": "a b", "nonce": "n", "chain": "", "signature": ""},
     {"type": "expired_svid", "entry": "a", "nonce": "n", "chain": "", "signature": "!"}, {"type": "magic"}],
)  # fmt: skip
def test_a_proof_that_cannot_be_read_is_a_bad_request(document: Any) -> None:
    with pytest.raises(BadRequest):
        parse_proof(document)


# ---- a certificate that has ended ------------------------------------------------------------------------------------


async def an_old_one(office: Office, entry: Entry) -> X509Svid:
    key = new_key()
    office.csr = make_csr(key)
    return X509Svid.parse((await office.issue(entry)).chain_pem, key)


def show(office: Office, entry: Entry, old: X509Svid, **wrong: Any) -> ExpiredProof:
    nonce = office.authority.challenge(entry.id).nonce
    message = challenge_message(DEMO, entry.id, nonce, wrong.pop("signed_csr", office.csr))
    signature = sign_bytes(wrong.pop("kind", "reenrol"), message, wrong.pop("key", old.key))
    return dataclasses.replace(ExpiredProof(entry.id, nonce, old.chain_pem(), signature), **wrong)


def test_after_its_end_a_certificate_still_proves_who_asks_where_the_entry_allows_it() -> None:
    async def story() -> None:
        office = open_office()
        entry = with_selectors(office, expired_for=7 * DAY)
        old = await an_old_one(office, entry)
        office.clock.now = old.not_after + 7 * DAY - 1
        issued = await office.authority.enrol(office.csr, show(office, entry, old))
        assert issued.spiffe_id == old.spiffe_id
        line = office.store.issuances()[0]
        assert (line.proof, line.proof_detail) == ("expired_svid", old.serial)
        again = show(office, entry, old)
        await office.authority.enrol(office.csr, again)
        with pytest.raises(ProofRefused, match="used already"):
            await office.authority.enrol(office.csr, again)
        office.clock.now = old.not_after + 7 * DAY + 1
        with pytest.raises(ProofRefused, match="for 7d after their end"):
            await office.authority.enrol(office.csr, show(office, entry, old))

    trio.run(story)


def test_an_entry_that_says_nothing_accepts_none() -> None:
    async def story() -> None:
        office = open_office()
        entry = with_selectors(office)
        old = await an_old_one(office, entry)
        office.clock.now = old.not_after + 1
        with pytest.raises(ProofRefused, match="--expired-for"):
            await office.authority.enrol(office.csr, show(office, entry, old))

    trio.run(story)


def test_what_does_not_prove_it_is_refused() -> None:
    async def story() -> None:
        office, other = open_office(), open_office()
        entry = with_selectors(office, expired_for=DAY)
        old = await an_old_one(office, entry)
        theirs = await an_old_one(other, with_selectors(other, expired_for=DAY))
        office.clock.now = old.not_after + 1

        async def refused(words: str, proof: ExpiredProof) -> None:
            with pytest.raises(ProofRefused, match=words):
                await office.authority.enrol(office.csr, proof)

        await refused("did not sign", show(office, entry, old, key=new_key()))
        await refused("did not sign", show(office, entry, old, signed_csr=make_csr(new_key())))
        await refused("did not sign", show(office, entry, old, kind="mesh-denylist"))
        await refused("never held", show(office, entry, theirs))
        await refused("never held", show(office, entry, old, chain_pem=b"no pem"))
        await refused("never held", show(office, entry, old, chain_pem=old.chain_pem()[:900]))
        await refused("not made by this CA", show(office, entry, old, nonce="AAAA"))
        await refused("for this entry", dataclasses.replace(show(office, entry, old), entry="another"))
        office.store.remove_entry(entry.id, NOW)
        await refused("was removed", show(office, entry, old))

    trio.run(story)


@pytest.mark.parametrize("kind", ["serial", "spiffe_id"])
def test_what_is_revoked_stays_so_beyond_its_end(kind: Any) -> None:
    async def story() -> None:
        office = open_office()
        entry = with_selectors(office, expired_for=DAY)
        old = await an_old_one(office, entry)
        target = old.serial if kind == "serial" else old.spiffe_id.text
        office.store.revoke(Revocation(kind, target, "key-compromise", office.clock.now))
        office.clock.now = old.not_after + 1
        with pytest.raises(Revoked):
            await office.authority.enrol(office.csr, show(office, entry, old))

    trio.run(story)


def test_a_certificate_of_an_issuing_ca_that_is_revoked_is_worth_nothing() -> None:
    async def story() -> None:
        denylists: Source[Any] = Source("denylist")
        office = open_office(denylists=denylists)
        entry = with_selectors(office, expired_for=DAY)
        old = await an_old_one(office, entry)
        issuing = next(slot for slot in office.store.slots() if slot.kind == "issuer")
        office.store._db.execute("UPDATE signing_slots SET state = 'retiring' WHERE kind = 'issuer'")
        office.store.set_slot_state(issuing.sha256, "revoked", office.clock.now)
        denylists.publish(draw_up(office.store, DEMO, office.issuer, office.clock.now))
        office.clock.now = old.not_after + 1
        with pytest.raises(Revoked, match="issuing CA"):
            await office.authority.enrol(office.csr, show(office, entry, old))

    trio.run(story)
