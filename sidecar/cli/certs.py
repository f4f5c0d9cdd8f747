"""`mesh certs`: identities of running sidecars, and certificates in files: list, show, verify; the rest beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.certs_check import check
from sidecar.cli.certs_issue import export, issue
from sidecar.cli.certs_parse import bundles_of, parse_chain
from sidecar.cli.certs_revoke import revoke, unrevoke
from sidecar.cli.certs_rotate import rotate
from sidecar.cli.console import (
    Code,
    Failure,
    list_whole,
    output_option,
    print_facts,
    print_json,
    print_table,
    remaining,
    span,
)
from sidecar.cli.sidecars import Sidecar, moment, one, run_dir_option, some

if TYPE_CHECKING:
    from cryptography import x509

    from certs.bundle import BundleSet

COLUMNS = ("service", "SPIFFE ID", "serial", "remains", "next renewal", "without CA", "bundle", "denylist", "CA")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def certs() -> None:
    """Identities: list, show, verify, check, rotate, revoke. No sidecar's private key is ever read or shown."""


@certs.command("list", epilog="\b\nExamples:\n  mesh certs list\n  mesh certs list -o json")
@run_dir_option
@output_option
def list_(run_dir: Path | None, output: str) -> int:
    """The identity of every sidecar that runs here."""
    found = [(sidecar, _identity(sidecar)) for sidecar in some(run_dir)]
    if output == "json":
        print_json({"certs": [{"service": sidecar.service, **identity} for sidecar, identity in found]})
    else:
        now = time.time()
        print_table(COLUMNS, [_row(sidecar.service, identity, now) for sidecar, identity in found])
    return Code.OK if all("error" not in identity for _, identity in found) else Code.UNREACHABLE


def _identity(sidecar: Sidecar) -> dict[str, Any]:
    try:
        return dict(sidecar.get("/status").get("identity") or {})
    except Failure as failure:
        return {"error": failure.message}


def _row(service: str, identity: dict[str, Any], now: float) -> tuple[str, ...]:
    if "error" in identity:
        return (service, str(identity["error"]), *("-" for _ in COLUMNS[2:]))
    return (
        service,
        str(identity.get("spiffe_id", "-")),
        str(identity.get("serial") or "-"),  # whole, so that `mesh certs revoke` knows it when pasted
        remaining(moment(identity.get("not_after")), now),
        remaining(moment(identity.get("next_renewal_at")), now),
        "-" if identity.get("ca_survival_seconds") is None else span(identity["ca_survival_seconds"]),
        *(str(identity[name]) if identity.get(name) is not None else "-"
          for name in ("bundle_sequence", "denylist_sequence")),
        "connected" if identity.get("ca_connected") else str(identity.get("watch_error") or "out of reach"),
    )


@dataclass(frozen=True, slots=True)
class Presented:
    """A chain and whatever is known of the roots that may vouch for it."""

    chain: list[x509.Certificate]
    bundles: BundleSet | None


@certs.command(epilog="\b\nExamples:\n  mesh certs show orders\n  mesh certs show leaf.pem -o json")
@click.argument("target", metavar="SERVICE|FILE")
@run_dir_option
@output_option
def show(target: str, run_dir: Path | None, output: str) -> int:
    """What the certificates of a running service, or of a PEM file, say of themselves."""
    from certs.describe import describe

    now = time.time()
    described = [describe(certificate, now) for certificate in _present(target, None, run_dir).chain]
    if output == "json":
        print_json({"certificates": described})
        return Code.OK
    for number, facts in enumerate(described):
        click.secho(("leaf" if number == 0 else f"issuer {number}") if len(described) > 1 else "certificate", bold=True)
        print_facts([(f"  {name}", _text(name, value)) for name, value in facts.items()])
    return Code.OK


_MOMENTS = ("not_before", "not_after")


def _text(name: str, value: object) -> str:
    if name in _MOMENTS and isinstance(value, float):
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(value))
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@certs.command(epilog="\b\nExamples:\n  mesh certs verify orders\n  mesh certs verify leaf.pem --bundle roots.pem")
@click.argument("target", metavar="SERVICE|FILE")
@click.option("--bundle", type=click.Path(path_type=Path), help="Roots to trust: a SPIFFE bundle (JSON) or PEM.")
@run_dir_option
@output_option
def verify(target: str, bundle: Path | None, run_dir: Path | None, output: str) -> int:
    """Judge a running service's certificates, or those in a PEM file, rule by rule, as a peer would.

    Without --bundle, a running service is judged by its own trust bundle, and a file only by what it says of itself.
    Exit code 0: every check passed, 1: one did not.
    """
    from certs.describe import judge

    presented = _present(target, bundle, run_dir)
    findings = judge(presented.chain, presented.bundles, time.time())
    good = all(finding.ok for finding in findings)
    if output == "json":
        print_json(
            {"ok": good, "trust_judged": presented.bundles is not None, "checks": [f.to_json() for f in findings]}
        )
    else:
        for finding in findings:
            click.echo(f"{click.style('ok' if finding.ok else 'no', fg='green' if finding.ok else 'red')}  "
                       f"{finding.name:<8}  {finding.detail}")  # fmt: skip
        if presented.bundles is None:
            click.echo("--  trust     not judged: name the roots with --bundle")
    return Code.OK if good else Code.NEGATIVE


for verb in (rotate, check, issue, export):
    certs.add_command(verb)
certs.add_command(revoke)
certs.add_command(unrevoke)
list_whole(certs)


# ---- where certificates come from ----------------------------------------------------------------------------------


def _present(target: str, bundle: Path | None, run_dir: Path | None) -> Presented:
    """The chain of a file, where there is one of this name, else of a running service. Raises Failure."""
    from certs.bundle import BundleSet

    if Path(target).is_file():
        chain, bundles = parse_chain(Path(target).read_bytes(), target), None
    elif "/" in target or target.endswith((".pem", ".crt", ".cer")):
        raise Failure(f"there is no file {target}.", "Name a PEM file, or a service that runs here.", Code.USAGE)
    else:
        document = one(run_dir, target).get("/certs")
        chain, bundles = parse_chain("".join(document.get("chain") or []).encode(), target), bundles_of(document)
    if bundle is not None:
        bundles = BundleSet.of_all([_read_bundle(bundle, chain)])
    return Presented(chain, bundles)


def _read_bundle(path: Path, chain: list[x509.Certificate]) -> Any:
    """Roots from a file, for the trust domain that the leaf claims: they speak for no other."""
    from certs.bundle import TrustBundle
    from certs.describe import bundle_of_pem
    from certs.errors import MeshError
    from certs.svid import check_leaf

    try:
        data = path.read_bytes()
        trust_domain = check_leaf(chain[0]).trust_domain
        return (
            TrustBundle.parse_jwks(trust_domain, data)
            if data.lstrip()[:1] == b"{"
            else bundle_of_pem(trust_domain, data)
        )
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}.", "", Code.USAGE) from None
    except (MeshError, ValueError) as error:
        raise Failure(f"{path} cannot be used as a bundle: {error}", "", Code.USAGE) from None
