"""`mesh install`: the manifests of CA and injector for a cluster, ready for kubectl."""

from __future__ import annotations

import shlex
import sys

import click

from sidecar.cli.console import Code, Failure
from sidecar.deploy import names
from sidecar.deploy.cluster.install import NAMESPACE, OVERLAYS, TRUST_DOMAIN, BadInstall, Install, as_json, as_yaml
from sidecar.deploy.cluster.kustomize import identity

EXAMPLES = """\b
Examples:
  mesh install --dry-run | less
  mesh install --dry-run --overlay production --image registry.example/mesh:1.2.3 | kubectl apply -f -
  mesh install --uninstall --dry-run | kubectl delete --ignore-not-found -f -
"""


@click.command(epilog=EXAMPLES)
@click.option("--dry-run", is_flag=True, help="Print the objects. Nothing else is ever done: kubectl applies them.")
@click.option("--overlay", type=click.Choice(OVERLAYS), default="base", show_default=True, help="Which shape.")
@click.option("--namespace", default=NAMESPACE, show_default=True, help="Where CA and injector live, and nothing else.")
@click.option("--image", default=names.IMAGE, show_default=True, help="The image, as your nodes pull it.")
@click.option("--trust-domain", default=TRUST_DOMAIN, show_default=True, help="Fixed once the CA has been made.")
@click.option("--no-monitors", is_flag=True, help="Leave out what only the Prometheus Operator knows.")
@click.option("--uninstall", is_flag=True, help="What to delete instead; namespace and CA's volume stay.")
@click.option("--purge", is_flag=True, help="With --uninstall: the namespace too, and with it the CA's keys.")
@click.option(
    "-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="json: one List."
)
def install(
    dry_run: bool,
    overlay: str,
    namespace: str,
    image: str,
    trust_domain: str,
    no_monitors: bool,
    uninstall: bool,
    purge: bool,
    output: str,
) -> int:
    """Print what to install in a Kubernetes cluster: CA, injector, their rights, network policies.

    The same stands in deploy/k8s as plain kustomize. docs/kubernetes-install.md goes through all of it.
    """
    if purge and not uninstall:
        raise Failure("--purge belongs to --uninstall.", "It deletes the CA's keys for good.", Code.USAGE)
    chosen = Install(overlay, namespace, image, trust_domain, not no_monitors)
    try:
        found = chosen.removal(everything=purge) if uninstall else chosen.documents()
    except BadInstall as error:
        raise Failure(f"{error}.", "", Code.USAGE) from None
    if not dry_run:
        kubectl = "kubectl delete --ignore-not-found -f -" if uninstall else "kubectl apply -f -"
        ourselves = _ourselves(chosen, uninstall=uninstall, purge=purge)
        raise Failure(
            f"{len(found)} objects would be {'deleted' if uninstall else 'applied'}; nothing was done.",
            f"Look: {ourselves} | less\nThen: {ourselves} | {kubectl}",
            Code.USAGE,
        )
    if output == "json":
        click.echo(as_json(found))
        return Code.OK
    click.echo(as_yaml(found), nl=False)
    if sys.stdout.isatty():
        kinds = sorted({identity(each)[0] for each in found})
        click.echo(f"mesh: {len(found)} objects ({', '.join(kinds)}); pipe them to kubectl", err=True)
    return Code.OK


def _ourselves(chosen: Install, *, uninstall: bool, purge: bool) -> str:
    """This very command, with --dry-run."""
    plain = Install()
    said = [
        word
        for option in ("overlay", "namespace", "image", "trust_domain")
        if (value := getattr(chosen, option)) != getattr(plain, option)
        for word in (f"--{option.replace('_', '-')}", value)
    ]
    flags = {"--no-monitors": not chosen.monitors, "--uninstall": uninstall, "--purge": purge}
    return shlex.join(["mesh", "install", "--dry-run", *said, *(flag for flag, given in flags.items() if given)])
