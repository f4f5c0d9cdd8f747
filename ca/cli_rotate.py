"""`mesh ca rotate-root`: a new root for everybody, in phases, without a failed request; and the way back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ca.cli_common import (
    READABLE,
    CaCommand,
    Duration,
    dir_option,
    moment,
    opened,
    output_option,
    passphrase_option,
    print_result,
    read_passphrase,
    table,
)
from ca.durations import format_duration
from ca.errors import ImportRefused, RotationRefused
from ca.rotation import MEANING, PHASES, Skip
from ca.rotation_words import rotation_facts, status_lines, trial_lines
from ca.signers import ROOT_TTL

if TYPE_CHECKING:
    from ca.config import CaSettings
    from ca.rotation import Leaf
    from ca.signers import Issuer
    from ca.store.base import Store

LOOK_EVERY = 0.5  # seconds between two looks of --wait


@click.command("rotate-root", cls=CaCommand)
@click.option("--plan", "what", flag_value="plan", help="Say what would happen, and who would be waited for (default).")
@click.option("--rehearse", "what", flag_value="rehearse", help="Prove every pair by real handshakes; nothing changes.")
@click.option("--go", "what", flag_value="go", help="Rehearse, then begin; or, with --skip, go on without somebody.")
@click.option("--status", "what", flag_value="status", help="Where the rotation is, and whom it waits for.")
@click.option("--abort", "what", flag_value="abort", help="Turn back, from every phase but the last.")
@click.option("--wait", is_flag=True, help="With --go and --abort: stay until it is done, and tell of each phase.")
@click.option("--skip", "skips", multiple=True, metavar="ID|SERIAL", help="Do not wait for this one. Needs --reason.")
@click.option("--reason", default="", help="Why it is skipped; the log keeps it.")
@click.option("--root-ttl", type=Duration(), default=ROOT_TTL, help="Lifetime of the new root.  [default: 10y]")
@click.option("--issuer", "issuer_file", type=READABLE, help="An issuing CA that your PKI signed (mesh ca csr), PEM.")
@click.option("--root", "root_file", type=READABLE, help="With --issuer: your PKI's root, which becomes the new root.")
@click.option("--chain", "chain_file", type=READABLE, help="With --issuer: CAs between the two, nearest first.")
@passphrase_option
@dir_option
@output_option
def rotate_root(
    what: str | None,
    wait: bool,
    skips: tuple[str, ...],
    reason: str,
    root_ttl: float,
    issuer_file: Path | None,
    root_file: Path | None,
    chain_file: Path | None,
    passphrase_file: Path | None,
    directory: Path,
    output: str,
) -> None:
    """Give everybody a new root, while everything runs. `mesh ca serve` goes from phase to phase by itself.

    \b
      announced  both roots are in the bundle   until every live sidecar has acknowledged it
      switched   the new root's CA signs        until every live certificate is renewed under it
      withdrawn  the old root has left          until every live sidecar has acknowledged that

    \b
    Examples:
      mesh ca rotate-root --plan
      mesh ca rotate-root --rehearse
      mesh ca rotate-root --go --wait
      mesh ca rotate-root --go --skip batch --reason 'machine was scrapped'
      mesh ca rotate-root --abort
    """
    _check_words(what, wait, skips, reason, issuer_file, root_file)
    with opened(directory) as (settings, store):
        desk = _Desk(directory, settings, store, output)
        match what:
            case "status":
                desk.status()
            case "rehearse" | "go" | "abort":
                passphrase = read_passphrase(passphrase_file, new=False)
                files = (issuer_file, root_file, chain_file)
                desk.act(what, passphrase, [Skip(desk.target(one), reason) for one in skips], root_ttl, files)
                if wait:
                    desk.wait()
            case _:
                desk.plan()


def _check_words(
    what: str | None, wait: bool, skips: Sequence[str], reason: str, issuer: Path | None, root: Path | None
) -> None:
    if skips and (what != "go" or not reason.strip()):
        raise click.UsageError("--skip goes with --go, and needs --reason: whoever is skipped will be cut off")
    if wait and what not in ("go", "abort"):
        raise click.UsageError("--wait goes with --go and --abort")
    if (issuer is None) != (root is None):
        raise click.UsageError("--issuer and --root go together")


class _Desk:
    """One call of the command."""

    def __init__(self, directory: Path, settings: CaSettings, store: Store, output: str) -> None:
        self._directory = directory
        self._settings = settings
        self._store = store
        self._output = output

    def target(self, name: str) -> str:
        """A SPIFFE ID or the serial of a live certificate, as the log has them. Raises RotationRefused."""
        from ca.entries import parse_identity
        from ca.errors import InvalidEntry

        leaves = self._leaves()
        if any(leaf.serial == name.lower() for leaf in leaves):
            return name.lower()
        try:
            wanted = parse_identity(name, self._settings.trust_domain).text
        except InvalidEntry:
            wanted = name
        if not any(leaf.spiffe_id == wanted for leaf in leaves):
            raise RotationRefused(f"no live certificate is {name!r}, by serial or by SPIFFE ID; see --status")
        return wanted

    # ---- acting ------------------------------------------------------------------------------------------------------

    def act(
        self,
        what: str,
        passphrase: bytes,
        skips: list[Skip],
        root_ttl: float,
        files: tuple[Path | None, Path | None, Path | None],
    ) -> None:
        """Rehearse, begin, go on without somebody, or turn back. Raises CaError's kinds, KeyUnavailable."""
        from ca.rotating import RootRotation

        now, settings = time.time(), self._settings
        rotation = RootRotation(self._directory, self._store, settings.trust_domain, passphrase, settings.issuer_ttl)
        current = self._store.rotation()
        if what == "abort":
            rotation.abort(now)
        elif what == "go" and current is not None and current.under_way:
            if not skips:
                raise RotationRefused("a rotation is under way already: it goes on by itself; see --status, or --skip")
            rotation.skip(skips, now)
        else:
            imported = self._import(passphrase, files, now) if what == "go" else None
            if not self._rehearse(passphrase, imported, root_ttl, now, show=what == "rehearse"):
                raise click.exceptions.Exit(1)
            if what == "rehearse":
                return
            rotation.begin(now, root_ttl=root_ttl, imported=imported, skips=skips)
        self.status()

    def _import(
        self, passphrase: bytes, files: tuple[Path | None, Path | None, Path | None], now: float
    ) -> Issuer | None:
        from ca.external import accept_for_rotation, parse_certificates

        issuer, root, between = ([] if one is None else parse_certificates(one.read_bytes(), str(one)) for one in files)
        if not issuer:
            return None
        if len(root) != 1:
            raise ImportRefused("--root has to hold one certificate, the root's")
        trust_domain = self._settings.trust_domain
        accepted, warnings = accept_for_rotation(
            self._directory, self._store, trust_domain, passphrase, [*issuer, *between], root[0], now
        )
        for warning in warnings:
            click.echo(f"WARNING {warning}", err=True)
        return accepted

    def _rehearse(
        self, passphrase: bytes, imported: Issuer | None, root_ttl: float, now: float, *, show: bool
    ) -> bool:
        from ca.rehearsal import rehearse, shadow
        from ca.roots import load_issuer

        old = load_issuer(self._directory, self._store, passphrase)
        if not show and old.not_after <= now:
            click.echo("WARNING nothing was rehearsed: nobody lives under the old root, which has ended", err=True)
            return True
        new = imported or shadow(self._settings.trust_domain, self._settings.key_kind, now, root_ttl)
        trials = rehearse(self._settings.trust_domain, old, new, now)
        good = all(trial.ok for trial in trials)
        if show or not good:
            document = {"ok": good, "trials": [trial.as_json() for trial in trials]}
            print_result(self._output, document, trial_lines(trials))
        return good

    def wait(self) -> None:
        """Tell of each phase until the rotation is done. Ctrl-C ends the telling alone."""
        told = ""
        while (rotation := self._store.rotation()) is not None:
            if rotation.phase != told:
                told = rotation.phase
                click.echo(f"{moment(rotation.since)}  {told}: {MEANING[rotation.phase]}", err=True)
            if not rotation.under_way:
                return
            time.sleep(LOOK_EVERY)

    # ---- telling -----------------------------------------------------------------------------------------------------

    def status(self) -> None:
        """Where the rotation is, and whom it waits for."""
        document = rotation_facts(self._directory, self._store, time.time())
        print_result(self._output, document, status_lines(document))

    def plan(self) -> None:
        """What would happen now, and who would be waited for."""
        from ca.enrolment_files import stale

        now, leaves = time.time(), self._leaves()
        away = [leaf for leaf in leaves if not leaf.connected]
        last = max((leaf.not_after for leaf in leaves), default=now)
        files = stale(self._directory, self._store)
        document = {
            "phases": {phase: MEANING[phase] for phase in PHASES},
            "live": len(leaves),
            "not_connected": [asdict(leaf) for leaf in away],
            "last_ends": last,
        }
        rows = [(one.spiffe_id, one.serial, f"in {format_duration(one.not_after - now)}") for one in away]
        lines = [
            *(f"{number}. {phase:<9}  {MEANING[phase]}" for number, phase in enumerate(PHASES, 1)),
            f"{len(leaves)} live certificates, {len(away)} of them with no open watch; each of these is waited for"
            f" until it ends (the last in {format_duration(max(0.0, last - now))}), renews, or is skipped by name",
            *table(("NOT CONNECTED", "SERIAL", "ENDS"), rows, "everybody is connected"),
            *([f"{len(files)} enrolment files are elsewhere and will have to be handed out again"] if files else []),
            "next: mesh ca rotate-root --rehearse, then --go",
        ]
        print_result(self._output, document, lines)

    def _leaves(self) -> tuple[Leaf, ...]:
        from ca.live import live_leaves

        return live_leaves(self._store, time.time())
