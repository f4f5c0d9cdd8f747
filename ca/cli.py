"""`mesh ca …`: make a CA, serve it, look at it.

All of it works on the CA's directory itself, whether or not the server runs. Only what signs asks for the passphrase.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from cryptography import x509

from ca.cli_clusters import cluster
from ca.cli_common import (
    CaCommand,
    Domain,
    Duration,
    HostPort,
    dir_option,
    moment,
    opened,
    output_option,
    passphrase_option,
    print_result,
    read_passphrase,
    to_paste,
)
from ca.cli_enrolment import enrolment
from ca.cli_entries import entry, key, token
from ca.cli_external import csr, import_
from ca.cli_federation import federation
from ca.cli_jwt import JwtTtl, renew_jwt_key
from ca.cli_keep import backup, crl, log, restore
from ca.cli_rotate import rotate_root
from ca.cli_status import status
from ca.config import DEFAULT_ADDRESS, CaSettings, ServeConfig, load_settings
from ca.errors import CaError
from ca.roots import active_slot, load_bundle, renew_issuer, revoke_issuers, withdraw_prepared
from ca.signers import ISSUER_TTL, ROOT_TTL
from certs.jwt_svid import LIFETIME
from certs.keys import KEY_KINDS
from certs.spiffe import TrustDomain

if TYPE_CHECKING:
    from ca.server import CaServer

before_serving: list[Callable[[Path, Path | None], None]] = []  # called once the passphrase has been read


@click.group("ca")
def ca() -> None:
    """The bundled certificate authority: who gets an identity, and the log of all it gave out.

    \b
    A start:
      mesh ca init --trust-domain demo.mesh
      mesh ca entry add orders
      mesh ca key orders
      mesh ca serve
    """


@ca.command(cls=CaCommand)
@click.option("--trust-domain", type=Domain(), required=True, help="Its name, such as prod.example.org.")
@click.option("--root-ttl", type=Duration(), default=ROOT_TTL, help="Lifetime of the root.  [default: 10y]")
@click.option("--issuer-ttl", type=Duration(), default=ISSUER_TTL, help="Lifetime of the issuing CA.  [default: 30d]")
@click.option("--address", type=HostPort(), default=DEFAULT_ADDRESS, show_default=True, help="Where sidecars reach it.")
@click.option("--key-kind", type=click.Choice(KEY_KINDS), default=KEY_KINDS[0], show_default=True, help="Its own keys.")
@click.option("--external", is_flag=True, help="Make no root: your own PKI signs (next: mesh ca csr).")
@click.option("--keep", is_flag=True, help="Where this CA is there already, leave it as it is: done.")
@passphrase_option
@dir_option
@output_option
def init(
    trust_domain: TrustDomain,
    root_ttl: float,
    issuer_ttl: float,
    address: str,
    key_kind: str,
    external: bool,
    keep: bool,
    passphrase_file: Path | None,
    directory: Path,
    output: str,
) -> None:
    """Make a root and an issuing CA, their keys encrypted with a passphrase. An existing CA is never overwritten.

    \b
    Examples:
      mesh ca init --trust-domain demo.mesh
      mesh ca init --trust-domain demo.mesh --external
      mesh ca init --trust-domain demo.mesh --dir /srv/ca --passphrase-file pass.txt --issuer-ttl 7d
      mesh ca init --trust-domain demo.mesh --dir /srv/ca --passphrase-file pass.txt --keep
    """
    from ca.create import create_ca, holds, refuse_existing

    if keep and holds(directory, trust_domain):
        document = {"trust_domain": trust_domain.name, "directory": str(directory), "kept": True}
        print_result(output, document, [f"kept the CA of {trust_domain} in {directory} as it is"])
        return
    refuse_existing(directory.absolute())  # before anyone is asked for a passphrase
    if external:
        from ca.external import begin

        begin(directory, CaSettings(trust_domain, address, key_kind=key_kind))
        lines = [f"began the CA of {trust_domain} in {directory}", f"next: {to_paste('csr', directory)}"]
        print_result(output, {"trust_domain": trust_domain.name, "directory": str(directory)}, lines)
        return
    passphrase = read_passphrase(passphrase_file, new=True)
    settings = CaSettings(trust_domain, address, key_kind=key_kind)
    create_ca(directory, settings, passphrase, time.time(), root_ttl=root_ttl, issuer_ttl=issuer_ttl)
    with opened(directory) as (_, store):
        bundle, issuer = load_bundle(store, trust_domain), active_slot(store, "issuer")
    document = {
        "trust_domain": trust_domain.name,
        "directory": str(directory),
        "root_sha256": list(bundle.root_hashes()),
        "root_not_after": _end(bundle.roots[0]),
        "issuer_not_after": _end(issuer),
    }
    lines = [
        f"made the CA of {trust_domain} in {directory}",
        f"root {bundle.root_hashes()[0]}",
        f"root until {moment(_end(bundle.roots[0]))}, issuing CA until {moment(_end(issuer))}",
        f"next: {to_paste('entry add NAME', directory)}",
        f"then: {to_paste('serve', directory)}",
    ]
    print_result(output, document, lines)


@ca.command(cls=CaCommand)
@click.option("--listen", type=HostPort(), help="Address to listen on.  [default: as given to init, 127.0.0.1:17012]")
@click.option(
    "--socket", type=click.Path(path_type=Path), help="Also a Unix socket, where local callers enrol by their user id."
)
@click.option("--jwt-ttl", type=JwtTtl(), default=LIFETIME, help="Lifetime of JWT-SVIDs, 10s to 1h.  [default: 5m]")
@passphrase_option
@dir_option
def serve(
    listen: str | None, jwt_ttl: float, socket: Path | None, passphrase_file: Path | None, directory: Path
) -> None:
    """Serve the CA until SIGTERM or Ctrl-C. One line on standard output says that it is ready; the log is on stderr.

    \b
    Examples:
      mesh ca serve
      mesh ca serve --listen 0.0.0.0:17012 --passphrase-file pass.txt
    """
    import trio

    from ca.server import serve as run

    settings = load_settings(directory)
    host, _, port = (listen or settings.address).rpartition(":")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    config = ServeConfig(directory, host.strip("[]"), int(port), jwt_ttl=jwt_ttl, socket=socket)

    def on_ready(server: CaServer, address: str) -> None:
        click.echo(f"ca ready on {address} (trust domain {server.settings.trust_domain})")

    passphrase = read_passphrase(passphrase_file, new=False)
    for act in before_serving:
        act(directory, socket)
    try:
        trio.run(run, config, passphrase, on_ready)
    except OSError as error:
        where = error.filename or listen or settings.address
        raise CaError(f"cannot listen on {where}: {error.strerror or error}") from error


@ca.command("renew-issuer", cls=CaCommand)
@click.option("--issuer-ttl", type=Duration(), default=ISSUER_TTL, help="Lifetime of the new one.  [default: 30d]")
@click.option("--revoke", is_flag=True, help="Its key is stolen: revoke all others, and with them all they signed.")
@passphrase_option
@dir_option
@output_option
def renew(issuer_ttl: float, revoke: bool, passphrase_file: Path | None, directory: Path, output: str) -> None:
    """Let another issuing CA take over now: the prepared one, or a new one. `mesh ca serve` does so on schedule.

    A running `mesh ca serve` signs with it within a second or two. Sidecars need not know.

    \b
    Examples:
      mesh ca renew-issuer --passphrase-file pass.txt
      mesh ca renew-issuer --revoke
    """
    passphrase = read_passphrase(passphrase_file, new=False)
    with opened(directory) as (settings, store):
        now = time.time()
        if revoke:  # a prepared key may have been stolen with the active one: a fresh one it is
            withdraw_prepared(store, now)
        issuer = renew_issuer(directory, store, settings.trust_domain, passphrase, now, issuer_ttl)
        revoked = revoke_issuers(directory, store, now) if revoke else ()
    lines = [f"issuing CA {issuer.serial} signs from now on, until {moment(issuer.not_after)}"]
    lines += [f"revoked issuing CA {serial}: what it signed has to be issued anew" for serial in revoked]
    document = {"issuer_serial": issuer.serial, "issuer_not_after": issuer.not_after, "revoked": list(revoked)}
    print_result(output, document, lines)


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


ca.add_command(status)
ca.add_command(backup)
ca.add_command(restore)
ca.add_command(csr)
ca.add_command(import_)
ca.add_command(log)
ca.add_command(crl)
ca.add_command(rotate_root)
ca.add_command(federation)
ca.add_command(renew_jwt_key)
ca.add_command(entry)
ca.add_command(token)
ca.add_command(key)
ca.add_command(enrolment)
ca.add_command(cluster)
