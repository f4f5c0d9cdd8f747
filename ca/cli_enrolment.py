"""`mesh ca enrolment`: enrolment files without a secret, for sidecars that prove who they are by where they run."""

from __future__ import annotations

from pathlib import Path

import click

from ca.cli_common import CaCommand, dir_option, enrolment_file_options, opened, output_option
from ca.cli_entries import _ENTRY_HELP, _find, _hand_over, _refuse_overwriting
from ca.enrolling import describe
from ca.errors import CaError
from certs.enrolment import KubernetesToken, UnixSocket

TOKEN_PLACE = "/var/run/secrets/mesh/token"  # noqa: S105 - where our manifests mount it


@click.command(cls=CaCommand, epilog=_ENTRY_HELP)
@click.argument("name", metavar="ENTRY")
@click.option(
    "--kubernetes", "token_file", metavar="FILE", is_flag=False, flag_value=TOKEN_PLACE,
    help=f"It shows the service-account token in FILE, read anew each time.  [{TOKEN_PLACE}]",
)
@click.option("--cluster", default="", help="With --kubernetes: whose token it is, where the CA knows several.")
@click.option("--socket", metavar="PATH", help="It enrols on the CA's Unix socket PATH, by its user id.")
@enrolment_file_options
@dir_option
@output_option
def enrolment(
    name: str,
    token_file: str | None,
    cluster: str,
    socket: str | None,
    ca_address: str | None,
    out: Path | None,
    force: bool,
    directory: Path,
    output: str,
) -> None:
    """Write an enrolment file that holds no secret: whom to trust, and what to show. Prints it without --out.

    The entry says by its selectors what must be shown. The file may stand in a ConfigMap; nobody but its owner may be
    able to write it, for it names the roots to trust.

    \b
    Examples:
      mesh ca enrolment orders --kubernetes --out orders.json
      mesh ca enrolment laptop --socket /run/mesh/ca.sock --out laptop.json
    """
    if (token_file is None) == (socket is None):
        raise CaError("one of --kubernetes and --socket is needed")
    proof = KubernetesToken(token_file, cluster) if token_file is not None else UnixSocket(socket or "")
    with opened(directory) as (settings, store):
        found = _find(store, settings, name)
        if not found.selectors:
            raise CaError(f"{found.id} has no selectors, so nothing that is shown would fit it")
        _refuse_overwriting(out, force)
        made = describe(store, found, ca_address or settings.address, proof)
    _hand_over(made, out or Path("-"), output, "no secret in it")
