"""`mesh status`: what the sidecars on this machine are doing; `--ready` is the health check."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json, print_table, remaining, span
from sidecar.cli.sidecars import Sidecar, moment, run_dir_option, short, some

STALE_SECONDS = 3600.0  # as certs.denylist has it, which costs an import of cryptography (decision D10)
COLUMNS = ("service", "state", "identity", "certificate", "listeners", "rules", "connections", "in flight", "notes")


@click.command(epilog="\b\nExamples:\n  mesh status\n  mesh status --service orders --ready && ./migrate")
@click.option("--service", help="Only this one.")
@click.option(
    "--ready", is_flag=True, help="Say nothing but whether all are ready: exit 0, 1 not ready, 3 not running."
)
@run_dir_option
@output_option
def status(service: str | None, ready: bool, run_dir: Path | None, output: str) -> int:
    """What the sidecars on this machine are doing."""
    answers = [_status(sidecar) for sidecar in some(run_dir, service)]
    waiting = [answer for answer in answers if answer["state"] != "ready" or answer.get("not_ready")]
    unreachable = any(answer["state"] == "unreachable" for answer in waiting)
    if output == "json":
        print_json({"services": answers})
    elif ready:
        click.echo(", ".join(f"{answer['service']} is {_why_not(answer)}" for answer in waiting) or "ready")
    else:
        now = time.time()
        colours = {"ready": "", "starting": "yellow", "draining": "yellow"}
        print_table(
            COLUMNS, [_row(answer, now) for answer in answers], colour=lambda n: colours.get(answers[n]["state"], "red")
        )
    if unreachable:
        return Code.UNREACHABLE
    return Code.NEGATIVE if ready and waiting else Code.OK


def _why_not(answer: dict[str, Any]) -> str:
    """The state, and where that is `ready` although it is not, as with a certificate that has ended, the reason."""
    return str(answer["state"]) if answer["state"] != "ready" else f"not ready: {'; '.join(answer['not_ready'])}"


def _status(sidecar: Sidecar) -> dict[str, Any]:
    """The sidecar's own words, or that it does not answer: one silent sidecar must not hide the others."""
    try:
        return sidecar.get("/status")
    except Failure as failure:
        return {"service": sidecar.service, "state": "unreachable", "detail": failure.message}


def _row(answer: dict[str, Any], now: float) -> tuple[str, ...]:
    identity = answer.get("identity") or {}
    listeners = answer.get("listeners") or []
    return (
        str(answer["service"]),
        str(answer["state"]),
        short(str(answer.get("spiffe_id") or identity.get("spiffe_id") or "")),
        remaining(moment(identity.get("not_after")), now),
        " ".join(dict.fromkeys(str(listener.get("address", "")) for listener in listeners)) or "-",
        str((answer.get("policy") or {}).get("rules", "-")),
        str(answer.get("connections", "-")),
        str(answer.get("in_flight", "-")),
        _notes(answer, identity),
    )


def _notes(answer: dict[str, Any], identity: dict[str, Any]) -> str:
    """What deserves an eye: a drain, a listener that is not strict, a failed reload, a CA out of reach, failing
    renewals, a clock that is off.
    """
    notes = [str(answer["detail"])] if answer.get("detail") else []
    if drain := answer.get("drain"):
        notes.append(_drain_note(drain))
    notes += filter(None, map(_posture_note, answer.get("listeners") or []))
    notes += _reload_note((answer.get("config") or {}).get("last_reload") or {})
    if answer["state"] == "ready":
        notes += [f"not ready: {reason}" for reason in answer.get("not_ready") or []]
    held = bool(identity.get("serial"))  # the watch begins with the first certificate
    if held and not identity.get("ca_connected", True):
        notes.append("CA out of reach")
    notes += [f"{error}" for error in (identity.get("denylist_error"), identity.get("bundle_error")) if error]
    notes += (answer.get("audit") or {}).get("alarms", ())
    served = answer.get("served") or {}
    if served.get("problem") and not any(str(served["problem"]) in note for note in notes):
        notes.append(f"on the wire: {served['problem']}")
    bypass = answer.get("bypass") or {}
    if bypass.get("result") == "allowed":
        ports = ", ".join(map(str, bypass.get("ports") or []))
        notes.append(f"UNSAFE_ALLOW_BYPASS: port {ports} answers neighbours past this sidecar")
    if callers := answer.get("held"):
        notes.append(f"{callers} caller{'s' if callers > 1 else ''} held by detectors: mesh detections")
    if (age := _denylist_age(identity)) > STALE_SECONDS:
        notes.append(f"the denylist is {span(age)} old: nobody can say who was revoked since")
    if failures := identity.get("consecutive_failures"):
        what = "renewals" if held else "tries for a first certificate"
        notes.append(f"{failures} failed {what}: {identity.get('last_error') or 'unknown'}")
    warning = str(identity.get("clock_warning") or "")
    if warning and not any(warning in note for note in notes):
        notes.append(warning)
    notes += filter(None, map(_keys_note, answer.get("tokens") or []))
    if note := (answer.get("hygiene") or {}).get("note"):
        notes.append(str(note))
    return "; ".join(notes)


def _denylist_age(identity: dict[str, Any]) -> float:
    """Seconds since the CA signed the denylist in force; 0 where there is none."""
    signed = moment(identity.get("denylist_at"))
    return time.time() - signed if signed else 0.0


def _keys_note(issuer: dict[str, Any]) -> str:
    """The keys of an issuer that are not to be had, or are old."""
    if not issuer.get("alarm"):
        return ""
    name, problem = issuer.get("issuer"), issuer.get("problem") or "nobody has answered yet"
    if issuer["alarm"] == "none":
        return f"no keys of issuer {name}, so its tokens are not believed: {problem}"
    return f"the keys of issuer {name} are {span(float(issuer.get('age_seconds') or 0))} old: {problem}"


def _drain_note(drain: dict[str, Any]) -> str:
    """Which phase, for how long, what still holds it, and why it drains at all."""
    limit = drain.get("limit")
    most = f" of at most {limit:g} s" if isinstance(limit, int | float) else ""
    spent = f"phase {drain.get('phase')} for {float(drain.get('seconds') or 0):.1f} s{most}"
    return (
        f"draining ({drain.get('why')}): {spent}, "
        f"{drain.get('in_flight')} in flight, connections {drain.get('inbound_connections')} in "
        f"{drain.get('outbound_connections')} out"
    )


def _posture_note(listener: dict[str, Any]) -> str:
    """A listener that is not strict, or whose posture has ended: until when, and what strict would have refused."""
    declared = listener.get("declared_posture")
    if not declared:
        return ""
    count, name = int(listener.get("would_refuse") or 0), listener.get("name")
    hops = f"strict would have refused {count} hop{'' if count == 1 else 's'}"
    until = f"{str(listener.get('until'))[:19]}Z"
    if listener.get("posture") == "strict":
        return f"listener {name} is strict since {until}, its posture {declared} has ended; {hops} before"
    return f"listener {name} is {str(declared).upper()} until {until}: {hops}"


def _reload_note(reload: dict[str, Any]) -> list[str]:
    """The first mistake of a reload that failed."""
    mistakes = [str(mistake) for mistake in reload.get("mistakes") or []]
    if reload.get("result") != "failed" or not mistakes:
        return []
    more = f" (and {len(mistakes) - 1} more: mesh check)" if len(mistakes) > 1 else ""
    return [f"the reload at {reload.get('at')} failed, the config before stands: {mistakes[0]}{more}"]
