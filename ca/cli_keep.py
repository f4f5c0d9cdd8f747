"""`mesh ca backup`, `mesh ca restore`, `mesh ca log …`: what outlives the machine, and whether the record holds."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ca.cli_common import (
    A_FILE,
    READABLE,
    CaCommand,
    CaGroup,
    dir_option,
    moment,
    opened,
    output_option,
    passphrase_option,
    print_result,
    read_passphrase,
    table,
    to_paste,
)
from ca.entries import find_entry
from ca.errors import BadRequest
from certs.signed import Statement
from certs.store import write_private


@click.command(cls=CaCommand)
@click.argument("file", type=A_FILE)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@dir_option
@output_option
def backup(file: Path, force: bool, directory: Path, output: str) -> None:
    """Write the whole CA to FILE (0600), whether or not it serves. Its keys stay encrypted with the passphrase.

    \b
    Example:
      mesh ca backup /mnt/safe/ca-monday.tar
    """
    from ca.backup import back_up

    facts = back_up(directory, file, time.time(), force=force)
    document = {**asdict(facts), "trust_domain": facts.trust_domain.name, "file": str(file)}
    del document["tokens_ended"]
    lines = [
        f"wrote {file}: the CA of {facts.trust_domain} up to line {facts.log_number} of its log, {facts.keys} keys",
        "keep the passphrase elsewhere: without it the keys in this file are worth nothing, with it they are the CA",
    ]
    print_result(output, document, lines)


@click.command(cls=CaCommand)
@click.argument("file", type=READABLE)
@dir_option
@output_option
def restore(file: Path, directory: Path, output: str) -> None:
    """Make a CA out of a back-up, where none is. A CA that is there is never overwritten.

    \b
    Example:
      mesh ca restore /mnt/safe/ca-monday.tar --dir /srv/ca
    """
    from ca.backup import restore as act

    facts = act(file, directory, time.time())
    document = {**asdict(facts), "trust_domain": facts.trust_domain.name, "directory": str(directory)}
    lines = [
        f"restored the CA of {facts.trust_domain} in {directory}, as it was at {moment(facts.taken_at)}",
        f"{facts.tokens_ended} join tokens are void now; what was revoked since then has to be revoked again",
        f"make sure that the old machine never serves again, then: {to_paste('serve', directory)}",
    ]
    print_result(output, document, lines)


@click.command(cls=CaCommand)
@click.option("--issuer", "serial", metavar="SERIAL", help="Which issuing CA's.  [default: the active one's]")
@click.option("--out", type=A_FILE, help="File to write, DER.  [default: print it as PEM]")
@passphrase_option
@dir_option
@output_option
def crl(serial: str | None, out: Path | None, passphrase_file: Path | None, directory: Path, output: str) -> None:
    """Make the certificate revocation list (RFC 5280) of an issuing CA. `mesh ca serve` has it at GET /v1/crl.

    \b
    Examples:
      mesh ca crl --passphrase-file pass.txt
      mesh ca crl --out mesh.crl
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from ca.revocation import make_crl
    from ca.roots import certificate_of, load_slot

    passphrase = read_passphrase(passphrase_file, new=False)
    with opened(directory) as (_, store):
        slots = store.slots()
        signing = [slot for slot in slots if slot.kind == "issuer" and slot.state in ("active", "retiring")]
        wanted = [
            slot
            for slot in signing
            if (slot.state == "active" if serial is None else f"{certificate_of(slot).serial_number:x}" == serial)
        ]
        if not wanted:
            raise BadRequest(f"no issuing CA with serial {serial} signs revocation lists; see `mesh ca status`")
        der = make_crl(store, load_slot(directory, slots, wanted[0], passphrase), time.time())
    pem = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM).decode()
    lines = [pem.rstrip("\n")]
    if out is not None:
        out.write_bytes(der)
        lines = [f"wrote {out}"]
    print_result(output, {"crl": pem, "out": None if out is None else str(out)}, lines)


