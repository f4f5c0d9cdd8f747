"""An issuing CA under somebody's own root: the request, every rule of the import, and leaves that sidecars accept."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.bootstrap import prepare
from ca.checkpoints import verify_log
from ca.config import CaSettings, ServeConfig
from ca.enrolling import register
from ca.entries import NewEntry, parse_identity
from ca.errors import CaExists, ImportRefused, IssuerUnusable, SlotTaken
from ca.external import Imported, begin, import_issuer, make_request, parse_certificates
from ca.roots import load_bundle, load_issuer
from ca.schedule import Schedule
from ca.server import open_server
from ca.store.sqlite import SqliteStore
from certs.errors import KeyUnavailable
from certs.keys import load_key, new_key
from certs.svid import X509Svid
from certs.verify import verify_chain
from tests.ca.office import DAY, DEMO, HandClock
from tests.ca.test_cli import PASS as PASS_TEXT
from tests.ca.test_cli import Shell
from tests.kit.identities import NOW, Authority, a_root, an_issuer
from tests.kit.tools import need

PASS = b"correct horse battery staple"


class Waiting:
    """A CA that waits for its first issuing CA, and the key of its request (which only a test ever looks at)."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "ca"
        begin(self.directory, CaSettings(DEMO))
        self.store = SqliteStore(self.directory / "ca.sqlite3")
        self.request()

    def request(self) -> None:
        self.csr = x509.load_pem_x509_csr(make_request(self.directory, DEMO, PASS))
        [path] = (self.directory / "keys").glob("request-*.pem")
        self.key = load_key(path, PASS)

    def take(self, issuer: Authority, root: Authority, **changes: Any) -> Imported:
        chain = changes.get("chain", issuer.chain)
        return import_issuer(
            self.directory, self.store, DEMO, PASS, chain, root.certificate, changes.get("now", NOW)
        )


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


def test_the_request_asks_for_an_issuing_ca_and_its_key_is_encrypted(waiting: Waiting) -> None:
    assert waiting.csr.is_signature_valid
    constraints = waiting.csr.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    [path] = (waiting.directory / "keys").iterdir()
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED")
    with pytest.raises(KeyUnavailable, match="wrong passphrase"):
        make_request(waiting.directory, DEMO, b"another")
    with pytest.raises(IssuerUnusable, match="mesh ca import"):
        open_server(ServeConfig(waiting.directory, port=0), PASS)
    with pytest.raises(CaExists):
        begin(waiting.directory, CaSettings(DEMO))


@pytest.mark.parametrize("between", [0, 1, 2])
def test_a_ca_under_somebody_elses_root_serves(tmp_path: Path, between: int) -> None:
    waiting, root = Waiting(tmp_path), a_root(path_length=between + 1)
    register(waiting.store, DEMO, NewEntry(parse_identity("orders", DEMO), ("orders.internal",)), NOW)
    parent = root
    for number in range(between):
        parent = an_issuer(parent, name=f"between {number}", path_length=between - number)
    issuer = an_issuer(parent, key=waiting.key, path_length=0, name="mesh")
    found = waiting.take(issuer, root)
    assert (found.state, found.warnings) == ("active", ())
    assert list((waiting.directory / "keys").glob("request-*")) == []
    assert load_bundle(waiting.store, DEMO).roots == (root.certificate,)
    assert len(load_issuer(waiting.directory, waiting.store, PASS).chain) == between
    assert [slot.has_key for slot in waiting.store.slots()] == [False, True]
    waiting.store.close()

    async def serve() -> X509Svid:
        server = open_server(ServeConfig(waiting.directory, port=0), PASS, HandClock(NOW))
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            svid = await server.authority.issue_own(new_key())
            assert len(svid.chain) == between + 2
            verify_chain(svid.chain, server.bundles.current, NOW)
            server.checkpoint()
            assert verify_log(server.store.store, DEMO).findings == []
            nursery.cancel_scope.cancel()
        server.store.store.close()
        return svid

    trio.run(serve)


