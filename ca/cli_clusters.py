"""`mesh ca cluster …`: the Kubernetes clusters whose service-account tokens count as proofs."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ca.attest.clusters import DEFAULT_AUDIENCE, KubernetesCluster
from ca.cli_common import READABLE, CaCommand, dir_option, opened, output_option, print_result, table
from ca.errors import CaError


@click.group()
def cluster() -> None:
    """Kubernetes clusters whose service-account tokens are proofs: add, list and remove them."""


@cluster.command("add", cls=CaCommand)
@click.argument("name")
@click.option("--review", metavar="URL", help="Its API server: tokens are verified by TokenReview.")
@click.option("--token-file", type=click.Path(path_type=Path), help="With --review: the CA's own token there.")
@click.option("--oidc", metavar="URL", help="Its issuer: tokens are verified by its published keys.")
@click.option("--ca-file", type=READABLE, help="PEM certificates to trust for it.  [default: the system's]")
@click.option("--audience", default=DEFAULT_AUDIENCE, show_default=True, help="For whom tokens must be made: us.")
@click.option("--replace", is_flag=True, help="Put this in the place of what is known of NAME, if anything is.")
@dir_option
@output_option
def add(
    name: str,
    review: str | None,
    token_file: Path | None,
    oidc: str | None,
    ca_file: Path | None,
    audience: str,
    replace: bool,
    directory: Path,
    output: str,
) -> None:
    """Believe the tokens of cluster NAME. Restart `mesh ca serve` where --token-file is in a folder new to it.

    \b
    Examples:
      mesh ca cluster add prod --oidc https://oidc.example.com/cluster-1
      mesh ca cluster add prod --review https://10.0.0.1:443 --ca-file cluster.pem --token-file /run/secrets/token
      mesh ca cluster add prod --oidc https://oidc.example.com/cluster-2 --replace
    """
    if (review is None) == (oidc is None):
        raise CaError("one of --review and --oidc is needed")
    pem = "" if ca_file is None else ca_file.read_text(encoding="ascii", errors="replace")
    mode, url = ("review", review) if review is not None else ("oidc", oidc)
    made = KubernetesCluster(name, mode, url or "", audience, str(token_file or ""), pem).check()
    with opened(directory) as (_, store):
        known = [row.document for row in store.clusters() if row.name == name]
        row = made.to_row(time.time())
        if not (replace and known == [row.document]):  # what is so already is no line of the log
            if replace:
                store.remove_cluster(name, row.created_at)
            store.add_cluster(row)
    document = {"name": name, "mode": mode, "url": url, "audience": audience}
    print_result(output, document, [f"tokens of {name} for audience {audience} are proofs from now on"])


@cluster.command("list", cls=CaCommand)
@dir_option
@output_option
def list_clusters(directory: Path, output: str) -> None:
    """List the clusters.

    \b
    Example:
      mesh ca cluster list
    """
    with opened(directory) as (_, store):
        found = [KubernetesCluster.of_row(row) for row in store.clusters()]
    rows = [(one.name, one.mode, one.url, one.audience) for one in found]
    document = {"clusters": [dict(zip(("name", "mode", "url", "audience"), row, strict=True)) for row in rows]}
    print_result(output, document, table(("NAME", "VERIFIED BY", "URL", "AUDIENCE"), rows, "no clusters"))


@cluster.command("remove", cls=CaCommand)
@click.argument("name")
@dir_option
@output_option
def remove(name: str, directory: Path, output: str) -> None:
    """Believe the tokens of cluster NAME no more. Certificates that are out there live to their end, and renew.

    \b
    Example:
      mesh ca cluster remove prod
    """
    with opened(directory) as (_, store):
        if not store.remove_cluster(name, time.time()):
            raise CaError(f"no cluster {name!r}; see `mesh ca cluster list`")
    print_result(output, {"removed": name}, [f"removed {name}"])
