"""`mesh certs rotate`: new keys and certificates now, for one running service, some, or all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json, remaining
from sidecar.cli.sidecars import Sidecar, moment, one, run_dir_option, some

PATIENCE = 20.0  # seconds; the sidecar gives up after 15: ten between two renewals, and the CA's answer
AT_ONCE = 8  # sidecars at a time: the CA issues a hundred a second, so this is for the sake of who reads along
EXAMPLES = """\b
Examples:
  mesh certs rotate orders
  mesh certs rotate --all --dry-run
  mesh certs rotate --service orders --service web -o json"""


@click.command(epilog=EXAMPLES)
@click.argument("service", required=False)
@click.option("--service", "services", multiple=True, metavar="NAME", help="This one; may be given more than once.")
@click.option("--all", "everybody", is_flag=True, help="Every sidecar that runs here.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say who would rotate, and who would fail and why.")
@run_dir_option
@output_option
def rotate(
    service: str | None, services: tuple[str, ...], everybody: bool, dry_run: bool, run_dir: Path | None, output: str
) -> int:
    """Give running services a new key and certificate now; nothing that is under way is interrupted.

    Exit code 0: all have one, 1: one kept what it had, 3: one does not answer.
    """
    names = tuple(dict.fromkeys(([service] if service else []) + list(services)))
    if everybody == bool(names):
        raise Failure("Name a service, or give --all.", "mesh certs rotate --help has examples.", Code.USAGE)
    if service and not services and not dry_run:
        return _single(one(run_dir, service), output)
    chosen = some(run_dir) if everybody else [one(run_dir, name) for name in names]
    work = _foresee if dry_run else _rotate
    results = []
    for number, result in enumerate(_each(chosen, work), 1):
        results.append(result)
        if output == "text":
            click.echo(f"[{number}/{len(chosen)}] {result['service']}: {_words(result, time.time())}")
    results.sort(key=lambda result: str(result["service"]))
    good = sum(result["ok"] for result in results)
    if output == "json":
        print_json({"dry_run": dry_run, "ok": good == len(results), "sidecars": results})
    else:
        done = "would get" if dry_run else "have"
        click.echo(f"{good} of {len(results)} {done} a new certificate")
    if any(result.get("unreachable") for result in results):
        return Code.UNREACHABLE
    return Code.OK if good == len(results) else Code.NEGATIVE


def _single(sidecar: Sidecar, output: str) -> int:
    """One, by its plain name: its answer, or a Failure."""
    result = _rotate(sidecar)
    if result.get("unreachable"):
        raise Failure(str(result["detail"]), "If its process is gone, the socket's file may be removed.",
                      Code.UNREACHABLE)  # fmt: skip
    if not result["ok"]:
        raise Failure(
            f"{sidecar.service} keeps its certificate: {result['detail']}",
            "`mesh status` tells whether the CA is in reach.",
        )
    if output == "json":
        print_json({name: result[name] for name in ("service", "serial", "not_after") if name in result})
    else:
        ends = remaining(moment(result.get("not_after")), time.time())
        click.echo(f"{sidecar.service} has a new certificate: serial {result.get('serial', '?')}, good for {ends}")
    return Code.OK


def _each(
    sidecars: list[Sidecar], work: Callable[[Sidecar], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Do this with all of them, some at a time; each result as it comes."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in as_completed([pool.submit(work, sidecar) for sidecar in sidecars]):
            yield done.result()


def _rotate(sidecar: Sidecar) -> dict[str, Any]:
    began = time.monotonic()
    try:
        status, document = sidecar.ask("POST", "/certs/rotate", timeout=PATIENCE)
    except Failure as failure:
        return {"service": sidecar.service, "ok": False, "unreachable": True, "detail": failure.message}
    took = round(time.monotonic() - began, 3)
    if status != 200:
        detail = str(document.get("detail") or f"the sidecar answers {status}")
        return {"service": sidecar.service, "ok": False, "detail": detail, "seconds": took}
    return {**document, "service": sidecar.service, "ok": True, "seconds": took}


def _foresee(sidecar: Sidecar) -> dict[str, Any]:
    """What a rotation would meet; nothing is asked of the CA."""
    try:
        identity = dict(sidecar.get("/status").get("identity") or {})
    except Failure as failure:
        return {"service": sidecar.service, "ok": False, "unreachable": True, "detail": failure.message}
    facts = {
        "service": sidecar.service, "serial": identity.get("serial") or "", "not_after": identity.get("not_after"),
        "next_renewal_at": identity.get("next_renewal_at"),
    }  # fmt: skip
    if identity.get("revoked") == "spiffe_id":
        problem = "its identity is revoked, and nothing is issued to it"
    elif not identity.get("ca_connected"):
        problem = f"the CA is out of reach: {identity.get('watch_error') or identity.get('last_error') or 'no reason'}"
    elif identity.get("consecutive_failures"):
        problem = f"its last try failed: {identity.get('last_error') or 'no reason'}"
    else:
        return facts | {"ok": True}
    return facts | {"ok": False, "detail": problem}


def _words(result: dict[str, Any], now: float) -> str:
    ends = remaining(moment(result.get("not_after")), now)
    if "seconds" in result and result["ok"]:
        return f"serial {result.get('serial', '?')}, good for {ends}, in {result['seconds']:.1f} s"
    if not result["ok"]:
        keeps = "" if result.get("unreachable") else "keeps its certificate: "
        return f"{keeps}{result['detail']}"
    return f"replaces {result['serial'] or '-'} ({ends})"