Make = Callable[[Authority, Any], Authority]
RULES: list[tuple[str, Make]] = [
    ("key_match", lambda root, key: an_issuer(root)),
    ("signer_is_ca", lambda root, key: an_issuer(root, key=key, ca=False)),
    ("signer_is_ca", lambda root, key: an_issuer(root, key=key, ca=None)),
    ("signer_cert_sign", lambda root, key: an_issuer(root, key=key, key_usage=("crl_sign",))),
    ("signer_cert_sign", lambda root, key: an_issuer(root, key=key, key_usage=None)),
    ("crl_sign", lambda root, key: an_issuer(root, key=key, key_usage=("key_cert_sign",))),
    ("signer_trust_domain", lambda root, key: an_issuer(root, key=key, uris=["spiffe://other.mesh"])),
    ("signer_no_path", lambda root, key: an_issuer(root, key=key, uris=["spiffe://demo.mesh/x"])),
    ("signer_one_uri_san", lambda root, key: an_issuer(root, key=key, uris=["spiffe://demo.mesh"] * 2)),
    ("spiffe_scheme", lambda root, key: an_issuer(root, key=key, uris=["https://demo.mesh"])),
    ("time", lambda root, key: an_issuer(root, key=key, days=-0.5)),
    ("time", lambda root, key: an_issuer(root, key=key, not_before=NOW + DAY)),
    ("time", lambda root, key: an_issuer(root, key=key, not_after=NOW + 100)),
    ("key_identifier", lambda root, key: an_issuer(root, key=key, key_identifiers=False)),
    ("subject", lambda root, key: an_issuer(root, key=key, subject="", san_critical=True)),
    ("signer_eku", lambda root, key: an_issuer(root, key=key, eku=[x509.oid.ExtendedKeyUsageOID.CODE_SIGNING])),
]


@pytest.mark.parametrize(("rule", "make"), RULES, ids=[f"{n}-{row[0]}" for n, row in enumerate(RULES)])
def test_each_rule_is_named(waiting: Waiting, rule: str, make: Make) -> None:
    root = a_root()
    with pytest.raises(ImportRefused) as caught:
        waiting.take(make(root, waiting.key), root)
    assert f"[{rule}]" in str(caught.value), caught.value
    assert waiting.store.slots() == ()
    assert len(list((waiting.directory / "keys").glob("request-*"))) == 1  # the request waits for a better answer


def constrained(*subtrees: x509.GeneralName, excluded: bool = False) -> Any:
    names = list(subtrees)
    constraints = x509.NameConstraints(None if excluded else names, names if excluded else None)
    return [(constraints, True)]


def test_name_constraints_are_tried_with_real_leaves(waiting: Waiting) -> None:
    entry = NewEntry(parse_identity("orders", DEMO), ("orders.internal",))
    register(waiting.store, DEMO, entry, NOW)
    uri, dns = x509.UniformResourceIdentifier, x509.DNSName
    table = [
        (constrained(uri("other.mesh")), "mesh/ca"),
        (constrained(uri("demo.mesh"), excluded=True), "mesh/ca"),
        (constrained(uri("demo.mesh"), dns("elsewhere.internal")), "sa/orders with orders.internal"),
    ]
    root = a_root()
    for extra, says in table:
        with pytest.raises(ImportRefused, match=says):
            waiting.take(an_issuer(root, key=waiting.key, extra=extra), root)
    good = constrained(uri("demo.mesh"), dns("internal"))
    assert waiting.take(an_issuer(root, key=waiting.key, extra=good), root).state == "active"


def test_the_chain_has_to_lead_to_the_root_that_was_given(waiting: Waiting) -> None:
    root = a_root()
    between = an_issuer(root, name="between")
    issuer = an_issuer(between, key=waiting.key, name="mesh")
    for changes, rule in [
        ({"chain": issuer.chain[:1]}, "chain"),
        ({"chain": (issuer.chain[0], a_root().certificate)}, "chain"),
    ]:
        with pytest.raises(ImportRefused, match=rf"\[{rule}\]"):
            waiting.take(issuer, root, **changes)
    for wrong, rule in ((a_root(), "chain"), (between, "self_signed")):
        with pytest.raises(ImportRefused, match=rf"\[{rule}\]"):
            waiting.take(issuer, wrong)
    narrow = a_root(path_length=0)
    with pytest.raises(ImportRefused, match="path_length"):
        waiting.take(an_issuer(narrow, key=waiting.key), narrow)
    alien = a_root("other.mesh")
    with pytest.raises(ImportRefused, match="signer_trust_domain"):
        waiting.take(an_issuer(alien, key=waiting.key, uris=["spiffe://demo.mesh"]), alien)
    own = a_root(key=waiting.key)
    with pytest.raises(ImportRefused, match="own_key"):
        waiting.take(own, own, chain=(own.certificate,))
    whole = (*issuer.chain, root.certificate)  # the root among them does no harm
    assert waiting.take(issuer, root, chain=whole).state == "active"


def test_what_is_odd_is_said(waiting: Waiting) -> None:
    root = a_root()
    found = waiting.take(an_issuer(root, key=waiting.key, days=2, uris=[]), root)
    assert [warning.partition(":")[0] for warning in found.warnings] == [
        "it is valid for another 2 d, less than three times the life of a leaf",
        "it names no trust domain (no URI name)",
    ]


