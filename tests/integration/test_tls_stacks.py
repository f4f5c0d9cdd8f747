"""Certificates as the CA issues them, before other TLS stacks and before a linter: in both roles, and by the letter.

Chromium, which is a client only, meets them in `test_http2_clients.py`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.revocation import make_crl
from ca.store.base import Revocation
from certs.csr import make_csr
from certs.keys import key_to_pem, new_key
from certs.svid import X509Svid
from tests.ca.office import an_issuer, open_office
from tests.kit.free_ports import Ports
from tests.kit.tls_peers import Stranger, call, context_of
from tests.kit.tls_stacks import CLIENTS, NAME, REQUEST, SERVERS, Files

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Issued:
    """An SVID of a real authority, with its files, and what else that authority signs."""

    svid: X509Svid
    root: x509.Certificate
    files: Files


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    office = open_office(an_issuer(time.time()))
    office.clock.now = time.time()
    key = new_key()
    office.csr = make_csr(key)
    entry = office.entry("orders", NAME)

    async def issue() -> bytes:
        return (await office.issue(entry)).chain_pem

    svid = X509Svid.parse(trio.run(issue), key)
    office.store.revoke(Revocation("serial", svid.serial, "key-compromise", office.clock.now, svid.not_after))
    root = office.issuer.root
    files = {
        "chain.pem": svid.chain_pem(), "key.pem": key_to_pem(key, None), "root.pem": root.public_bytes(Encoding.PEM),
        "leaf.pem": svid.leaf.public_bytes(Encoding.PEM), "issuer.pem": svid.chain[1].public_bytes(Encoding.PEM),
        "crl.der": make_crl(office.store, office.issuer, office.clock.now),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return Issued(svid, root, Files(tmp_path))


@pytest.mark.parametrize("stack", SERVERS)
def test_a_server_of_another_stack_accepts_our_clients(issued: Issued, stack: str) -> None:
    port = Ports().other
    process = SERVERS[stack](issued.files, port)
    try:
        seen = call(port, None, request=REQUEST, context=context_of(issued.svid, [issued.root]))
        assert seen.answer.startswith(b"HTTP/1."), (seen, process.tail())
        assert b" 200 " in seen.answer[:20], seen
        stranger = call(port, None, request=REQUEST, context=context_of(None, [issued.root]))
        assert b" 200 " not in stranger.answer[:20], "it does ask for a certificate"
    finally:
        process.stop()


@pytest.mark.parametrize("stack", CLIENTS)
def test_a_client_of_another_stack_accepts_our_servers(issued: Issued, stack: str) -> None:
    ports = Ports()
    with Stranger(ports.other, context_of(issued.svid, [issued.root])) as server:
        assert b"ok" in CLIENTS[stack](issued.files, ports.other, ports.front)
    assert server.failures == []


# ---- by the letter ---------------------------------------------------------------------------------------------------


def lint(program: str, *arguments: str) -> list[tuple[str, str, str]]:
    """What pkilint finds from WARNING up: name, severity, words."""
    if importlib.util.find_spec("pkilint") is None:
        if os.environ.get("MESH_REQUIRE_TOOLS") == "1":
            pytest.fail("pkilint is not installed")
        pytest.skip("pkilint is not installed")
    command = [str(Path(sys.executable).parent / program), "lint", "-s", "WARNING", *arguments]
    done: Any = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not done.stderr, done.stderr
    return re.findall(r"^\s+([\w.]+) \((\w+)\)(?:: (.*))?$", done.stdout, re.MULTILINE)


def errors(found: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Errors, but for one that is the linter's own: it asks a library for web addresses, which knows some schemes and
    not `spiffe`; that is one by RFC 3986 section 3.1 and by the SPIFFE ID standard. The next test holds us to it.
    """

    def is_its_own(each: tuple[str, str, str]) -> bool:
        return each[:2] == ("pkix.invalid_uri_syntax", "ERROR") and '"spiffe://' in each[2]

    return [each for each in found if each[1] in ("ERROR", "FATAL") and not is_its_own(each)]


@pytest.mark.parametrize("name", ["root", "issuer", "leaf"])
def test_pkilint_finds_no_error_in_our_certificates(issued: Issued, name: str) -> None:
    assert errors(lint("lint_pkix_cert", str(issued.files.folder / f"{name}.pem"))) == []


@pytest.mark.parametrize("name", ["root", "issuer", "leaf"])
def test_of_what_pkilint_calls_no_uri_the_scheme_alone_is_unknown_to_it(issued: Issued, name: str) -> None:
    validators = pytest.importorskip("validators")  # what pkilint asks
    certificate = x509.load_pem_x509_certificate((issued.files.folder / f"{name}.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert not validators.url(uri)
    assert validators.url("https" + uri.removeprefix("spiffe"))
    text = uri.encode("ascii")
    tagged = b"\x86" + bytes([len(text)]) + text  # [6] IMPLICIT IA5String (RFC 5280 section 4.2.1.6)
    assert certificate.public_bytes(Encoding.DER).count(tagged) == 1


def test_pkilint_finds_no_error_in_our_revocation_lists(issued: Issued) -> None:
    found = lint("lint_crl", "-t", "CRL", "-p", "PKIX", str(issued.files.folder / "crl.der"))
    assert errors(found) == []
