"""`mesh explain`: why a request was refused, by its decision id; or what would be said of one that was never sent."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from sidecar.cli.console import Code, Failure, output_option, print_facts, print_json, safe
from sidecar.cli.sidecars import one, run_dir_option, short, some

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service

EXAMPLES = """\b
Examples:
  mesh explain 1f0c9a3b-2s
  mesh explain --from web --to payments --method GET --path /charges/1
  mesh explain -f mesh.yaml --from web --to orders --method POST --path /orders
  mesh explain --from web --to orders --path /orders/7 --why-not
  mesh explain --from web --to orders --path /customers/c7 --claim customer_id=c7 --scope orders:read
  mesh explain -f mesh.yaml --from web --to orders --path /orders --time 2026-01-05T12:00:00Z"""


@click.command(epilog=EXAMPLES)
@click.argument("decision_id", required=False)
@click.option("--from", "caller", help="Who calls: a service, namespace/service, or a SPIFFE ID.")
@click.option("--to", "called", help="The service that is called.")
@click.option("--method", default="GET", show_default=True)
@click.option("--path", default="/", show_default=True)
@click.option("--host", help="The host asked for.  [default: the service's name]")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="May be given more than once.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="Of a verified token; JSON or text.")
@click.option("--scope", "scopes", multiple=True, help="Of a verified bearer token. May be given more than once.")
@click.option("--operation", help="What the listener's contract calls it.")
@click.option("--time", "moment", help="When, like 2026-01-05T12:00:00Z.  [default: now]")
@click.option("--source", help="The caller's address, where rules name networks.")
@click.option("--port", help="The inbound listener, by name or number.  [default: the first]")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Ask this config instead of the running sidecar.")
@click.option("--why-not", is_flag=True, help="Of an allowed request: what would have to differ for it to be refused.")
@run_dir_option
@output_option
def explain(
    decision_id: str | None,
    caller: str | None,
    called: str | None,
    method: str,
    path: str,
    host: str | None,
    headers: tuple[str, ...],
    claims: tuple[str, ...],
    scopes: tuple[str, ...],
    operation: str | None,
    moment: str | None,
    source: str | None,
    port: str | None,
    file: Path | None,
    why_not: bool,
    run_dir: Path | None,
    output: str,
) -> int:
    """Why a request is refused or allowed, the rule that came nearest, and the smallest change that would allow it.

    DECISION_ID is what a refused caller is shown. Without one, ask ahead with --from and --to. Exit code 0: allowed,
    1: refused.
    """
    if decision_id is not None:
        document = _judged_again(_decision(decision_id, run_dir))
    elif caller is None or called is None:
        raise Failure("say which decision, or who calls whom.", "mesh explain ID, or --from and --to.", Code.USAGE)
    else:
        question = {
            "from": caller, "method": method.upper(), "path": path, "host": host, "source": source, "port": port,
            "headers": _headers(headers), "claims": _claims(claims) if claims or scopes else None,
            "scopes": list(scopes), "operation": operation, "time": moment,
        }  # fmt: skip
        asked = {name: value for name, value in question.items() if value or (name == "claims" and value is not None)}
        document = _from_file(file, called, asked) if file is not None else _from_sidecar(run_dir, called, asked)
    if output == "json":
        print_json(_without_texts(document))
    else:
        _show(document)
        if why_not:
            _show_why_not(document)
    return Code.OK if document.get("verdict") == "permit" else Code.NEGATIVE


def _without_texts(document: dict[str, Any]) -> dict[str, Any]:
    """What is for programs: the same facts, without their rendering for people."""
    return {
        name: _without_texts(value) if name in ("policy", "why_not") and isinstance(value, dict) else value
        for name, value in document.items()
        if name != "text"
    }


def _headers(lines: tuple[str, ...]) -> dict[str, str | list[str]]:
    """The value of each name, or the list of them in their order."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{line!r} is not NAME:VALUE", param_hint="--header")
        found.setdefault(name.strip(), []).append(value.strip())
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _claims(given: tuple[str, ...]) -> dict[str, Any]:
    """Claims by name; what is JSON keeps its type, all else is text."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--claim")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _from_file(file: Path, called: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer that the sidecar of `called` would give with this config, by the same functions."""
    from sidecar.cli.run import choose
    from sidecar.config.load import load_config

    config = load_config(str(file), time.time())
    asking = config.services.get(str(question["from"]))
    if asking is not None:
        question = {**question, "from": str(asking.identity)}
    from sidecar.policy.steered import let_out, refusal, steered

    way = steered(config, called, question)
    if way.asked is not None and called not in config.services:
        return let_out(way)
    service = choose(config, called, file)
    if way.asked is not None and way.refused is not None:
        document = refusal(way.refused, upstream=way.asked.name)
    else:
        document = _judge(config, service, way.question)
    document["routes"] = [*way.words, *document.get("routes", [])]
    notes = [note for note in (str(document.get("note") or ""), way.note) if note]
    if asking is not None and all(upstream.to != called for upstream in asking.outbound):
        note = f"{asking.name} declares no upstream {called!r}, so its own sidecar would refuse already"
        notes.append(f"{note}: add `{{to: {called}}}` to its `outbound` ({asking.where})")
    return document | ({"note": "; ".join(notes)} if notes else {})