def test_the_next_one_is_prepared_and_takes_over_on_schedule(waiting: Waiting) -> None:
    root = a_root()
    waiting.take(an_issuer(root, key=waiting.key, days=30, name="one"), root)
    schedule = Schedule(waiting.directory, waiting.store, DEMO, PASS)
    schedule.round(NOW + 16 * DAY)
    assert "mesh ca csr" in str(schedule.problem)
    waiting.request()
    second = an_issuer(root, key=waiting.key, days=60, name="two")
    assert waiting.take(second, root, now=NOW + 16 * DAY).state == "prepared"
    with pytest.raises(ImportRefused, match="imported before"):
        waiting.take(second, root, now=NOW + 16 * DAY)
    waiting.request()
    with pytest.raises(SlotTaken):
        waiting.take(an_issuer(root, key=waiting.key, days=90, name="three"), root, now=NOW + 16 * DAY)
    schedule.round(NOW + 26 * DAY)
    assert load_issuer(waiting.directory, waiting.store, PASS).certificate == second.certificate
    assert verify_log(waiting.store, DEMO).findings == []
    other = a_root(name="another root")
    with pytest.raises(ImportRefused, match="known_root"):
        waiting.take(an_issuer(other, key=waiting.key), other)


def test_a_ca_with_its_own_root_takes_no_other(tmp_path: Path) -> None:
    prepare(tmp_path / "ca", DEMO, PASS, [], "127.0.0.1:17012", NOW)
    store = SqliteStore(tmp_path / "ca" / "ca.sqlite3")
    make_request(tmp_path / "ca", DEMO, PASS)
    [path] = (tmp_path / "ca" / "keys").glob("request-*.pem")
    root = a_root()
    issuer = an_issuer(root, key=load_key(path, PASS))
    with pytest.raises(ImportRefused, match="is a rotation"):
        import_issuer(tmp_path / "ca", store, DEMO, PASS, issuer.chain, root.certificate, NOW)
    store.close()


def test_an_import_that_was_killed_half_way_is_done_again(waiting: Waiting) -> None:
    root = a_root()
    issuer = an_issuer(root, key=waiting.key)

    class Dies(Exception):
        pass

    add = waiting.store.add_slot
    calls = []

    def die_at(number: int) -> Any:
        def add_slot(slot: Any) -> None:
            calls.append(slot)
            if len(calls) == number:
                raise Dies
            add(slot)

        return add_slot

    for number in (1, 2):
        calls.clear()
        waiting.store.add_slot = die_at(number)  # type: ignore[method-assign]
        with pytest.raises(Dies):
            waiting.take(issuer, root)
    waiting.store.add_slot = add  # type: ignore[method-assign]
    assert waiting.take(issuer, root).state == "active"
    assert [slot.state for slot in waiting.store.slots()] == ["active", "active"]


def test_files_that_hold_no_certificate() -> None:
    for data in (b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ImportRefused, match="malformed"):
            parse_certificates(data, "the file")
    root = a_root().certificate
    for encoding in (Encoding.PEM, Encoding.DER):
        assert parse_certificates(root.public_bytes(encoding), "x") == (root,)


def test_the_commands_with_openssl_as_somebodys_pki(tmp_path: Path) -> None:
    shell = Shell(tmp_path)

    def openssl(*words: str) -> None:
        subprocess.run([need("openssl"), *words], cwd=tmp_path, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "root.key",
            "-out", "root.pem", "-days", "3650", "-subj", "/CN=Our own root", "-addext",
            "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    shell.ok("init", "--trust-domain", "demo.mesh", "--external")
    assert "no issuing CA yet" in shell.ok("status")
    assert "no issuing CA yet" in shell.refused("serve", "--passphrase-file", shell.passphrase)
    assert "wrote" in shell.ok("csr", "--out", str(tmp_path / "mesh.csr"), "--passphrase-file", shell.passphrase)
    openssl("x509", "-req", "-in", "mesh.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "30",
            "-copy_extensions", "copyall", "-out", "mesh.pem")  # fmt: skip
    words = ("import", str(tmp_path / "mesh.pem"), "--root", str(tmp_path / "root.pem"))
    assert "signs from now on" in shell.ok(*words, "--passphrase-file", shell.passphrase)
    status = shell.json("status")
    assert [(root["key_here"], len(root["issuers"])) for root in status["chain"]] == [(False, 1)]
    assert "key elsewhere" in shell.ok("status")
    assert "BEGIN X509 CRL" in shell.ok("crl", "--passphrase-file", shell.passphrase)
    assert PASS_TEXT not in str(status)
    assert status["chain"][0]["not_after"] > time.time()