@click.group(cls=CaGroup, invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many lines.")
@click.option("--entry", "name", metavar="ENTRY", help="Only certificates of this live entry.")
@click.option("--all", "everything", is_flag=True, help="Everything that happened, not certificates alone.")
@dir_option
@output_option
@click.pass_context
def log(ctx: click.Context, limit: int, name: str | None, everything: bool, directory: Path, output: str) -> None:
    """Print the log, newest first: every certificate this CA has signed for a service, or for itself.

    \b
    Examples:
      mesh ca log
      mesh ca log --entry orders --limit 5 -o json
      mesh ca log --all
      mesh ca log verify
    """
    if ctx.invoked_subcommand is None:
        (_print_events if everything else _print_issuances)(limit, name, directory, output)


def _print_issuances(limit: int, name: str | None, directory: Path, output: str) -> None:
    with opened(directory) as (settings, store):
        wanted = None if name is None else find_entry(name, store.entries(), settings.trust_domain).id
        found = store.issuances(limit, wanted)
    rows = [
        (str(one.number), moment(one.issued_at), one.spiffe_id, one.serial, one.proof, moment(one.not_after))
        for one in found
    ]
    lines = table(("NO", "ISSUED", "SPIFFE ID", "SERIAL", "PROOF", "ENDS"), rows, "nothing has been issued yet")
    print_result(output, {"issuances": [asdict(one) for one in found]}, lines)


def _print_events(limit: int, name: str | None, directory: Path, output: str) -> None:
    if name is not None:
        raise click.UsageError("--entry and --all do not go together")
    with opened(directory) as (_, store):
        found = [line.facts for line in reversed(store.lines(max(0, store.head().number - limit), limit))]
    rows = [(str(one["n"]), moment(one["at"]), one["kind"], _words(one)) for one in found]
    print_result(output, {"lines": found}, table(("NO", "AT", "WHAT", "FACTS"), rows, "nothing has happened yet"))


def _words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("n", "at", "kind"))


@log.command(cls=CaCommand)
@click.option("--head", "kept", type=READABLE, help="A head that was kept elsewhere (`mesh ca log head --out FILE`).")
@dir_option
@output_option
def verify(kept: Path | None, directory: Path, output: str) -> None:
    """Walk the whole log: find any line that was changed, dropped or cut off. Exit code 1 if there is one.

    \b
    Examples:
      mesh ca log verify
      mesh ca log verify --head head-of-monday.json
    """
    from ca.checkpoints import verify_log

    head = None if kept is None else Statement.parse(_read_json(kept))
    with opened(directory) as (settings, store):
        report = verify_log(store, settings.trust_domain, head)
    unsigned = report.head.number - report.signed_to
    lines = [
        *(f"BROKEN {finding}" for finding in report.findings),
        f"{report.head.number} lines, {report.checkpoints} checkpoints; signed up to line {report.signed_to}"
        + (f" ({unsigned} since then not signed yet)" if unsigned else ""),
        f"signers lead to root {', '.join(report.roots) or '-'}: is this yours?",
        *(() if report.findings else ("the log holds",)),
    ]
    print_result(output, report.as_json(), lines)
    if report.findings:
        raise click.exceptions.Exit(1)


@log.command(cls=CaCommand)
@click.option("--out", type=A_FILE, help="File to write.  [default: print it]")
@dir_option
@output_option
def head(out: Path | None, directory: Path, output: str) -> None:
    """Print the newest signed head of the log (JSON), to be kept where the CA's operators cannot change it.

    \b
    Example:
      mesh ca log head --out head-of-monday.json
    """
    from ca.checkpoints import export_head

    with opened(directory) as (_, store):
        statement = export_head(store)
    if statement is None:
        raise BadRequest("no head has been signed yet; `mesh ca serve` signs one every few seconds")
    text = json.dumps(statement.to_json(), indent=2) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_private(out, text.encode())
        print_result(output, {"head": statement.to_json(), "out": str(out)}, [f"wrote {out}"])


@log.command(cls=CaCommand)
@click.option("--of", "service", metavar="SPIFFE_ID", help="Only those of this service.")
@click.option("--out", type=A_FILE, help="File to write.  [default: print it]")
@passphrase_option
@dir_option
@output_option
def audits(
    service: str | None, out: Path | None, passphrase_file: Path | None, directory: Path, output: str
) -> None:
    """Write the ends of audits that this CA has witnessed (JSON, signed), for `mesh audit verify --witness FILE`.

    \b
    Example:
      mesh ca log audits --of spiffe://demo.mesh/orders --out orders.heads --passphrase-file pass.txt
    """
    from ca.roots import load_slot
    from ca.witness import export

    passphrase = read_passphrase(passphrase_file, new=False)
    with opened(directory) as (settings, store):
        slots = store.slots()
        active = next((slot for slot in slots if slot.kind == "issuer" and slot.state == "active"), None)
        if active is None:
            raise BadRequest("there is no active issuing CA to sign the file; see `mesh ca status`")
        issuer = load_slot(directory, slots, active, passphrase)
        statement = export(store, settings.trust_domain, issuer, service, time.time())
    document = statement.to_json()
    if out is None:
        click.echo(json.dumps(document))
    else:
        write_private(out, json.dumps(document).encode())
        count = len(json.loads(statement.payload)["heads"])
        print_result(output, {"heads": count, "out": str(out)}, [f"wrote {out}: {count} heads"])


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise BadRequest(f"{path} is not JSON") from None