def _judge(config: MeshConfig, service: Service, question: dict[str, Any]) -> dict[str, Any]:
    from sidecar.errors import HopError
    from sidecar.policy.asked import asked_of
    from sidecar.policy.authz import RuleSet
    from sidecar.policy.explain import explain as explain_hop
    from sidecar.policy.question import BadQuestion, hop_of, moment_of, unknown_caller
    from sidecar.policy.steered import led, refusal
    from sidecar.policy.waived import observed
    from sidecar.traffic.show import applies_by

    try:
        now = moment_of(question, time.time())
        hop = hop_of(question, service)
    except BadQuestion as error:
        raise Failure(str(error), "", Code.USAGE) from None
    except HopError as error:
        return refusal(error)
    explanation = explain_hop(RuleSet.compile(service.allow, service.deny), hop, now)
    refused = explanation.verdict == "deny"
    notes = (observed(service, hop.listener, now) if refused else "", unknown_caller(hop, config))
    note = "; ".join(filter(None, notes))
    told = {"text": explanation.render(), "routes": [words for words in [led(service, hop)] if words]}
    answer = explanation.to_json() | told | ({"note": note} if note else {})
    if refused:
        return answer
    return answer | {"limits": applies_by(service, hop, explanation.route)} | asked_of(service, hop, explanation)


def _from_sidecar(run_dir: Path | None, called: str, question: dict[str, Any]) -> dict[str, Any]:
    try:
        sidecar = one(run_dir, called)
    except Failure as nobody:  # outside the mesh nobody but the caller's own sidecar has a say
        try:
            sidecar, question = one(run_dir, str(question["from"])), {**question, "to": called}
        except Failure:
            raise nobody from None
    status, document = sidecar.ask("POST", "/explain", question)
    if status == 400:
        raise Failure(str(document.get("detail") or document), "", Code.USAGE)
    if status != 200:
        raise Failure(f"the sidecar of {called} answers {status}.", str(document.get("detail", "")))
    return document


def _decision(decision_id: str, run_dir: Path | None) -> dict[str, Any]:
    """Ask everybody: the id names a process, not a service. One that does not answer is no obstacle."""
    silent: list[str] = []
    hearsay: dict[str, Any] | None = None  # of a caller's sidecar, which knows the id and the answer, not the reasons
    for sidecar in some(run_dir):
        try:
            status, document = sidecar.ask("GET", f"/decisions/{quote(decision_id, safe='')}")
        except Failure:
            silent.append(sidecar.service)
            continue
        if status == 200 and document.get("decided_here", True):
            return document
        if status == 200:
            hearsay = document
        if status == 400:
            raise Failure(f"{decision_id!r} is no decision id.", str(document.get("detail", "")), Code.USAGE)
    if hearsay is not None:
        return hearsay
    missing = f" These did not answer: {', '.join(silent)}." if silent else ""
    raise Failure(
        f"no sidecar here knows the decision {decision_id}.",
        "Each remembers its last 10,000 for as long as it runs; it may be another machine's: ask there." + missing,
    )


def _judged_again(document: dict[str, Any]) -> dict[str, Any]:
    """With a note where the rules of now say something else than was said then."""
    now = document.get("policy")
    if isinstance(now, dict):
        waived = document.get("waived")
        if isinstance(waived, dict):
            then = ("deny", str(waived.get("rule") or ""))
        else:
            refused = document.get("error") in ("policy_denied", "scope_missing")
            then = ("deny" if refused else "permit", str(document.get("rule") or ""))
        if then != (now.get("verdict"), now.get("rule")):
            document["note"] = (
                "the rules in force now say what stands above; when this was decided they said "
                f"{then[0]}{f' by rule {then[1]!r}' if then[1] else ''}. They have changed since, or look at a header "
                "whose value is not kept"
            )
    return document


