"""`mesh uninjected`: pods that escaped injection, why, and what to do about each."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json, print_table
from sidecar.deploy import names

if TYPE_CHECKING:
    from sidecar.deploy.cluster.access import Access
    from sidecar.deploy.cluster.escaped import Escaped, Pod

EXAMPLES = """\b
Examples:
  mesh uninjected
  mesh uninjected --context prod -o json
  kubectl get namespaces,pods --all-namespaces -o json | mesh uninjected -f -

Exit codes: 0 every pod is guarded, 1 some are not, 3 the cluster cannot be asked."""


@click.command(epilog=EXAMPLES)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="What `kubectl get -o json` printed; - for stdin.")
@click.option("--kubeconfig", default="", help="How to reach the cluster.  [default: $KUBECONFIG, ~/.kube/config]")
@click.option("--context", default="", help="Which of its contexts.  [default: the current one]")
@click.option("--api", default="", metavar="URL", help="Where `kubectl proxy` listens: http://127.0.0.1:8001.")
@click.option("--image", default=names.IMAGE, show_default=True, help="The image that sidecars should have.")
@output_option
def uninjected(file: Path | None, kubeconfig: str, context: str, api: str, image: str, output: str) -> int:
    """List pods that should have a sidecar and have none, or one that does not guard them.

    Looked at are the namespaces with the label sidecar.mesh/inject=enabled. Needed is the right to list namespaces and
    pods.
    """
    from sidecar.deploy.cluster.escaped import escapes, namespaces_to_look_at

    if file is not None:
        namespaces, pods = _of_file(file)
        where = str(file)
    else:
        namespaces, pods, where = _of_cluster(kubeconfig, context, api)
    looked_at = namespaces_to_look_at(namespaces)
    found = escapes(pods, looked_at, image)
    count = sum(1 for each in pods if each["metadata"].get("namespace") in looked_at)
    if output == "json":
        print_json({"namespaces": sorted(looked_at), "pods": count, "escaped": [each.to_json() for each in found]})
    else:
        _show(found, len(looked_at), count, where)
    return Code.NEGATIVE if found else Code.OK


def _show(found: list[Escaped], namespaces: int, pods: int, where: str) -> None:
    from sidecar.deploy.cluster.escaped import WORDS

    if found:
        rows = [(each.namespace, each.pod, each.why, each.detail) for each in found]
        print_table(("namespace", "pod", "why", "detail"), rows, colour=lambda n: _colour(found[n].why))
        click.echo()
        for why in dict.fromkeys(each.why for each in found):
            click.echo(f"{why}: {WORDS[why]}")
        click.echo()
        for mend in dict.fromkeys(each.mend for each in found):
            click.echo(mend)
    elif not namespaces:
        click.echo(f"No namespace of {where} has the label {names.PREFIX}/inject=enabled; nothing is to be injected.")
    else:
        spaces = f"{namespaces} namespace{'' if namespaces == 1 else 's'}"
        click.echo(f"All {pods} pods of {spaces} have a sidecar.")


def _colour(why: str) -> str:
    return "yellow" if why == "old-version" else "red"


def _of_file(file: Path) -> tuple[list[Any], list[Pod]]:
    from sidecar.deploy.cluster.escaped import small

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        items = json.loads(text)["items"]
        found = [each for each in items if isinstance(each["metadata"], dict)]
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}.", "", Code.USAGE) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        advice = "kubectl get namespaces,pods --all-namespaces -o json | mesh uninjected -f -"
        raise Failure(f"{file} is not a list as kubectl prints it.", advice, Code.USAGE) from None
    return [each for each in found if each.get("kind") == "Namespace"], [
        small(each) for each in found if each.get("kind") == "Pod"
    ]


def _of_cluster(kubeconfig: str, context: str, api: str) -> tuple[list[Any], list[Pod], str]:
    import trio

    from sidecar.deploy.cluster.access import find
    from sidecar.net.kube_api import CannotAsk

    try:
        access = find(api, kubeconfig, context, os.environ)
        return *trio.run(ask, access), str(access)
    except CannotAsk as error:
        raise Failure(f"{error}.", "", Code.UNREACHABLE) from None


async def ask(access: Access) -> tuple[list[Any], list[Pod]]:
    """Namespaces and pods. Raises CannotAsk."""
    from sidecar.deploy.cluster.escaped import labelled, small
    from sidecar.deploy.cluster.listing import listed

    namespaces = [each for each in await listed(access, "/api/v1/namespaces", "Namespace", dict) if labelled(each)]
    pods = [
        pod
        for each in namespaces
        for pod in await listed(access, f"/api/v1/namespaces/{each['metadata']['name']}/pods", "Pod", small)
    ]
    return namespaces, pods
