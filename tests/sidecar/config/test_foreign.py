"""Other trust domains in a config: each is told of once, with the command that lets its identities in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ca.config import STORE_FILE, CaSettings
from ca.create import create_ca
from ca.federation import Partner
from ca.store.sqlite import SqliteStore
from certs.keys import RANDOM_KDF_ROUNDS
from certs.spiffe import TrustDomain
from sidecar.cli.root import run_command
from sidecar.config.load import load_bytes
from sidecar.config.mistakes import Mistake

HEAD = "trust_domain: demo.mesh\nservices:\n  web: {}\n"
SERVICE = "  %s: {inbound: [{app: '127.0.0.1:1'}], allow: [{from: %s}]%s}\n"
BILLING = "spiffe://partner.example/ns/default/sa/billing"


def found(text: str) -> list[Mistake]:
    """The warnings about other trust domains."""
    return [one for one in load_bytes((HEAD + text).encode()).warnings if one.code == "MESH083"]


@pytest.mark.parametrize(
    ("callers", "path"),
    [
        (BILLING, "allow[0].from"),
        (f"[web, '{BILLING}']", "allow[0].from[1]"),
        ("['spiffe://partner.example/**', web]", "allow[0].from[0]"),
    ],
)
def test_a_caller_of_another_trust_domain(callers: str, path: str) -> None:
    (warning,) = found(SERVICE % ("orders", callers, ""))
    assert warning.path == f"services.orders.{path}"
    assert warning.where.line == 4
    assert "until the CA federates with it, its identities are refused" in warning.message
    assert warning.hint.startswith("mesh ca federation add partner.example --url https://")


def test_an_upstream_of_another_trust_domain() -> None:
    upstream = f"{{to: theirs, listen: '127.0.0.1:9', identity: '{BILLING}', endpoints: '10.0.0.1:1'}}"
    (warning,) = found(f"  cart: {{outbound: [{upstream}]}}\n")
    assert warning.path == "services.cart.outbound[0].identity"


def test_each_is_told_of_once() -> None:
    text = SERVICE % ("a", BILLING, "")
    text += (SERVICE % ("b", f"[web, '{BILLING}', 'spiffe://third.example/ns/x/sa/y']", "")).replace(":1'", ":2'")
    assert [one.path for one in found(text)] == ["services.a.allow[0].from", "services.b.allow[0].from[2]"]


def test_a_slip_in_our_own_name_and_an_identity_from_elsewhere() -> None:
    (slip,) = found(SERVICE % ("orders", "spiffe://demo.mseh/ns/default/sa/web", ""))
    assert slip.hint.startswith('did you mean "demo.mesh"? If not: mesh ca federation add demo.mseh ')
    elsewhere = ", identity_source: {workload_api: 'unix:/run/spire/agent.sock'}"
    (other,) = found(SERVICE % ("orders", BILLING, elsewhere))
    assert "until what gives orders its identity federates with it" in other.message
    assert "mesh ca" not in other.hint


@pytest.mark.parametrize("callers", ["web", "'*'", "spiffe://demo.mesh/ns/*/sa/z"])
def test_our_own_is_nothing_to_tell_of(callers: str) -> None:
    assert found(SERVICE % ("orders", callers, "")) == []


def test_the_ca_at_hand_knows_with_whom_it_federates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, ca = tmp_path / "mesh.yaml", tmp_path / "ca"
    file.write_text(HEAD + SERVICE % ("orders", f"['{BILLING}', 'spiffe://third.example/ns/x/sa/y']", ""))
    create_ca(ca, CaSettings(TrustDomain.parse("demo.mesh"), kdf_rounds=RANDOM_KDF_ROUNDS), b"a long passphrase", 0.0)

    def codes(*more: str) -> list[str]:
        assert run_command(["check", "-f", str(file), "-o", "json", *more]) == 0
        warnings = json.loads(capsys.readouterr().out)["warnings"]
        return [one["message"].split()[0] for one in warnings if one["code"] == "MESH083"]

    assert codes() == codes("--ca-dir", str(ca)) == ["partner.example", "third.example"]
    store = SqliteStore(ca / STORE_FILE)
    store.add_partner(Partner(TrustDomain.parse("partner.example")))
    store.close()
    assert codes("--ca-dir", str(ca)) == ["third.example"]
    assert run_command(["check", "-f", str(file), "--ca-dir", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
