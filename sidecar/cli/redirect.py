"""`mesh redirect`: the rules that take connections to the sidecar and past the sidecar nowhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from sidecar.cli.console import Code, Duration, Failure, list_whole, output_option, print_facts, print_json
from sidecar.config import ports
from sidecar.deploy.names import PROXY_UID

BACKENDS = ("auto", "nft", "iptables", "iptables-nft", "iptables-legacy")
OWN = f"{ports.INBOUND},{ports.HEALTH}"


def _examples(*calls: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  mesh redirect {call}" for call in calls)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def redirect() -> None:
    """Rules of this network namespace (nftables, or iptables) that lead applications' connections to the sidecar.

    With them in place an application needs no settings, and no neighbour reaches it past its sidecar, whatever address
    it listens on. They belong into the namespace of one pod or container; docs/redirect.md has a picture.
    """


def _rules(command: Callable[..., int]) -> Callable[..., int]:
    """Give a verb the options that say what is captured; its function receives `what`."""
    options = (
        click.option("--uid", type=int, default=PROXY_UID, show_default=True,
                     help="The user that the sidecar runs as."),
        click.option("--inbound", metavar="PORTS", default="",
                     help="The application's ports to capture, as 8080,9090.  [default: all that are not excluded]"),
        click.option("--exclude-inbound", metavar="PORTS", default="",
                     help="Ports that outsiders may dial past the sidecar."),
        click.option("--exclude-outbound", metavar="PORTS", default="",
                     help="Ports that the application may dial past the sidecar, on any host. 53 always is."),
        click.option("--exclude-cidr", metavar="CIDRS", default="",
                     help="Networks that the application may dial past the sidecar, as 10.0.0.0/8,fd00::/8."),
        click.option("--own-ports", metavar="PORTS", default=OWN, show_default=True,
                     help="The sidecar's own ports for outsiders: mTLS as declared, probes and metrics; `none`."),
        click.option("--capture-in", type=int, default=ports.CAPTURE_IN, show_default=True,
                     help="Where the sidecar takes what comes in."),
        click.option("--capture-out", type=int, default=ports.CAPTURE_OUT, show_default=True,
                     help="Where it takes what goes out."),
        click.option("--inbound-only", is_flag=True, help="Leave what goes out alone."),
    )  # fmt: skip

    @wraps(command)
    def wanted(uid: int, capture_in: int, capture_out: int, inbound_only: bool, **rest: Any) -> int:
        from sidecar.deploy.redirect_rules import InvalidRedirection, Redirection, parse_networks, parse_ports

        ports_ = {name: rest.pop(name) for name in ("inbound", "exclude_inbound", "exclude_outbound", "own_ports")}
        networks = rest.pop("exclude_cidr")
        try:
            what = Redirection(
                uid, capture_in, capture_out, outbound=not inbound_only,
                exclude_networks=parse_networks(networks) if networks else (),
                **{name: parse_ports(text) if text else () for name, text in ports_.items()},
            )  # fmt: skip
        except InvalidRedirection as mistake:
            raise Failure(str(mistake), mistake.advice, Code.USAGE) from None
        return command(what=what, **rest)

    for option in reversed(options):
        wanted = option(wanted)
    return wanted


_backend = click.option(
    "--backend", type=click.Choice(BACKENDS), default="auto", show_default=True,
    help="Which program makes the rules; auto takes nft where it works.",
)  # fmt: skip
_dry_run = click.option("--dry-run", is_flag=True, help="Print the script that would be loaded, and do nothing.")


@redirect.command(epilog=_examples(
    "install", "install --exclude-inbound 22 --exclude-cidr 10.96.0.0/12",
    "install --inbound 8080 --inbound-only --uid 1000", "install --dry-run",
))  # fmt: skip
@_rules
@_backend
@_dry_run
@output_option
def install(what: Any, backend: str, dry_run: bool, output: str) -> int:
    """Put the rules in force, at once and whole; a second time changes nothing.

    Rules of an older version, or of another backend, are replaced. Needs CAP_NET_ADMIN in this network namespace.
    """
    if dry_run:
        return _print_script(what, backend, output)
    from sidecar.deploy.redirect_install import install as put_in_force

    _keep_ssh(what)
    done = put_in_force(what, backend)
    if output == "json":
        print_json({"backend": done.backend, "changed": done.changed, "replaced": list(done.replaced)})
        return Code.OK
    if not done.changed:
        click.echo(f"The rules are in force already ({done.backend}); nothing was changed.")
        return Code.OK
    click.echo(f"In force ({done.backend}):")
    for sentence in what.sentences():
        click.echo(f"  {sentence}")
    return Code.OK


def _keep_ssh(what: Any) -> None:
    """Nobody wants to lock himself out of a host."""
    from sidecar.deploy.redirect_install import cuts_off

    if cuts_off(what):
        raise Failure(
            "somebody listens on port 22 here, and these rules would take new logins by ssh to the sidecar",
            "Add --exclude-inbound 22; or list what is to be captured, with --inbound.\n"
            "The rules belong into the network namespace of one pod or container, not on a host.",
            Code.USAGE,
        )


def _print_script(what: Any, backend: str, output: str) -> int:
    from sidecar.deploy import redirect_install as known

    chosen = next(iter(known.present()), known.backend("nft")) if backend == "auto" else known.backend(backend)
    scripts = chosen.script(what)
    if output == "json":
        words = {"sentences": what.sentences(), "arguments": what.arguments()}
        print_json({"backend": chosen.name, "scripts": scripts, **words})
        return Code.OK
    for program, text in scripts.items():
        click.echo(f"# {program}")
        click.echo(text, nl=False)
    return Code.OK


@redirect.command(epilog=_examples("show", "show --inbound 8080 -o json"))
@_rules
@_backend
@output_option
def show(what: Any, backend: str, output: str) -> int:
    """The rules that `install` with the same options would make, in plain words; with `-o json` the script too."""
    if output == "json":
        return _print_script(what, backend, output)
    for sentence in what.sentences():
        click.echo(sentence)
    print_facts([("", ""), ("install them", " ".join(["mesh redirect install", *what.arguments()]))])
    return Code.OK


@redirect.command(epilog=_examples("remove"))
@_dry_run
@output_option
def remove(dry_run: bool, output: str) -> int:
    """Take all rules of ours away, whichever backend made them; other tables are not touched."""
    from sidecar.deploy import redirect_install as known

    gone = [each.backend for each in known.found()] if dry_run else list(known.remove())
    if output == "json":
        print_json({"removed": [] if dry_run else gone, "found": gone})
    elif not gone:
        click.echo("There are no rules of ours here.")
    else:
        click.echo(f"{'Would remove' if dry_run else 'Removed'} the rules ({', '.join(gone)}).")
    return Code.OK


@redirect.command(epilog=_examples(
    "verify", "verify orders.internal 8080", "verify --from-netns 4711", "verify --from-netns 4711 10.1.2.3 8080 9090",
))  # fmt: skip
@click.argument("host", required=False, default="")
@click.argument("ports", type=click.IntRange(1, 65535), nargs=-1, metavar="[PORT]...")
@click.option("--from-netns", metavar="WHICH", default="",
              help="Dial from this network namespace: a process id, a path, or a name of `ip netns`.")
@click.option("--patience", type=Duration(), default=3.0, help="How long a dial may take.  [default: 3s]")
@_rules
@output_option
@click.pass_context
def verify(
    ctx: click.Context, what: Any, host: str, ports: tuple[int, ...], from_netns: str, patience: float, output: str
) -> int:
    """Prove by a dial from outside that nobody gets past the sidecar; without HOST, look from inside.

    HOST and PORT: run this on another host or in another container. It connects, says GET, and expects that nothing
    comes back in plaintext. With --from-netns it can be run beside the application; without HOST it then dials every
    captured port that somebody listens on. From inside it looks whether the rules are there, unchanged, and whether the
    sidecar listens where they lead to. Exit code 0: proved, 1: something came back, 3: nobody answered.
    """
    from sidecar.cli import redirect_verify
    from sidecar.deploy.redirect_verify import CannotVerify

    if host and not ports:
        raise Failure("which ports?", f"mesh redirect verify {host} 8080", Code.USAGE)
    if host or from_netns:
        try:
            return redirect_verify.from_outside(what, host, ports, from_netns, patience, output)
        except CannotVerify as error:
            raise Failure(str(error), error.advice, Code.USAGE) from None
    given = click.core.ParameterSource.COMMANDLINE
    asked = any(ctx.get_parameter_source(name) == given for name in ctx.params if name not in ("output", "patience"))
    return redirect_verify.from_inside(what, asked, output)


@redirect.command(epilog=_examples("hold", "hold --exclude-inbound 9100"))
@_rules
@_backend
@click.option("--as", "uid_after", type=int, default=None, help="The user to become afterwards.  [default: 17002]")
def hold(what: Any, backend: str, uid_after: int | None) -> int:
    """Install the rules, give up every right, and hold the network namespace until SIGTERM.

    For the container whose network an application and its sidecar share. It needs CAP_NET_ADMIN, and CAP_SETUID and
    CAP_SETGID to become another user; a moment later it has none of them, and cannot get them back.
    """
    from sidecar.deploy.redirect_hold import HOLDER_UID
    from sidecar.deploy.redirect_hold import hold as keep
    from sidecar.deploy.redirect_install import install as put_in_force

    def prepare() -> None:
        _keep_ssh(what)
        done = put_in_force(what, backend)
        click.echo(f"rules in force ({done.backend}{'' if done.changed else ', since before'}); holding the namespace")

    keep(prepare, HOLDER_UID if uid_after is None else uid_after)
    return Code.OK


list_whole(redirect)
