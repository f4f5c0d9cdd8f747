"""`mesh certs rotate --all`, `check`, `issue` and `export` against real sidecars and a real CA."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import time
from pathlib import Path

import pytest

from tests.kit.fleet import spiffe
from tests.kit.meshes import Pair
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually


def test_everybody_rotates_under_load_after_a_dry_run(pair: Pair) -> None:
    serials = {name: pair[name].identity()["serial"] for name in ("web", "app")}
    foreseen = pair.mesh("certs", "rotate", "--all", "--dry-run", "-o", "json")
    assert foreseen.returncode == 0, foreseen
    assert {row["service"]: row["serial"] for row in json.loads(foreseen.stdout)["sidecars"]} == serials
    assert {name: pair[name].identity()["serial"] for name in serials} == serials, "a dry run changes nothing"
    with NonceLoad(pair.ports.door, rate=100) as load:
        done = pair.mesh("certs", "rotate", "--all")
        assert done.returncode == 0, done
    load.tally.assert_flawless()
    assert "2 of 2 have a new certificate" in done.stdout
    for name, before in serials.items():
        serial = pair[name].identity()["serial"]
        assert serial != before
        assert serial in done.stdout
    eventually("it shows the new one", lambda: pair["app"].status()["served"]["serial"] == serial_of(pair, "app"))
    assert pair["app"].status()["served"]["result"] == "same"


def serial_of(pair: Pair, name: str) -> str:
    return str(pair[name].identity()["serial"])


def ended(partner: ssl.SSLSocket) -> bool:
    """Whether nothing more comes; an end without close_notify is one too."""
    try:
        return partner.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def refusals(pair: Pair) -> list[str]:
    """Decision ids of handshakes that failed because the other end was revoked."""
    record = pair["app"].audit()
    return [line["decision_id"] for line in record if line["kind"] == "handshake" and line.get("reason") == "revoked"]


def test_check_is_a_gate(pair: Pair) -> None:
    good = pair.mesh("certs", "check", "--fail-before", "30d", "--ca-dir", str(pair.folder / "ca"))
    assert good.returncode == 0, good
    bad = pair.mesh("certs", "check", "--fail-before", "5000d", "-o", "json")
    assert bad.returncode == 1
    assert {row["link"] for row in json.loads(bad.stdout)["checks"] if not row["ok"]} == {"root"}


def test_every_link_of_the_chain_is_in_the_metrics(pair: Pair) -> None:
    looked = "it has looked at its own listeners"
    eventually(looked, lambda: pair["app"].metrics().total("mesh_served_certificate_right") == 1)
    metrics, identity = pair["app"].metrics(), pair["app"].identity()
    ends = {labels["certificate"]: value for labels, value in metrics.series("mesh_certificate_expires_at_seconds")}
    assert set(ends) == {"svid", "issuer", "root", "served"}
    assert ends["svid"] == ends["served"] == identity["not_after"]
    assert ends["svid"] < ends["issuer"] < ends["root"]
    assert metrics.total("mesh_ca_survival_seconds") == pytest.approx(identity["not_after"] - time.time(), abs=5)
    assert metrics.total("mesh_served_certificate_right") == 1
    assert metrics.total("mesh_denylist_sequence") == identity["denylist_sequence"]
    assert "23 h" in pair.mesh("certs", "list").stdout


def test_issue_for_what_has_no_sidecar_and_cut_it_off_again(pair: Pair, tmp_path: Path) -> None:
    """The files serve a plain TLS client; revoked, what it has open ends although it does nothing at all."""
    out = tmp_path / "partner"
    issue = ["certs", "issue", "--enrolment", str(pair.enrolment("web")), "--out", str(out), "-o", "json"]
    issued = pair.mesh(*issue)
    assert issued.returncode == 0, issued
    document = json.loads(issued.stdout)
    assert document["spiffe_id"] == spiffe("web")
    assert stat.S_IMODE((out / "svid.key").stat().st_mode) == 0o600
    assert pair.mesh(*issue).returncode == 2, "nothing is replaced without --force"
    exported = pair.mesh("certs", "export", "app", "--what", "bundle")
    assert exported.stdout == (out / "bundle.pem").read_text()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(out / "bundle.pem")
    context.load_cert_chain(out / "svid.pem", out / "svid.key")
    with (
        socket.create_connection(("127.0.0.1", pair.ports.app_in)) as plain,
        context.wrap_socket(plain) as partner,
    ):
        partner.settimeout(10)
        partner.sendall(b"GET /echo/stolen HTTP/1.1\r\nHost: app\r\n\r\n")
        assert partner.recv(4096).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        ca = str(pair.folder / "ca")
        revoked = pair.mesh("certs", "revoke", document["serial"], "--ca-dir", ca, "--watch")
        assert revoked.returncode == 0, revoked
        assert ended(partner)
        assert time.monotonic() - began < 5
    with socket.create_connection(("127.0.0.1", pair.ports.app_in)) as plain, context.wrap_socket(plain) as partner:
        partner.settimeout(10)
        assert partner.recv(1) == b"", "let in no more"
    eventually("the refusal is in the audit", lambda: refusals(pair))
    explained = pair.explain(refusals(pair)[-1])
    assert "was revoked" in explained
    assert "mesh certs unrevoke" in explained
    unreachable = pair.mesh("certs", "issue", "--enrolment", str(pair.enrolment("web")), "--out",
                            str(tmp_path / "none"), "--ca", "127.0.0.1:1")  # fmt: skip
    assert unreachable.returncode == 3, unreachable
