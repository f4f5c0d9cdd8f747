"""`mesh drill`: an outage, played on a throwaway copy of your mesh, and what would fail and when."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Duration, Failure, output_option, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.cli.drill_lifetimes import Lifetimes
    from sidecar.cli.drill_stories import Drill, Wish
    from sidecar.config.schema import MeshConfig

DEFAULT_FILE = Path("mesh.yaml")

_file = click.option(
    "-f", "--file", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="Your mesh.yaml."
)
_ttl = click.option("--ttl", type=Duration(), help="Lifetime of all sidecars' certificates.  [default: 24h, the CA's]")
_ca_dir = click.option(
    "--ca-dir", type=click.Path(path_type=Path), help="Your CA's folder, for its entries' lifetimes; only read."
)


def _examples(*calls: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  mesh drill {call}" for call in calls)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def drill() -> None:
    """Play an outage on a throwaway copy of your mesh; nothing of yours is touched, and no port is opened.

    A CA in a temporary folder, an identity for each service of the file, a clock that is moved by hand. Every call
    between two services is a TLS handshake in memory, judged as sidecars judge. Exit code 0: no call would fail, 1: one
    would.
    """


@drill.command("ca-down", epilog=_examples("ca-down", "ca-down --for 20h -o json", "ca-down --ca-dir ca"))
@click.option("--for", "lasting", type=Duration(), default=8 * 3600.0, help="How long it is away.  [default: 8h]")
@_ttl
@_ca_dir
@_file
@output_option
def ca_down(lasting: float, ttl: float | None, ca_dir: Path | None, file: Path, output: str) -> int:
    """The CA is away for a while: whose certificate ends meanwhile, and how soon all is well again."""
    from sidecar.cli.drill_stories import Wish

    return _play("ca-down", file, (ttl, ca_dir), Wish(lasting=lasting), output)


@drill.command("clock-skew", epilog=_examples("clock-skew --skew 2m", "clock-skew --ttl 1h"))
@click.option("--skew", type=Duration(), default=300.0, help="How wrong a clock is.  [default: 5m]")
@_ttl
@_ca_dir
@_file
@output_option
def clock_skew(skew: float, ttl: float | None, ca_dir: Path | None, file: Path, output: str) -> int:
    """Each service in turn has a wrong clock, ahead and then behind, for the life of a certificate."""
    from sidecar.cli.drill_stories import Wish

    return _play("clock-skew", file, (ttl, ca_dir), Wish(skew=skew), output)


@drill.command("expired-issuer", epilog=_examples("expired-issuer", "expired-issuer --ca-dir ca"))
@_ttl
@_ca_dir
@_file
@output_option
def expired_issuer(ttl: float | None, ca_dir: Path | None, file: Path, output: str) -> int:
    """Nobody replaces the issuing CA, as where an external PKI is forgotten: when it hurts, and when it is mended."""
    from sidecar.cli.drill_stories import Wish

    return _play("expired-issuer", file, (ttl, ca_dir), Wish(), output)


@drill.command("root-rotation", epilog=_examples("root-rotation", "root-rotation --lost batch"))
@click.option("--lost", default="", metavar="SERVICE", help="A sidecar that the CA cannot reach meanwhile.")
@_ttl
@_ca_dir
@_file
@output_option
def root_rotation(lost: str, ttl: float | None, ca_dir: Path | None, file: Path, output: str) -> int:
    """A whole rotation of the root: every call is tried in every phase."""
    from sidecar.cli.drill_stories import Wish

    return _play("root-rotation", file, (ttl, ca_dir), Wish(lost=lost), output)


def _play(name: str, file: Path, life: tuple[float | None, Path | None], wish: Wish, output: str) -> int:
    from sidecar.cli.drill_lifetimes import find_lifetimes
    from sidecar.config.load import load_config

    config = load_config(str(file), time.time())
    if wish.lost and wish.lost not in config.services:
        raise Failure(f"{file} has no service {wish.lost}.", f"It has {', '.join(config.services)}.", Code.USAGE)
    lifetimes = find_lifetimes(config, *life)
    played = _run(name, config, lifetimes, wish)
    document = _document(name, played)
    if output == "json":
        print_json(document)
    else:
        click.echo("\n".join(lifetimes.lines()) + "\n")
        _print(document)
    return Code.OK if document["ok"] else Code.NEGATIVE


def _run(name: str, config: MeshConfig, lifetimes: Lifetimes, wish: Wish) -> Drill:
    import trio

    from sidecar.cli.drill_copy import a_copy
    from sidecar.cli.drill_stories import STORIES, Drill

    with (
        _silence(),
        tempfile.TemporaryDirectory(prefix="mesh-drill-") as folder,
        a_copy(config, Path(folder), time.time(), lifetimes) as copy,
    ):
        if not copy.calls():
            raise Failure("no service of this file calls another.", "A drill needs an `outbound` block.", Code.USAGE)
        played = Drill(copy, wish)

        async def whole() -> None:
            await played.settle()
            await STORIES[name](played)

        trio.run(whole)
    return played


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The copy's CA tells of dates that are nobody's."""
    import logging

    logger = logging.getLogger("mesh")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _document(name: str, played: Drill) -> dict[str, Any]:
    return {
        "drill": name,
        "ok": not played.outages,
        "lifetimes": played.copy.lifetimes.as_json(),
        "calls": [str(call) for call in played.copy.calls()],
        "handshakes": played.tried,
        "events": [{"at": at, "what": what} for at, what in sorted(played.events, key=lambda event: event[0])],
        "outages": [outage.as_json() for outage in played.outages],
    }


def _print(document: dict[str, Any]) -> None:
    print_table(("at", "what happens"), [(_at(one["at"]), one["what"]) for one in document["events"]])
    click.echo()
    rows = [(one["call"], _at(one["began"]), _lasted(one), one["why"]) for one in document["outages"]]
    if rows:
        print_table(("call that fails", "from", "for", "why"), rows)
    count, tried = len(document["calls"]), document["handshakes"]
    failed = len({one["call"] for one in document["outages"]})
    click.echo(f"{tried} handshakes for {_many(count)}: {_many(failed) if failed else 'no call'} would fail")


def _many(count: int) -> str:
    return f"{count} call" if count == 1 else f"{count} calls"


def _lasted(outage: dict[str, Any]) -> str:
    return "ever" if outage["ended"] is None else _span(outage["ended"] - outage["began"])


def _at(seconds: float) -> str:
    """`+5h 12m 3s`, since the drill's begin."""
    return f"+{_span(seconds)}"


def _span(seconds: float) -> str:
    """`5h 12m 3s`."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{amount}{unit}" for amount, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (left, "s")) if amount]
    return " ".join(parts[:3]) or "0s"
