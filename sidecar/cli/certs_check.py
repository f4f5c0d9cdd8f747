"""`mesh certs check`: a gate for CI and cron: does anything end too soon, or is anything late?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Duration, Failure, output_option, print_json, print_table, remaining
from sidecar.cli.sidecars import Sidecar, one, run_dir_option, some

if TYPE_CHECKING:
    from certs.expiry import Verdict

COLUMNS = ("", "of", "link", "serial", "remains", "finding")
EXAMPLES = """\b
Examples:
  mesh certs check --fail-before 30d              every sidecar here
  mesh certs check orders partner.pem --fail-before 7d
  mesh certs check --ca-dir /var/lib/mesh/ca      the CA's own root and issuing CAs"""


@click.command(epilog=EXAMPLES)
@click.argument("targets", metavar="[SERVICE|FILE]...", nargs=-1)
@click.option(
    "--fail-before", type=Duration(), default=30 * 86400.0, help="How long each link must still hold.  [default: 30d]"
)
@click.option(
    "--ca-dir", type=click.Path(path_type=Path, file_okay=False), help="Also a CA's directory, on its own machine."
)
@run_dir_option
@output_option
def check(
    targets: tuple[str, ...], fail_before: float, ca_dir: Path | None, run_dir: Path | None, output: str
) -> int:
    """Fail where a certificate ends too soon, is late with its renewal, or is not what is served.

    Leaves and issuing CAs renew themselves long before 30 days are left, so they fail when they are late, a leaf with
    less than 0.4 of its life left, an issuing CA with less than a seventh. Roots, and certificates in files, fail when
    less than --fail-before is left. Sidecars also fail with three failed renewals in a row, with a clock that is off,
    and where their own listeners show another certificate than they were given.

    Exit code 0: all is well, 1: something is not, 3: a sidecar does not answer.
    """
    now = time.time()
    rows: list[dict[str, Any]] = []
    silent = False
    names = [target for target in targets if not _is_file(target)]
    rows += [row for target in targets if _is_file(target) for row in _file(Path(target), now, fail_before)]
    if ca_dir is not None:
        rows += _ca(ca_dir, now, fail_before)
    if names or not (targets or ca_dir):
        for sidecar in [one(run_dir, name) for name in names] if names else some(run_dir):
            try:
                rows += rows_of(sidecar, now, fail_before)
            except Failure as failure:
                silent = True
                rows.append(_row(sidecar.service, "sidecar", False, failure.message))
    good = all(row["ok"] for row in rows)
    if output == "json":
        print_json({"ok": good, "fail_before_seconds": fail_before, "checks": rows})
    else:
        print_table(COLUMNS, [_cells(row, now) for row in rows], colour=lambda n: "" if rows[n]["ok"] else "red")
    if silent:
        return Code.UNREACHABLE
    return Code.OK if good else Code.NEGATIVE


def _is_file(target: str) -> bool:
    if Path(target).is_file():
        return True
    if "/" in target or target.endswith((".pem", ".crt", ".cer")):
        raise Failure(f"there is no file {target}.", "Name a PEM file, or a service that runs here.", Code.USAGE)
    return False


def _row(of: str, link: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"of": of, "link": link, "ok": ok, "detail": detail}


def _cells(row: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        "ok" if row["ok"] else "NO", str(row["of"]), str(row["link"]), str(row.get("serial") or "-")[:16],
        remaining(row.get("not_after"), now), str(row["detail"]),
    )  # fmt: skip


def _rows(of: str, verdicts: list[Verdict], now: float) -> list[dict[str, Any]]:
    return [{"of": of, **verdict.to_json(now)} for verdict in verdicts]


def rows_of(sidecar: Sidecar, now: float, fail_before: float) -> list[dict[str, Any]]:
    """The links of the chain it holds, and what it says of itself. Raises Failure."""
    from certs.expiry import check_chain
    from sidecar.cli.certs_parse import bundles_of, parse_chain

    status, held = sidecar.get("/status"), sidecar.get("/certs")
    if not held.get("chain"):
        return [_row(sidecar.service, "leaf", False, "it has no certificate yet")]
    chain = parse_chain("".join(held["chain"]).encode(), sidecar.service)
    rows = _rows(sidecar.service, check_chain(chain, bundles_of(held), now, fail_before), now)
    identity, served = status.get("identity") or {}, status.get("served") or {}
    failures = int(identity.get("consecutive_failures") or 0)
    troubles = [
        ("renewal", failures >= 3, f"{failures} tries failed: {identity.get('last_error')}"),
        ("clock", bool(identity.get("clock_warning")), str(identity.get("clock_warning"))),
        ("revocation", bool(identity.get("revoked")), f"its certificate is revoked, by {identity.get('revoked')}"),
        ("served", served.get("result") == "differs", str(served.get("problem"))),
    ]
    return rows + [_row(sidecar.service, link, False, detail) for link, bad, detail in troubles if bad]


def _file(path: Path, now: float, fail_before: float) -> list[dict[str, Any]]:
    from certs.expiry import check_link
    from sidecar.cli.certs_parse import parse_chain

    found = parse_chain(path.read_bytes(), str(path))
    return _rows(str(path), [check_link("file", one_of_it, now, fail_before) for one_of_it in found], now)


def _ca(directory: Path, now: float, fail_before: float) -> list[dict[str, Any]]:
    """The signing certificates that a CA uses, or will: the roots in its bundle, and its issuing CAs that sign."""
    from ca.cli_common import opened
    from ca.errors import NoCa
    from ca.roots import certificate_of
    from certs.errors import MeshError
    from certs.expiry import check_link

    try:
        with opened(directory) as (_, store):
            slots = [slot for slot in store.slots() if slot.state in ("prepared", "active")]
    except NoCa as error:
        raise Failure(str(error), "Name the CA's folder with --ca-dir, on its own machine.", Code.USAGE) from None
    except MeshError as error:
        raise Failure(str(error)) from None
    followed = any((slot.kind, slot.state) == ("issuer", "prepared") for slot in slots)
    verdicts = []
    for slot in slots:
        if slot.kind not in ("root", "issuer") or (followed and (slot.kind, slot.state) == ("issuer", "active")):
            continue  # of an issuing CA whose successor stands ready, that one is what counts
        verdicts.append(check_link("root" if slot.kind == "root" else "issuer", certificate_of(slot), now, fail_before))
    return _rows("the CA", verdicts, now)
