"""Every kind of key that is offered: a whole CA with it, from init to a turn of the schedule, read by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.checkpoints import verify_log
from ca.config import CaSettings, ServeConfig, load_settings
from ca.create import create_ca
from ca.errors import DamagedCa
from ca.external import make_request
from ca.revocation import make_crl
from ca.schedule import Schedule
from ca.server import open_server
from ca.store.sqlite import SqliteStore
from certs.bundle import TrustBundle
from certs.denylist import Denylist
from certs.errors import KeyUnavailable
from certs.keys import KEY_KINDS, make_key, why_unfit
from certs.verify import verify_chain
from tests.ca.office import DAY, DEMO, NOW, HandClock
from tests.kit.tools import need

PASS = b"correct horse battery staple"


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_whole_ca_of_each_kind(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "ca"
    create_ca(directory, CaSettings(DEMO, key_kind=kind), PASS, NOW)
    store = SqliteStore(directory / "ca.sqlite3")
    Schedule(directory, store, DEMO, PASS).round(NOW + 16 * DAY)
    store.close()
    now = NOW + 26 * DAY
    server = open_server(ServeConfig(directory, port=0), PASS, HandClock(now))
    key = make_key(kind)
    svid = trio.run(server.authority.issue_own, key)
    bundle = server.bundles.current
    assert verify_chain(svid.chain, bundle, now) == svid.spiffe_id
    own = bundle.of(DEMO)
    assert own is not None
    assert TrustBundle.parse_jwks(DEMO, own.to_jwks()) == own
    denylist = server.denylists.current
    assert Denylist.open(denylist.document, DEMO, bundle, now, None) == denylist.denylist
    server.checkpoint()
    assert verify_log(server.store.store, DEMO).findings == []
    crl = x509.load_der_x509_crl(make_crl(server.store.store, server.issuer, now))
    assert crl.is_signature_valid(server.issuer.certificate.public_key())  # type: ignore[arg-type]
    assert [slot.state for slot in server.store.store.slots()] == ["active", "retiring", "active"]
    assert x509.load_pem_x509_csr(make_request(directory, DEMO, PASS)).is_signature_valid
    for name, chain in (("leaf", svid.chain[:1]), ("between", svid.chain[1:]), ("root", own.roots)):
        (tmp_path / f"{name}.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    words = ["verify", "-attime", f"{now:.0f}", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "between.pem"]
    done = subprocess.run(
        [need("openssl"), *words, "leaf.pem"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "leaf.pem: OK" in done.stdout, done.stderr
    server.store.store.close()


def test_kinds_that_are_not_offered(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="p256, p384"):
        make_key("rsa1024")
    assert all(why_unfit(make_key(kind).public_key()) is None for kind in KEY_KINDS)
    create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, NOW)
    path = tmp_path / "ca" / "ca.json"
    good = load_settings(tmp_path / "ca")
    for bad in (b'"dsa"', b"7"):
        path.write_bytes(good.to_json().replace(b'"p256"', bad))
        with pytest.raises(DamagedCa, match="key_kind"):
            load_settings(tmp_path / "ca")
    path.write_bytes(replace(good, kdf_rounds=5).to_json().replace(b": 5", b": true"))
    with pytest.raises(DamagedCa, match="kdf_rounds"):
        load_settings(tmp_path / "ca")