def _show(document: dict[str, Any]) -> None:
    """The facts of the decision where there is one, then the sidecar's own words."""
    if "id" in document:
        _show_facts(document)
    elif "text" not in document:
        click.echo(f"{document.get('verdict')}: refused before any rule was asked ({document.get('error')})")
    explained = document.get("explained") or {}
    facts = [("happened", explained.get("happened")), ("to do", explained.get("todo")), ("it is", document.get("hint"))]
    print_facts([(name, safe(words)) for name, words in facts])
    if text := document.get("text"):
        click.echo(str(text).rstrip("\n"))
    print_facts([("route", safe(words)) for words in document.get("routes") or ()])
    _show_limits(document.get("limits"))
    _show_asks(document.get("asks"))
    print_facts([("note", str(document.get("note") or ""))])


def _show_asks(asks: object) -> None:
    """Whom else such a request is asked about, and with which words."""
    if isinstance(asks, dict):
        words = "refused" if asks.get("silent") == "deny" else "let pass"
        shadow = " (shadow: what it says is only counted)" if asks.get("mode") == "shadow" else ""
        then = f"OPA is asked at {asks.get('opa')}; where it says neither yes nor no, the request is {words}{shadow}"
        print_facts([
            ("then", safe(then)),
            ("input", safe(json.dumps(asks.get("input"), sort_keys=True))),
        ])  # fmt: skip


def _show_limits(limits: object) -> None:
    """The rate limits that an allowed request comes under."""
    for number, row in enumerate(limits if isinstance(limits, list) else []):
        left = f", {row['remaining']} left for it" if "remaining" in row else ""
        word = "limits" if number == 0 else ""
        click.echo(f"  {word:8} {safe(row.get('limit'))} ({safe(row.get('where'))}): {safe(row.get('says'))}{left}")


def _show_why_not(document: dict[str, Any]) -> None:
    """What holds up a permit, where the answer has one."""
    found = (document.get("policy") or document).get("why_not")
    if isinstance(found, dict):
        click.echo(str(found.get("text") or "").rstrip("\n"))
    else:
        click.echo("why not refused: it is refused; only of an allowed request is there more to say")


def _show_facts(hop: dict[str, Any]) -> None:
    from sidecar.policy.differences import request_line

    caller, called = str(hop.get("caller") or ""), str(hop.get("destination") or "")
    inbound = hop.get("direction") == "inbound"
    far = ("from", hop.get("source")) if inbound else ("to", hop.get("endpoint"))
    where = [f"{hop.get('direction', '')} on {hop.get('listener', '')}", " ".join(map(str, far)) if far[1] else ""]
    request = request_line(*(str(hop.get(part) or "") for part in ("method", "host", "path")))
    reason = f" ({hop['reason']})" if hop.get("reason", "") not in ("", hop.get("error")) else ""
    outcome = f"flag {hop.get('flag', '-')}, {hop.get('error') or 'no error'}{reason}"
    print_facts([
        ("decision", f"{hop['id']}, by the sidecar of {hop.get('service', '?')} at {hop.get('at', '')}"),
        ("hop", f"{_who(caller, called)} → {_who(called, caller)}, {', '.join(filter(None, where))}"),
        ("shown", safe(hop.get("presented"))),
        ("request", safe(request)),
        ("outcome", f"{hop.get('status') or 'closed'}, {outcome}"),
        ("route", safe(hop.get("route")) if not inbound and hop.get("route") != "/**" else ""),
        ("fault", f"held for {hop['delayed']:g} s on purpose (flag DI)" if hop.get("delayed") else ""),
        ("token", safe(_token(hop.get("token")))),
        ("limits", safe("; ".join(_held(hop)))),
        *[("tried", safe(each)) for each in _tried(hop)],
        ("posture", safe(hop.get("strict"))),
    ])  # fmt: skip


def _token(token: dict[str, Any] | None) -> str:
    """The bearer token that was verified, by what records call it."""
    return f"of {token['issuer']}, id {token['id']}, good until {token['expires']}" if token else ""


def _held(hop: dict[str, Any]) -> list[str]:
    """What rate limits did to it, beyond letting it in or refusing it."""
    waited = f"waited {hop['waited']:g} s for its turn at limit {hop.get('limit')}" if hop.get("waited") else ""
    alone = f"a shared limit was held by this sidecar alone: {hop['alone']}" if hop.get("alone") else ""
    return [each for each in (waited, alone) if each]


def _tried(hop: dict[str, Any]) -> list[str]:
    """What was tried, where that was more than the one attempt that all the rest speaks of."""
    tried = list(hop.get("tried") or ())
    return tried if len(tried) > 1 else []


def _who(identity: str, other: str) -> str:
    """A SPIFFE ID as short as it is clear: with its trust domain where the other end is of another one."""
    domain, known = (each.removeprefix("spiffe://").partition("/")[0] for each in (identity, other))
    return safe(identity) if identity and other and domain != known else short(identity)
