"""`mesh inject`: sidecars into Kubernetes manifests, offline; the webhook `mesh injector` gives the same pods."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sidecar.cli.console import Code, F, Failure, output_option, print_json

if TYPE_CHECKING:
    from sidecar.deploy.kube.files import Done, Found, Outlook

STDIN: Final = "-"
EXAMPLES = """\b
Examples:
  mesh inject -f app.yaml | kubectl apply -f -
  kubectl get deploy orders -o yaml | mesh inject -f - | kubectl apply -f -
  mesh inject -f deploy/ --write
  mesh inject -f app.yaml --config mesh.yaml
  mesh inject -f app.yaml --mode explicit --image registry.example.com/mesh:0.1.0
  mesh inject -f app.yaml --uninject

Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Pods get a sidecar, those in a List too;
everything else stays as it is. Annotations say what is special about a pod (docs/annotations.md). Doing it twice is
doing it once; what an older version added is replaced. With one mistake in any file nothing is done."""


def set_option(command: F) -> F:
    """Give a verb `--set`; its function receives `settings`."""
    return click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE",
        help="An annotation (docs/annotations.md) for pods that do not say, such as memory-limit=512Mi.",
    )(command)  # fmt: skip


@click.command(epilog=EXAMPLES)
@click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE",
    help="A manifest, a folder of them, or `-` for standard input; may be given again.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["redirect", "explicit"]), help="For pods that do not say.  [default: redirect]"
)
@click.option("--image", help="The sidecar's image, for pods that do not say.")
@set_option
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
    help="The mesh.yaml of these pods: each must fit what it says.  [default: the ConfigMap, where it is among them]",
)  # fmt: skip
@click.option("--uninject", is_flag=True, help="Take our sidecars out again.")
@click.option("--write", is_flag=True, help="Change the files in place instead of printing them.")
@output_option
def inject(
    files: tuple[str, ...],
    mode: str | None,
    image: str | None,
    settings: tuple[str, ...],
    config: str | None,
    uninject: bool,
    write: bool,
    output: str,
) -> int:
    """Put sidecars into Kubernetes manifests; prints them, and says on standard error what it did.

    Exit code 0: done. 1: a pod was refused, and nothing was done.
    """
    options = options_of(settings, mode=mode, image=image)
    if write and STDIN in files:
        raise Failure("standard input cannot be written in place.", "Leave --write out.", Code.USAGE)
    outlooks = list(_look(files, options, uninject, config))
    mistakes = [each for outlook in outlooks for each in outlook.mistakes]
    if write and not mistakes:
        _write(outlooks)
    if output == "json":
        print_json(_report(outlooks, shown=not write and not mistakes))
    else:
        _tell(outlooks)
        if not mistakes and not write:
            click.echo(_together(outlooks), nl=False)
    return Code.NEGATIVE if mistakes else Code.OK


def options_of(settings: tuple[str, ...], **given: str | None) -> Mapping[str, str]:
    """What pods that do not say otherwise are to be told, as annotations without prefix. Raises Failure."""
    from sidecar.config.mistakes import meant
    from sidecar.deploy.kube.annotations import TABLE
    from sidecar.deploy.kube.values import KINDS, BadValue

    said = dict(each.partition("=")[::2] for each in settings)
    said |= {name: value for name, value in given.items() if value is not None}
    known = {each.name: each for each in TABLE if each.name not in ("inject", "service")}
    for name, value in said.items():
        if name not in known:
            hint = meant(name, list(known), what="There are").capitalize()
            raise Failure(f"nothing of the name {name!r} can be set for all pods.", hint, Code.USAGE)
        kind = KINDS[known[name].kind]
        try:
            kind.read(value)
        except BadValue as error:
            raise Failure(f"{name}: {value!r} {error}.", f"Write {kind.how}.", Code.USAGE) from None
    return said


def _look(
    files: tuple[str, ...], options: Mapping[str, str], take_out: bool, config: str | None
) -> Iterator[Outlook]:
    """What becomes of each manifest. Raises Failure, ConfigErrors."""
    import time

    from sidecar.config.load import load_config
    from sidecar.deploy.kube import told
    from sidecar.deploy.kube.files import work

    paths = [path for name in files for path in _paths(name)]
    texts = [("standard input" if path == STDIN else path, _read(path)) for path in paths]
    around = told.Around() if config is None else told.given(load_config(config, time.time()))
    if not take_out:
        told.gather(texts, around)
    for name, text in texts:
        yield work(name, text, options, take_out=take_out, around=around)


def _paths(name: str) -> list[str]:
    """The manifests behind a name: itself, or those in the folder. Raises Failure."""
    path = Path(name)
    if name == STDIN or not path.is_dir():
        return [name]
    found = sorted(str(each) for each in path.iterdir() if each.suffix in (".yaml", ".yml", ".json") and each.is_file())
    if not found:
        raise Failure(f"the folder {name} has no manifests.", "They end with .yaml, .yml or .json.", Code.USAGE)
    return found


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}.", "", Code.USAGE) from None
    except UnicodeDecodeError:
        raise Failure(f"{name} is not text in UTF-8.", "", Code.USAGE) from None


def _write(outlooks: list[Outlook]) -> None:
    """Write what has changed, each file whole or not at all. Raises Failure."""
    for outlook in outlooks:
        path = Path(outlook.file)
        text = outlook.text.encode()
        try:
            if path.read_bytes() != text:
                _replace(path.resolve(), text)
        except OSError as error:
            raise Failure(f"cannot write {outlook.file}: {error.strerror}.", "", Code.NEGATIVE) from None


def _replace(path: Path, data: bytes) -> None:
    """Put another file, with the same rights, in the place of this one. Raises OSError."""
    beside = path.with_name(f".{path.name}.mesh-inject")
    try:
        beside.write_bytes(data)
        beside.chmod(path.stat().st_mode & 0o7777)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _together(outlooks: list[Outlook]) -> str:
    """All files as one stream of documents; a single one stays as it is."""
    text = ""
    for outlook in outlooks:
        if text and not outlook.text.startswith("---"):
            text += "" if text.endswith("\n") else "\n"
            text += "---\n"
        text += outlook.text
    return text


def _tell(outlooks: list[Outlook]) -> None:
    for outlook in outlooks:
        for warning in outlook.warnings:
            _line(warning, "yellow", "warning: ")
    mistakes = [each for outlook in outlooks for each in outlook.mistakes]
    for mistake in mistakes:
        _line(mistake, "red", "")
    if mistakes:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        click.secho(f"{count}; nothing was done", bold=True, err=True)
        return
    for outlook in outlooks:
        for done in outlook.done:
            click.echo(_sentence(done), err=True)
    if not any(outlook.done for outlook in outlooks):
        click.echo("there are no pods in this; nothing was done", err=True)


def _line(found: Found, colour: str, prefix: str) -> None:
    place = f"{found.file}:{found.line}: "
    rest = str(found).removeprefix(place)
    click.echo(click.style(place, bold=True) + click.style(f"{prefix}{rest}", fg=colour), err=True)


def _sentence(done: Done) -> str:
    match done.outcome:
        case "injected":
            how = f"service {done.service}, mode {done.mode}"
            again = f", in place of version {done.was}" if done.was else ""
            return f"{done.whose}: injected ({how}{again})"
        case "unchanged":
            return f"{done.whose}: unchanged"
        case "skipped":
            return f'{done.whose}: left alone (sidecar.mesh/inject: "false")'
        case _:
            return f"{done.whose}: {done.outcome}"


def _report(outlooks: list[Outlook], *, shown: bool) -> dict[str, object]:
    return {
        "ok": not any(outlook.mistakes for outlook in outlooks),
        "pods": [each.to_json() for outlook in outlooks for each in outlook.done],
        "mistakes": [each.to_json() for outlook in outlooks for each in outlook.mistakes],
        "warnings": [each.to_json() for outlook in outlooks for each in outlook.warnings],
        "files": [{"file": outlook.file, "text": outlook.text} for outlook in outlooks] if shown else [],
    }
