"""`mesh ca csr` and `mesh ca import`: an issuing CA that your own PKI signs, so that the root's key is never here."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ca.cli_common import (
    A_FILE,
    READABLE,
    CaCommand,
    dir_option,
    moment,
    opened,
    output_option,
    passphrase_option,
    print_result,
    read_passphrase,
    to_paste,
)
from ca.config import KEYS_DIR
from ca.errors import ImportRefused


@click.command(cls=CaCommand)
@click.option("--out", type=A_FILE, help="File to write.  [default: print it]")
@passphrase_option
@dir_option
@output_option
def csr(out: Path | None, passphrase_file: Path | None, directory: Path, output: str) -> None:
    """Make a key for an issuing CA, and a request (PKCS #10, PEM) for your PKI to sign. The key stays here, encrypted.

    \b
    Example:
      mesh ca csr --out issuing.csr
    """
    from ca.external import make_request

    with opened(directory) as (settings, _):
        fresh = not any((directory / KEYS_DIR).glob("*.pem"))
        request = make_request(directory, settings.trust_domain, read_passphrase(passphrase_file, new=fresh))
    lines = [request.decode().rstrip("\n")]
    if out is not None:
        out.write_bytes(request)
        following = to_paste("import CERTIFICATE --root ROOT", directory)
        lines = [f"wrote {out}; next: let your PKI sign it", f"then: {following}"]
    print_result(output, {"request": request.decode(), "out": None if out is None else str(out)}, lines)


@click.command("import", cls=CaCommand)
@click.argument("certificate", type=READABLE)
@click.option("--root", type=READABLE, required=True, help="Your root's certificate, PEM or DER.")
@click.option("--chain", type=READABLE, help="CAs between the two, nearest first, if they are not in CERTIFICATE.")
@passphrase_option
@dir_option
@output_option
def import_(
    certificate: Path, root: Path, chain: Path | None, passphrase_file: Path | None, directory: Path, output: str
) -> None:
    """Take the issuing CA that your PKI signed for `mesh ca csr` into use, once it has been held against every rule.

    \b
    Examples:
      mesh ca import issuing.pem --root root.pem
      mesh ca import issuing.pem --chain between.pem --root root.pem
    """
    from ca.external import import_issuer, parse_certificates

    shown = parse_certificates(certificate.read_bytes(), str(certificate))
    if chain is not None:
        shown += parse_certificates(chain.read_bytes(), str(chain))
    roots = parse_certificates(root.read_bytes(), str(root))
    if len(roots) != 1 or not shown:
        raise ImportRefused(f"{root} has to hold one certificate, the root's, and {certificate} at least one")
    passphrase = read_passphrase(passphrase_file, new=False)
    now = time.time()
    with opened(directory) as (settings, store):
        found = import_issuer(directory, store, settings.trust_domain, passphrase, shown, roots[0], now)
    ends = found.certificate.not_valid_after_utc.timestamp()
    serial = f"{found.certificate.serial_number:x}"
    document = {"issuer_serial": serial, "state": found.state, "not_after": ends, "warnings": list(found.warnings)}
    when = "signs from now on" if found.state == "active" else "takes over on schedule, or with mesh ca renew-issuer"
    lines = [
        f"issuing CA {serial} is {found.state}, until {moment(ends)}: it {when}",
        *(f"WARNING {warning}" for warning in found.warnings),
    ]
    print_result(output, document, lines)
