"""Every verb of `mesh ca` and `mesh certs` with `-o json` prints one JSON document, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ca.cli import ca
from sidecar.cli.certs import certs
from tests.ca.test_cli import Shell

NO_RESULT = {"serve"}  # it runs until it is told to end


def verbs(group: click.Command, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group that does something by itself."""
    if not isinstance(group, click.Group) or group.invoke_without_command:
        yield above, group
    if isinstance(group, click.Group):
        for name in group.list_commands(click.Context(group)):
            found = group.get_command(click.Context(group), name)
            assert found is not None
            yield from verbs(found, *above, name)


ALL = [pytest.param(verb, id=" ".join((top, *name))) for top, group in (("ca", ca), ("certs", certs))
       for name, verb in verbs(group) if name and name[-1] not in NO_RESULT]  # fmt: skip


@pytest.mark.parametrize("verb", ALL)
def test_each_verb_has_json(verb: click.Command) -> None:
    assert any({"-o", "--output"} <= set(option.opts) for option in verb.params), verb.name


VERBS = [
    "status", "entry add orders", "entry list", "entry show orders", "key orders --out KEY", "token orders --out TOKEN",
    "log", "cluster list", "federation list", "renew-issuer PASS", "renew-jwt-key PASS", "crl PASS",
    "crl PASS --out CRL", "csr PASS", "csr PASS --out CSR", "backup BACKUP", "rotate-root --plan",
    "rotate-root --status", "entry remove orders",
]  # fmt: skip


def test_what_each_prints_is_one_document(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    made = shell.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", shell.passphrase, "-o", "json")
    assert isinstance(json.loads(made), dict)
    for verb in VERBS:
        words: list[str] = []
        for word in verb.split():
            if word == "PASS":
                words += ["--passphrase-file", shell.passphrase]
            else:
                words.append(str(tmp_path / word.lower()) if word.isupper() else word)
        assert isinstance(shell.json(*words), dict | list), verb


def test_a_request_and_a_revocation_list_as_data(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.init()
    file, passphrase = tmp_path / "made", ("--passphrase-file", shell.passphrase)
    assert shell.json("csr", *passphrase)["request"].startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert shell.ok("csr", *passphrase).startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert shell.json("crl", *passphrase)["crl"].startswith("-----BEGIN X509 CRL-----\n")
    assert shell.json("crl", *passphrase, "--out", str(file))["out"] == str(file)
    assert file.read_bytes()[0] == 0x30, "a file has DER, as before"
