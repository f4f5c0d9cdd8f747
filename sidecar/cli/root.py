"""The table of verbs, and `mesh` itself: nothing here imports a verb before it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import click

from certs.errors import MeshError
from sidecar.cli.console import Code, Failure

PROGRAM = "mesh"


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb's click command lives, and what `mesh --help` says of it without importing it."""

    section: str
    place: str  # "module:attribute"
    short: str


VERBS: dict[str, Verb] = {
    "up": Verb("Try it", "sidecar.cli.up:up", "Start a whole mesh on this machine and watch its hops."),
    "run": Verb("Run", "sidecar.cli.run:run", "Run one service's sidecar, and its command if you name one."),
    "ca": Verb("Run", "sidecar.cli.ca:ca", "The bundled certificate authority."),
    "down": Verb("Try it", "sidecar.cli.down:down", "End a compose project that `mesh up --compose` has started."),
    "compose": Verb(
        "Run", "sidecar.cli.compose:compose", "docker-compose: inject the mesh into a project, and verify it."
    ),
    "redirect": Verb(
        "Run", "sidecar.cli.redirect:redirect", "Rules that lead an application's connections to its sidecar."
    ),
    "inject": Verb("Kubernetes", "sidecar.cli.inject:inject", "Put sidecars into Kubernetes manifests, offline."),
    "injector": Verb("Kubernetes", "sidecar.cli.injector:injector", "The webhook that injects pods as they are made."),
    "status": Verb("Look", "sidecar.cli.status:status", "What the sidecars on this machine are doing."),
    "inventory": Verb(
        "Look", "sidecar.cli.inventory:inventory", "Every edge that is allowed or used, and what nobody uses."
    ),
    "audit": Verb("Look", "sidecar.cli.audit:audit", "Verify the audit: is it what was written; and look into it."),
    "limits": Verb(
        "Look", "sidecar.cli.limits:limits", "Rate limits: who is nearest to each, who is refused, and Redis."
    ),
    "detections": Verb(
        "Look", "sidecar.cli.detections:detections", "Conspicuous callers: what they did, and who is held for it."
    ),
    "contract": Verb(
        "Look", "sidecar.cli.contract:contract", "What is called outside of the contracts, never, or not much longer."
    ),
    "grants": Verb("Write config", "sidecar.cli.grants:grants", "What callers want of a contract, and are granted."),
    "endpoints": Verb(
        "Look", "sidecar.cli.endpoints:endpoints", "Where requests go: endpoints, their latency, who is left alone."
    ),
    "quota": Verb("Look", "sidecar.cli.quota:quota", "Who has used how much of its quota; and a new start for one."),
    "top": Verb("Look", "sidecar.cli.top:top", "Watch hops, upstreams, endpoints and limits live."),
    "doctor": Verb("Look", "sidecar.cli.doctor:doctor", "What is wrong here, and the command that mends it."),
    "migrate": Verb("Look", "sidecar.cli.migrate:migrate", "Who still speaks plaintext to whom."),
    "explain": Verb("Look", "sidecar.cli.explain:explain", "Why a request is refused, and what would allow it."),
    "certs": Verb("Look", "sidecar.cli.certs:certs", "Identities: list, show, verify, rotate, revoke."),
    "drill": Verb("Look", "sidecar.cli.drill:drill", "An outage, played on a copy of your mesh: what would fail."),
    "conformance": Verb(
        "Look", "sidecar.cli.conformance:conformance", "By-passes and smuggling against an HTTP proxy, ours or not."
    ),
    "install": Verb("Kubernetes", "sidecar.cli.install:install", "The manifests of CA and injector, for kubectl."),
    "uninjected": Verb(
        "Kubernetes", "sidecar.cli.uninjected:uninjected", "Pods that should have a sidecar and have none, and why."
    ),
    "check": Verb("Write config", "sidecar.cli.check:check", "Every mistake in a mesh.yaml, with its place."),
    "test": Verb("Write config", "sidecar.cli.expectations:test", "Whether the rules say what is expected, in CI."),
    "owasp": Verb(
        "Write config", "sidecar.cli.owasp:owasp", "The OWASP API Security Top 10: what is on, in shadow, off."
    ),
    "schema": Verb("Write config", "sidecar.cli.schema:schema", "The JSON Schema of mesh.yaml, for editors."),
    "completion": Verb("Write config", "sidecar.cli.completion:completion", "Completion for bash, zsh or fish."),
}

EXAMPLES = """
Examples:

\b
  mesh up                                   a CA, three services, live traffic; Ctrl-C ends it
  mesh up -f mesh.yaml                      the same with your own services
  mesh run -f mesh.yaml --service orders -- ./orders
  mesh explain --from web --to payments --method GET --path /payments/1
  mesh status -o json

Exit codes: 0 done, 1 the answer is no, 2 wrong arguments or config, 3 not reachable, 70 our own fault.
"""


class Verbs(click.Group):
    """A group whose members are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, _, attribute = verb.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; an unknown one is answered with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"Did you mean `{PROGRAM} {near[0]}`?" if near else f"`{PROGRAM} --help` lists the verbs."
            raise Failure(f"there is no verb {args[0]!r}.", hint, Code.USAGE)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by section, from the table alone."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, verb in VERBS.items():
            sections.setdefault(verb.section, []).append((name, verb.short))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=12)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from sidecar import __version__

        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.group(
    cls=Verbs,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def mesh() -> None:
    """Zero trust for every hop: mTLS, SPIFFE identities, default-deny policy, telemetry, in one sidecar."""


def run_command(args: list[str] | None = None) -> int:
    """Run `mesh` with these arguments (the process's by default); errors become two lines and an exit code."""
    try:
        code = mesh.main(args=args, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Code.OK
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.UsageError as mistake:  # the NoArgsIsHelp kind shows help alone
        mistake.show()
        return Code.USAGE
    except Failure as failure:
        failure.show()
        return failure.code
    except click.ClickException as failure:  # of `mesh ca`, which knows nothing of Failure
        Failure(failure.format_message()).show()
        return failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Code.INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except MeshError as error:
        return _show(error)
    except Exception:  # noqa: BLE001 (the last stop: a whole traceback, and a code that says whose fault it is)
        traceback.print_exc()
        return Code.INTERNAL


def _reader_left() -> int:
    """`mesh status | head` is no fault of anyone: leave quietly, and keep the interpreter from flushing once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Code.OK


def _show(error: MeshError) -> int:
    """Show an error of our own tree in one line, or a line for each mistake of a config."""
    mistakes: Any = getattr(error, "mistakes", None)
    if mistakes:
        for mistake in mistakes:
            click.echo(str(mistake), err=True)
        Failure(f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in the config; nothing was done.").show()
        return Code.USAGE
    Failure(str(error), getattr(error, "advice", "")).show()
    return Code.NEGATIVE
