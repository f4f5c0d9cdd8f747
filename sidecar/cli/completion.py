"""`mesh completion`: the shell's own completion script, from click."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sidecar.cli.root import PROGRAM, mesh

EXAMPLES = """\b
Examples:
  source <(mesh completion bash)
  mesh completion fish > ~/.config/fish/completions/mesh.fish"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three shells of our choice"
    click.echo(kind(mesh, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
